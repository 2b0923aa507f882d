//! What is changed in the object for the kernel at hand, where the loader does not: a map's flags, and calls of functions
//! that not every kernel has.

use std::ops::Range;

/// Of a section header and of a symbol (ELF64), and of `struct bpf_map_def`, in the section `maps`.
mod at {
    pub const SECTION_HEADERS: usize = 0x28;
    pub const SECTION_COUNT: usize = 0x3c;
    pub const KIND: usize = 4;
    pub const SECTION_FLAGS: usize = 8;
    pub const OFFSET: usize = 0x18;
    pub const SIZE: usize = 0x20;
    pub const LINK: usize = 0x28;
    pub const SYMBOL_SECTION: usize = 6;
    pub const SYMBOL_VALUE: usize = 8;
    pub const MAP_FLAGS: usize = 16;
}

const SECTION_HEADER: usize = 64;
const SYMBOL: usize = 24;
const SYMBOL_TABLE: u32 = 2;

/// `BPF_F_NO_PREALLOC` (include/uapi/linux/bpf.h).
const NO_PREALLOC: u32 = 1;

/// A section's flag that it holds instructions.
const EXECUTABLE: u64 = 4;
const INSTRUCTION: usize = 8;
/// `BPF_JMP | BPF_CALL`, and behind it the registers: for a helper none, for a function of the kernel
/// `BPF_PSEUDO_KFUNC_CALL` as the source.
const CALL_HELPER: [u8; 2] = [0x85, 0];
const CALL_FUNCTION: [u8; 2] = [0x85, 2 << 4];
/// `BPF_ALU64 | BPF_MOV | BPF_K` to the register that a call returns in.
const RETURN_0: [u8; INSTRUCTION] = [0xb7, 0, 0, 0, 0, 0, 0, 0];

/// An object, aligned as the loader wants it.
pub struct Object {
    words: Vec<u64>,
    len: usize,
}

impl Object {
    pub fn new(bytes: &[u8]) -> Self {
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        Self { words: words.collect(), len: bytes.len() }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the words hold at least `len` bytes, and any bytes are valid.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.len) }
    }

    /// Has a map's memory allocated when it is made, not when an entry is. False when the object is not as expected.
    pub fn preallocate(&mut self, map: &str) -> bool {
        let Some(flags) = map_flags_at(self.bytes(), map) else { return false };
        let Some(value) = number::<4>(self.bytes(), flags).map(u32::from_le_bytes) else { return false };
        self.bytes_mut()[flags..flags + 4].copy_from_slice(&(value & !NO_PREALLOC).to_le_bytes());
        true
    }

    /// Has every call of a number go to a function of the kernel, by its number in the kernel's BTF; without one it does
    /// nothing.
    pub fn complete_calls(&mut self, placeholder: i32, function: Option<u32>) {
        let instruction = |operation: [u8; 2], number: i32| {
            let [n0, n1, n2, n3] = number.to_le_bytes();
            [operation[0], operation[1], 0, 0, n0, n1, n2, n3]
        };
        let call = instruction(CALL_HELPER, placeholder);
        let instead = function
            .and_then(|function| i32::try_from(function).ok())
            .map_or(RETURN_0, |function| instruction(CALL_FUNCTION, function));
        for code in instructions_at(self.bytes()) {
            for found in self.bytes_mut().get_mut(code).unwrap_or_default().chunks_exact_mut(INSTRUCTION) {
                if found == call {
                    found.copy_from_slice(&instead);
                }
            }
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the words hold at least `len` bytes, and any bytes are valid.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.len) }
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn offset(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(number(bytes, at)?)).ok()
}

/// Where the sections' headers are.
fn sections(bytes: &[u8]) -> Option<Vec<usize>> {
    let headers = offset(bytes, at::SECTION_HEADERS)?;
    let count = usize::from(u16::from_le_bytes(number(bytes, at::SECTION_COUNT)?));
    (0..count).map(|index| headers.checked_add(index.checked_mul(SECTION_HEADER)?)).collect()
}

