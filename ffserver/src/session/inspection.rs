//! Inspection: what an operator is told of the sessions of one node, and does to them.

use std::collections::BinaryHeap;

use ffproto::question::{
    ROWS_BYTES_MAX, ROWS_MAX, RecentRequest, ReplicaView, SessionFilter, SessionRow, SessionView,
    TEXT_BYTES_MAX, cut,
};
use ffproto::{Code, CommandId, Executed, SessionId};
use tokio::time::Instant;

use super::Sessions;
use crate::session::local::{EncodedMessage, LocalSession};

/// What was done to sessions for an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reached {
    /// The sessions for which it was done.
    pub(crate) reached: u32,
    /// The sessions that are closing already, or read too slowly.
    pub(crate) missed: u32,
}

impl Reached {
    fn note(&mut self, done: bool) {
        if done { self.reached += 1 } else { self.missed += 1 }
    }
}

impl Sessions {
    /// The rows of the sessions of this node that are meant, by their ids, from the one behind `after` on; and whether there are
    /// more. One look at every session, without a lock that is held for longer than for one of them.
    pub(crate) fn list(
        &self,
        filter: &SessionFilter,
        after: Option<SessionId>,
        rows_max: u32,
        now: Instant,
    ) -> (Vec<SessionRow>, bool) {
        let rows_max = rows_max.clamp(1, ROWS_MAX) as usize;
        let meant = self.meant(filter, now);
        // The lowest ids, and one more, which says that there are more.
        let mut lowest = BinaryHeap::with_capacity(rows_max + 2);
        for (at, session) in meant.iter().enumerate().filter(|(_, session)| Some(session.id()) > after) {
            lowest.push((session.id(), at));
            if lowest.len() > rows_max + 1 {
                lowest.pop();
            }
        }
        let (lowest, now_ms) = (lowest.into_sorted_vec(), self.identity().now_ms());
        let rows =
            lowest.iter().filter_map(|(_, at)| meant.get(*at)).map(|session| row(session, now, now_ms));
        page(rows, rows_max, ROWS_BYTES_MAX)
    }

    /// What this node knows of a session: as its net node, as one that handles its messages, or as one that they pass.
    pub(crate) fn view(&self, id: SessionId, now: Instant) -> Option<SessionView> {
        let (local, remote) = (self.local(id), self.remote().get(id));
        let affinity = self.transit().affinity().shown(id);
        if local.is_none() && remote.is_none() && affinity.is_empty() {
            return None;
        }
        let state = local.as_ref().map(LocalSession::state).or_else(|| Some(remote.as_ref()?.state()));
        let attributes = state.iter().flat_map(|state| &state.attributes);
        let name = |number| self.transit().membership().name(number);
        let requests: Vec<RecentRequest> =
            local.iter().flat_map(|session| session.recent_requests(now).collect::<Vec<_>>()).collect();
        Some(SessionView {
            row: local.as_ref().map(|session| row(session, now, self.identity().now_ms())),
            user: state.as_ref().and_then(|state| state.user.as_deref()).map(short),
            attributes: attributes.map(|(key, value)| (short(key), short(value))).collect(),
            groups: self.groups().of(id),
            watchers: local.iter().flat_map(LocalSession::watchers).filter_map(name).collect(),
            requests,
            affinity,
            replica: remote.map(|remote| ReplicaView {
                neighbour: remote.neighbour().name,
                here: remote.handles_here(),
            }),
        })
    }

    /// Closes the sessions of this node that are meant, and tells their clients why.
    pub(crate) fn dismiss(&self, filter: &SessionFilter, reason: &str, now: Instant) -> Reached {
        let identity = self.identity();
        let command = identity.config().login.map_or(CommandId(0), |login| login.command);
        let fault = identity.fault(Code::Kicked, Executed::No, cut(reason, TEXT_BYTES_MAX));
        let mut reached = Reached::default();
        for session in self.meant(filter, now) {
            reached.note(session.close_with(command.into(), &fault));
        }
        reached
    }

