//! What several tests of a local session need.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use ffconfig::SlowClient;
use ffproto::protocol::Protocols;

use super::{ClientWire, frames};

/// A waker that counts how often it is woken.
#[derive(Default)]
pub(super) struct Woken(AtomicUsize);

impl Woken {
    pub(super) fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writing without a bound.
pub(super) fn wire() -> ClientWire {
    let protocols = Arc::new(Protocols::built_in(frames(&ffconfig::ClientFraming::default())));
    ClientWire { protocols, outbox_bytes_max: usize::MAX, slow_client: SlowClient::Disconnect }
}
