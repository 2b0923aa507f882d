//! A connection whose end was missed is found, and told as such. Misses cannot be provoked, so the test puts an entry
//! without a socket into the connection table.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tests::{bpf::Held, netns::Netns, process, tracer::Tracer, wait};
use tracer_ebpf::{Conn, Tuple, conn_flag, role, state};

#[test]
fn an_entry_without_its_socket_is_told_as_missed() -> Result<()> {
    let netns = Netns::new()?;
    let tracer = Tracer::start(&netns, &[])?;
    let table = table(&Held::by(tracer.pid())?)?;
    let conn = Conn {
        id: 0xdead,
        cookie: 0xbeef,
        tuple: Tuple { local_port: 1, remote_port: 2, netns: netns.inode() as u32, ..Tuple::default() },
        flags: conn_flag::IDENTIFIED,
        state: state::ESTABLISHED,
        role: role::CLIENT,
        family: libc::AF_INET as u8,
        ..Conn::ZERO
    };
    // SAFETY: integers without padding.
    let value = unsafe { std::slice::from_raw_parts((&raw const conn).cast::<u8>(), size_of::<Conn>()) };
    // No socket is at an address that is none.
    update(table, &[0xff; 8], value)?;

    let run = tracer.stop()?;
    let conns = run.records.conns(&netns);
    let [conn] = &conns[..] else { anyhow::bail!("{conns:?}") };
    if run.records.lack("iter/tcp reconcile", "an end that was missed is told as an open connection") {
        ensure!(conn.text("/id") == "dead" && conn.is_true("/open"), "{conn:?}");
        return Ok(());
    }
    ensure!(conn.text("/id") == "dead" && conn.text("/close/how") == "unknown", "{conn:?}");
    ensure!(conn.is_null("/close/by") && !conn.is_true("/complete") && !conn.is_true("/open"), "{conn:?}");
    ensure!(conn.count("/lost") == Some(1), "{conn:?}");
    Ok(())
}

/// Number of the connection table among the maps that a tracer holds.
fn table(held: &Held) -> Result<u64> {
    for map in &held.maps {
        let mut command = Command::new("bpftool");
        let text = process::run(command.args(["-j", "map", "show", "id", &map.to_string()]), wait::LIMIT)?;
        if text.contains("\"name\":\"CONNS\"") {
            return Ok(*map);
        }
    }
    None.context("the tracer holds no map CONNS")
}

fn update(map: u64, key: &[u8], value: &[u8]) -> Result<()> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:#04x}")).collect::<Vec<_>>();
    let mut command = Command::new("bpftool");
    command
        .args(["map", "update", "id", &map.to_string(), "key"])
        .args(hex(key))
        .arg("value")
        .args(hex(value));
    process::run(&mut command, wait::LIMIT).map(drop)
}
