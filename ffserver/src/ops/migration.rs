//! Moves, as they arrive: a session of another net node comes here, leaves, or has stayed after all.

use std::sync::Arc;

use bytes::Bytes;
use ffproto::relay::{MoveEntry, MoveOrder};
use ffproto::{Executed, Fault, SessionId};

use crate::app::hooks::{MoveEntered, NotMoved, SessionEvent, SessionEventKind};
use crate::cluster::payload::decode;
use crate::exec::events::tell_session;
use crate::exec::executor::Executor;
use crate::ops::refusal::reply_bad;
use crate::session::handle::Session;
use crate::transit::inbound_envelope::InboundEnvelope;

/// Takes a session that is here from now on, and tells the app.
pub(super) fn enter(executor: &Arc<Executor>, inbound: &InboundEnvelope<'_>, id: SessionId, payload: &[u8]) {
    let Some(entry) = decode::<MoveEntry>(payload) else {
        return reply_bad(executor, inbound, "a malformed entry");
    };
    let (entered, link, call) = (executor.clone(), inbound.link.clone(), inbound.head.call);
    let job = move |known: Result<(), Fault>| {
        if let Err(fault) = known {
            return link.reply_fault(call, &Fault { executed: Executed::No, ..fault });
        }
        let executor = entered.clone();
        drop(entered.node.identity().tasks().calls().spawn(async move {
            run_entered(&executor, id, entry).await;
            link.reply(call, &[]);
        }));
    };
    executor.replicas.when_open(id, inbound.at, inbound.body.len(), Box::new(job));
}

async fn run_entered(executor: &Executor, id: SessionId, entry: MoveEntry) {
    let sessions = executor.node.all_sessions();
    let Some(remote) = sessions.remote().get(id) else { return };
    let _turn = remote.turn.lock().await;
    // The net node asks again when the answer was lost: the app is told once.
    if !remote.enters(entry.number) {
        return;
    }
    let entered = MoveEntered { from: entry.from, extra: Bytes::from(entry.extra) };
    let session = Session::there(sessions.clone(), remote.clone());
    tell_session(&executor.hooks, &executor.node, session, SessionEvent::Entered(entered)).await;
}

/// Tells the app that a session has stayed that this node wanted to move.
pub(super) fn not_moved(
    executor: &Arc<Executor>,
    inbound: &InboundEnvelope<'_>,
    id: SessionId,
    payload: &[u8],
) {
    let Some(order) = decode::<MoveOrder>(payload) else {
        return reply_bad(executor, inbound, "a malformed move");
    };
    let (told, link, call) = (executor.clone(), inbound.link.clone(), inbound.head.call);
    drop(executor.node.identity().tasks().calls().spawn(async move {
        if let Some(remote) = told.node.all_sessions().remote().get(id) {
            let failed = NotMoved { to: order.node, extra: Bytes::from(order.extra) };
            told.replicas.tell(&remote, SessionEvent::NotMoved(failed)).await;
        }
        link.reply(call, &[]);
    }));
}

/// Lets a session go that was moved away, and tells the app.
pub(super) fn left(executor: &Arc<Executor>, id: SessionId) {
    let remote = executor.node.all_sessions().remote().get(id);
    let Some(remote) = remote.filter(|remote| remote.leaves()) else { return };
    if executor.hooks.of(SessionEventKind::Left).is_some() {
        let replicas = executor.replicas.clone();
        let told = async move { replicas.tell(&remote, SessionEvent::Left).await };
        drop(executor.node.identity().tasks().calls().spawn(told));
    }
}
