//! How calls and handlers fail, by what the caller can do about it.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

use ffproto::{Code, Executed, Fault, NodeName};
use fftelemetry::request::RequestId;

/// A call to another node that did not end well. Each variant carries the whole [`Fault`]: the code, the
/// node that noticed it, whether the handler may have run, and a sentence.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[net_handle(8)]
/// async fn rank(nodes: Nodes) -> Result<Bytes, CallError> {
///     match nodes.call("ranks", "rank", "").await {
///         Err(error) if error.is_unsent() => nodes.call("ranks2", "rank", "").await, // Surely not done twice.
///         outcome => outcome,
///     }
/// }
/// # let _ = App::new("net").handlers(handlers![rank]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such node, or it is not connected now. Nothing ran.
    #[error("{}", .0.message)]
    NoNode(Fault),
    /// The node has no handler of that name for this node. Nothing ran.
    #[error("{}", .0.message)]
    NoMethod(Fault),
    /// The link broke before the answer came.
    #[error("{}", .0.message)]
    LinkLost(Fault),
    /// No answer within the deadline.
    #[error("{}", .0.message)]
    Timeout(Fault),
    /// A queue on the way is full. Nothing ran.
    #[error("{}", .0.message)]
    Overloaded(Fault),
    /// The handler could not read its arguments. It did not run.
    #[error("{}", .0.message)]
    BadRequest(Fault),
    /// The handler returned an error.
    #[error("{}", .0.message)]
    Handler(Fault),
    /// The handler panicked.
    #[error("{}", .0.message)]
    Panic(Fault),
    /// The node is stopping. Nothing ran.
    #[error("{}", .0.message)]
    Stopping(Fault),
    /// Another code: one that calls between nodes do not end with, or of a newer version.
    #[error("{}", .0.message)]
    Other(Fault),
}

impl CallError {
    /// Everything that is known of the failure.
    pub fn fault(&self) -> &Fault {
        match self {
            Self::NoNode(fault)
            | Self::NoMethod(fault)
            | Self::LinkLost(fault)
            | Self::Timeout(fault)
            | Self::Overloaded(fault)
            | Self::BadRequest(fault)
            | Self::Handler(fault)
            | Self::Panic(fault)
            | Self::Stopping(fault)
            | Self::Other(fault) => fault,
        }
    }

    /// Whether the handler surely did not run, so that calling again cannot run it twice.
    pub fn is_unsent(&self) -> bool {
        self.fault().executed == Executed::No
    }
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> Self {
        match fault.code {
            Code::NoNode => Self::NoNode(fault),
            Code::NoMethod => Self::NoMethod(fault),
            Code::LinkLost => Self::LinkLost(fault),
            Code::Timeout => Self::Timeout(fault),
            Code::Overloaded => Self::Overloaded(fault),
            Code::BadRequest => Self::BadRequest(fault),
            Code::Handler => Self::Handler(fault),
            Code::Panic => Self::Panic(fault),
            Code::Stopping => Self::Stopping(fault),
            Code::NoRoute
            | Code::TooManyHops
            | Code::Forbidden
            | Code::Refused
            | Code::NotLoggedIn
            | Code::Kicked
            | Code::Unknown(_) => Self::Other(fault),
        }
    }
}

/// What a handler returns when it fails. Any error becomes one with `?`, and may be returned as it is: every
/// `std::error::Error`, `anyhow::Error`, `String` and `&str`.
///
/// Two texts: [`message`](Self::message) goes to the caller and, at the end, to the client; the cause goes to this
/// node's log only. An error that was converted is a cause, also a `String`: what the client may read is given to
/// [`HandlerError::new`]. A [`CallError`] keeps its code on the way back, so a client sees `no_node` or `timeout` and
/// not `handler`; also one among an error's causes, such as one with `anyhow`'s `context`. To hide it, give the error
/// to [`HandlerError::internal`].
///
/// ```
/// use ffserver::prelude::*;
///
/// #[net_handle(7)]
/// async fn buy(Body(count): Body<String>) -> Result<String, HandlerError> {
///     let count: u32 = count.parse()?; // The client learns that it failed, the log learns why.
///     if count > 10 {
///         return Err(HandlerError::new("at most ten at once")); // The client reads this.
///     }
///     Ok(format!("{count} bought"))
/// }
/// # let _ = App::new("shop").handlers(handlers![buy]);
/// ```
#[derive(Debug)]
pub struct HandlerError {
    kind: HandlerErrorKind,
    message: String,
    cause: Option<Box<dyn StdError + Send + Sync>>,
    /// The request in which it came, for the log.
    request: Option<Box<RequestId>>,
}

