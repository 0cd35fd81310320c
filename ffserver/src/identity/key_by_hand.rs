//! The key of a node that a person has started: asked for at the master of its config, until there is one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ffkeys::NodeKeys;
use ffnet::key_desk::{self, AskError};
use tracing::{info, warn};

use crate::identity::Identity;
use crate::identity::keys::KeyBringer;

/// How often a master that is not there is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Asks until the node has its keys. Each reason why it has none is said once.
pub(crate) async fn bring(identity: Identity, bringer: KeyBringer) {
    let Some(folder) = bringer.folder else { return };
    let mut said = String::new();
    loop {
        match ask(&identity, &folder).await {
            Ok(keys) => {
                info!("the master has given this node its key");
                bringer.to.send_replace(Some(Arc::new(keys)));
                return;
            }
            Err(error) => {
                let why = fftelemetry::chain(&error);
                if why != said {
                    warn!("no key yet, asking on: {why}; a key file is given by --key");
                    said = why;
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn ask(identity: &Identity, folder: &Path) -> Result<NodeKeys, AskError> {
    let bytes = key_desk::ask(folder, identity.name(), identity.incarnation()).await?;
    let keys = NodeKeys::of_bytes(&bytes).map_err(|error| AskError::Refused(error.to_string()))?;
    match identity.owns(&keys) {
        true => Ok(keys),
        false => Err(AskError::Refused(format!("it has sent that of `{}`", keys.claims().name))),
    }
}
