//! The login stage of a client: its first message, over which a handler of this node or of another one decides.
//!
//! ```text
//! Awaited ──the login──▶ Asked ──accepted──▶ In
//!    ▲                     ├──refused──▶ closed
//!    └──its handler failed─┘
//! ```
//!
//! Every other message before `In` closes the connection. A login that is being decided over counts as a request that
//! waits, so the client does not leave for a successor meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use ffnet::link::Sink;
use ffproto::login::Verdict;
use ffproto::protocol::ReplyTo;
use ffproto::relay::SessionChange;
use ffproto::{Code, Executed, Fault};
use tracing::warn;

use super::connection::MessageRefusal;
use crate::app::verdict::read;
use crate::exec::executor::Executor;
use crate::identity::Identity;
use crate::identity::counters::count;
use crate::session::errors::SessionError;
use crate::session::local::{LocalSession, Stage};

/// Tells a client that its message is not accepted: an error frame, and a message before the login ends the connection.
pub(super) fn refuse_message(
    session: &LocalSession,
    identity: &Identity,
    to: ReplyTo,
    refusal: MessageRefusal,
) {
    match refusal {
        MessageRefusal::LoggedIn => {
            let fault = identity.fault(Code::BadRequest, Executed::No, "the client has logged in already");
            session.push_fault(to, &fault);
        }
        MessageRefusal::NotLoggedIn(login) => {
            let text = format!("the login, command {login}, comes first and alone");
            if session.close_with(to, &identity.fault(Code::NotLoggedIn, Executed::No, text)) {
                count(&identity.counters().logins_early);
            }
        }
    }
}

/// The sink for the answer to a login that was sent on.
pub(super) fn sink(session: &LocalSession, executor: &Arc<Executor>) -> Arc<dyn Sink> {
    Arc::new(LoginSink { session: session.clone(), executor: executor.clone() })
}

struct LoginSink {
    session: LocalSession,
    executor: Arc<Executor>,
}

impl Sink for LoginSink {
    fn end(self: Arc<Self>, token: u64, outcome: Result<Option<&[u8]>, &Fault>) {
        let outcome = outcome.map(|body| body.map(Bytes::copy_from_slice)).map_err(Clone::clone);
        decide(&self.session, &self.executor, ReplyTo::of_token(token), outcome);
    }
}

/// Decides over a login by its handler's answer. The login counts among the requests that wait until this is through.
pub(super) fn decide(
    session: &LocalSession,
    executor: &Arc<Executor>,
    to: ReplyTo,
    outcome: Result<Option<Bytes>, Fault>,
) {
    let node = &executor.node;
    let verdict = outcome.and_then(|body| {
        let verdict = read(&body.unwrap_or_default());
        verdict.ok_or_else(|| {
            warn!(limited_by = "", "the handler of login.command answers no Verdict");
            node.identity().fault(Code::Handler, Executed::Unknown, "the login was not decided over")
        })
    });
    match verdict {
        Ok(Verdict::Accept { user, greeting, attributes }) => {
            let (session, executor) = (session.clone(), executor.clone());
            let accepted = async move {
                if let Err(fault) = accept(&session, &executor, to, user, &greeting, attributes).await {
                    not_decided(&session, to, &fault);
                }
                session.request_ended();
            };
            return drop(node.identity().tasks().calls().spawn(accepted));
        }
        Ok(Verdict::Refuse { reason }) => refuse(session, executor, to, reason),
        Err(fault) => not_decided(session, to, &fault),
    }
    session.request_ended();
}

/// Tells a client that its login was not decided: it may try again, as long as `login.timeout_s` is not over.
fn not_decided(session: &LocalSession, to: ReplyTo, fault: &Fault) {
    session.set_stage(Stage::Awaited);
    session.push_fault(to, fault);
}

fn refuse(session: &LocalSession, executor: &Executor, to: ReplyTo, reason: String) {
    let fault = executor.node.identity().fault(Code::Refused, Executed::Unknown, reason);
    if session.close_with(to, &fault) {
        count(&executor.node.identity().counters().logins_refused);
    }
}

/// Takes the client in: its session has its user, the app has been told, and then it is answered.
async fn accept(
    session: &LocalSession,
    executor: &Executor,
    to: ReplyTo,
    user: String,
    greeting: &[u8],
    attributes: Vec<(String, String)>,
) -> Result<(), Fault> {
    let node = &executor.node;
    let failed = |text: String| {
        warn!(session = %session.id(), peer = %session.address(), "{text}");
        node.identity().fault(Code::Handler, Executed::Unknown, "the login was not decided over")
    };
    if user.is_empty() {
        return Err(failed("the verdict over a login accepts a user without a name".to_owned()));
    }
    let taken = format!("`{user}` has another session");
    let attributes = attributes.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let change = SessionChange { user: Some(user), attributes };
    match node.all_sessions().bind_quietly(session, change, None).await {
        Ok(_) => {}
        Err(SessionError::Gone) => return Ok(()),
        Err(SessionError::UserTaken) => {
            refuse(session, executor, to, taken);
            return Ok(());
        }
        Err(error) => return Err(failed(format!("the verdict over a login cannot be kept: {error}"))),
    }
    if session.becomes_verified() {
        node.all_sessions().events().verified(session.id()).await;
    }
    session.set_stage(Stage::In);
    count(&node.identity().counters().logins_accepted);
    session.reply(to, greeting);
    Ok(())
}
