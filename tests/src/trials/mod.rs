//! The promises of docs/semantics.md under load and faults: small in CI, at full size with
//! `cargo run --release -p tests --bin trial`.

pub mod adopt;
pub mod chaos;
pub mod coins;
pub mod data;
pub mod garbage;
pub mod halfopen;
pub mod hang;
pub mod order;
pub mod outcome;
pub mod reload;
pub mod rollback;
pub mod slow;
pub mod starve;
pub mod upgrade;

use std::fmt::Display;

use anyhow::{Result, bail};

/// What a trial says while it runs.
pub type Say<'a> = &'a (dyn Fn(&str) + Sync);

/// What a trial has found.
#[derive(Debug, Default)]
#[must_use]
pub struct Verdict {
    faults: Vec<String>,
}

impl Verdict {
    /// Each of `faults` is one.
    pub fn add(&mut self, faults: impl IntoIterator<Item = String>) {
        self.faults.extend(faults);
    }

    /// A fault unless `holds`.
    pub fn hold(&mut self, holds: bool, what: impl Display) {
        if !holds {
            self.faults.push(what.to_string());
        }
    }

    /// Says it.
    ///
    /// # Errors
    /// Every fault, when there is one.
    pub fn end(self, say: Say<'_>) -> Result<()> {
        if self.faults.is_empty() {
            say("MET");
            return Ok(());
        }
        bail!("NOT MET:\n  {}", self.faults.join("\n  "))
    }
}

/// The result of a trial, with the place of the log when it failed; the cluster's folder is kept then.
fn with_log(cluster: crate::cluster::Cluster, result: Result<()>) -> Result<crate::cluster::Cluster> {
    match result {
        Ok(()) => Ok(cluster),
        Err(error) => {
            let kept = cluster.keep();
            Err(error.context(format!("config, log and notes are kept in {}", kept.display())))
        }
    }
}
