//! Why a link has not queued a message: it has to wait, or its caller is told a fault.

use std::sync::Arc;

use ffproto::Fault;

use super::Sink;

/// Why a message was not queued.
#[derive(Debug)]
pub enum NotSent {
    /// The peer is being replaced: the message waits for its successor, or for its Resume.
    Later,
    /// The fault that its caller must be told.
    Fault(Fault),
}

/// Why a call with a sink was not queued. The sink was not told.
pub enum NotForwarded {
    /// As [`NotSent::Later`], with the call's sink.
    Later(Arc<dyn Sink>),
    /// The fault that the call's caller must be told.
    Fault(Fault),
}

impl From<NotForwarded> for NotSent {
    fn from(not: NotForwarded) -> Self {
        match not {
            NotForwarded::Later(_) => Self::Later,
            NotForwarded::Fault(fault) => Self::Fault(fault),
        }
    }
}

impl From<Fault> for NotSent {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
