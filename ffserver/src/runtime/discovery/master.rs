//! The master as discovery: the control connection writes what the master says, this shows it. A node tells the master of
//! itself over that connection, and the master's silence takes nothing away.

use tokio::sync::watch;

use super::{Discovery, DiscoveryError};
use crate::cluster::found::{OwnNode, Snapshot};

/// Discovery by the master: the node's parents, while they are up, and the node's number.
pub(crate) struct MasterDiscovery {
    /// What the master has said, see [`crate::runtime::control`].
    pub(crate) told: watch::Receiver<Snapshot>,
}

impl Discovery for MasterDiscovery {
    async fn run(
        &mut self,
        own: &mut watch::Receiver<OwnNode>,
        shown: &watch::Sender<Snapshot>,
    ) -> Result<(), DiscoveryError> {
        self.told.mark_changed();
        while self.told.changed().await.is_ok() {
            shown.send_replace(self.told.borrow_and_update().clone());
        }
        // The control connection has ended with the node.
        let _ = own.wait_for(|own| own.leaving).await;
        Ok(())
    }
}
