//! The follower of discovery: does to a node's links what discovery shows. A dialer for each parent, begun and ended with
//! it; neighbours that no config names, expected and given up.

use std::collections::BTreeMap;
use std::sync::Arc;

use ffnet::Link;
use ffproto::NodeName;
use fftelemetry::tagged;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use crate::cluster::found::{Found, FoundChange, NumberOwners, Snapshot};
use crate::cluster::link_rules::{LinkRules, NeighbourPlace};
use crate::cluster::side::PeerKey;
use crate::node::Node;
use crate::ops::inbound::Inbound;
use crate::runtime::in_process::InProcessNet;
use crate::runtime::parent_dialer::{self, Whereabouts};

/// The follower of one node's discovery.
pub(crate) struct Follower {
    inbound: Arc<Inbound>,
    rules: LinkRules,
    net: Option<InProcessNet>,
    /// The snapshot that the links are as.
    done: Snapshot,
    owners: NumberOwners,
    /// The dialers of parents, each told where its parent is, and ended when it is told no more.
    dialers: BTreeMap<NodeName, watch::Sender<Whereabouts>>,
    /// Whether discovery has taken this node itself away: it makes no new link.
    is_withdrawn: bool,
    tasks: JoinSet<()>,
}

impl Follower {
    /// A follower with a dialer for each parent of the config.
    pub(crate) fn new(inbound: Arc<Inbound>, cluster: &ffconfig::Cluster, net: Option<InProcessNet>) -> Self {
        let config = inbound.executor.node.config();
        let (rules, parents) = (LinkRules::of(cluster, config), config.parents.clone());
        let mut follower = Self {
            inbound,
            rules,
            net,
            done: Snapshot::default(),
            owners: NumberOwners::default(),
            dialers: BTreeMap::new(),
            is_withdrawn: false,
            tasks: JoinSet::new(),
        };
        parents.into_iter().for_each(|parent| follower.dial(parent));
        follower
    }

    fn node(&self) -> &Node {
        &self.inbound.executor.node
    }

