//! Waiting with a limit.

use anyhow::{Result, bail};
use std::{
    env,
    time::{Duration, Instant},
};

/// By what every limit is multiplied: an emulated machine is slow.
const PATIENCE_VARIABLE: &str = "TRACER_PATIENCE";

/// How long a thing that takes milliseconds may take before a test gives up.
pub const LIMIT: Duration = Duration::from_secs(20);
/// How long a load may run before a test gives up.
pub const LOAD_LIMIT: Duration = Duration::from_secs(180);

/// A limit on this machine.
pub fn patient(limit: Duration) -> Duration {
    let patience = env::var(PATIENCE_VARIABLE).ok().and_then(|value| value.parse().ok());
    limit * patience.unwrap_or(1)
}

/// Asks again and again until there is an answer; `what` tells what was waited for.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let (begin, limit) = (Instant::now(), patient(limit));
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if begin.elapsed() > limit {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
