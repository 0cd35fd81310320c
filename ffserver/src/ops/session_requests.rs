//! What other nodes ask about sessions of this one, and what they are answered: directly, or by way of the successor of
//! this process.

use std::sync::Arc;

use ffnet::Link;
use ffproto::handover::{FromOld, Told};
use ffproto::relay::{self, Envelope, MoveAnswer, MoveOrder, Op, SessionChange, SessionState};
use ffproto::{Code, Executed, Fault, SessionId};
use tokio::sync::mpsc;

use crate::cluster::membership::{decode, encode};
use crate::node::Node;
use crate::session::handle::{MoveError, SessionError};
use crate::session::local::LocalSession;
use crate::transit::envelope_hold::HeldFrame;

/// Whether it is one of those that [`Node::answer`] knows.
pub(crate) fn asks_session(body: &[u8]) -> bool {
    let op = relay::read(body).and_then(|envelope| envelope.op);
    matches!(op, Some(Op::Touch | Op::Set | Op::Join | Op::Leave | Op::Move))
}

/// Who gets the answer to what was asked about a session of this node.
#[derive(Clone)]
pub(crate) enum Answer {
    /// Whoever has called on the link.
    Link(Link, u32),
    /// The successor of this process.
    Successor(mpsc::Sender<FromOld>, u64),
}

impl Answer {
    fn reply(&self, body: &[u8]) {
        match self {
            Self::Link(link, call) => link.reply(*call, body),
            Self::Successor(successor, number) => tell(successor, *number, Told::Reply(body.to_vec())),
        }
    }

    fn fault(&self, fault: &Fault) {
        match self {
            Self::Link(link, call) => link.reply_fault(*call, fault),
            Self::Successor(successor, number) => {
                let mut body = Vec::new();
                fault.write_body(&mut body);
                tell(successor, *number, Told::Fault { code: fault.code.number(), body });
            }
        }
    }

    pub(crate) fn unknown(&self, node: &Node) {
        let text = format!("`{}` does not know what is asked", node.name());
        self.fault(&node.fault(Code::NoMethod, Executed::No, text));
    }
}

fn tell(successor: &mpsc::Sender<FromOld>, number: u64, answer: Told) {
    // It has at most ASKED_MAX questions without an answer, so there is room; one that is gone hears nothing.
    let _ = successor.try_send(FromOld::Answered { number, answer });
}

/// What is asked about sessions of this node.
impl Node {
    /// Holds what the old process has no answer to until its session has arrived, or answers that too much waits.
    pub(crate) fn hold_again(&self, session: SessionId, frame: HeldFrame) {
        let bytes_max = self.config().limits.park_bytes_max;
        if let Err(frame) = self.cluster().held.put_back(session, bytes_max, frame) {
            let text = format!("too much waits at `{}` for its sessions: limits.park_bytes_max", self.name());
            frame.link.reply_fault(frame.head.call, &self.fault(Code::Overloaded, Executed::No, text));
        }
    }

    /// The successor asks for another node about a session that is, perhaps, still here.
    pub(crate) fn answer_successor(
        &self,
        successor: &mpsc::Sender<FromOld>,
        number: u64,
        session: SessionId,
        body: &[u8],
    ) {
        match relay::read(body) {
            Some(envelope) if self.local_session(session).is_some() => {
                self.answer(&Answer::Successor(successor.clone(), number), session, &envelope);
            }
            _ => tell(successor, number, Told::NotHere),
        }
    }

    pub(crate) fn answer(&self, answer: &Answer, session: SessionId, envelope: &Envelope<'_>) {
        let local = self.local_session(session);
        match (envelope.op, local) {
            (Some(Op::Touch | Op::Set), None) => answer.reply(&[]),
            (Some(Op::Join | Op::Leave), None) => answer.reply(&[1]),
            (Some(op @ (Op::Join | Op::Leave)), Some(session)) => {
                let group = String::from_utf8_lossy(envelope.payload);
                answer.reply(&[self.group_here(op == Op::Join, &session, &group)]);
            }
            (Some(Op::Touch), Some(session)) => answer.reply(&encode(&*session.watch(envelope.from))),
            (Some(Op::Set), Some(session)) => self.set(answer, session, envelope),
            (Some(Op::Move), local) => self.answer_move(answer, local, envelope),
            _ => answer.unknown(self),
        }
    }

    fn answer_move(&self, answer: &Answer, session: Option<LocalSession>, envelope: &Envelope<'_>) {
        let (Some(session), Some(order)) = (session, decode::<MoveOrder>(envelope.payload)) else {
            return answer.reply(&[MoveAnswer::Gone.number()]);
        };
        let from = envelope.from;
        match self.begin_move(&session, from, order.clone()) {
            Err(MoveError::NoNode(name)) if self.may_be_reached_soon(&name) => {}
            begun => return answer.reply(&[move_answer(&begun).number()]),
        }
        // It does not leave for a successor meanwhile.
        let stays = session.stay();
        let (node, answer) = (self.clone(), answer.clone());
        drop(self.calls().spawn(async move {
            let begun = node.begin_move_soon(&session, from, order).await;
            answer.reply(&[move_answer(&begun).number()]);
            drop(stays);
        }));
    }

    /// Changes a session's state for another node; with a user in it the other net nodes are asked before.
    fn set(&self, answer: &Answer, session: LocalSession, envelope: &Envelope<'_>) {
        let Some(change) = decode::<SessionChange>(envelope.payload) else {
            let text = "a malformed change of a session";
            return answer.fault(&self.fault(Code::BadRequest, Executed::No, text));
        };
        let from = Some(envelope.from);
        if change.user.is_none() {
            return answer_set(self, answer, self.change_session(&session, change, from));
        }
        // It does not leave for a successor before this has begun.
        let stays = session.stay();
        let (node, answer) = (self.clone(), answer.clone());
        drop(self.calls().spawn(async move {
            answer_set(&node, &answer, node.bind_session(&session, change, from).await);
            drop(stays);
        }));
    }
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

fn answer_set(node: &Node, answer: &Answer, changed: Result<Arc<SessionState>, SessionError>) {
    match changed {
        Ok(state) => answer.reply(&encode(&*state)),
        Err(SessionError::Gone) => answer.reply(&[]),
        Err(error) => {
            let taken = error == SessionError::UserTaken;
            let code = if taken { Code::Refused } else { Code::BadRequest };
            answer.fault(&node.fault(code, Executed::No, error.to_string()));
        }
    }
}