    /// Follows discovery for as long as it is polled; the dialers end with it.
    pub(crate) async fn run(mut self) {
        let mut shown = self.node().transit().membership().found().subscribe();
        loop {
            let snapshot = shown.borrow_and_update().clone();
            self.follow(snapshot);
            tokio::select! {
                // The sender is the node's own: it lives as long as this.
                _ = shown.changed() => {}
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    /// Makes the links as a snapshot says.
    pub(crate) fn follow(&mut self, snapshot: Snapshot) {
        // Before any link: the first thing that a neighbour is told is who this is.
        self.node().take_number();
        for change in snapshot.changes_since(&self.done) {
            match change {
                FoundChange::Shown { found, new } => self.shown(&found, new),
                FoundChange::Withdrawn(found) => self.withdrawn(&found),
            }
        }
        self.done = snapshot;
    }

    fn shown(&mut self, found: &Found, new: bool) {
        if found.name == *self.node().name() {
            return self.withdraw_self(false);
        }
        if let Err(owner) = self.owners.note(found) {
            let (name, number) = (&found.name, found.number.map_or(0, |number| number.0));
            return error!("{name} is not linked: its number {number} was `{owner}`'s, which must keep it");
        }
        let Some(place) = self.rules.place(found) else { return };
        if new && !place.named {
            let Found { name, kind, incarnation, .. } = found;
            info!(%kind, %incarnation, number = found.number.map(|number| number.0), "{name} is found");
        }
        let at = PeerKey::new(place.side, found.name.clone());
        if new && self.is_for_show(found, &place) {
            self.node().transit().show_peer(&at, &place.group);
        }
        if let Some(parent) = place.parent {
            if !self.dialers.contains_key(&found.name) {
                self.dial(parent);
            }
            // Its load is no news for the dialer; its address, said again, is: it is dialed at once.
            let news = |found: &Found| (found.address, found.incarnation, found.ended, found.since_ms);
            if self.done.nodes.get(&found.name).map(news) != Some(news(found)) {
                self.tell_dialer(found);
            }
        }
    }

    /// Whether the neighbour's place among the peers depends on discovery.
    fn is_for_show(&self, found: &Found, place: &NeighbourPlace) -> bool {
        let was_withdrawn = self.node().transit().membership().is_withdrawn(&found.name, found.incarnation);
        !place.named || was_withdrawn || self.node().transit().peers(place.side).is_withdrawn(&found.name)
    }

    fn withdrawn(&mut self, found: &Found) {
        if found.name == *self.node().name() {
            return self.withdraw_self(true);
        }
        let transit = self.node().transit().clone();
        transit.membership().withdraw(&found.name, found.incarnation);
        let Some(place) = self.rules.place(found) else { return };
        let at = PeerKey::new(place.side, found.name.clone());
        info!("{} is taken away: its links end when nothing is left on them", found.name);
        let links = transit.withdraw_peer(&at, place.named);
        self.tasks.spawn(tagged(close_late(links, Instant::now() + self.node().config().drain)));
        if place.named {
            self.tell_dialer_of(&found.name, Whereabouts::Unknown);
        } else {
            self.dialers.remove(&found.name);
        }
    }

    /// Notes whether discovery has taken this node away: then it makes no new link until it is shown again.
    fn withdraw_self(&mut self, withdrawn: bool) {
        if std::mem::replace(&mut self.is_withdrawn, withdrawn) != withdrawn {
            let known: Vec<_> =
                self.dialers.keys().filter_map(|name| self.done.nodes.get(name).cloned()).collect();
            known.iter().for_each(|found| self.tell_dialer(found));
        }
    }

    fn tell_dialer(&self, found: &Found) {
        let whereabouts = match found.address {
            _ if found.ended => Whereabouts::Ended,
            Some(at) if !self.is_withdrawn => Whereabouts::At(at, found.incarnation),
            _ => Whereabouts::Unknown,
        };
        self.tell_dialer_of(&found.name, whereabouts);
    }

    fn tell_dialer_of(&self, name: &NodeName, whereabouts: Whereabouts) {
        if let Some(dialer) = self.dialers.get(name) {
            dialer.send_replace(whereabouts);
        }
    }

    fn dial(&mut self, parent: ffconfig::Parent) {
        let (tell, told) = watch::channel(Whereabouts::Unknown);
        self.dialers.insert(parent.name.clone(), tell);
        let kept = parent_dialer::keep(self.inbound.clone(), parent, self.net.clone(), told);
        self.tasks.spawn(tagged(kept));
    }
}

/// Ends the links of a neighbour that was taken away and has not ended them in time, unless they are used again.
async fn close_late(links: Vec<Link>, late: Instant) {
    if !links.is_empty() {
        sleep_until(late).await;
        links.iter().filter(|link| !link.is_open()).for_each(|link| link.close("discovery shows it no more"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use ffnet::handshake::Peer;
    use ffproto::{Incarnation, NodeNumber};

    use super::*;
    use crate::cluster::found::{LinkAddress, found};
    use crate::runtime::server::bare;

    /// A follower of the node `game` below the gates of a config, which has one.
    fn follower() -> Follower {
        let config = r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": {
            "gate": { "rootport": 3, "app": "gate", "count": 1 },
            "game": { "app": "game", "remoteport": [{ "rootport": 3, "rootname": "gate" }] } } }"#;
        let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
        let executor = bare(&cluster, "game").unwrap();
        Follower::new(Arc::new(Inbound::new(executor)), &cluster, None)
    }

    fn shows(nodes: &[(&str, u16)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, number) in nodes {
            snapshot.show(Found { number: Some(NodeNumber(*number)), ..found(name, "gate", 1) });
        }
        snapshot
    }

    fn dialed(follower: &Follower) -> Vec<String> {
        follower.dialers.keys().map(ToString::to_string).collect()
    }

    fn expected(follower: &Follower) -> Vec<String> {
        follower.node().transit().parent_list().into_iter().map(|(name, _)| name.to_string()).collect()
    }

    #[tokio::test]
    async fn dialers_of_found_parents_begin_and_end_with_them_and_that_of_the_config_stays() {
        let mut follower = follower();
        assert_eq!(dialed(&follower), ["gate.1"]);
        follower.follow(shows(&[("gate.1", 1), ("gate.8", 8), ("gate.9", 9), ("game", 2)]));
        assert_eq!(dialed(&follower), ["gate.1", "gate.8", "gate.9"]);
        assert_eq!(expected(&follower), dialed(&follower));
        follower.follow(shows(&[("gate.9", 9)]));
        assert_eq!(dialed(&follower), ["gate.1", "gate.9"]);
        assert_eq!(expected(&follower), dialed(&follower));
    }

    #[tokio::test]
    async fn a_node_that_is_taken_away_dials_nobody_until_it_is_shown_again() {
        let mut follower = follower();
        let shows = |names: &[&str]| {
            let address = Some(LinkAddress::InProcess);
            let nodes = names.iter().map(|name| Found { address, ..found(name, "gate", 1) });
            Snapshot { number: None, nodes: nodes.map(|node| (node.name.clone(), node)).collect() }
        };
        let told = |follower: &Follower| *follower.dialers["gate.1"].borrow();
        let there = Whereabouts::At(LinkAddress::InProcess, Incarnation(1));
        // The backend may not show a node itself at all.
        follower.follow(shows(&["gate.1"]));
        assert_eq!(told(&follower), there);
        follower.follow(shows(&["gate.1", "game"]));
        assert_eq!(told(&follower), there);
        follower.follow(shows(&["gate.1"]));
        assert_eq!(told(&follower), Whereabouts::Unknown);
        follower.follow(shows(&["gate.1", "game"]));
        assert_eq!(told(&follower), there);
    }

    #[tokio::test(start_paused = true)]
    async fn the_links_of_a_neighbour_that_does_not_end_them_are_ended_unless_they_are_used_again() {
        let transit = follower().node().transit().clone();
        let link = |name: &str| {
            transit.new_link(Peer {
                name: NodeName::try_from(name).unwrap(),
                kind: "gate".into(),
                incarnation: Incarnation(1),
                pid: 1,
                program: String::new(),
                methods: vec![],
                version: ffproto::Versions::OURS.max,
                root: ffproto::credential::PublicKey([0; 32]),
            })
        };
        let (stays, back) = (link("gate.8"), link("gate.9"));
        [&stays, &back].into_iter().for_each(Link::retire);
        let late = tokio::spawn(close_late(
            vec![stays.clone(), back.clone()],
            Instant::now() + Duration::from_secs(9),
        ));
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert!(!stays.is_closed() && !back.is_closed(), "they may have something left");
        back.reinstate();
        late.await.unwrap();
        assert!(stays.is_closed() && back.is_open());
    }

    #[tokio::test]
    async fn a_node_under_a_number_that_another_name_has_had_is_not_linked() {
        let mut follower = follower();
        follower.follow(shows(&[("gate.8", 8)]));
        follower.follow(shows(&[]));
        follower.follow(shows(&[("gate.9", 8)]));
        assert_eq!(dialed(&follower), ["gate.1"]);
        follower.follow(shows(&[("gate.8", 8)]));
        assert_eq!(dialed(&follower), ["gate.1", "gate.8"]);
    }
}
