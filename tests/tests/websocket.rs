//! A WebSocket through nginx: HTTP until the 101, and then nothing that is looked at.

use anyhow::{Result, ensure};
use std::{io::Write as _, net::TcpStream};
use tests::{
    client,
    nginx::{self, Nginx, Options, PORT},
    program::{self, Server},
    scene::{check_said, only, play},
};

const BACK: u16 = 8081;
const CONTENT: usize = 4 << 20;
const FRAMES: usize = 2;
const HANDSHAKE: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// RFC 6455's own example of an answer to this key.
const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

#[test]
fn upgraded_on_both_hops() -> Result<()> {
    play(|scene| {
        let mut command = program::python(&scene.netns, "websocket.py");
        command.args([scene.host.to_string(), BACK.to_string()]);
        let server = Server::start(&scene.netns, &mut command, BACK)?;
        let locations = format!(
            "location /chat {{ proxy_pass http://{}; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
         proxy_set_header Connection upgrade; }}",
            scene.address(BACK)
        );
        let nginx = Nginx::start(&scene.netns, Options { locations: &locations, ..Options::default() })?;

        let mut stream = client::connect(&scene.netns, scene.address(PORT))?;
        ensure!(client::get(&mut stream, "/hello")?.0 == 200, "an exchange before the upgrade");
        stream.write_all(HANDSHAKE.as_bytes())?;
        let head = client::read_until(&mut stream, "\r\n\r\n")?;
        ensure!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "{head}");
        for _ in 0..FRAMES {
            echo(&mut stream)?;
        }
        drop(stream);

        // nginx ends when it has closed both its connections.
        let log = nginx.finish()?;
        let (said, _) = server.finish(1)?;
        let story = scene.finish(2)?;
        let (front, back) = (story.to(PORT), story.to(BACK));
        check_said(&front, &nginx::said(&log))?;
        check_said(&back, &said)?;
        for (pair, count) in [(only(&front)?, 2), (only(&back)?, 1)] {
            ensure!(pair.exchanges.len() == count, "{count} exchanges: {pair:?}");
            pair.check_protocol("websocket")?;
            pair.check_closed_by("client")?;
            let upgrade = &pair.exchanges[count - 1];
            upgrade.check("upgraded", |http| {
                http.text("/outcome") == "upgraded"
                    && http.count("/response/status") == Some(101)
                    && http.count("/response/body_bytes") == Some(0)
            })?;
        }
        front[0].exchanges[0].check("HTTP before it", |http| http.text("/outcome") == "complete")?;
        front[0].exchanges[1].check("heads", |http| {
            http.count("/request/header_bytes") == Some(HANDSHAKE.len() as u64)
                && http.count("/response/header_bytes") == Some(head.len() as u64)
        })?;
        story.check_copied((2 * 2 * FRAMES * CONTENT) as u64)
    })
}

/// Sends a binary frame, and reads it back.
fn echo(stream: &mut TcpStream) -> Result<()> {
    const BINARY: u8 = 0x82;
    const LONG: u8 = 127;
    const MASKED: u8 = 0x80;
    let length = (CONTENT as u64).to_be_bytes();
    let frame = |second: u8, mask: &[u8]| [&[BINARY, second], &length[..], mask].concat();
    // Content that looks like HTTP is content.
    let content: Vec<u8> =
        b"GET /inside HTTP/1.1\r\nHost: test\r\n\r\n".iter().copied().cycle().take(CONTENT).collect();
    let sent = [frame(LONG | MASKED, &[0; 4]), content.clone()].concat();
    let read = client::exchange(&mut stream.try_clone()?, stream, &sent, CONTENT + 10)?;
    ensure!(read == [frame(LONG, &[]), content].concat(), "another frame came back");
    Ok(())
}
