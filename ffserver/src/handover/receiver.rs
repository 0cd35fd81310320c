//! The successor of a node's process: it takes over what the old one ([`crate::handover::sender`]) hands it, serves, and
//! leaves again when the old one takes back.

use std::collections::BTreeMap;
use std::io;

use ffproto::handover::{FromNew, FromOld, KeptRecord, KnownSession, Sticky, Told};
use ffproto::{Code, Executed, Fault, NodeName, SessionId};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use crate::app::hooks::{Frozen, Hooks};
use crate::handover::sender::{Estate, GREETING_MAX, MARGIN, ToOld, is_kin, run_hook, who};
use crate::identity::stop::Stop;
use crate::node::Node;
use crate::transit::envelope_hold::{ASKED_MAX, HeldEnvelope};

/// Why a successor cannot take over. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// The old process did not come, or has closed the door again.
    #[error("the old process of `{0}` does not hand over")]
    Alone(NodeName),
    /// The master that has started this process is gone: the old process goes on.
    #[error("the master is gone that has started this process")]
    NoMaster,
    /// Something else came.
    #[error("{0} is not the old process of this node")]
    Stranger(String),
    /// The old process froze a state that this app cannot take.
    #[error("the old process has a frozen state of version {0}, and the app has no thaw hook")]
    NoThaw(u32),
    /// The app's thaw hook failed.
    #[error("the app's thaw hook failed: {0}")]
    Thaw(String),
    /// The door broke.
    #[error("the connection to the old process broke")]
    Broken(#[from] io::Error),
}

/// A successor that has everything and may serve.
pub(crate) struct Inheriting {
    passage: ToOld,
    asking: Asking,
}

impl Inheriting {
    /// Takes the state of the old process, which has come to the door, until it is this process's turn.
    pub(crate) async fn new(
        mut passage: ToOld,
        node: &Node,
        hooks: &Hooks,
        until: Instant,
    ) -> Result<Self, InheritError> {
        let alone = || InheritError::Alone(node.name().clone());
        let ours = who(node);
        match timeout(GREETING_MAX, passage.receive()).await.map_err(|_| alone())?? {
            Some((FromOld::Hello(theirs), _)) if is_kin(&ours, &theirs) => {}
            Some((other, _)) => return Err(InheritError::Stranger(format!("{other:?}"))),
            None => return Err(alone()),
        }
        passage.send(&FromNew::Hello(ours), &[]).await?;
        if let Err(error) = take_state(&mut passage, node, hooks, until).await {
            let _ = passage.send(&FromNew::Failed { reason: error.to_string() }, &[]).await;
            return Err(error);
        }
        // There before the first link is, on which it may be asked for.
        let asking = Asking::new(node);
        node.transit().hold().expect(true);
        node.transit().membership().succeed();
        Ok(Self { passage, asking })
    }

    /// Says that this process serves, and takes the clients; returns when the old process needs no more, or at
    /// `stop`. An error means that the old process serves on and this one must leave.
    pub(crate) async fn serve(mut self, estate: &Estate, stop: &Stop) -> Result<(), InheritError> {
        tokio::select! {
            served = self.take_over(estate) => return served,
            () = stop.begun() => {}
        }
        // Without this word the old process would take the end of this one for a failure, and serve again.
        let _ = timeout(GREETING_MAX, self.passage.send(&FromNew::Proven, &[])).await;
        Ok(())
    }

    async fn take_over(&mut self, estate: &Estate) -> Result<(), InheritError> {
        let alone = || InheritError::Alone(estate.node.name().clone());
        let serves = Instant::now();
        self.passage.send(&FromNew::Serves, &[]).await.map_err(|_| alone())?;
        loop {
            let received = tokio::select! {
                received = self.passage.receive() => received,
                Some(frame) = self.asking.frames.recv(), if self.asking.asked.len() < ASKED_MAX => {
                    let asked = self.asking.ask(frame);
                    if let Some(asked) = asked {
                        // One that is gone is noticed by the next receive.
                        let _ = self.passage.send(&asked, &[]).await;
                    }
                    continue;
                }
            };
            // The old process may be killed while it hands over: what it had not sent is lost with it.
            let Ok(Some((said, mut descriptors))) = received else {
                warn!("the old process has ended before it had handed over everything");
                self.asking.end();
                estate.node.known_sessions().all_arrived();
                return Ok(());
            };
            match (said, descriptors.pop()) {
                (FromOld::Sticky(all), _) => take_sticky(&estate.node, all),
                (FromOld::Known(all), _) => take_known(&estate.node, all),
                (FromOld::Kept(all), _) => take_kept(&estate.node, &all),
                (FromOld::Session(record), Some(socket)) => {
                    let id = record.id;
                    let taken = estate.clients.as_ref().map(|clients| clients.adopt(socket, *record));
                    if let Some(Err(error)) = taken {
                        warn!(session = %id, "a client could not be taken over: {error}");
                    }
                }
                (FromOld::Http { unread }, Some(socket)) => {
                    let taken = estate.front.as_ref().map(|front| front.adopt(socket.into(), unread));
                    if let Some(Err(error)) = taken {
                        warn!("an HTTP connection could not be taken over: {error}");
                    }
                }
                (FromOld::Broadcast(payload), _) => estate.node.known_sessions().broadcast_passed(&payload),
                (FromOld::Answered { number, answer }, _) => self.asking.answered(number, answer),
                (FromOld::TookBack, _) => return Err(alone()),
                (FromOld::Done, _) => break,
                _ => {}
            }
        }
        self.asking.end();
        estate.node.known_sessions().all_arrived();
        if let Some(records) = estate.node.records() {
            // Of those that ended at the old process nobody tells this one.
            records.retain_bindings(&|session| estate.node.session(session).is_some());
        }
        tokio::time::sleep_until(serves + estate.node.identity().limits().prove).await;
        // The old process may have been told to leave by somebody else meanwhile.
        let _ = self.passage.send(&FromNew::Proven, &[]).await;
        // It closes the door when it has read that; or it takes back after all.
        match timeout(MARGIN, self.passage.receive()).await {
            Ok(Ok(Some((FromOld::TookBack, _)))) => Err(alone()),
            _ => Ok(()),
        }
    }
}

