//! The monitor of one HTTP connection: what its socket, its requests' bodies and its answers' bodies note together.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ffnet::admission::Slot;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::places::Place;

use crate::traffic::Traffic;

/// Facts of a connection that its socket, its requests' bodies and its answers' bodies all write.
#[derive(Debug)]
pub(crate) struct Monitor {
    /// Where the connection is between and within its requests.
    pub(crate) traffic: Mutex<Traffic>,
    /// The server's end of an upgrade, once the server has agreed to speak another protocol.
    pub(crate) upgrade: Mutex<Option<OnUpgrade>>,
    /// The connection's slot at its front.
    pub(crate) slot: Slot,
    /// Whether the connection's place is one of those that are kept for the paths that are always answered.
    pub(crate) reserved: bool,
    /// Whether the body of a request was none, or broke off. Such a connection has no further request.
    pub(crate) upload_broke: AtomicBool,
    /// Wakes the connection after a change that polling its socket does not show.
    pub(crate) changed: Notify,
}

impl Monitor {
    pub(crate) fn new(Place { slot, reserved }: Place) -> Arc<Self> {
        Arc::new(Self {
            slot,
            reserved,
            traffic: Mutex::new(Traffic::new(Instant::now())),
            upgrade: Mutex::new(None),
            upload_broke: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }
}
