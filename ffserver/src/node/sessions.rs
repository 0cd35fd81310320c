//! The life of a node's own sessions: opened, taken over from another process, left to one, ended.

use std::net::SocketAddr;

use ffproto::link::Client;
use ffproto::{CommandId, NodeNumber, SessionId, handover};

use super::{Node, NotOpened};
use crate::cluster::affinity::SESSION_ENDED;
use crate::session::local::{Course, LocalSession, Luggage, Stage, Wire};

impl Node {
    pub(crate) fn set_number(&self, number: NodeNumber) {
        let mut sessions = self.0.sessions.lock();
        // Told again after every reconnect to the master; the ids go on.
        sessions.next.get_or_insert_with(|| SessionId::first(number, self.0.incarnation));
    }

    /// Opens a session.
    pub(crate) fn open_session(&self, address: SocketAddr) -> Result<LocalSession, NotOpened> {
        let limits = &self.0.config.limits;
        let mut sessions = self.0.sessions.lock();
        if sessions.open.len() >= limits.sessions_max {
            return Err(NotOpened::TooMany);
        }
        let id = sessions.next.ok_or(NotOpened::NoNumber)?;
        let from_there = sessions.by_address.entry(address.ip()).or_default();
        if limits.connections_per_address.is_some_and(|max| *from_there >= max) {
            return Err(NotOpened::TooManyFromThere);
        }
        *from_there += 1;
        sessions.next = Some(id.next());
        let stage = if self.0.config.login.is_some() { Stage::Awaited } else { Stage::In };
        let session =
            LocalSession::new(id, address, stage, Wire::of(&self.0.config), self.0.counters.clone());
        session.set_course(sessions.course);
        sessions.open.insert(id, session.clone());
        drop(sessions);
        self.0.changed.notify_one();
        Ok(session)
    }

    /// Takes over a session that another process of this node has opened.
    pub(crate) fn adopt_session(&self, record: &handover::Session, luggage: Luggage) -> LocalSession {
        let (groups, user, stamp) = (luggage.groups.clone(), luggage.user(), luggage.stamp);
        let heard = luggage.heard;
        let session = LocalSession::adopt(record, luggage, Wire::of(&self.0.config), self.0.counters.clone());
        if self.0.config.login.is_none() {
            session.set_stage(Stage::In);
        }
        for group in groups {
            self.0.cluster.groups.join(&group, &session, usize::MAX);
        }
        let mut sessions = self.0.sessions.lock();
        *sessions.by_address.entry(record.address.ip()).or_default() += 1;
        sessions.open.insert(record.id, session.clone());
        drop(sessions);
        self.0.cluster.held.arrived(session.id(), heard);
        if let Some(user) = user {
            let lost = self.0.cluster.users.arrived(&user, session.id(), stamp.unwrap_or_default());
            lost.into_iter().for_each(|lost| self.kick(lost, &user));
        }
        self.0.changed.notify_one();
        session
    }

    /// Forgets a session, here and at the nodes that its messages went to.
    pub(crate) fn end_session(&self, session: &LocalSession) {
        session.end();
        self.forget_session(session);
        self.session_ended(session.id());
    }

    /// Forgets a session that goes on in another process of this node; gives the nodes that its messages went
    /// to, for that one to know.
    pub(crate) fn session_left(&self, session: &LocalSession) -> Vec<handover::Sticky> {
        self.forget_session(session);
        self.0.sticky.leave(session.id())
    }

    /// Every session has come that was on its way here from the process that this one replaces.
    pub(crate) fn all_arrived(&self) {
        self.0.cluster.held.expect(false);
        self.0.cluster.users.all_arrived();
    }

    fn forget_session(&self, session: &LocalSession) {
        self.0.cluster.groups.leave_all(session.id());
        if let Some(user) = &session.state().user {
            self.0.cluster.users.free(user, session.id());
        }
        let mut sessions = self.0.sessions.lock();
        sessions.open.remove(&session.id());
        let ip = session.address().ip();
        if let Some(from_there) = sessions.by_address.get_mut(&ip) {
            *from_there -= 1;
            if *from_there == 0 {
                sessions.by_address.remove(&ip);
            }
        }
        drop(sessions);
        self.0.changed.notify_one();
    }

    /// Tells every session's connection what to do next, those that open later included.
    pub(crate) fn set_course(&self, course: Course) {
        let mut sessions = self.0.sessions.lock();
        sessions.course = course;
        sessions.open.values().for_each(|session| session.set_course(course));
    }

    /// What sessions that open later do; gives those that are open, to be told one by one. Those that hold do so
    /// until then.
    pub(crate) fn begin_course(&self, course: Course) -> Vec<LocalSession> {
        let mut sessions = self.0.sessions.lock();
        sessions.course = course;
        sessions.open.values().cloned().collect()
    }

    /// Whether something runs for a session, here or elsewhere.
    pub(crate) fn has_session_at_work(&self) -> bool {
        self.0.sessions.lock().open.values().any(LocalSession::is_at_work)
    }

    /// Forgets the way of a session's messages and tells those along it.
    pub(crate) fn session_ended(&self, session: SessionId) {
        if let Some(records) = self.records() {
            records.session_ended(session);
        }
        let client = Client { session, command: CommandId(0), stateless: false };
        for name in self.0.sticky.forget(session) {
            self.tell(&name, SESSION_ENDED, &[], client);
        }
    }
}
