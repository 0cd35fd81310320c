//! Requests of other nodes about sessions of this node: answered directly, or by way of the successor of this process.

use std::sync::Arc;

use ffnet::Link;
use ffproto::handover::{AskAnswer, FromPredecessor};
use ffproto::relay::{
    self, Envelope, GroupAnswer, MoveAnswer, MoveOrder, Op, PushAnswer, SessionChange, SessionState,
};
use ffproto::{Code, CommandId, Executed, Fault, SessionId};
use tokio::sync::mpsc;

use crate::cluster::payload::{decode, encode};
use crate::identity::Identity;
use crate::session::Sessions;
use crate::session::errors::{MoveError, SessionError};
use crate::session::local::{LocalSession, PushError};

/// Whether an envelope is one of those that [`answer`] knows.
pub(crate) fn asks_session(body: &[u8]) -> bool {
    let op = relay::read(body).and_then(|envelope| envelope.op);
    matches!(op, Some(Op::Touch | Op::Set | Op::Join | Op::Leave | Op::Move))
}

/// The way back to the node that has asked about a session of this one.
#[derive(Clone)]
pub(crate) enum ReplyPath {
    /// Over the link, as the outcome of the call.
    Link(Link, u32),
    /// Over the successor of this process, which was asked.
    Successor(mpsc::Sender<FromPredecessor>, u64),
}

impl ReplyPath {
    fn reply(&self, body: &[u8]) {
        match self {
            Self::Link(link, call) => link.reply(*call, body),
            Self::Successor(successor, number) => tell(successor, *number, AskAnswer::Reply(body.to_vec())),
        }
    }

    /// The session is not here any more: who asks is to find it elsewhere.
    fn not_here(&self) {
        if let Self::Successor(successor, number) = self {
            tell(successor, *number, AskAnswer::NotHere);
        }
    }

    fn fault(&self, fault: &Fault) {
        match self {
            Self::Link(link, call) => link.reply_fault(*call, fault),
            Self::Successor(successor, number) => {
                let mut body = Vec::new();
                fault.write_body(&mut body);
                tell(successor, *number, AskAnswer::Fault { code: fault.code.number(), body });
            }
        }
    }

    pub(crate) fn unknown(&self, identity: &Identity) {
        let text = format!("`{}` does not know what is asked", identity.name());
        self.fault(&identity.fault(Code::NoMethod, Executed::No, text));
    }
}

fn tell(successor: &mpsc::Sender<FromPredecessor>, number: u64, answer: AskAnswer) {
    if number == 0 {
        return; // A notice has no answer.
    }
    // The successor has at most QUESTIONS_MAX questions without an answer, so there is room; one that is gone needs no
    // answer.
    let _ = successor.try_send(FromPredecessor::Answered { number, answer });
}

/// An envelope that the successor passes back, about a session that is, perhaps, still here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PassedBack {
    /// The number of a question; 0 of a notice.
    pub(crate) number: u64,
    pub(crate) session: SessionId,
    /// The command of a push.
    pub(crate) command: Option<CommandId>,
    pub(crate) body: Vec<u8>,
}

/// Answers the successor, which asks for another node about a session that is, perhaps, still here, or passes on what comes
/// for one that stays.
pub(crate) fn answer_successor(
    sessions: &Sessions,
    successor: &mpsc::Sender<FromPredecessor>,
    passed: &PassedBack,
) {
    let PassedBack { number, session, command, body } = passed;
    let path = ReplyPath::Successor(successor.clone(), *number);
    let (Some(envelope), Some(local)) = (relay::read(body), sessions.local(*session)) else {
        return path.not_here();
    };
    match (envelope.op, command) {
        (Some(Op::Push), Some(command)) => path.reply(&[push(&local, *command, envelope.payload).number()]),
        (Some(Op::Close), _) => local.close(&String::from_utf8_lossy(envelope.payload)),
        (Some(Op::Call), _) => {
            // The handlers of this node run in the successor, where the session is not.
            let text = "the session is with the old process of its net node until it ends";
            path.fault(&sessions.identity().fault(Code::NoNode, Executed::No, text));
        }
        _ => answer(sessions, &path, *session, &envelope),
    }
}

