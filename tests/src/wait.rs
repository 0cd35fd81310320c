//! Waiting for a state instead of sleeping: asks until the answer is yes, fails with the last one.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Generous, because the machine may be shared; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks every 10 ms until `ask` gives `Ok`; `Err` is the state so far.
///
/// # Errors
/// After [`PATIENCE`], with what was waited for and the last state.
pub async fn until<T, S: Debug>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, S>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(value) => return Ok(value),
            Err(state) if Instant::now() > deadline => {
                bail!("waited {PATIENCE:?} for: {what}; last state: {state:#?}")
            }
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}
