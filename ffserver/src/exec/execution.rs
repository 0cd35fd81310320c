//! Runs one handler or hook of an app: its panic is caught, its deadline is kept, and its errors are logged.

use std::future::{Future, ready};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ffproto::Code;
use fftelemetry::request::{RequestId, during};
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::warn;

use crate::app::handler::{HandlerFuture, Outcome, Request};
use crate::app::route::Route;
use crate::error::HandlerError;
use crate::exec::panics::{caught, caught_future};
use crate::identity::Identity;
use crate::identity::handler_metrics::RunBegin;
use crate::identity::watchdog::WatchedHandler;

/// The execution of a handler or hook: a future whose panic becomes an error.
pub(crate) struct Execution {
    handler: HandlerFuture,
    /// What a handler of the app is noted by, until it has ended.
    noted: Option<Noted>,
    /// The session and the command that lines are logged for meanwhile; as numbers, for a connection has room for two words.
    session: Option<NonZeroU64>,
    command: u32,
}

/// The note of a handler that runs.
struct Noted {
    /// The handler as the watchdog notes it while it is polled; it has the handler's metrics, too.
    watched: Arc<WatchedHandler>,
    /// When the run began, if it is timed.
    began: Option<RunBegin>,
}

impl Noted {
    #[inline]
    fn end(&self, failed: Option<Code>) {
        self.watched.metrics.end(self.began, failed);
    }
}

impl Execution {
    /// Runs the route on `request`. The handler begins with the first poll.
    pub(crate) fn new(route: &Route, request: Request) -> Self {
        let client = request.client;
        // No session has the id 0: its node's number, which is in it, is none.
        let session = client.and_then(|client| NonZeroU64::new(client.session.0));
        let command = client.map_or(0, |client| client.command.0);
        // The extraction of arguments runs inside the future of an attribute, but a route may be written by hand.
        let handler = caught(|| (route.run)(request))
            .unwrap_or_else(|panic| Box::pin(ready(Err(HandlerError::panic(panic)))));
        let noted = route
            .watched
            .as_ref()
            .map(|watched| Noted { watched: watched.clone(), began: watched.metrics.begin() });
        Self { handler, noted, session, command }
    }

    /// The request that it answers, for the log.
    pub(crate) fn request(&self) -> Option<RequestId> {
        self.session.map(|session| RequestId { session: session.get(), command: self.command })
    }

    /// The execution of another future of the app, such as a hook.
    pub(crate) fn hook(hook: impl Future<Output = Outcome> + Send + 'static) -> Self {
        Self { handler: Box::pin(hook), noted: None, session: None, command: 0 }
    }
}

impl Future for Execution {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let request = self.request();
        let Self { handler, noted, .. } = &mut *self;
        if let Some(Noted { watched, .. }) = noted {
            watched.begin();
        }
        // Written in place: an outcome is large, and `catch_unwind` would move it twice.
        let mut polled = Poll::Pending;
        let ended = caught(|| polled = during(request, || handler.as_mut().poll(cx)));
        if let Some(Noted { watched, .. }) = noted {
            watched.end();
        }
        if let Err(panic) = ended {
            polled = Poll::Ready(Err(HandlerError::panic(panic)));
        }
        if let Poll::Ready(outcome) = &polled
            && let Some(noted) = noted.take()
        {
            noted.end(outcome.as_ref().err().map(HandlerError::code));
        }
        if let Poll::Ready(Err(error)) = &mut polled {
            error.set_request(request);
        }
        polled
    }
}

/// A handler that is dropped before it has ended has come to its deadline: that is how long it took, and a failure.
impl Drop for Execution {
    fn drop(&mut self) {
        if let Some(noted) = self.noted.take() {
            noted.end(Some(Code::Timeout));
        }
    }
}

/// Runs a handler that is late or detached to its deadline.
pub(crate) async fn until(deadline: Instant, handler: Execution) -> Outcome {
    let request = handler.request();
    tokio::time::timeout_at(deadline, handler).await.unwrap_or_else(|_| Err(HandlerError::late(request)))
}

/// Polls a handler once, where its message was read. The waker is of no use: a handler that waits is
/// polled again by a task of its own, which registers that task's.
pub(crate) fn poll_once(handler: &mut Execution) -> Poll<Outcome> {
    Pin::new(handler).poll(&mut Context::from_waker(Waker::noop()))
}

/// Logs the error of a handler of this node. Faults of other nodes are logged where they happened.
pub(crate) fn log_error(method: &str, error: &HandlerError) {
    if matches!(error.code(), Code::Handler | Code::Panic | Code::BadRequest | Code::Timeout) {
        let say =
            || warn!(code = %error.code(), limited_by = method, "handler {method}: {}", error.log_text());
        during(error.request(), say);
    }
}

/// Runs a hook. Its panic is its error, also one before it first waits: whoever waits for the hook goes on.
pub(crate) async fn run<T, F>(hook: impl FnOnce() -> F) -> Result<T, HandlerError>
where
    F: Future<Output = Result<T, HandlerError>>,
{
    caught_future(async { hook().await }).await.unwrap_or_else(|panic| Err(HandlerError::panic(panic)))
}

/// Runs a hook to its deadline, and drops it then.
pub(crate) async fn run_until<T, F>(deadline: Instant, hook: impl FnOnce() -> F) -> Result<T, HandlerError>
where
    F: Future<Output = Result<T, HandlerError>>,
{
    tokio::time::timeout_at(deadline, run(hook)).await.unwrap_or_else(|_| Err(HandlerError::timeout()))
}

/// Runs a hook that has no outcome, at most as long as a call may take; `name` is for the log.
pub(crate) async fn run_hook(identity: &Identity, name: &str, hook: impl Future<Output = ()>) {
    let ended = run_until(Instant::now() + identity.limits().call_timeout, || hook.map(Ok));
    if let Err(error) = ended.await {
        log_error(name, &error);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hook_that_panics_or_is_late_is_an_error() {
        let (soon, begun) = (Duration::from_secs(1), Instant::now());
        let hook = |panics: bool| {
            assert!(!panics, "no world");
            pending::<Result<(), HandlerError>>()
        };
        let errors = [
            run(|| hook(true)).await,
            run(|| async { Err::<(), _>(hook(true).await.unwrap_err()) }).await,
            run_until(begun + soon, || hook(false)).await,
        ];
        let codes = errors.map(|ended| ended.unwrap_err().code());
        assert_eq!(codes, [Code::Panic, Code::Panic, Code::Timeout]);
        assert_eq!(begun.elapsed(), soon);
    }
}
