//! A socket has a cookie from when somebody first asks for it (`sock_gen_cookie`), as `ss` does. That changes nothing.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tests::{
    client,
    netns::Netns,
    records::{Record, Records, show},
    socket,
    stage::speak,
    tracer::Tracer,
};

const PORT: u16 = 8000;
/// What is younger than a second is held against no socket; and a FIN is on its way.
const SETTLED: Duration = Duration::from_millis(1100);

/// Has every socket get its cookie.
fn ask(netns: &Netns) -> Result<()> {
    let shown = netns.run("ss", &["-tanH"])?;
    ensure!(shown.contains(&PORT.to_string()), "ss shows no socket of the test: {shown}");
    Ok(())
}

fn talk(netns: &Netns) -> Result<(TcpListener, TcpStream, TcpStream)> {
    let address = SocketAddr::from(([127, 0, 0, 1], PORT));
    let listener = client::listen(netns, address)?;
    let (mut client, mut server) = client::pair(netns, &listener, address)?;
    speak(&mut client, &mut server)?;
    Ok((listener, client, server))
}

/// Nothing was found to be missing, and what is in TIME_WAIT is known.
fn check_stats(records: &Records) -> Result<()> {
    let stats = records.final_stats().context("no final `stats` record")?;
    ensure!(stats.count("/lost/programs_missed") == Some(0), "lost.programs_missed: {stats:?}");
    let now = "/selfcheck/counters/time_wait_now/now";
    let [ours, kernel] = ["ours", "kernel"].map(|whose| stats.count(&format!("{now}/{whose}")));
    ensure!(ours == kernel, "in TIME_WAIT {ours:?}, not {kernel:?}: {stats:?}");
    Ok(())
}

#[test]
fn of_open_connections() -> Result<()> {
    let netns = Netns::new()?;
    let tracer = Tracer::start(&netns, &["--port", &PORT.to_string()])?;
    // The one that its own `listen` binds has no port when that is traced.
    let unbound = socket::unconnected(&netns)?;
    socket::listen(&unbound)?;
    let (_listener, mut client, mut server) = talk(&netns)?;
    ask(&netns)?;
    speak(&mut client, &mut server)?;
    thread::sleep(SETTLED);
    let records = tracer.stop()?.records;

    check_stats(&records)?;
    let conns = records.conns(&netns);
    ensure!(conns.len() == 2, "one connection:{}", show(&conns));
    let bytes = match records.lack("iter/tcp current_totals", "no totals of open connections") {
        true => [None; 2],
        false => [Some(8), Some(12)],
    };
    for conn in &conns {
        ensure!(conn.is_true("/open") && conn.is_true("/complete"), "open, complete: {conn:?}");
        let mut counted = ["/bytes_sent", "/bytes_received"].map(|path| conn.count(path));
        counted.sort_unstable();
        ensure!(counted == bytes, "bytes: {conn:?}");
    }
    Ok(())
}

/// It is older than the tracer, which therefore does not know its cookie; its FIN comes later, and moves its timer.
#[test]
fn of_a_time_wait() -> Result<()> {
    let netns = Netns::new()?;
    let (_listener, client, mut server) = talk(&netns)?;
    drop(client);
    socket::read_to_end(&mut server)?;
    // Longer than an acknowledgement is delayed.
    thread::sleep(Duration::from_millis(100));
    let mut tracer = Tracer::start(&netns, &["--port", &PORT.to_string()])?;
    ask(&netns)?;
    drop(server);
    thread::sleep(SETTLED);
    let killed = netns.run("ss", &["-K", "-H", "-t", "state", "time-wait"])?;
    let told = usize::from(!killed.is_empty());
    if told == 0 {
        tests::lacking::note("this kernel kills no TIME_WAIT for `ss -K`");
    }
    let of_it = |records: &Records| -> Vec<Record> {
        records.of("time_wait").filter(|wait| wait.count("/netns") == Some(netns.inode())).collect()
    };
    tracer.wait_for("its end", |records| (of_it(records).len() >= told).then_some(()))?;
    let records = tracer.stop()?.records;

    check_stats(&records)?;
    let waits = of_it(&records);
    let [wait] = &waits[..] else {
        ensure!(waits.is_empty() && told == 0, "one TIME_WAIT:{}", show(&waits));
        return Ok(());
    };
    if told == 0 || wait.text("/end") != "killed" || !wait.is_true("/preexisting") {
        bail!("not killed, or not older than the tracer: {wait:?}");
    }
    Ok(())
}
