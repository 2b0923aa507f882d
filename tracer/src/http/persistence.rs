//! Whether a message lets its connection persist (RFC 9112 §9.3).

use super::head::Facts;

/// What one head says: `close` wins, HTTP/1.1 and later persist by default, HTTP/1.0 only where it says
/// `keep-alive`.
pub(super) fn persists(version: (u8, u8), facts: &Facts) -> bool {
    !facts.close && (version >= (1, 1) || facts.keep_alive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_options() {
        for (version, close, keep_alive, expected) in [
            ((1, 1), false, false, true),
            ((1, 1), true, false, false),
            ((1, 1), true, true, false),
            ((1, 1), false, true, true),
            ((1, 0), false, false, false),
            ((1, 0), false, true, true),
            ((1, 0), true, true, false),
            ((1, 2), false, false, true),
        ] {
            let facts = Facts { close, keep_alive, ..Facts::default() };
            assert_eq!(persists(version, &facts), expected, "{version:?} {close} {keep_alive}");
        }
    }
}
