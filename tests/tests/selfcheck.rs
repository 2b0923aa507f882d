//! The self-check covers every network namespace that a process is in, not only the tracer's.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    blind_spots::outside_blind_spots,
    lacking::counts_time_waits_that_begin,
    netns::Netns,
    process::Process,
    tracer::Tracer,
    traffic::{Kind, Load},
    traffic_net::loopback,
};

const COUNT: usize = 200;

#[test]
fn agrees_in_another_namespace() -> Result<()> {
    outside_blind_spots(|| {
        let (own, other) = (Netns::new()?, Netns::new()?);
        // The loads run on threads that enter the namespace; a process is what makes it known.
        let inside = Process::spawn(other.command("sleep").arg("600"))?;
        let mut tracer = Tracer::start(&own, &["--stats-interval", "1s"])?;
        let load = |netns, kinds: &[Kind]| {
            let addresses = vec![loopback(1).into()];
            let kinds = kinds.to_vec();
            Load { client: netns, server: netns, addresses, port: 8500, kinds, count: COUNT, threads: 2 }
                .run()
        };
        load(&other, &[Kind::Short, Kind::ServerResets, Kind::Refused])?;
        tracer.wait_for("the other namespace in `stats`", |records| {
            records.of("stats").last().filter(|stats| !of(stats.at("/selfcheck/others"), &other).is_null())
        })?;
        load(&other, &[Kind::Short])?;
        load(&own, &[Kind::Short])?;
        let run = tracer.stop()?;
        drop(inside);

        let stats = run.records.final_stats().context("no final stats")?;
        let own_opens = stats.count("/selfcheck/counters/active_opens/total/ours");
        ensure!(own_opens == Some(COUNT as u64), "{own_opens:?} in the tracer's own namespace");
        let counters = of(stats.at("/selfcheck/others"), &other);
        let laws = counters.as_object().context("the other namespace is not in the final stats")?;
        let odd: Vec<_> = laws.iter().filter(|(_, law)| law["agrees"] != true).collect();
        ensure!(odd.is_empty(), "not as the kernel counted: {odd:?}");
        let mut counts = vec![
            ("/active_opens/total/kernel", 2 * COUNT),
            ("/passive_opens/total/kernel", COUNT + 2 * COUNT / 3),
        ];
        if counts_time_waits_that_begin() {
            counts.push(("/time_wait_begun/total/kernel", COUNT + COUNT / 3));
        }
        for (path, count) in counts {
            let kernel = counters.pointer(path).and_then(Value::as_u64).context(path)?;
            ensure!(kernel.abs_diff(count as u64) <= 1, "{path}: {kernel}, not {count}");
        }
        ensure!(run.records.of("finding").count() == 0, "findings");
        Ok(())
    })
}

/// The counters of a namespace.
fn of(others: &Value, netns: &Netns) -> Value {
    let all = others.as_array().into_iter().flatten();
    all.filter(|entry| entry["netns"] == netns.inode())
        .map(|entry| entry["counters"].clone())
        .next_back()
        .unwrap_or_default()
}
