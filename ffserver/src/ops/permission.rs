//! Permission: whether the config gives the writer of a message the right to what it asks for at this node.

use std::sync::atomic::{AtomicU64, Ordering};

use ffproto::relay::{Call, Envelope, Op, Reachable};
use ffproto::{Fault, NodeName, NodeNumber, SessionId};

use crate::cluster::rights::{NodeRights, Right, RightSet};
use crate::exec::executor::Executor;
use crate::ops::refusal::forbidden;
use crate::transit::inbound_envelope::InboundEnvelope;

/// The last answers of the tables, each for as long as the cluster does not change: mostly the next message is of the same
/// node, and its clients of the same net node.
pub(super) struct LastPermitted {
    writer: LastWriter,
    caller: AtomicU64,
}

impl Default for LastPermitted {
    fn default() -> Self {
        Self { writer: LastWriter(AtomicU64::new(u64::MAX)), caller: AtomicU64::new(u64::MAX) }
    }
}

/// The last writer of an envelope for this node, with its rights, and at which change of the cluster.
struct LastWriter(AtomicU64);

impl LastWriter {
    /// Stands over the set of rights: the writer may call every method.
    const CALLS_ALL: u64 = 1 << 15;

    fn key(changes: u64, from: NodeNumber) -> u64 {
        changes << 28 | u64::from(from.0) << 16
    }

    fn get(&self, key: u64) -> Option<(RightSet, bool)> {
        let word = self.0.load(Ordering::Relaxed);
        let [bits, ..] = word.to_le_bytes();
        (word & !0xffff == key).then_some((RightSet::of_bits(bits), word & Self::CALLS_ALL != 0))
    }

    fn set(&self, key: u64, rights: &NodeRights) {
        let calls = if rights.methods.is_none() { Self::CALLS_ALL } else { 0 };
        self.0.store(key | calls | u64::from(rights.sessions.bits()), Ordering::Relaxed);
    }
}

impl LastPermitted {
    /// Whether the writer of an envelope for this node has the right to what it asks for. What is for another node is that
    /// one's to judge.
    ///
    /// # Errors
    /// The fault for the writer, which is counted and logged.
    pub(super) fn permit(
        &self,
        executor: &Executor,
        inbound: &InboundEnvelope<'_>,
        envelope: &Envelope<'_>,
    ) -> Result<(), Fault> {
        let transit = executor.node.transit();
        let (right, is_call) = (Right::of(envelope), envelope.op == Some(Op::Call));
        if envelope.to != transit.number() || right.is_none() && !is_call {
            return Ok(());
        }
        let session = inbound.session().filter(|_| is_call);
        let changes = transit.membership().changes();
        let key = LastWriter::key(changes, envelope.from);
        let may = |set: RightSet| right.is_none_or(|right| set.has(right));
        let caller = session.map(|session| caller_key(changes, envelope.from, session));
        let is_known = |key| self.caller.load(Ordering::Relaxed) == key;
        if let Some((set, calls_all)) = self.writer.get(key)
            && may(set)
            && (calls_all || !is_call)
            && caller.is_none_or(is_known)
        {
            return Ok(());
        }
        let writer = transit.membership().brought(inbound.at, inbound.link, envelope.from);
        let Some(Reachable { name, kind, .. }) = writer else {
            return Err(forbidden(executor, &inbound.at.name, "anything"));
        };
        let rights = transit.rights().of_node(&name, &kind);
        self.writer.set(key, rights);
        let method = || Call::read(envelope.payload).map_or("", |call| call.method);
        match right {
            Some(right) if !rights.sessions.has(right) => Err(forbidden(executor, &name, right.shown())),
            None if !rights.may_call(method()) => {
                Err(forbidden(executor, &name, &format!("`call` of `{}`", method())))
            }
            _ => {
                if let (Some(session), Some(caller)) = (session, caller) {
                    permit_for(executor, (&name, &kind), session)?;
                    self.caller.store(caller, Ordering::Relaxed);
                }
                Ok(())
            }
        }
    }
}

fn caller_key(changes: u64, from: NodeNumber, session: SessionId) -> u64 {
    changes << 24 | u64::from(from.0) << 12 | u64::from(session.node().0)
}

/// Whether a node may call handlers on behalf of a session: what they do to it is the caller's wish. The session of a net
/// node that is not reached is nobody's any more.
///
/// # Errors
/// The fault for the node, which is counted and logged.
pub(super) fn permit_for(
    executor: &Executor,
    node: (&NodeName, &str),
    session: SessionId,
) -> Result<(), Fault> {
    let (transit, identity, net) = (executor.node.transit(), executor.node.identity(), session.node());
    let may = |name: &NodeName, kind: &str| transit.rights().acts_for(node, (name, kind));
    let permitted = if net == transit.number() {
        may(identity.name(), identity.kind())
    } else {
        transit.membership().get(net).is_none_or(|net| may(&net.name, &net.kind))
    };
    let what = || format!("`call` for session {session}");
    if permitted { Ok(()) } else { Err(forbidden(executor, node.0, &what())) }
}
