//! The groups of a net node's sessions. A group exists as long as it has a member.

use ffproto::SessionId;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::session::local::LocalSession;

/// The longest name of a group, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// Which sessions are in which group.
#[derive(Default)]
pub(crate) struct Groups(Mutex<GroupTable>);

#[derive(Default)]
struct GroupTable {
    members: FxHashMap<String, FxHashMap<SessionId, LocalSession>>,
    /// The groups of each session.
    of: FxHashMap<SessionId, Vec<String>>,
}

impl Groups {
    /// Takes a session into a group; false when it is in `groups_max` already.
    pub(crate) fn join(&self, name: &str, session: &LocalSession, groups_max: usize) -> bool {
        let mut state = self.0.lock();
        let groups = state.of.entry(session.id()).or_default();
        if groups.iter().any(|known| known == name) {
            return true;
        }
        if groups.len() >= groups_max {
            return false;
        }
        groups.push(name.to_owned());
        state.members.entry(name.to_owned()).or_default().insert(session.id(), session.clone());
        true
    }

    /// Takes a session out of a group.
    pub(crate) fn leave(&self, name: &str, session: SessionId) {
        let mut state = self.0.lock();
        if let Some(groups) = state.of.get_mut(&session) {
            groups.retain(|known| known != name);
            if groups.is_empty() {
                state.of.remove(&session);
            }
        }
        state.forget(name, session);
    }

    /// Takes a session out of every group; gives their names.
    pub(crate) fn leave_all(&self, session: SessionId) -> Vec<String> {
        let mut state = self.0.lock();
        let groups = state.of.remove(&session).unwrap_or_default();
        groups.iter().for_each(|name| state.forget(name, session));
        groups
    }

    /// The members of a group.
    pub(crate) fn members(&self, name: &str) -> Vec<LocalSession> {
        let state = self.0.lock();
        state.members.get(name).map(|members| members.values().cloned().collect()).unwrap_or_default()
    }

    /// The groups of a session.
    pub(crate) fn of(&self, session: SessionId) -> Vec<String> {
        self.0.lock().of.get(&session).cloned().unwrap_or_default()
    }

    /// Whether a session is in a group.
    pub(crate) fn has(&self, name: &str, session: SessionId) -> bool {
        self.0.lock().members.get(name).is_some_and(|members| members.contains_key(&session))
    }
}

impl GroupTable {
    fn forget(&mut self, name: &str, session: SessionId) {
        if let Some(members) = self.members.get_mut(name) {
            members.remove(&session);
            if members.is_empty() {
                self.members.remove(name);
            }
        }
    }
}
