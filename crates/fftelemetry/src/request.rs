//! The request that a thread works on: every line that is logged meanwhile says of which session and command it is. That costs
//! two moves of a few bytes, and nothing is written where nothing is logged.

use std::cell::Cell;

/// A request as every node on its way knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// The session; in lines in hexadecimal, as session ids are written.
    pub session: u64,
    /// The command that the client has sent.
    pub command: u32,
}

thread_local! {
    static CURRENT: Cell<Option<RequestId>> = const { Cell::new(None) };
}

/// Does work for a request, or for none. What was worked on before is worked on again after it, also after a panic.
///
/// ```
/// use fftelemetry::request::{RequestId, during};
///
/// let answer = during(Some(RequestId { session: 0x1f, command: 300 }), || {
///     tracing::info!("a line with session=1f command=300");
///     42
/// });
/// assert_eq!(answer, 42);
/// ```
#[inline]
pub fn during<T>(request: Option<RequestId>, work: impl FnOnce() -> T) -> T {
    let _before = Before(CURRENT.replace(request));
    work()
}

/// The request of this thread.
pub(crate) fn current() -> Option<RequestId> {
    CURRENT.get()
}

struct Before(Option<RequestId>);

impl Drop for Before {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}
