//! A client's login: the first message, on which a handler of this node or of another one decides.
//!
//! ```text
//! Awaited ──the login──▶ Asked ──accepted──▶ In
//!    ▲                     ├──refused──▶ closed
//!    └──its handler failed─┘
//! ```
//!
//! Every other message before `In` closes the connection. What is being decided over counts as a request that
//! waits, so the client does not leave for a successor meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use ffnet::link::Sink;
use ffproto::login::Verdict;
use ffproto::relay::SessionChange;
use ffproto::{Code, CommandId, Executed, Fault};
use tracing::warn;

use super::acceptor::Shared;
use crate::app::verdict::read;
use crate::identity::counters::count;
use crate::session::exclusive_login::NotTaken;
use crate::session::handle::SessionError;
use crate::session::local::{LocalSession, Stage};

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It is handled.
    Yes,
    /// It is not; the client has been told.
    No,
}

/// Whether a message may be handled. The login itself may, and is asked for from now on.
pub(super) fn admit(session: &LocalSession, shared: &Shared, command: CommandId) -> Admitted {
    let Some(login) = &shared.node.config().login else { return Admitted::Yes };
    let is_login = command == login.command;
    match (session.stage(), is_login) {
        (Stage::In, false) => return Admitted::Yes,
        (Stage::In, true) => {
            let fault = shared.node.fault(Code::BadRequest, Executed::No, "the client has logged in already");
            session.push_fault(command, &fault);
        }
        (Stage::Awaited, true) => {
            session.set_stage(Stage::Asked);
            return Admitted::Yes;
        }
        (Stage::Awaited | Stage::Asked, _) => {
            let text = format!("the login, command {}, comes first and alone", login.command);
            if session.close_with(command, &shared.node.fault(Code::NotLoggedIn, Executed::No, text)) {
                count(&shared.node.counters().logins_early);
            }
        }
    }
    Admitted::No
}

/// Where the answer to a login goes that was sent on.
pub(super) fn sink(session: &LocalSession, shared: &Arc<Shared>) -> Arc<dyn Sink> {
    Arc::new(Asked { session: session.clone(), shared: shared.clone() })
}

struct Asked {
    session: LocalSession,
    shared: Arc<Shared>,
}

impl Sink for Asked {
    fn end(self: Arc<Self>, _: u64, outcome: Result<Option<&[u8]>, &Fault>) {
        let outcome = outcome.map(|body| body.map(Bytes::copy_from_slice)).map_err(Clone::clone);
        decide(&self.session, &self.shared, outcome);
    }
}

/// The handler has answered. The login counts among the requests that wait until this is through.
pub(super) fn decide(session: &LocalSession, shared: &Arc<Shared>, outcome: Result<Option<Bytes>, Fault>) {
    let node = &shared.node;
    let verdict = outcome.and_then(|body| {
        let verdict = read(&body.unwrap_or_default());
        verdict.ok_or_else(|| {
            warn!("the handler of login.command answers no Verdict");
            node.fault(Code::Handler, Executed::Unknown, "the login was not decided over")
        })
    });
    match verdict {
        Ok(Verdict::Accept { user, greeting, attributes }) => {
            let (session, shared) = (session.clone(), shared.clone());
            let accepted = async move {
                if let Err(fault) = accept(&session, &shared, user, &greeting, attributes).await {
                    not_decided(&session, &shared, &fault);
                }
                session.request_ended();
            };
            return drop(node.calls().spawn(accepted));
        }
        Ok(Verdict::Refuse { reason }) => refuse(session, shared, reason),
        Err(fault) => not_decided(session, shared, &fault),
    }
    session.request_ended();
}

/// The client may try again, as long as `login.timeout_s` is not over.
fn not_decided(session: &LocalSession, shared: &Shared, fault: &Fault) {
    session.set_stage(Stage::Awaited);
    session.push_fault(command(shared), fault);
}

fn refuse(session: &LocalSession, shared: &Shared, reason: String) {
    let fault = shared.node.fault(Code::Refused, Executed::Unknown, reason);
    if session.close_with(command(shared), &fault) {
        count(&shared.node.counters().logins_refused);
    }
}

/// Takes the client in: its session has its user, the app has been told, and then it is answered.
async fn accept(
    session: &LocalSession,
    shared: &Shared,
    user: String,
    greeting: &[u8],
    attributes: Vec<(String, String)>,
) -> Result<(), Fault> {
    let node = &shared.node;
    let failed = |text: String| {
        warn!(session = %session.id(), "{text}");
        node.fault(Code::Handler, Executed::Unknown, "the login was not decided over")
    };
    if user.is_empty() {
        return Err(failed("the verdict over a login accepts a user without a name".to_owned()));
    }
    if session.is_ending() || session.is_gone() {
        return Ok(());
    }
    let attributes = attributes.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let change = SessionChange { user: Some(user.clone()), attributes };
    let (bytes, max) =
        (session.state().with(change.clone()).bytes(), node.config().limits.session_state_bytes_max);
    if bytes > max {
        let error = SessionError::TooLarge { bytes, max };
        return Err(failed(format!("the verdict over a login cannot be kept: {error}")));
    }
    match node.claim_user(session, &user).await {
        Ok(()) => {}
        Err(NotTaken::Lost) => {
            node.kick(session.id(), &user);
            return Ok(());
        }
        Err(NotTaken::Taken) => {
            refuse(session, shared, format!("`{user}` has another session"));
            return Ok(());
        }
    }
    // An earlier try, or the handler itself, may have bound another one.
    let before = session.state().user.clone();
    let changed = node.change_state(session, change, None);
    node.free_replaced(session, before, Some(user), changed.is_ok());
    changed.map_err(|error| failed(format!("the verdict over a login cannot be kept: {error}")))?;
    if session.becomes_verified() {
        node.tell_verified(session.id()).await;
    }
    session.set_stage(Stage::In);
    session.reply(command(shared), greeting);
    Ok(())
}

/// Only nodes with a login come here.
fn command(shared: &Shared) -> CommandId {
    shared.node.config().login.map_or(CommandId(0), |login| login.command)
}