#[derive(Debug)]
enum HandlerErrorKind {
    Own(Code),
    Passed(Fault),
}

impl HandlerError {
    /// An error whose `message` the client may see.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            kind: HandlerErrorKind::Own(Code::Handler),
            message: message.into(),
            cause: None,
            request: None,
        }
    }

    /// An error of which the client learns only that it happened; the cause is logged here.
    pub fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let message = "the handler failed".to_owned();
        Self { kind: HandlerErrorKind::Own(Code::Handler), message, cause: Some(cause.into()), request: None }
    }

    /// An error of the caller's, whose `message` the client may see: what it sent does not fit. The caller is told that nothing was
    /// done, so it is for extractors, before the handler runs.
    ///
    /// ```
    /// # use ffserver::{Code, HandlerError};
    /// assert_eq!(HandlerError::bad_request("nobody has logged in").code(), Code::BadRequest);
    /// ```
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self {
            kind: HandlerErrorKind::Own(Code::BadRequest),
            message: message.into(),
            cause: None,
            request: None,
        }
    }

    /// The error of a handler that has panicked: where and with what is for the log.
    pub(crate) fn panic(panic: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let message = "the handler panicked".to_owned();
        Self { kind: HandlerErrorKind::Own(Code::Panic), message, cause: Some(panic.into()), request: None }
    }

    pub(crate) fn timeout() -> Self {
        let message = "the handler did not end within the deadline".to_owned();
        Self { kind: HandlerErrorKind::Own(Code::Timeout), message, cause: None, request: None }
    }

    /// The deadline of a request is over.
    pub(crate) fn late(request: Option<RequestId>) -> Self {
        Self { request: request.map(Box::new), ..Self::timeout() }
    }

    pub(crate) fn passed(fault: Fault) -> Self {
        Self {
            message: fault.message.clone(),
            kind: HandlerErrorKind::Passed(fault),
            cause: None,
            request: None,
        }
    }

    /// Adds the cause for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// What the caller and the client are told.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The code that the caller and the client are told.
    pub fn code(&self) -> Code {
        match &self.kind {
            HandlerErrorKind::Own(code) => *code,
            HandlerErrorKind::Passed(fault) => fault.code,
        }
    }

    /// Notes the request in which the error came.
    pub(crate) fn set_request(&mut self, request: Option<RequestId>) {
        self.request = request.map(Box::new);
    }

    /// The request in which the error came, if it came in one.
    pub(crate) fn request(&self) -> Option<RequestId> {
        self.request.as_deref().copied()
    }

    /// What is logged: the message and every cause.
    pub(crate) fn log_text(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}: {}", self.message, fftelemetry::chain(cause.as_ref())),
            None => self.message.clone(),
        }
    }

    /// The fault that travels; `here` is the node that ran the handler.
    pub(crate) fn into_fault(self, here: &NodeName) -> Fault {
        match self.kind {
            // The handler here has run, so whatever the inner call says, the whole may have run in part.
            HandlerErrorKind::Passed(fault) => Fault { executed: Executed::Unknown, ..fault },
            HandlerErrorKind::Own(code) => {
                let executed = if code == Code::BadRequest { Executed::No } else { Executed::Unknown };
                Fault { code, at: here.clone(), executed, message: self.message }
            }
        }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// `HandlerError` itself is no `Error` (as with `anyhow`), so that `?` takes every error.
impl<E: Into<Box<dyn StdError + Send + Sync>> + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let any: &dyn Any = &error;
        // In the box that an `anyhow::Error` becomes, the outermost error's type is hidden.
        let in_anyhow = any.downcast_ref::<anyhow::Error>().and_then(|error| fault_of_call(error.as_ref()));
        let cause = error.into();
        match in_anyhow.or_else(|| fault_of_call(cause.as_ref())) {
            // The call's error itself, which says no more than its fault.
            Some(fault) if cause.source().is_none() => Self::passed(fault),
            Some(fault) => Self::passed(fault).because(cause),
            None => Self::internal(cause),
        }
    }
}

