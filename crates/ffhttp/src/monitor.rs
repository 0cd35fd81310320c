//! The monitor of one HTTP connection: what its socket, its requests' bodies and its answers' bodies note together.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::traffic::Traffic;

/// Facts of a connection that its socket, its requests' bodies and its answers' bodies all write.
#[derive(Debug)]
pub(crate) struct Monitor {
    /// Where the connection is between and within its requests.
    pub(crate) traffic: Mutex<Traffic>,
    /// The server's end of an upgrade, once the server has agreed to speak another protocol.
    pub(crate) upgrade: Mutex<Option<OnUpgrade>>,
    /// Wakes the connection after a change that polling its socket does not show.
    pub(crate) changed: Notify,
}

impl Monitor {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            traffic: Mutex::new(Traffic::new(Instant::now())),
            upgrade: Mutex::new(None),
            changed: Notify::new(),
        })
    }
}
