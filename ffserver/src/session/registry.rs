//! The session registry: the open sessions of one net node, their ids and their limits.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use ffnet::admission::AddressBlock;
use ffproto::protocol::{BUILT_IN, Protocols};
use ffproto::{NodeNumber, SessionId, handover};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::identity::Identity;
use crate::session::local::{ClientWire, Directive, LocalSession, SessionHandoff, Stage};

/// The registry of a net node's sessions.
pub(crate) struct Registry {
    identity: Identity,
    wire: ClientWire,
    table: Mutex<SessionTable>,
    rested: Notify,
}

#[derive(Default)]
struct SessionTable {
    open: FxHashMap<SessionId, LocalSession>,
    by_address: FxHashMap<AddressBlock, u32>,
    next: Option<SessionId>,
    /// The directive that sessions get when they open.
    directive: Directive,
}

/// Why a client was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenRefusal {
    #[error("limits.sessions_max sessions are open")]
    TooMany,
    #[error("limits.connections_per_address connections are open from there")]
    TooManyFromThere,
    #[error("the master has not given this node its number yet")]
    NoNumber,
}

impl Registry {
    pub(crate) fn new(identity: Identity, protocols: Arc<Protocols>) -> Self {
        Self {
            wire: ClientWire::new(identity.config(), protocols),
            table: Mutex::default(),
            rested: Notify::new(),
            identity,
        }
    }

    /// The protocols that clients may speak.
    pub(crate) fn protocols(&self) -> &Protocols {
        &self.wire.protocols
    }

    /// The protocols that clients speak now and that not every release has.
    pub(crate) fn spoken_protocols(&self) -> Vec<String> {
        let all = self.all();
        let spoken: BTreeSet<_> = all.iter().filter_map(|session| session.spoken()).collect();
        spoken.into_iter().filter(|name| !BUILT_IN.contains(name)).map(str::to_owned).collect()
    }

    /// Whether a client's connection can go on in another process.
    pub(crate) fn has_traveller(&self) -> bool {
        self.table.lock().open.values().any(LocalSession::can_travel)
    }

    /// Sets the node's number, of which ids are made; again after every reconnect to the master, and the ids go on.
    pub(crate) fn set_number(&self, number: NodeNumber) {
        let first = || SessionId::first(number, self.identity.incarnation());
        self.table.lock().next.get_or_insert_with(first);
    }

    /// Opens a session.
    pub(crate) fn open(&self, address: SocketAddr) -> Result<LocalSession, OpenRefusal> {
        let (config, limits) = (self.identity.config(), self.identity.limits());
        let mut table = self.table.lock();
        if table.open.len() >= limits.sessions_max {
            return Err(OpenRefusal::TooMany);
        }
        let id = table.next.ok_or(OpenRefusal::NoNumber)?;
        let block = AddressBlock::of(address.ip());
        let from_there = table.by_address.get(&block).copied().unwrap_or(0);
        if limits.connections_per_address.is_some_and(|max| from_there >= max) {
            return Err(OpenRefusal::TooManyFromThere);
        }
        table.by_address.insert(block, from_there + 1);
        table.next = Some(id.next());
        let stage = if config.login.is_some() { Stage::Awaited } else { Stage::In };
        let session =
            LocalSession::new(id, address, stage, self.wire.clone(), self.identity.counters().clone());
        session.set_directive(table.directive);
        table.open.insert(id, session.clone());
        drop(table);
        self.changed();
        Ok(session)
    }

    /// A session that the predecessor has opened, not yet among the open ones.
    pub(crate) fn adopt(&self, record: &handover::Session, handoff: SessionHandoff) -> LocalSession {
        let session =
            LocalSession::adopt(record, handoff, self.wire.clone(), self.identity.counters().clone());
        if self.identity.config().login.is_none() {
            session.set_stage(Stage::In);
        }
        session
    }

    /// Takes an adopted session among the open ones.
    pub(crate) fn insert(&self, session: &LocalSession) {
        let mut table = self.table.lock();
        *table.by_address.entry(AddressBlock::of(session.address().ip())).or_default() += 1;
        table.open.insert(session.id(), session.clone());
        drop(table);
        self.changed();
    }

    /// Forgets a session.
    pub(crate) fn remove(&self, session: &LocalSession) {
        let mut table = self.table.lock();
        table.open.remove(&session.id());
        let block = AddressBlock::of(session.address().ip());
        if let Some(from_there) = table.by_address.get_mut(&block) {
            *from_there -= 1;
            if *from_there == 0 {
                table.by_address.remove(&block);
            }
        }
        drop(table);
        self.changed();
        self.rested.notify_one();
    }

    /// The open session of that id.
    pub(crate) fn get(&self, id: SessionId) -> Option<LocalSession> {
        self.table.lock().open.get(&id).cloned()
    }

    /// Whether a session of that id is open.
    pub(crate) fn has(&self, id: SessionId) -> bool {
        self.table.lock().open.contains_key(&id)
    }

    /// Every open session.
    pub(crate) fn all(&self) -> Vec<LocalSession> {
        self.table.lock().open.values().cloned().collect()
    }

    /// How many sessions are open.
    pub(crate) fn len(&self) -> usize {
        self.table.lock().open.len()
    }

    /// Gives every session's connection a directive, also those that open later.
    pub(crate) fn direct(&self, directive: Directive) {
        let mut table = self.table.lock();
        table.directive = directive;
        table.open.values().for_each(|session| session.set_directive(directive));
    }

    /// Gives a directive to sessions that open later; returns those that are open, to be directed one by one. Sessions
    /// that hold do so until then.
    pub(crate) fn begin_directive(&self, directive: Directive) -> Vec<LocalSession> {
        let mut table = self.table.lock();
        table.directive = directive;
        table.open.values().cloned().collect()
    }

    /// Whether a request of any session runs, here or elsewhere.
    pub(crate) fn has_session_at_work(&self) -> bool {
        self.table.lock().open.values().any(LocalSession::is_at_work)
    }

    /// Wakes a hand-over when nothing runs any more for a session that holds, or when a session is gone.
    pub(crate) fn rested(&self) -> &Notify {
        &self.rested
    }

    fn changed(&self) {
        self.identity.lifecycle().status_changed().notify_one();
    }
}
