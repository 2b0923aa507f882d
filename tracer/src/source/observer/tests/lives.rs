//! Whole lives of connections: role, states and end of each.

use super::*;

/// The life of a connection in short.
pub fn life(connection: &Connection) -> String {
    let states: Vec<&str> = connection.states.iter().map(|at| state_name(at.state)).collect();
    let end = match connection.close {
        None => "open".to_owned(),
        Some(close) => {
            format!("{} by {}", close.how.name(), close.by.map_or("nobody", Party::name))
        }
    };
    let role = if connection.conn.role == role::CLIENT { "client" } else { "unknown" };
    let preexisting = connection.conn.flags & conn_flag::PREEXISTING != 0;
    let lost = if connection.conn.lost > 0 { " incomplete" } else { "" };
    let older = if preexisting { " older" } else { "" };
    format!("{role}{older} {} {end}{lost}", states.join(" "))
}

#[test]
fn lives() {
    const OPEN: &str = "SYN_SENT ESTABLISHED";
    let cases: Vec<(&str, Talk, Vec<String>)> = vec![
        (
            "client closes",
            talk(|t| {
                t.open().exchange("/", 10).close(CLIENT);
            }),
            vec![format!("client {OPEN} FIN_WAIT1 FIN_WAIT2 TIME_WAIT fin by local")],
        ),
        (
            "server closes",
            talk(|t| {
                t.open().exchange("/", 10).close(SERVER);
            }),
            vec![format!("client {OPEN} CLOSE_WAIT LAST_ACK CLOSE fin by remote")],
        ),
        (
            "server closes, acknowledged first",
            talk(|t| {
                t.open().send(SERVER, FIN | ACK, b"").send(CLIENT, ACK, b"");
                t.send(CLIENT, FIN | ACK, b"").send(SERVER, ACK, b"");
            }),
            vec![format!("client {OPEN} CLOSE_WAIT LAST_ACK CLOSE fin by remote")],
        ),
        (
            "FINs cross",
            talk(|t| {
                t.open().send(CLIENT, FIN | ACK, b"");
                let received = t.received[SERVER].wrapping_sub(1);
                t.send(SERVER, FIN | ACK, b"").change(|segment| segment.ack = received);
                t.send(CLIENT, ACK, b"").send(SERVER, ACK, b"");
            }),
            vec![format!("client {OPEN} FIN_WAIT1 CLOSING TIME_WAIT fin by both")],
        ),
        (
            "FINs cross, the server's passes first",
            talk(|t| {
                t.open().send(SERVER, FIN | ACK, b"");
                let received = t.received[CLIENT].wrapping_sub(1);
                t.send(CLIENT, FIN | ACK, b"").change(|segment| segment.ack = received);
                t.send(CLIENT, ACK, b"").send(SERVER, ACK, b"");
            }),
            vec![format!("client {OPEN} FIN_WAIT1 CLOSING TIME_WAIT fin by both")],
        ),
        (
            "half closed, data follows",
            talk(|t| {
                t.open().send(CLIENT, FIN | ACK, b"GET / HTTP/1.0\r\n\r\n").send(SERVER, ACK, b"");
                t.send(SERVER, ACK, b"HTTP/1.0 200 OK\r\n\r\nabc").send(CLIENT, ACK, b"");
                t.send(SERVER, FIN | ACK, b"def").send(CLIENT, ACK, b"");
            }),
            vec![format!("client {OPEN} FIN_WAIT1 FIN_WAIT2 TIME_WAIT fin by local")],
        ),
        (
            "refused",
            talk(|t| {
                t.send(CLIENT, SYN, b"").send(SERVER, RST | ACK, b"");
            }),
            vec!["client SYN_SENT CLOSE refused by remote".into()],
        ),
        (
            "an RST that answers nothing is not heeded",
            talk(|t| {
                t.send(CLIENT, SYN, b"").send(SERVER, RST | ACK, b"").change(|segment| segment.ack -= 1);
            }),
            vec!["client SYN_SENT open".into()],
        ),
        (
            "unanswered to the end",
            talk(|t| {
                t.send(CLIENT, SYN, b"").wait(1_000_000_000).repeat(0).wait(2_000_000_000).repeat(0);
            }),
            vec!["client SYN_SENT open".into()],
        ),
        (
            "reset by the client",
            talk(|t| {
                t.open().exchange("/", 10).send(CLIENT, RST | ACK, b"");
            }),
            vec![format!("client {OPEN} CLOSE rst_sent by local")],
        ),
        (
            "reset by the server",
            talk(|t| {
                t.open().send(SERVER, RST, b"");
            }),
            vec![format!("client {OPEN} CLOSE rst_received by remote")],
        ),
        (
            "reset after the client's FIN",
            talk(|t| {
                t.open().send(CLIENT, FIN | ACK, b"").send(SERVER, ACK, b"late").send(CLIENT, RST, b"");
            }),
            vec![format!("client {OPEN} FIN_WAIT1 FIN_WAIT2 CLOSE rst_sent by local")],
        ),
        (
            "an RST out of the window is not heeded",
            talk(|t| {
                t.open()
                    .exchange("/", 10)
                    .send(SERVER, RST, b"")
                    .change(|segment| segment.seq = segment.seq.wrapping_sub(90));
            }),
            vec![format!("client {OPEN} open")],
        ),
        (
            "half-open scan",
            talk(|t| {
                t.send(CLIENT, SYN, b"").send(SERVER, SYN | ACK, b"").send(CLIENT, RST, b"");
            }),
            vec!["client SYN_SENT CLOSE rst_sent by local".into()],
        ),
        (
            "still open",
            talk(|t| {
                t.open().exchange("/", 10);
            }),
            vec![format!("client {OPEN} open")],
        ),
        (
            "SYN-ACK not captured",
            talk(|t| {
                t.send(CLIENT, SYN, b"").send(SERVER, SYN | ACK, b"").unseen();
                t.send(CLIENT, ACK, b"").exchange("/", 10).close(CLIENT);
            }),
            vec![format!("client {OPEN} FIN_WAIT1 FIN_WAIT2 TIME_WAIT fin by local")],
        ),
        (
            "SYN not captured",
            talk(|t| {
                t.send(CLIENT, SYN, b"").unseen().send(SERVER, SYN | ACK, b"");
                t.send(CLIENT, ACK, b"").exchange("/", 10).close(CLIENT);
            }),
            vec![format!("client older {OPEN} FIN_WAIT1 FIN_WAIT2 TIME_WAIT fin by local")],
        ),
        (
            "joined in the middle",
            talk(|t| {
                t.open().exchange("/1", 10);
                t.segments.drain(..6);
                t.exchange("/2", 10).close(SERVER);
            }),
            vec!["unknown older ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE fin by remote".into()],
        ),
        (
            "only acknowledgements",
            talk(|t| {
                t.open().send(CLIENT, ACK, b"").send(SERVER, ACK, b"");
                t.segments.drain(..3);
            }),
            vec!["unknown older ESTABLISHED open".into()],
        ),
        (
            "an RST alone is no connection",
            talk(|t| {
                t.send(SERVER, RST, b"");
            }),
            vec![],
        ),
        (
            "opened by both ends",
            talk(|t| {
                t.send(CLIENT, SYN, b"").send(SERVER, SYN, b"");
                t.next = t.next.map(|next| next.wrapping_sub(1));
                t.send(CLIENT, SYN | ACK, b"")
                    .send(SERVER, SYN | ACK, b"")
                    .send(CLIENT, ACK, b"")
                    .close(CLIENT);
            }),
            vec![format!("client {OPEN} FIN_WAIT1 FIN_WAIT2 TIME_WAIT fin by local")],
        ),
        (
            "ports taken over in the middle",
            talk(|t| {
                t.open().again().open().close(CLIENT);
            }),
            vec![
                format!("client {OPEN} CLOSE unknown by nobody incomplete"),
                format!("client {OPEN} FIN_WAIT1 FIN_WAIT2 TIME_WAIT fin by local"),
            ],
        ),
        (
            "ports taken over without the last acknowledgement",
            talk(|t| {
                t.open().close(CLIENT).unseen().again().open();
            }),
            vec![
                format!("client {OPEN} FIN_WAIT1 FIN_WAIT2 TIME_WAIT fin by local incomplete"),
                format!("client {OPEN} open"),
            ],
        ),
    ];
    for (name, talk, expected) in cases {
        let told = told(&talk);
        assert_eq!(told.conns.iter().map(life).collect::<Vec<_>>(), expected, "{name}");
        assert_eq!(told.counts.full, 0);
        for connection in &told.conns {
            let states: Vec<_> = connection.states.iter().filter_map(|at| at.at_ns).collect();
            assert!(states.is_sorted(), "{name}: {states:?}");
        }
    }
}
