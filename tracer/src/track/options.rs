//! TCP options (RFC 9293 §3.1, RFC 7323, RFC 2018).

/// What a segment's options say; `None` where one is absent or has the wrong length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size, in bytes.
    pub mss: Option<u16>,
    /// Window scale: windows of this sender count 2 to this power of bytes.
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    /// Left and right edges of what was received beyond a gap.
    pub sack: Vec<(u32, u32)>,
    /// The sender's clock, and what it echoes of the other one's.
    pub timestamps: Option<(u32, u32)>,
}

impl Options {
    /// Reads as far as the bytes make sense.
    pub fn parse(bytes: &[u8]) -> Self {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        let mut options = Self::default();
        let mut rest = bytes;
        while let [kind, after @ ..] = rest {
            match *kind {
                END => break,
                NO_OPERATION => {
                    rest = after;
                    continue;
                }
                _ => {}
            }
            // The length counts kind and length as well.
            let Some((value, next)) = after.split_first().and_then(|(len, after)| {
                let len = usize::from(*len).checked_sub(2)?;
                Some((after.get(..len)?, &after[len..]))
            }) else {
                break;
            };
            options.take(*kind, value);
            rest = next;
        }
        options
    }

    fn take(&mut self, kind: u8, value: &[u8]) {
        const MAXIMUM_SEGMENT_SIZE: u8 = 2;
        const WINDOW_SCALE: u8 = 3;
        const SACK_PERMITTED: u8 = 4;
        const SACK: u8 = 5;
        const TIMESTAMPS: u8 = 8;
        match (kind, value) {
            (MAXIMUM_SEGMENT_SIZE, &[high, low]) => self.mss = Some(u16::from_be_bytes([high, low])),
            (WINDOW_SCALE, &[scale]) => self.window_scale = Some(scale),
            (SACK_PERMITTED, []) => self.sack_permitted = true,
            (SACK, edges) => {
                self.sack =
                    edges.chunks_exact(8).map(|pair| (number(&pair[..4]), number(&pair[4..]))).collect();
            }
            (TIMESTAMPS, stamps) if stamps.len() == 8 => {
                self.timestamps = Some((number(&stamps[..4]), number(&stamps[4..])));
            }
            _ => {}
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_syn_of_linux() {
        let bytes = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 1, 2, 0, 0, 0, 0, 1, 3, 3, 7];
        let expected = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            sack: vec![],
            timestamps: Some((258, 0)),
        };
        assert_eq!(Options::parse(&bytes), expected);
    }

    #[test]
    fn blocks_beyond_a_gap() {
        let bytes = [1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 9];
        assert_eq!(Options::parse(&bytes).sack, [(1, 2), (5, 9)]);
    }

    #[test]
    fn nonsense_ends_the_list() {
        for bytes in [&[2, 0][..], &[2, 1, 0, 0], &[2, 9, 0], &[2], &[0, 2, 4, 5, 0xb4]] {
            assert_eq!(Options::parse(bytes), Options::default(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            Options::parse(&bytes);
        }
    }
}
