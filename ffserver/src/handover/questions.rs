//! The questions that other nodes ask a successor about sessions that have not come from the predecessor yet. The
//! predecessor is asked, because the request that makes them ask may be what the session waits for.

use std::collections::BTreeMap;

use ffproto::handover::{AskAnswer, FromSuccessor};
use ffproto::link::{Client, Kind};
use ffproto::relay::{self, Op};
use ffproto::{Code, CommandId, Executed, Fault, SessionId};

use crate::node::Node;
use crate::ops::session_requests::asks_session;
use crate::transit::envelope_hold::{HeldEnvelope, QUESTIONS_MAX, ToPredecessor, ToPredecessorQueue};

/// The questions of a successor.
pub(super) struct Questions {
    node: Node,
    queue: ToPredecessorQueue,
    waiting: BTreeMap<u64, (SessionId, HeldEnvelope)>,
    last: u64,
}

impl Questions {
    /// Opens the way of questions: they come here from now on.
    pub(super) fn new(node: &Node) -> Self {
        let queue = node.transit().hold().open_questions(node.identity().limits().park_bytes_max);
        Self { node: node.clone(), queue, waiting: BTreeMap::new(), last: 0 }
    }

    /// The next question for the predecessor; for ever none while it has as many as it may have. Cancel-safe.
    pub(super) async fn next(&mut self) -> FromSuccessor {
        while self.waiting.len() < QUESTIONS_MAX {
            let said = match self.queue.next().await {
                Some(ToPredecessor::Envelope(frame)) => self.ask(frame),
                Some(ToPredecessor::Broadcast(payload)) => Some(FromSuccessor::Broadcast(payload)),
                Some(ToPredecessor::Close(session, why)) => Some(self.close(session, &why)),
                None => break,
            };
            if let Some(said) = said {
                return said;
            }
        }
        std::future::pending().await
    }

    fn close(&self, session: SessionId, why: &str) -> FromSuccessor {
        let (number, mut body) = (self.node.transit().number(), Vec::new());
        relay::write(number, number, Op::Close, why.as_bytes(), &mut body);
        FromSuccessor::Passed { number: 0, session, command: CommandId(0), body }
    }

    fn ask(&mut self, frame: HeldEnvelope) -> Option<FromSuccessor> {
        let Client { session, command, .. } = frame.head.client?;
        let body = frame.body.clone();
        let (asks, is_call) = (asks_session(&body), frame.head.kind == Kind::Call);
        let number = if is_call { self.last + 1 } else { 0 };
        if is_call {
            self.last = number;
            self.waiting.insert(number, (session, frame));
        }
        Some(match asks {
            true => FromSuccessor::Asked { number, session, body },
            false => FromSuccessor::Passed { number, session, command, body },
        })
    }

    /// Passes an answer of the predecessor on; when it does not know the session, that is on its way here, or here.
    pub(super) fn answered(&mut self, number: u64, answer: AskAnswer) {
        let Some((session, frame)) = self.waiting.remove(&number) else { return };
        match answer {
            AskAnswer::Reply(body) => frame.link.reply(frame.head.call, &body),
            AskAnswer::Fault { code, body } => {
                let malformed = || {
                    self.node.identity().fault(Code::Unknown(code), Executed::Unknown, "a malformed answer")
                };
                let fault = Fault::read_body(Code::from_number(code), &body).unwrap_or_else(|_| malformed());
                frame.link.reply_fault(frame.head.call, &fault);
            }
            AskAnswer::NotHere => {
                self.node.transit().hold().not_there(session);
                self.node.transit().hold_again(session, frame);
            }
        }
    }

    /// Ends the questions: the predecessor answers nothing more, and what is left waits for its sessions here, if they
    /// come.
    pub(super) fn end(&mut self) {
        while let Some(said) = self.queue.end() {
            if let ToPredecessor::Envelope(frame) = said {
                let _ = self.ask(frame);
            }
        }
        for (session, frame) in std::mem::take(&mut self.waiting).into_values() {
            self.node.transit().hold_again(session, frame);
        }
    }
}
