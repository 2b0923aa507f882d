//! Very many connections that stay open, both ends held by other processes, as many as the limit on open files
//! asks for.

use crate::{
    netns::Netns,
    traffic_net::loopback,
    traffic_role::{Role, say, told},
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    io::{Read as _, Write as _},
    iter,
    net::{SocketAddr, TcpListener, TcpStream},
};

/// The name of the other processes, and of their role.
pub const HOLDER: &str = "holder";
/// The first one listens here, the next ones above.
pub const FIRST_PORT: u16 = 8300;
/// Connections of one process: two sockets each, within the usual 20,000 open files.
const FOR_ONE: usize = 9_500;

/// Open connections.
#[derive(Debug)]
pub struct Held(Vec<Role>);

impl Held {
    /// Processes that can open so many connections.
    pub fn new(netns: &Netns, most: usize) -> Result<Self> {
        let start = |index: usize| {
            let index = u8::try_from(index)?;
            let address = SocketAddr::from((loopback(index + 1), FIRST_PORT + u16::from(index)));
            Role::start(netns, &format!("{HOLDER} {address}"))
        };
        let holders = (0..most.div_ceil(FOR_ONE).max(2)).map(start).collect::<Result<_>>()?;
        Ok(Self(holders))
    }

    /// The process with both ends of the connections to this port.
    pub fn owner(&self, port: u16) -> Option<u32> {
        let index = port.checked_sub(FIRST_PORT)?;
        self.0.get(usize::from(index)).map(Role::pid)
    }

    /// Opens so many more.
    pub fn open(&mut self, count: usize) -> Result<()> {
        self.order("open", count)
    }

    /// One byte each way on so many of them, the oldest.
    pub fn talk(&mut self, count: usize) -> Result<()> {
        self.order("talk", count)
    }

    /// Closes so many of them, the oldest, the clients' ends first.
    pub fn close(&mut self, count: usize) -> Result<()> {
        self.order("close", count)
    }

    /// Each of them does its share, one after the other: the daemon needs a processor too.
    fn order(&mut self, order: &str, count: usize) -> Result<()> {
        let holders = self.0.len();
        for (index, holder) in self.0.iter_mut().enumerate() {
            let share = count / holders + usize::from(index < count % holders);
            holder.tell(&format!("{order} {share}"))?;
            holder.expect("done")?;
        }
        Ok(())
    }
}

/// What such a process does: as it is told.
pub fn hold(arguments: &[&str]) -> Result<()> {
    let [address] = arguments else { bail!("hold at {arguments:?}") };
    let address: SocketAddr = address.parse()?;
    let listener = TcpListener::bind(address)?;
    let mut pairs: Vec<[TcpStream; 2]> = Vec::new();
    while let Some(line) = told()? {
        let (order, count) = line.split_once(' ').with_context(|| format!("no order: {line}"))?;
        let count: usize = count.parse()?;
        match order {
            "open" => {
                let one = || -> Result<_> { Ok([TcpStream::connect(address)?, listener.accept()?.0]) };
                for pair in iter::repeat_with(one).take(count) {
                    pairs.push(pair?);
                }
            }
            "talk" => pairs[..count].iter_mut().try_for_each(exchange)?,
            // The members of an array are dropped in order.
            "close" => drop(pairs.drain(..count)),
            _ => bail!("no order {order}"),
        }
        say("done")?;
    }
    Ok(())
}

fn exchange([client, server]: &mut [TcpStream; 2]) -> Result<()> {
    let mut byte = [b'x'];
    client.write_all(&byte)?;
    server.read_exact(&mut byte)?;
    server.write_all(&byte)?;
    client.read_exact(&mut byte)?;
    ensure!(byte == [b'x'], "another byte came");
    Ok(())
}