/// What other nodes ask about sessions that have not come from the old process yet.
struct Asking {
    node: Node,
    frames: mpsc::Receiver<HeldEnvelope>,
    asked: BTreeMap<u64, (SessionId, HeldEnvelope)>,
    last: u64,
}

impl Asking {
    fn new(node: &Node) -> Self {
        let frames = node.transit().hold().ask_old();
        Self { node: node.clone(), frames, asked: BTreeMap::new(), last: 0 }
    }

    /// What the old process is asked.
    fn ask(&mut self, frame: HeldEnvelope) -> Option<FromNew> {
        let session = frame.head.client?.session;
        self.last += 1;
        let asked = FromNew::Asked { number: self.last, session, body: frame.body.clone() };
        self.asked.insert(self.last, (session, frame));
        Some(asked)
    }

    /// What the old process says; when it does not know the session that is on its way here, or here.
    fn answered(&mut self, number: u64, answer: Told) {
        let Some((session, frame)) = self.asked.remove(&number) else { return };
        match answer {
            Told::Reply(body) => frame.link.reply(frame.head.call, &body),
            Told::Fault { code, body } => {
                let malformed = || {
                    self.node.identity().fault(Code::Unknown(code), Executed::Unknown, "a malformed answer")
                };
                let fault = Fault::read_body(Code::from_number(code), &body).unwrap_or_else(|_| malformed());
                frame.link.reply_fault(frame.head.call, &fault);
            }
            Told::NotHere => self.node.transit().hold_again(session, frame),
        }
    }

    /// The old process answers nothing more: what is left waits for its sessions here, if they come.
    fn end(&mut self) {
        self.frames.close();
        while let Ok(frame) = self.frames.try_recv() {
            let _ = self.ask(frame);
        }
        for (session, frame) in std::mem::take(&mut self.asked).into_values() {
            self.node.transit().hold_again(session, frame);
        }
    }
}

async fn take_state(
    passage: &mut ToOld,
    node: &Node,
    hooks: &Hooks,
    until: Instant,
) -> Result<(), InheritError> {
    let alone = || InheritError::Alone(node.name().clone());
    let mut bytes = Vec::new();
    loop {
        let said = timeout_at(until, passage.receive()).await.map_err(|_| alone())??;
        match said.map(|(said, _)| said).ok_or_else(alone)? {
            FromOld::Sticky(all) => take_sticky(node, all),
            FromOld::Known(all) => take_known(node, all),
            FromOld::Kept(all) => take_kept(node, &all),
            FromOld::Users(all) => {
                all.into_iter().for_each(|claim| node.known_sessions().users().expect(claim))
            }
            FromOld::State(piece) => bytes.extend_from_slice(&piece),
            FromOld::Frozen { version } => {
                if let Some(version) = version {
                    let hook = hooks.thaw.as_ref().ok_or(InheritError::NoThaw(version))?;
                    let frozen = Frozen { version, bytes: std::mem::take(&mut bytes) };
                    let thawed = run_hook(hook(node.clone(), frozen)).await;
                    thawed.map_err(|e| InheritError::Thaw(e.log_text()))?;
                }
                passage.send(&FromNew::Thawed, &[]).await?;
            }
            FromOld::YourTurn => return Ok(()),
            FromOld::TookBack => return Err(alone()),
            other => return Err(InheritError::Stranger(format!("{other:?}"))),
        }
    }
}

fn take_known(node: &Node, all: Vec<KnownSession>) {
    all.into_iter().for_each(|session| node.known_sessions().remote().take_over(session));
}

fn take_kept(node: &Node, all: &[KeptRecord]) {
    if let Some(records) = node.records() {
        records.bind_again(all);
    }
}

fn take_sticky(node: &Node, all: Vec<Sticky>) {
    all.into_iter().for_each(|sticky| node.transit().affinity().take_over(sticky));
}
