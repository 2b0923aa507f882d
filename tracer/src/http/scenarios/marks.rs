//! Advice to the capture: which bytes need not be copied.

use super::Step::*;
use super::{C, GET, OK2, S, Step, Wire, case};
use crate::http::{Direction, Mark};

fn marks(steps: &'static [Step]) -> Vec<(Direction, Mark)> {
    case("", steps, &[]).play(Some(C)).marks()
}

#[test]
fn small_content_is_not_worth_one() {
    assert_eq!(marks(&[Client(GET), Server(OK2), ServerFin, ClientFin, Close]), []);
}

#[test]
fn content_of_known_length_up_to_the_next_head() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
    let until = Mark::Until { offset: HEAD.len() as u64 + 100_000, then_head: true };
    assert_eq!(marks(&[Client(GET), Server(HEAD), ServerSeen(60_000)]), [(S, until)], "once");
}

#[test]
fn requests_have_them_too() {
    const HEAD: &[u8] = b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n";
    let until = Mark::Until { offset: HEAD.len() as u64 + 100_000, then_head: true };
    assert_eq!(marks(&[Client(HEAD)]), [(C, until)]);
}

#[test]
fn a_chunk_up_to_the_line_behind_it() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8000\r\n";
    let until = Mark::Until { offset: HEAD.len() as u64 + 0x8000, then_head: false };
    let steps = &[Client(GET), Server(HEAD), ServerSeen(0x8000), Server(b"\r\n5\r\nhello\r\n0\r\n\r\n")];
    let wire = case("", steps, &[]).play(Some(C));
    assert_eq!(wire.marks(), [(S, until)]);
    assert_eq!(wire.shown(), ["1 GET /a none:0 > 200 chunked:32773 complete"]);
}

#[test]
fn until_close_never_again() {
    assert_eq!(marks(&[Client(GET), Server(b"HTTP/1.1 200 OK\r\n\r\n")]), [(S, Mark::Never)]);
}

/// The figures of a whole keep-alive download: what the capture has to copy when it follows the marks.
#[test]
fn a_gigabyte_costs_its_heads() {
    let mut wire = Wire::new(Some(C), true);
    let mut handed_bytes = 0;
    for _ in 0..10 {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 107374182\r\n\r\n";
        wire.send(C, GET);
        wire.send(S, head);
        handed_bytes += GET.len() + head.len();
        let Some((S, Mark::Until { offset, then_head: true })) = wire.marks().pop() else { panic!() };
        assert_eq!(offset, wire.at[1] + 107_374_182);
        wire.at[1] = offset - 1000;
        wire.seen(S, 1000);
    }
    assert_eq!(wire.exchanges().len(), 10);
    assert!(wire.exchanges().iter().all(|exchange| exchange.exact));
    assert!(handed_bytes < 1000);
}
