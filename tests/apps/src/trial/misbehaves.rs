//! Faults of a binary, on demand: what a process does wrong at its start, at its freeze or its thaw while the file of the
//! environment's `FF_TRIAL_MISBEHAVES` is there. The file has `HOW NODE`.

use std::time::Duration;

use ffserver::prelude::*;

const ENV: &str = "FF_TRIAL_MISBEHAVES";
/// Long enough to be ready, and far from being trusted.
const SOON: Duration = Duration::from_millis(500);

/// How, if `node` is to misbehave.
fn how(node: &str) -> Option<String> {
    let text = std::fs::read_to_string(std::env::var_os(ENV)?).ok()?;
    let (how, whom) = text.trim().split_once(' ')?;
    (whom == node).then(|| how.to_owned())
}

/// When the app is put together, in the main thread. There is no node yet; only the processes of nodes have
/// an incarnation.
pub(super) fn at_build() {
    if std::env::var_os(ffserver::process::INCARNATION_ENV).is_some()
        && how("all").as_deref() == Some("panics")
    {
        panic!("asked to");
    }
}

/// In the start hook.
pub(super) async fn at_start(node: &Node) -> Result<(), HandlerError> {
    match how(node.name().as_str()).as_deref() {
        Some("aborts") => std::process::abort(),
        Some("refuses") => Err(HandlerError::new("this binary does not like its database")),
        Some("never-ready") => std::future::pending().await,
        Some("dies-soon") => {
            soon(|| std::process::abort());
            Ok(())
        }
        Some("hangs-soon") => {
            soon(|| {
                loop {
                    std::hint::spin_loop();
                }
            });
            Ok(())
        }
        _ => Ok(()),
    }
}

fn soon(what: fn() -> ()) {
    tokio::spawn(async move {
        tokio::time::sleep(SOON).await;
        what();
    });
}

/// When the state of the predecessor has come.
pub(super) fn at_thaw(node: &Node) -> Result<(), HandlerError> {
    match how(node.name().as_str()).as_deref() {
        Some("cannot-thaw") => Err(HandlerError::new("this binary does not know that world")),
        _ => Ok(()),
    }
}

/// When the state is to be frozen, by a process that has started well.
pub(super) async fn at_freeze(node: &Node) {
    if how(node.name().as_str()).as_deref() == Some("never-freezes") {
        std::future::pending().await
    }
}