/// Where instructions are.
fn instructions_at(bytes: &[u8]) -> Vec<Range<usize>> {
    let code = |header: usize| {
        let flags = u64::from_le_bytes(number(bytes, header.checked_add(at::SECTION_FLAGS)?)?);
        let start = offset(bytes, header.checked_add(at::OFFSET)?)?;
        let end = start.checked_add(offset(bytes, header.checked_add(at::SIZE)?)?)?;
        (flags & EXECUTABLE != 0).then_some(start..end)
    };
    sections(bytes).unwrap_or_default().into_iter().filter_map(code).collect()
}

/// Where a map's flags are: the symbol of its name tells where its definition is.
fn map_flags_at(bytes: &[u8], map: &str) -> Option<usize> {
    let sections = sections(bytes)?;
    let section = |index: usize| sections.get(index).copied();
    let kind = |header: usize| Some(u32::from_le_bytes(number(bytes, header + at::KIND)?));
    let table = sections.iter().copied().find(|header| kind(*header) == Some(SYMBOL_TABLE))?;
    let link = u32::from_le_bytes(number(bytes, table + at::LINK)?) as usize;
    let names = offset(bytes, section(link)? + at::OFFSET)?;
    let symbols = offset(bytes, table + at::OFFSET)?;
    for index in 0..offset(bytes, table + at::SIZE)? / SYMBOL {
        let symbol = symbols.checked_add(index * SYMBOL)?;
        let name = names.checked_add(u32::from_le_bytes(number(bytes, symbol)?) as usize)?;
        let found = bytes.get(name..)?.split(|byte| *byte == 0).next()?;
        if found == map.as_bytes() {
            let home = usize::from(u16::from_le_bytes(number(bytes, symbol + at::SYMBOL_SECTION)?));
            let definitions = offset(bytes, section(home)? + at::OFFSET)?;
            let value = offset(bytes, symbol + at::SYMBOL_VALUE)?;
            return definitions.checked_add(value)?.checked_add(at::MAP_FLAGS);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::CALL_CAST;

    use super::*;
    use crate::kernel::load::OBJECT;

    fn changes(object: &Object) -> Vec<(u8, u8)> {
        let both = object.bytes().iter().zip(OBJECT);
        both.filter(|(new, old)| new != old).map(|(new, old)| (*new, *old)).collect()
    }

    #[test]
    fn only_calls_change() {
        let calls = |object: &Object, wanted: [u8; 2], number: i32| {
            let sections = instructions_at(object.bytes());
            let all = sections.into_iter().flat_map(|code| object.bytes()[code].chunks_exact(INSTRUCTION));
            all.filter(|found| found[..2] == wanted && found[4..] == number.to_le_bytes()).count()
        };
        let mut object = Object::new(OBJECT);
        let casts = calls(&object, CALL_HELPER, CALL_CAST);
        assert!(casts > 0);
        object.complete_calls(CALL_CAST, Some(0x12345));
        assert_eq!(calls(&object, CALL_HELPER, CALL_CAST), 0);
        assert_eq!(calls(&object, CALL_FUNCTION, 0x12345), casts);
        assert_eq!(changes(&object).len(), casts * 5);

        let mut object = Object::new(OBJECT);
        object.complete_calls(CALL_CAST, None);
        assert_eq!(calls(&object, CALL_HELPER, CALL_CAST), 0);
        assert_eq!(changes(&object).iter().filter(|change| **change == (0xb7, 0x85)).count(), casts);
        Object::new(b"\x7fELF").complete_calls(0, None);
    }

    #[test]
    fn only_the_maps_flag_changes() {
        let mut object = Object::new(OBJECT);
        assert_eq!(object.bytes(), OBJECT);
        assert!(object.preallocate("TIME_WAITS"));
        assert_eq!(changes(&object), [(0, 1)]);
        assert!(!object.preallocate("NO_SUCH_MAP"));
        assert!(!Object::new(b"\x7fELF").preallocate("TIME_WAITS"));
    }
}
