//! The flush barrier: the last step away from a neighbour's predecessor. What goes to clients over the successor does
//! not overtake what is still under way over the older link.

use std::sync::Arc;
use std::time::Duration;

use ffnet::Link;
use ffnet::link::{CallOptions, Forward};
use ffproto::NodeNumber;
use ffproto::relay::{self, Op, TO};
use fftelemetry::tagged;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::Transit;
use crate::cluster::side::PeerKey;
use crate::transit::park::{OutcomeSlot, SlotOutcome};

/// How long a net node may take to answer a Fence. An answer takes a millisecond, or a good second where the machine is far too
/// busy; a node that hangs holds up the others no longer.
const FENCE_MAX: Duration = Duration::from_secs(2);

impl Transit {
    /// Leaves a neighbour's older link, whose peer sends nothing new and waits for nothing: a Fence goes to each net
    /// node there, behind all that is for its clients.
    pub(crate) fn leave_old_link(&self, at: &PeerKey, old: &Link) {
        let nets = self.membership().nets_at(at);
        if nets.is_empty() || !self.peers(at.side).fence(old, true) {
            return;
        }
        let fences: Vec<SlotOutcome> = nets.iter().filter_map(|to| self.fence(old, *to)).collect();
        let (transit, at, old) = (self.clone(), at.clone(), old.clone());
        // The task is not among the calls: nothing of the node waits for it.
        drop(tokio::spawn(tagged(async move {
            let deadline = Instant::now() + FENCE_MAX;
            for fence in fences {
                match timeout_at(deadline, fence).await {
                    Ok(Ok(_)) => {}
                    // The Fence is lost with the link, and so is all that was sent before it.
                    Ok(Err(_)) if old.is_closed() => {}
                    Ok(Err(fault)) => {
                        warn!(neighbour = %at.name, "a Fence failed, pushes may overtake others: {}", fault.message);
                    }
                    Err(_) => {
                        warn!(neighbour = %at.name, "a net node does not answer: pushes may overtake others");
                    }
                }
            }
            transit.peers(at.side).fence(&old, false);
            transit.look_at_parked();
        })));
    }

    fn fence(&self, link: &Link, to: NodeNumber) -> Option<SlotOutcome> {
        let (from, mut body) = (self.membership().number()?, Vec::new());
        relay::write(to, from, Op::Fence, &[], &mut body);
        let (slot, now) = (Arc::new(OutcomeSlot::default()), Instant::now());
        let options = CallOptions { deadline: now + FENCE_MAX, client: None };
        let (method, sink) = (link.method_number(TO)?, slot.clone());
        // Nested, because the predecessor takes nothing else.
        let (message_of, hops, nested, token) = (None, 0, true, 0);
        let call = Forward { method, body: &body, options, message_of, hops, nested, sink, token };
        link.forward(call, now).ok()?;
        Some(SlotOutcome(slot))
    }
}
