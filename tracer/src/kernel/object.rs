//! The object's own definition of a map, changed where a kernel needs another one: the loader only changes sizes.

/// Of a section header and of a symbol (ELF64), and of `struct bpf_map_def`, in the section `maps`.
mod at {
    pub const SECTION_HEADERS: usize = 0x28;
    pub const SECTION_COUNT: usize = 0x3c;
    pub const KIND: usize = 4;
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
        // SAFETY: as above; `number` has found four bytes there.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast::<u8>(), self.len) };
        bytes[flags..flags + 4].copy_from_slice(&(value & !NO_PREALLOC).to_le_bytes());
        true
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn offset(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(number(bytes, at)?)).ok()
}

/// Where a map's flags are: the symbol of its name tells where its definition is.
fn map_flags_at(bytes: &[u8], map: &str) -> Option<usize> {
    let headers = offset(bytes, at::SECTION_HEADERS)?;
    let count = usize::from(u16::from_le_bytes(number(bytes, at::SECTION_COUNT)?));
    let section = |index: usize| headers.checked_add(index.checked_mul(SECTION_HEADER)?);
    let kind = |header: usize| Some(u32::from_le_bytes(number(bytes, header + at::KIND)?));
    let table = (0..count).filter_map(section).find(|header| kind(*header) == Some(SYMBOL_TABLE))?;
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
    use super::*;
    use crate::kernel::load::OBJECT;

    #[test]
    fn only_the_maps_flag_changes() {
        let mut object = Object::new(OBJECT);
        assert_eq!(object.bytes(), OBJECT);
        assert!(object.preallocate("TIME_WAITS"));
        let changed: Vec<(u8, u8)> = object
            .bytes()
            .iter()
            .zip(OBJECT)
            .filter(|(new, old)| new != old)
            .map(|(new, old)| (*new, *old))
            .collect();
        assert_eq!(changed, [(0, 1)]);
        assert!(!object.preallocate("NO_SUCH_MAP"));
        assert!(!Object::new(b"\x7fELF").preallocate("TIME_WAITS"));
    }
}
