//! Requests over a path that loses one segment in twenty: every retransmission is on its connection's account.

use anyhow::{Context as _, Result, ensure};
use tests::{
    blind_spots::outside_blind_spots,
    counters::Counters,
    netns::Netns,
    records::{Record, show},
    tracer::Tracer,
    traffic::{EXCHANGES, Kind, Load},
    traffic_laws, traffic_net,
};

const REQUESTS: usize = 2_000;
const LOSS_PERCENT: u32 = 5;
const HERE: &str = "10.32.0.1";
const THERE: &str = "10.32.0.2";

#[test]
fn equal_to_the_counters_at_both_ends() -> Result<()> {
    outside_blind_spots(|| {
        let (here, there) = (Netns::new()?, Netns::new()?);
        here.join(&format!("{HERE}/24"), &there, &format!("{THERE}/24"))?;
        let both = [&here, &there];
        for netns in both {
            traffic_net::lose(netns, "veth0", LOSS_PERCENT)?;
        }
        let tracer = Tracer::start(&here, &[])?;
        let before = [Counters::read(&here)?, Counters::read(&there)?];
        let load = Load {
            client: &here,
            server: &there,
            addresses: vec![THERE.parse()?],
            port: 8120,
            kinds: vec![Kind::KeepAlive],
            count: REQUESTS / EXCHANGES,
            threads: 100,
        };
        let ends = load.run()?;
        for netns in both {
            traffic_net::wait_until_done(netns)?;
        }
        let run = tracer.stop()?;

        let conns = both.map(|netns| run.records.conns(netns));
        for ((netns, before), conns) in both.into_iter().zip(&before).zip(&conns) {
            traffic_laws::check(netns, before, conns)?;
            let again = conns.iter().filter(|conn| conn.count("/retransmits/segments") != Some(0)).count();
            ensure!(again > 0, "nothing was sent again");
        }
        let all = conns.concat();
        let odd: Vec<Record> = all.iter().filter(|conn| !conn.is_true("/complete")).cloned().collect();
        ensure!(odd.is_empty(), "{} not complete:{}", odd.len(), show(&odd));
        traffic_laws::check_ends(&ends, &all, &here)?;
        let answered = |http: &Record| http.text("/role") == "client" && http.text("/outcome") == "complete";
        let exchanges = run.records.https(&all).filter(answered).count();
        ensure!(exchanges == REQUESTS, "{exchanges} exchanges of {REQUESTS}");
        let stats = run.records.final_stats().context("no final stats")?;
        let lost = stats.counts("/lost");
        ensure!(lost.iter().all(|(_, count)| *count == 0), "lost: {lost:?}");
        Ok(())
    })
}