/// The fault of a failed call among an error and its causes.
fn fault_of_call(error: &(dyn StdError + 'static)) -> Option<Fault> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(call) = error.downcast_ref::<CallError>() {
            return Some(call.fault().clone());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_error_keeps_its_code_and_place_through_a_handler() {
        let inner = Fault {
            code: Code::NoNode,
            at: NodeName::master(),
            executed: Executed::No,
            message: "`game1` is not connected".into(),
        };
        let error = HandlerError::from(CallError::from(inner.clone()));
        let gate = NodeName::try_from("gate").unwrap();
        // The outer handler ran, so the whole is no longer surely unexecuted.
        assert_eq!(error.into_fault(&gate), Fault { executed: Executed::Unknown, ..inner });
    }

    fn unreached() -> Fault {
        Fault {
            code: Code::NoNode,
            at: NodeName::master(),
            executed: Executed::No,
            message: "`game1` is not connected".into(),
        }
    }

    /// What the caller of `gate`, whose handler ended with `error`, is told.
    fn told(error: HandlerError) -> Fault {
        error.into_fault(&NodeName::try_from("gate").unwrap())
    }

    #[test]
    fn a_call_error_keeps_its_code_and_place_through_anyhow() {
        use anyhow::Context;
        let call = || CallError::from(unreached());
        let passed = Fault { executed: Executed::Unknown, ..unreached() };

        let error = HandlerError::from(anyhow::Error::from(call()));
        assert_eq!(told(error), passed);

        let failed = Err::<(), _>(call()).context("asking for the score").context("ending the round");
        let error = HandlerError::from(failed.unwrap_err());
        assert_eq!(
            error.log_text(),
            "`game1` is not connected: ending the round: asking for the score: `game1` is not connected"
        );
        assert_eq!(told(error), passed, "the contexts are for the log only");
    }

    #[test]
    fn a_call_error_keeps_its_code_and_place_through_an_error_of_the_apps() {
        #[derive(Debug, thiserror::Error)]
        #[error("no score")]
        struct NoScore(#[from] CallError);

        let error = HandlerError::from(NoScore::from(CallError::from(unreached())));
        assert_eq!(told(error), Fault { executed: Executed::Unknown, ..unreached() });
    }

    #[test]
    fn a_call_error_that_is_given_as_internal_is_hidden() {
        let error = HandlerError::internal(CallError::from(unreached()));
        assert_eq!((error.code(), error.message()), (Code::Handler, "the handler failed"));
    }

    #[test]
    fn texts_and_boxed_errors_convert_and_are_for_the_log_only() {
        let boxed: Box<dyn StdError + Send + Sync> = "from a box".into();
        for (error, logged) in [
            (HandlerError::from("a text"), "the handler failed: a text"),
            (HandlerError::from(String::from("another text")), "the handler failed: another text"),
            (HandlerError::from(anyhow::anyhow!("a third")), "the handler failed: a third"),
            (HandlerError::from(boxed), "the handler failed: from a box"),
        ] {
            assert_eq!(error.log_text(), logged);
            assert_eq!((error.code(), error.message()), (Code::Handler, "the handler failed"));
        }
    }

    #[test]
    fn the_cause_of_another_error_is_for_the_log_only() {
        let error = HandlerError::from(std::io::Error::other("password=secret"));
        assert_eq!(error.log_text(), "the handler failed: password=secret");
        assert_eq!(error.into_fault(&NodeName::master()).message, "the handler failed");
    }
}
