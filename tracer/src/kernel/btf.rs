//! A reader of BTF, the kernel's type information (Documentation/bpf/btf.rst), for what we ask of it: members, functions,
//! prototypes and enumerations by name. Any bytes give types or an error; unknown kinds end the reading.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;

/// `BTF_KIND_*` (include/uapi/linux/btf.h).
mod kind {
    pub const INT: u8 = 1;
    pub const PTR: u8 = 2;
    pub const ARRAY: u8 = 3;
    pub const STRUCT: u8 = 4;
    pub const UNION: u8 = 5;
    pub const ENUM: u8 = 6;
    pub const FWD: u8 = 7;
    pub const TYPEDEF: u8 = 8;
    pub const VOLATILE: u8 = 9;
    pub const CONST: u8 = 10;
    pub const RESTRICT: u8 = 11;
    pub const FUNC: u8 = 12;
    pub const FUNC_PROTO: u8 = 13;
    pub const VAR: u8 = 14;
    pub const DATASEC: u8 = 15;
    pub const FLOAT: u8 = 16;
    pub const DECL_TAG: u8 = 17;
    pub const TYPE_TAG: u8 = 18;
    pub const ENUM64: u8 = 19;
}

/// Why bytes are not BTF that we can read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("the type information is cut off at byte {0}")]
    CutOff(usize),
    #[error("this is no BTF of our byte order (it begins with {0:#06x})")]
    Magic(u16),
    #[error("type {id} is of kind {kind}, which this version does not know")]
    Kind { id: u32, kind: u8 },
}

/// All types, by number.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    strings_at: usize,
    /// Where each type begins; type 0 is void.
    types_at: Vec<usize>,
    /// Types that have a name of their own that we look up.
    by_name: HashMap<Vec<u8>, Vec<u32>>,
}

/// A type's fixed part.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u8,
    /// Number of members, parameters or enumerators.
    len: usize,
    /// Member offsets hold a bit-field size in their top byte.
    bit_fields: bool,
    size_or_type: u32,
}

/// A member of a structure, in bits from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub offset_bits: u32,
    pub size_bytes: usize,
}

impl Btf {
    /// # Errors
    /// The bytes end early, or hold what this version does not know.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        let half = bytes.get(..2).ok_or(Error::CutOff(bytes.len()))?;
        let magic = u16::from_ne_bytes([half[0], half[1]]);
        if magic != MAGIC {
            return Err(Error::Magic(magic));
        }
        let mut btf = Self { bytes, strings_at: 0, types_at: vec![0], by_name: HashMap::new() };
        let header = |word: usize| btf.word(4 + word * 4).map(|value| value as usize);
        let [header_len, types_off, types_len, strings_off] =
            [header(0)?, header(1)?, header(2)?, header(3)?];
        btf.strings_at = header_len.saturating_add(strings_off);
        let mut at = header_len.saturating_add(types_off);
        let end = at.saturating_add(types_len);
        while at < end {
            let id = btf.types_at.len() as u32;
            let found = btf.type_at(at)?;
            btf.types_at.push(at);
            if matches!(found.kind, kind::STRUCT | kind::ENUM | kind::TYPEDEF | kind::FUNC) && found.name != 0
            {
                let name = btf.text(found.name).to_vec();
                btf.by_name.entry(name).or_default().push(id);
            }
            at += 12 + tail_len(&found).ok_or(Error::Kind { id, kind: found.kind })?;
        }
        Ok(btf)
    }

    fn word(&self, at: usize) -> Result<u32, Error> {
        let bytes = self.bytes.get(at..at.saturating_add(4)).ok_or(Error::CutOff(at))?;
        Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn type_at(&self, at: usize) -> Result<Type, Error> {
        let info = self.word(at + 4)?;
        Ok(Type {
            at,
            name: self.word(at)?,
            kind: (info >> 24 & 0x1f) as u8,
            len: (info & 0xffff) as usize,
            bit_fields: info >> 31 == 1,
            size_or_type: self.word(at + 8)?,
        })
    }

    fn by_id(&self, id: u32) -> Option<Type> {
        let at = *self.types_at.get(id as usize).filter(|_| id != 0)?;
        self.type_at(at).ok()
    }

    fn named(&self, name: &str, wanted: u8) -> Option<Type> {
        let ids = self.by_name.get(name.as_bytes())?;
        ids.iter().filter_map(|id| self.by_id(*id)).find(|found| found.kind == wanted)
    }

    /// A name, without its terminating zero; empty when it is out of bounds.
    fn text(&self, offset: u32) -> &[u8] {
        let start = self.strings_at.saturating_add(offset as usize);
        let rest = self.bytes.get(start..).unwrap_or_default();
        &rest[..rest.iter().position(|byte| *byte == 0).unwrap_or(0)]
    }

    /// `WORDS` words of entry `index` of a type's list.
    fn entry<const WORDS: usize>(&self, of: &Type, index: usize) -> Option<[u32; WORDS]> {
        let mut words = [0; WORDS];
        for (place, word) in words.iter_mut().enumerate() {
            *word = self.word(of.at + 12 + (index * WORDS + place) * 4).ok()?;
        }
        Some(words)
    }

    /// Past typedefs and qualifiers. Chains are short; a bound keeps hostile bytes from looping.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        for _ in 0..32 {
            let found = self.by_id(id)?;
            match found.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = found.size_or_type;
                }
                _ => return Some(found),
            }
        }
        None
    }

    fn size_of(&self, id: u32, depth: u32) -> Option<usize> {
        let found = self.resolve(id)?;
        match found.kind {
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                Some(found.size_or_type as usize)
            }
            kind::PTR => Some(8),
            kind::ARRAY if depth < 8 => {
                let [element, _, len] = self.entry(&found, 0)?;
                self.size_of(element, depth + 1)?.checked_mul(len as usize)
            }
            _ => None,
        }
    }

    /// A member of a structure, also one of an anonymous structure or union in it.
    pub fn member(&self, structure: &str, name: &str) -> Option<Member> {
        self.member_of(&self.named(structure, kind::STRUCT)?, name.as_bytes(), 0, 0)
    }

    fn member_of(&self, of: &Type, name: &[u8], base_bits: u32, depth: u32) -> Option<Member> {
        for index in 0..of.len {
            let [member_name, member_type, offset] = self.entry(of, index)?;
            let offset = if of.bit_fields { offset & 0x00ff_ffff } else { offset };
            let offset_bits = base_bits.checked_add(offset)?;
            if member_name != 0 {
                if self.text(member_name) == name {
                    return Some(Member { offset_bits, size_bytes: self.size_of(member_type, 0)? });
                }
                continue;
            }
            let inner = self.resolve(member_type)?;
            if matches!(inner.kind, kind::STRUCT | kind::UNION)
                && depth < 16
                && let Some(found) = self.member_of(&inner, name, offset_bits, depth + 1)
            {
                return Some(found);
            }
        }
        None
    }

    /// Whether a structure has a member that is a plain integer.
    pub fn member_is_integer(&self, structure: &str, name: &str) -> bool {
        let member = self.named(structure, kind::STRUCT).and_then(|of| {
            (0..of.len)
                .filter_map(|index| self.entry(&of, index))
                .find(|[member_name, _, _]| self.text(*member_name) == name.as_bytes())
        });
        member.and_then(|[_, of, _]| self.resolve(of)).is_some_and(|of| of.kind == kind::INT)
    }

    pub fn has_function(&self, name: &str) -> bool {
        self.named(name, kind::FUNC).is_some()
    }

    /// Number of parameters of a function.
    pub fn function_parameters(&self, name: &str) -> Option<usize> {
        let prototype = self.resolve(self.named(name, kind::FUNC)?.size_or_type)?;
        (prototype.kind == kind::FUNC_PROTO).then_some(prototype.len)
    }

    /// Size of a structure in bytes.
    pub fn structure_size(&self, name: &str) -> Option<usize> {
        self.named(name, kind::STRUCT).map(|found| found.size_or_type as usize)
    }

    pub fn has_typedef(&self, name: &str) -> bool {
        self.named(name, kind::TYPEDEF).is_some()
    }

    /// Number of parameters of the function that a typedef of a pointer to function names.
    pub fn typedef_parameters(&self, name: &str) -> Option<usize> {
        let pointer = self.resolve(self.named(name, kind::TYPEDEF)?.size_or_type)?;
        let prototype = self.resolve(pointer.size_or_type)?;
        (pointer.kind == kind::PTR && prototype.kind == kind::FUNC_PROTO).then_some(prototype.len)
    }

    /// Values and names of an enumeration.
    pub fn enumerators(&self, name: &str) -> Vec<(u32, String)> {
        let Some(found) = self.named(name, kind::ENUM) else { return Vec::new() };
        (0..found.len)
            .filter_map(|index| self.entry(&found, index))
            .map(|[name, value]| (value, String::from_utf8_lossy(self.text(name)).into_owned()))
            .collect()
    }
}

