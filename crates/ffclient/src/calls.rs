//! The calls that wait for their replies: which one a message of the server answers.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use ffproto::CommandId;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::CallError;

/// A call under way. One whose caller has given up stays in its place: the answer that comes late is its own, and not the
/// next call's.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) reply: oneshot::Sender<Result<Bytes, CallError>>,
    /// The call's share of [`calls_max`](crate::Options::calls_max).
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// The calls under way, by command and in the order in which they were sent.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    waiting: HashMap<CommandId, VecDeque<Waiting>>,
}

impl Calls {
    pub(crate) fn add(&mut self, command: CommandId, call: Waiting) {
        self.waiting.entry(command).or_default().push_back(call);
    }

    /// The call that a message under this command answers.
    pub(crate) fn take(&mut self, command: CommandId) -> Option<Waiting> {
        let waiting = self.waiting.get_mut(&command)?;
        let first = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&command);
        }
        first
    }
}
