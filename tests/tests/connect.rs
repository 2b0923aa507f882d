//! CONNECT: tunnels through a proxy, what is inside them, and tunnels that are refused.

use anyhow::{Result, ensure};
use std::{fs::File, io::Write as _};
use tests::{
    client, curl,
    nginx::{self, Nginx, Options, PORT},
    program::{self, Server},
    said::Said,
    scene::{Exchange, Pair, Scene, check_complete, check_said, only, play},
};

const PROXY: u16 = 3128;
/// The proxy wants credentials for this port, and lets nobody through to the other one.
const CREDENTIALS: u16 = 8081;
const FORBIDDEN: u16 = 8082;
const LARGE: usize = 6 << 20;

fn proxy(scene: &Scene) -> Result<Server> {
    let mut command = program::python(&scene.netns, "connect_proxy.py");
    Server::start(&scene.netns, command.args([scene.host.to_string(), PROXY.to_string()]), PROXY)
}

/// The last exchange of these is the tunnel's.
fn check_tunnel(pair: &Pair, target: &str) -> Result<()> {
    pair.check_protocol("tunnel")?;
    let Some(tunnel) = pair.exchanges.last() else { anyhow::bail!("no exchange: {pair:?}") };
    tunnel.check("tunnel", |http| {
        http.text("/outcome") == "tunnel"
            && http.text("/request/method") == "CONNECT"
            && http.text("/request/target") == target
            && http.count("/response/status") == Some(200)
            && http.count("/response/body_bytes") == Some(0)
    })
}

#[test]
fn http_inside() -> Result<()> {
    play(|scene| {
        let target = scene.address(PORT).to_string();
        let nginx = Nginx::start(&scene.netns, Options::default())?;
        File::create(nginx.files().join("large"))?.set_len(LARGE as u64)?;
        let server = proxy(&scene)?;
        let urls = ["/hello", "/files/large", "/missing"].map(|target| scene.url(PORT, target));
        let through = scene.url(PROXY, "");
        let transfers = curl::run(&scene.netns, &["-p", "-x", &through], &urls)?;
        let (said, _) = server.finish(1)?;
        let log = nginx.finish()?;
        let story = scene.finish(2)?;
        let (front, back) = (story.to(PROXY), story.to(PORT));
        check_said(&front, &said)?;
        check_said(&back, &nginx::said(&log))?;
        check_complete(&back)?;
        let outer = only(&front)?;
        ensure!(outer.exchanges.len() == 1, "what is inside is not looked at: {outer:?}");
        check_tunnel(outer, &target)?;
        // curl knows its own connection only, and means the exchanges inside.
        let Some(port) = back[0].client.count("/local/port") else { anyhow::bail!("no port: {back:?}") };
        let inside = transfers.into_iter().map(|transfer| Said { port: port as u16, ..transfer.said });
        check_said(&back, &inside.collect::<Vec<_>>())?;
        story.check_copied(2 * LARGE as u64)
    })
}

#[test]
fn anything_inside() -> Result<()> {
    play(|scene| {
        let listener = client::listen(&scene.netns, scene.address(PORT))?;
        let server = proxy(&scene)?;
        let target = scene.address(PORT).to_string();
        let mut near = client::connect(&scene.netns, scene.address(PROXY))?;
        write!(near, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")?;
        let (mut far, _) = listener.accept()?;
        client::read_until(&mut near, "\r\n\r\n")?;
        let noise: Vec<u8> = (0..=255).rev().cycle().take(LARGE).collect();
        client::pass_much(&mut near, &mut far, &noise)?;
        client::pass_much(&mut far, &mut near, &noise)?;
        drop((near, far));
        let (said, _) = server.finish(1)?;
        let story = scene.finish(2)?;
        check_said(&story.to(PROXY), &said)?;
        check_tunnel(only(&story.to(PROXY))?, &target)?;
        let inner = story.to(PORT);
        let inner = only(&inner)?;
        ensure!(inner.exchanges.is_empty(), "no HTTP: {inner:?}");
        inner.check_protocol("other")?;
        story.check_copied(4 * LARGE as u64)
    })
}

fn check_refused(exchange: &Exchange, status: u64) -> Result<()> {
    exchange.check(&format!("{status}"), |http| {
        http.text("/outcome") == "complete"
            && http.text("/request/method") == "CONNECT"
            && http.count("/response/status") == Some(status)
            && http.text("/response/framing") == "content-length"
    })
}

/// curl asks again, on the same connection.
#[test]
fn credentials_wanted() -> Result<()> {
    play(|scene| {
        let target = scene.address(CREDENTIALS).to_string();
        let servers =
            format!("server {{ listen {CREDENTIALS}; location / {{ return 200 \"inside\\n\"; }} }}");
        let nginx = Nginx::start(&scene.netns, Options { servers: &servers, ..Options::default() })?;
        let server = proxy(&scene)?;
        let through = scene.url(PROXY, "");
        let args = ["-p", "-x", &through, "--proxy-anyauth", "--proxy-user", "user:secret"];
        let transfers = curl::run(&scene.netns, &args, &[scene.url(CREDENTIALS, "/page")])?;
        ensure!(transfers.len() == 1 && transfers[0].said.status == Some(200), "{transfers:?}");
        let (said, _) = server.finish(2)?;
        let log = nginx.finish()?;
        let story = scene.finish(2)?;
        let front = story.to(PROXY);
        check_said(&front, &said)?;
        check_said(&story.to(CREDENTIALS), &nginx::said(&log))?;
        let pair = only(&front)?;
        ensure!(pair.exchanges.len() == 2, "{pair:?}");
        check_refused(&pair.exchanges[0], 407)?;
        check_tunnel(pair, &target)
    })
}

#[test]
fn forbidden_and_then_another_request() -> Result<()> {
    play(|scene| {
        let server = proxy(&scene)?;
        let target = scene.address(FORBIDDEN).to_string();
        let mut stream = client::connect(&scene.netns, scene.address(PROXY))?;
        const REFUSAL: &str = "403 from the proxy\n";
        for _ in 0..2 {
            write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")?;
            client::read_until(&mut stream, REFUSAL)?;
            ensure!(client::get(&mut stream, "http://inside/")?.0 == 200, "the proxy's own answer");
        }
        drop(stream);
        let (said, _) = server.finish(4)?;
        let story = scene.finish(1)?;
        let front = story.to(PROXY);
        check_said(&front, &said)?;
        check_complete(&front)?;
        let pair = only(&front)?;
        pair.check_protocol("http/1")?;
        pair.check_closed_by("client")?;
        pair.exchanges.iter().step_by(2).try_for_each(|exchange| check_refused(exchange, 403))
    })
}