    /// Sends a message to the clients of the sessions of this node that are meant.
    pub(crate) fn notice(
        &self,
        filter: &SessionFilter,
        command: CommandId,
        body: &[u8],
        now: Instant,
    ) -> Reached {
        let (mut message, mut reached) = (EncodedMessage::new(command, body), Reached::default());
        for session in self.meant(filter, now) {
            reached.note(session.push_encoded(&mut message).is_ok());
        }
        reached
    }

    fn meant(&self, filter: &SessionFilter, now: Instant) -> Vec<LocalSession> {
        let registry = self.registry();
        let all = match filter.session {
            Some(id) => registry.get(id).into_iter().collect(),
            None => registry.all(),
        };
        all.into_iter().filter(|session| is_meant(filter, session, now)).collect()
    }
}

fn is_meant(filter: &SessionFilter, session: &LocalSession, now: Instant) -> bool {
    let SessionFilter { session: _, user, address, command, older_ms } = filter;
    let age_ms = || now.saturating_duration_since(session.opened()).as_millis() as u64;
    address.is_none_or(|address| address.has(session.address()))
        && older_ms.is_none_or(|older_ms| age_ms() >= older_ms)
        && command.is_none_or(|command| {
            session.recent_requests(now).next().is_some_and(|last| last.command == command)
        })
        && user.as_ref().is_none_or(|user| session.state().user.as_ref() == Some(user))
        && !session.is_gone()
}

fn row(session: &LocalSession, now: Instant, now_ms: u64) -> SessionRow {
    let (_, silence) = session.silence();
    let age_ms = now.saturating_duration_since(session.opened()).as_millis() as u64;
    SessionRow {
        session: session.id(),
        user: session.state().user.as_deref().map(short),
        address: session.address(),
        protocol: session.spoken().map(str::to_owned),
        since_ms: now_ms.saturating_sub(age_ms),
        age_ms,
        idle_ms: silence.as_millis() as u64,
        requests: session.requests(),
        last: session.recent_requests(now).next(),
        running: session.running_requests() as u32,
        queued_bytes: session.queued_bytes() as u64,
    }
}

fn short(text: &str) -> String {
    cut(text, TEXT_BYTES_MAX).to_owned()
}

/// As many rows as there may be, in number and in bytes, but one at least; and whether there are more.
fn page(
    rows: impl Iterator<Item = SessionRow>,
    rows_max: usize,
    bytes_max: usize,
) -> (Vec<SessionRow>, bool) {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for row in rows {
        // What is in every row, by far enough.
        bytes +=
            160 + row.user.as_ref().map_or(0, String::len) + row.protocol.as_ref().map_or(0, String::len);
        if !page.is_empty() && (page.len() == rows_max || bytes > bytes_max) {
            return (page, true);
        }
        page.push(row);
    }
    (page, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(n: u64, user_bytes: usize) -> SessionRow {
        SessionRow {
            session: SessionId(n),
            user: Some("u".repeat(user_bytes)),
            address: "127.0.0.1:1".parse().unwrap(),
            protocol: None,
            since_ms: 0,
            age_ms: 0,
            idle_ms: 0,
            requests: 0,
            last: None,
            running: 0,
            queued_bytes: 0,
        }
    }

    #[test]
    fn a_page_ends_at_its_rows_and_at_its_bytes_and_says_whether_there_are_more() {
        let ids = |rows_max, bytes_max, user_bytes| {
            let (rows, more) = page((1..=3).map(|n| named(n, user_bytes)), rows_max, bytes_max);
            (rows.iter().map(|row| row.session.0).collect::<Vec<_>>(), more)
        };
        assert_eq!(ids(3, 1000, 9), (vec![1, 2, 3], false));
        assert_eq!(ids(2, 1000, 9), (vec![1, 2], true));
        assert_eq!(ids(3, 400, 9), (vec![1, 2], true));
        assert_eq!(ids(3, 400, 900), (vec![1], true), "one is always there, so that pages end");
    }
}
