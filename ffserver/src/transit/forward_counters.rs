//! Counters of the clients' messages that a node sends on, by target, found without a hash or a lock.

use std::sync::Arc;

use fftelemetry::metrics::{Counter, OTHER, Registry};

use crate::cluster::configured_routes::ConfiguredRoutes;
use crate::cluster::side::Side;

/// Targets that are counted by name. A message looks its target up among them by comparing pointers, of which two or three is
/// usual; what a node with more kinds sends to the last of them is counted as `other`.
const TARGETS_MAX: usize = 64;

/// The counters of one node, by target.
pub(crate) struct ForwardCounters {
    /// Every target under each pointer that a message may have it by: of the config's route, and of what is served.
    known: Vec<(Arc<str>, Counter)>,
    other: Counter,
}

impl ForwardCounters {
    pub(crate) fn new(registry: &Registry, route: &ffconfig::Route, places: &ConfiguredRoutes) -> Self {
        let help = "Clients' messages that this node has sent on, by the kind or =node that they were for";
        let counters = registry.counters("ff_forwarded", help, &["target"], TARGETS_MAX);
        let routed = route.rules().iter().map(|rule| rule.to.key().clone());
        let served = [Side::Parent, Side::Child].map(|side| places.passed_on_for(side));
        let targets = routed.chain(served.into_iter().flatten());
        let mut known: Vec<(Arc<str>, Counter)> = Vec::new();
        for target in targets {
            if known.len() < TARGETS_MAX && !known.iter().any(|(same, _)| Arc::ptr_eq(same, &target)) {
                let counter = counters.with(&[&target]);
                known.push((target, counter));
            }
        }
        Self { known, other: counters.with(&[OTHER]) }
    }

    /// Counts what a tally has, which is empty then.
    pub(crate) fn settle(&self, tally: &mut ForwardTally) {
        let ForwardTally { target, messages } = std::mem::take(tally);
        if messages > 0 {
            let known = self.known.iter().find(|(known, _)| place(known) == target);
            known.map_or(&self.other, |(_, counter)| counter).add(messages);
        }
    }

    /// Counts a message in a tally; when the tally is of another target, what it had is counted first.
    #[inline]
    pub(crate) fn count(&self, target: &Arc<str>, tally: &mut ForwardTally) {
        if tally.target != place(target) {
            self.settle(tally);
            tally.target = place(target);
        }
        tally.messages += 1;
    }
}

/// A tally of the messages of one read that go to the same target, as mostly all do: their counter is looked up once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ForwardTally {
    /// The [`place`] of the target.
    target: usize,
    messages: u64,
}

/// Where a target's text is: half of what `Arc::ptr_eq` compares, and enough, for no two live ones are at one place.
#[inline]
fn place(target: &Arc<str>) -> usize {
    Arc::as_ptr(target).addr()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_a_route_names_is_counted_by_name_and_the_rest_as_other() {
        let text = r#"{"master": {"rootport": 9999, "webport": 9998}, "servers": {
            "net": {"app": "net", "rootport": 10000, "route": {"to": {"game": [[1, 9]]}}},
            "game": {"app": "game", "remoteport": [{"rootname": "net"}]}
        }}"#;
        let cluster = ffconfig::parse(text, Path::new("config.json"), &|_| None).unwrap().cluster;
        let (net, registry) = (cluster.node("net").unwrap(), Registry::new());
        let counters = ForwardCounters::new(&registry, &net.route, &ConfiguredRoutes::of(&cluster, net));
        let (target, mut tally) =
            (net.route.find(ffproto::CommandId(3)).unwrap().to.key(), ForwardTally::default());
        counters.count(target, &mut tally);
        counters.count(target, &mut tally);
        counters.count(&Arc::from("game of another table"), &mut tally);
        counters.settle(&mut tally);
        counters.settle(&mut tally);
        let text = registry.encode();
        assert!(text.contains("ff_forwarded_total{target=\"=game\"} 2"), "{text}");
        assert!(text.contains("ff_forwarded_total{target=\"other\"} 1"), "{text}");
    }
}
