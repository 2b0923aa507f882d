//! Waiting with a limit.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How long a thing that takes milliseconds may take before a test gives up.
pub const LIMIT: Duration = Duration::from_secs(20);
/// How long a load may run before a test gives up.
pub const LOAD_LIMIT: Duration = Duration::from_secs(180);

/// Asks again and again until there is an answer; `what` tells what was waited for.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
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
