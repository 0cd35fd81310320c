//! Notices about sessions, as they arrive: pushes and closes for their net node, and states that net nodes tell.

use std::sync::Arc;

use ffproto::link::Client;
use ffproto::relay::{Op, PushAnswer};
use ffproto::{NodeNumber, SessionId};

use crate::cluster::payload::decode;
use crate::exec::executor::Executor;
use crate::exec::replicas::CHECK_IDS_MAX;
use crate::identity::counters::count;
use crate::identity::lifecycle::Phase;
use crate::session::local::PushError;

/// Pushes a message to the client of a session of this node.
pub(super) fn push(executor: &Executor, client: Client, body: &[u8]) -> PushAnswer {
    let sessions = executor.node.all_sessions();
    match sessions.local(client.session).map(|session| session.push(client.command, body)) {
        Some(Ok(())) => PushAnswer::Queued,
        Some(Err(PushError::TooSlow)) => PushAnswer::TooSlow,
        _ => {
            count(&executor.node.identity().counters().pushes_to_gone);
            PushAnswer::Gone
        }
    }
}

/// Closes a session of this node.
pub(super) fn close(executor: &Executor, session: SessionId, reason: &[u8]) {
    if let Some(session) = executor.node.all_sessions().local(session) {
        session.close(&String::from_utf8_lossy(reason));
    }
}

/// Updates the replica of a session whose state has changed.
pub(super) fn state(executor: &Executor, session: SessionId, payload: &[u8]) {
    let sessions = executor.node.all_sessions();
    if let Some(state) = decode(payload) {
        let remote = sessions.remote().update(session, state);
        if remote.is_some_and(|remote| remote.becomes_verified()) {
            sessions.spawn_verified(session);
        }
    }
}

/// Answers another node that knows these sessions: it is told of those that have ended, and with [`Op::Check`] of
/// changes of the others.
pub(super) fn check(executor: &Arc<Executor>, from: NodeNumber, op: Op, ids: &[u8]) {
    let (transit, sessions) = (executor.node.transit(), executor.node.all_sessions());
    // A session that is not here may be on its way to this process, or to its successor: the caller retries.
    let phase = executor.node.identity().lifecycle().phase();
    if transit.hold().is_expecting() || phase == Phase::HandedOver {
        return;
    }
    let (ids, _) = ids.as_chunks::<8>();
    for id in ids.iter().take(CHECK_IDS_MAX).map(|id| SessionId(u64::from_le_bytes(*id))) {
        if id.node() != transit.number() {
            continue;
        }
        match sessions.local(id) {
            Some(session) if op == Op::Check => drop(session.watch(from)),
            Some(_) => {}
            None => transit.tell_about(id, from, Op::Ended, &[]),
        }
    }
}