/// Bytes behind a type's fixed part; `None` for a kind that we do not know.
fn tail_len(of: &Type) -> Option<usize> {
    Some(match of.kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => of.len * 12,
        kind::ENUM | kind::FUNC_PROTO => of.len * 8,
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `struct s { int a; struct { char b; }; }` by hand.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0char\0s\0a\0b\0";
        let (int, char, s, a, b) = (1u32, 5, 10, 12, 14);
        let info = |kind: u8, len: u32| u32::from(kind) << 24 | len;
        let types: Vec<u32> = [
            vec![int, info(kind::INT, 0), 4, 32],
            vec![char, info(kind::INT, 0), 1, 8],
            vec![0, info(kind::STRUCT, 1), 1, b, 2, 0],
            vec![s, info(kind::STRUCT, 2), 8, a, 1, 0, 0, 3, 32],
        ]
        .concat();
        let types_len = types.len() as u32 * 4;
        let header = [24u32, 0, types_len, types_len, strings.len() as u32];
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(header.iter().chain(&types).flat_map(|word| word.to_ne_bytes()));
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_of_anonymous_structures_count() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.member("s", "a"), Some(Member { offset_bits: 0, size_bytes: 4 }));
        assert_eq!(btf.member("s", "b"), Some(Member { offset_bits: 32, size_bytes: 1 }));
        assert_eq!(btf.member("s", "c"), None);
        assert_eq!(btf.structure_size("s"), Some(8));
    }

    #[test]
    fn what_is_no_btf_is_an_error() {
        assert_eq!(Btf::parse(Vec::new()).unwrap_err(), Error::CutOff(0));
        assert_eq!(Btf::parse(vec![1, 2, 3, 4]).unwrap_err(), Error::Magic(0x0201));
    }

    proptest! {
        #[test]
        fn damaged_bytes_do_no_harm(at in 0usize..120, value: u8, cut in 0usize..130) {
            let mut bytes = sample();
            if at < bytes.len() {
                bytes[at] = value;
            }
            bytes.truncate(cut.min(bytes.len()));
            if let Ok(btf) = Btf::parse(bytes) {
                let _ = (btf.member("s", "b"), btf.enumerators("s"), btf.typedef_parameters("s"));
            }
        }
    }
}
