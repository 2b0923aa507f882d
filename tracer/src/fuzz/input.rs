//! A string of bytes as a source of decisions. At its end all of them are 0, the simplest.

#[derive(Debug)]
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }

    /// A number below `end`, 0 if that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let value = if end > 256 {
            usize::from(self.byte()) << 16 | usize::from(self.byte()) << 8 | usize::from(self.byte())
        } else {
            self.byte().into()
        };
        value % end.max(1)
    }

    /// True about once in `n` times.
    pub(crate) fn once_in(&mut self, n: u8) -> bool {
        self.byte() > 255 - 255 / n
    }

    pub(crate) fn choose<'b, T>(&mut self, from: &'b [T]) -> &'b T {
        &from[self.below(from.len())]
    }

    /// Up to `max` bytes, as they are.
    pub(crate) fn bytes(&mut self, max: usize) -> &'a [u8] {
        let len = self.below(max + 1).min(self.bytes.len());
        let (taken, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        taken
    }

    /// A number of any size: small ones, those at powers of two, and any others.
    pub(crate) fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.byte().into(),
            1 => (1u64 << self.below(64)).wrapping_add(self.byte().into()).wrapping_sub(4),
            2 => u64::MAX - u64::from(self.byte()),
            _ => self.u64(),
        }
    }
}
