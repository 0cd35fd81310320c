//! The preparation of a reload, before it touches anything: reads the config again and finds every fault.

use std::sync::Arc;

use ffambient::Chance;
use ffconfig::{Cluster, diff};
use ffproto::NodeName;
use tracing::warn;

use super::machine::Refused;
use crate::keys::{MasterKeys, Next};
use crate::place;
use crate::source::{Source, SourceError};

/// A config that may be taken over.
pub(crate) struct Prepared {
    /// What the keys are to be made of, when that changes.
    pub(crate) next: Option<Next>,
    pub(crate) cluster: Cluster,
    pub(crate) elsewhere: Vec<NodeName>,
}

/// What a config is read again for.
pub(crate) struct Wanted {
    /// The one node that is to be replaced, or all of them.
    pub(crate) only: Option<NodeName>,
    /// The keys are to be made of a new secret.
    pub(crate) rotate: bool,
}

/// Reads and checks the config that is to replace `old`.
pub(super) async fn prepare(
    source: Source,
    old: Arc<Cluster>,
    keys: MasterKeys,
    chance: Chance,
    wanted: &Wanted,
) -> Result<Box<Prepared>, Refused> {
    let loaded = source().await.map_err(|error| match error {
        SourceError::Apps(error) => Refused::Conflict(error.to_string()),
        SourceError::Unfit(faults) => Refused::Conflict(faults.to_string()),
        error => Refused::Config(error.to_string()),
    })?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let fixed: Vec<&str> = diff(&old, &loaded.cluster).master_changed;
    // How nodes are restarted is the machine's own business, and it takes that over; a token that has changed is a rotation.
    let taken = ["master.restart", "master.token", "master.operators"];
    let fixed: Vec<&str> = fixed.into_iter().filter(|key| !taken.contains(key)).collect();
    if !fixed.is_empty() {
        let text = format!(
            "changed: {}; a running master cannot take that over: stop it and start it again",
            fixed.join(", ")
        );
        return Err(Refused::Conflict(text));
    }
    let elsewhere = place::elsewhere(&loaded.cluster);
    let next = next_keys(&keys, loaded.cluster.clone(), chance, wanted).await?;
    Ok(Box::new(Prepared { next, cluster: loaded.cluster, elsewhere }))
}

async fn next_keys(
    keys: &MasterKeys,
    cluster: Cluster,
    chance: Chance,
    wanted: &Wanted,
) -> Result<Option<Next>, Refused> {
    let conflict = |why: &str| Err(Refused::Conflict(why.to_owned()));
    let (all, rotate, keys) = (wanted.only.is_none(), wanted.rotate, keys.clone());
    if rotate && (keys.token.is_some() || cluster.master.token.is_some()) {
        return conflict("the keys are made of master.token: change that, and reload");
    }
    // A token is stretched for a tenth of a second.
    let next = tokio::task::spawn_blocking(move || match rotate {
        true => MasterKeys::anew(&chance).map(Some),
        false => keys.next(&cluster, &chance),
    });
    let next = next.await.map_err(|e| Refused::Conflict(format!("no key can be made: {e}")))?;
    match next.map_err(|e| Refused::Conflict(fftelemetry::chain(&e)))? {
        Some(_) if !all => conflict("master.token has changed: that takes a reload of all nodes"),
        next => Ok(next),
    }
}