fn push(session: &LocalSession, command: CommandId, body: &[u8]) -> PushAnswer {
    match session.push(command, body) {
        Ok(()) => PushAnswer::Queued,
        Err(PushError::TooSlow) => PushAnswer::TooSlow,
        Err(PushError::Gone | PushError::Unreachable) => PushAnswer::Gone,
    }
}

/// Answers another node's request about a session of this node.
pub(crate) fn answer(sessions: &Sessions, path: &ReplyPath, session: SessionId, envelope: &Envelope<'_>) {
    let local = sessions.local(session);
    match (envelope.op, local) {
        (Some(Op::Touch | Op::Set), None) => path.reply(&[]),
        (Some(Op::Join | Op::Leave), None) => path.reply(&[GroupAnswer::Gone.number()]),
        (Some(op @ (Op::Join | Op::Leave)), Some(session)) => {
            let group = String::from_utf8_lossy(envelope.payload);
            path.reply(&[sessions.change_group(op == Op::Join, &session, &group).number()]);
        }
        (Some(Op::Touch), Some(session)) => path.reply(&encode(&*session.watch(envelope.from))),
        (Some(Op::Set), Some(session)) => set(sessions, path, session, envelope),
        (Some(Op::Move), local) => answer_move(sessions, path, local, envelope),
        _ => path.unknown(sessions.identity()),
    }
}

fn answer_move(
    sessions: &Sessions,
    path: &ReplyPath,
    session: Option<LocalSession>,
    envelope: &Envelope<'_>,
) {
    let (Some(session), Some(order)) = (session, decode::<MoveOrder>(envelope.payload)) else {
        return path.reply(&[MoveAnswer::Gone.number()]);
    };
    let from = envelope.from;
    match sessions.begin_move(&session, from, order.clone()) {
        Err(MoveError::NoNode(name)) if sessions.transit().may_be_reached_soon(&name) => {}
        begun => return path.reply(&[move_answer(&begun).number()]),
    }
    // The pin keeps the session from leaving for a successor meanwhile.
    let pin = session.pin();
    let (mover, path) = (sessions.clone(), path.clone());
    drop(sessions.identity().tasks().calls().spawn(async move {
        let begun = mover.begin_move_soon(&session, from, order).await;
        path.reply(&[move_answer(&begun).number()]);
        drop(pin);
    }));
}

/// Changes a session's state for another node; for a user in it the other net nodes are asked before.
fn set(sessions: &Sessions, path: &ReplyPath, session: LocalSession, envelope: &Envelope<'_>) {
    let identity = sessions.identity();
    let Some(change) = decode::<SessionChange>(envelope.payload) else {
        let text = "a malformed change of a session";
        return path.fault(&identity.fault(Code::BadRequest, Executed::No, text));
    };
    let from = Some(envelope.from);
    if change.user.is_none() {
        return answer_set(identity, path, sessions.change(&session, change, from).map_err(Into::into));
    }
    // The pin keeps the session from leaving for a successor before the change has begun.
    let pin = session.pin();
    let (binder, path) = (sessions.clone(), path.clone());
    drop(identity.tasks().calls().spawn(async move {
        answer_set(binder.identity(), &path, binder.bind_session(&session, change, from).await);
        drop(pin);
    }));
}

fn move_answer(begun: &Result<(), MoveError>) -> MoveAnswer {
    match begun {
        Ok(()) => MoveAnswer::Begun,
        Err(MoveError::NoNode(_)) => MoveAnswer::NoNode,
        Err(MoveError::NotRouted(_)) => MoveAnswer::NotRouted,
        Err(MoveError::Moving) => MoveAnswer::Moving,
        Err(_) => MoveAnswer::Gone,
    }
}

fn answer_set(identity: &Identity, path: &ReplyPath, changed: Result<Arc<SessionState>, SessionError>) {
    match changed {
        Ok(state) => path.reply(&encode(&*state)),
        Err(SessionError::Gone) => path.reply(&[]),
        Err(error) => {
            let taken = error == SessionError::UserTaken;
            let code = if taken { Code::Refused } else { Code::BadRequest };
            path.fault(&identity.fault(code, Executed::No, error.to_string()));
        }
    }
}
