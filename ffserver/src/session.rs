//! One client connection as its net node sees it: its id, its address, and what waits to be written.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;

use ffproto::frame::Firefly;
use ffproto::{CommandId, Executed, Fault, SessionId};
use parking_lot::Mutex;
use tokio::time::Instant;

/// What all sessions of a node have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) framing: Firefly,
    pub(crate) error_command: CommandId,
    pub(crate) outbox_bytes_max: usize,
}

/// A client connection of this node. Cheap to clone; usable from any task.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    id: SessionId,
    address: SocketAddr,
    opened: Instant,
    wire: Wire,
    outbox: Mutex<Outbox>,
}

#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    /// Handed to the connection and not yet written: it counts against the bound.
    in_flight: usize,
    waker: Option<Waker>,
    closing: Option<String>,
    gone: bool,
}

/// Why a push was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The session has ended, or is ending.
    #[error("the session is gone")]
    Gone,
    /// The client reads too slowly: its outbox is over `limits.outbox_bytes_max`. It is disconnected.
    #[error("the client reads too slowly")]
    TooSlow,
}

impl Session {
    pub(crate) fn new(id: SessionId, address: SocketAddr, wire: Wire) -> Self {
        let outbox = Mutex::default();
        Self(Arc::new(Inner { id, address, opened: Instant::now(), wire, outbox }))
    }

    /// The id, unique in the cluster and never reused.
    pub fn id(&self) -> SessionId {
        self.0.id
    }

    /// Where the client connects from.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// When it connected.
    pub fn opened(&self) -> Instant {
        self.0.opened
    }

    /// Whether it has ended.
    pub fn is_gone(&self) -> bool {
        self.0.outbox.lock().gone
    }

    /// Sends a message to the client. It is queued at once, after everything queued before.
    ///
    /// # Errors
    /// [`PushError`]; the client will not see the message then.
    pub fn push(&self, command: CommandId, body: &[u8]) -> Result<(), PushError> {
        let mut outbox = self.0.outbox.lock();
        if outbox.gone || outbox.closing.is_some() {
            return Err(PushError::Gone);
        }
        let queued = outbox.bytes.len() + outbox.in_flight;
        // What is queued may pass the bound by one message, so that a message above it can travel at all.
        if queued > self.0.wire.outbox_bytes_max {
            outbox.closing = Some("slow reader: limits.outbox_bytes_max".into());
            outbox.bytes = Vec::new();
            wake(&mut outbox);
            return Err(PushError::TooSlow);
        }
        self.0.wire.framing.write(command, body, &mut outbox.bytes);
        wake(&mut outbox);
        Ok(())
    }

    /// Tells the client that its request failed: a frame under the error command, JSON
    /// `{command, code, message, executed}`.
    pub(crate) fn push_fault(&self, command: CommandId, fault: &Fault) {
        #[derive(serde::Serialize)]
        struct ErrorBody<'a> {
            command: CommandId,
            code: &'a str,
            message: &'a str,
            executed: Executed,
        }
        let body =
            ErrorBody { command, code: fault.code.name(), message: &fault.message, executed: fault.executed };
        match serde_json::to_vec(&body) {
            // A client that is gone needs no error.
            Ok(json) => drop(self.push(self.0.wire.error_command, &json)),
            Err(e) => tracing::error!(session = %self.id(), "an error frame could not be written: {e}"),
        }
    }

    /// Ends the session: what is queued is written first. `reason` is logged.
    pub fn close(&self, reason: &str) {
        let mut outbox = self.0.outbox.lock();
        outbox.closing.get_or_insert_with(|| reason.to_owned());
        wake(&mut outbox);
    }

    /// Moves what is queued into the empty `writing`, or remembers who to wake. `Some` says why the
    /// connection shall end, once nothing is left to write.
    pub(crate) fn take_queued(&self, writing: &mut Vec<u8>, waker: &Waker) -> Option<String> {
        let mut outbox = self.0.outbox.lock();
        outbox.in_flight = outbox.bytes.len();
        std::mem::swap(&mut outbox.bytes, writing);
        if writing.is_empty() {
            outbox.bytes = Vec::new();
            if outbox.closing.is_some() {
                return outbox.closing.clone();
            }
            match &mut outbox.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
        None
    }

    /// Nothing is taken any more.
    pub(crate) fn end(&self) {
        let mut outbox = self.0.outbox.lock();
        outbox.gone = true;
        outbox.bytes = Vec::new();
    }
}

fn wake(outbox: &mut Outbox) {
    if let Some(waker) = outbox.waker.take() {
        waker.wake();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} of {}", self.0.id, self.0.address)
    }
}
