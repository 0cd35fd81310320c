//! The preparation of a reload, before it touches anything: reads the config again and finds every fault.

use std::sync::Arc;

use ffconfig::{Cluster, LoadError, Loaded, diff};
use ffproto::NodeName;
use futures_util::future::BoxFuture;
use tracing::warn;

use super::machine::Refused;
use super::process::AppsError;
use crate::place;

/// Reads the config again, against the apps that there are.
pub type Source = Arc<dyn Fn(&[String]) -> Result<Loaded, LoadError> + Send + Sync>;

/// A config that may be taken over.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) cluster: Cluster,
    pub(crate) elsewhere: Vec<NodeName>,
}

/// Reads and checks the config that is to replace `old`.
pub(super) async fn prepare(
    source: Source,
    apps: BoxFuture<'static, Result<Vec<String>, AppsError>>,
    old: Arc<Cluster>,
) -> Result<Box<Prepared>, Refused> {
    let apps = apps.await.map_err(|e| Refused::Conflict(e.to_string()))?;
    let loaded = tokio::task::spawn_blocking(move || source(&apps)).await;
    let loaded = loaded.map_err(|e| Refused::Config(format!("the config cannot be read: {e}")))?;
    let loaded = loaded.map_err(|faults| Refused::Config(faults.to_string()))?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let fixed: Vec<&str> = diff(&old, &loaded.cluster).master_changed;
    // How nodes are restarted is the machine's own business, and it takes that over.
    let fixed: Vec<&str> = fixed.into_iter().filter(|key| *key != "master.restart").collect();
    if !fixed.is_empty() {
        let text = format!(
            "changed: {}; a running master cannot take that over: stop it and start it again",
            fixed.join(", ")
        );
        return Err(Refused::Conflict(text));
    }
    let elsewhere = place::elsewhere(&loaded.cluster);
    Ok(Box::new(Prepared { cluster: loaded.cluster, elsewhere }))
}
