//! Links: taken when a neighbour has linked, forgotten when they end, and what their state changes for messages that wait.

use std::pin::pin;

use ffnet::Link;
use ffnet::handshake::Peer;
use ffnet::link::{Change, LinkLimits};
use ffproto::credential::{Claims, Credential};
use ffproto::handshake::{Refusal, not_of_the_future};
use ffproto::relay::Reachable;
use ffproto::{Incarnation, NodeName, NodeNumber};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::Transit;
use crate::cluster::peers::FENCED;
use crate::cluster::side::{PeerKey, Side};
use crate::identity::lifecycle::Phase;

/// What is said to a neighbour whose link ends because its key has.
pub(crate) const STRANGER: &str =
    "its key is of before the last change of the cluster's keys, and nobody takes it any more";

impl Transit {
    /// Introduces this node to the others, from now on and on every link.
    pub(crate) fn introduce(&self, number: NodeNumber) {
        let identity = self.identity();
        self.membership().set_me(Reachable {
            number,
            name: identity.name().clone(),
            kind: identity.kind().to_owned(),
            net: identity.config().netport.is_some(),
            incarnation: identity.incarnation(),
            since: self.membership().since(number, identity.incarnation()),
        });
    }

    /// A link of this node to `peer`, within the node's limits.
    pub(crate) fn new_link(&self, peer: Peer) -> Link {
        let (identity, limits) = (self.identity(), self.identity().limits());
        let limits = LinkLimits {
            frame_bytes_max: limits.link_frame_bytes_max,
            outbox_bytes_max: limits.link_outbox_bytes_max,
            calls_max: limits.calls_max,
            heartbeat: limits.heartbeat,
        };
        Link::new(identity.name().clone(), peer, limits, identity.counters().links.clone())
    }

    /// Takes the link to a parent; that of an older incarnation is retired.
    pub(crate) fn add_parent(&self, link: Link) {
        let key = || link.peer().name.to_string();
        self.parents().take(link.clone(), key, Instant::now());
        self.links_changed();
    }

    /// Forgets the link to a parent that has ended. True when that parent is linked no more.
    pub(crate) fn remove_parent(&self, link: &Link) -> bool {
        let gone = self.parents().ended(link, Instant::now());
        self.links_changed();
        gone
    }

    /// Whether an incarnation of a parent is linked, also one that is being replaced.
    pub(crate) fn has_parent(&self, name: &NodeName, incarnation: Incarnation) -> bool {
        self.parents().has(name, incarnation)
    }

    /// Whether a node that has proved who it is may link as a child: its master's config has it below nodes of this one's
    /// kind. This node's own config may be older: one that adds a child is taken over by the children first; and discovery
    /// shows children that no config names.
    pub(crate) fn admit_child(&self, child: &Credential) -> Result<(), Refusal> {
        let (Claims { name, kind, below, .. }, theirs) = (&child.claims, child.incarnation);
        if !below.iter().any(|above| above == self.identity().kind()) {
            let (child, kind, ours) = (name.clone(), kind.clone(), self.identity().kind().to_owned());
            return Err(Refusal::NoChild { child, kind, ours });
        }
        if self.identity().lifecycle().phase() == Phase::Stopping {
            return Err(Refusal::Stopping);
        }
        // One that is linked is told by its link: a clock that is set back ends none.
        if !self.children().has(name, theirs) {
            not_of_the_future(theirs, self.identity().ambient().clock.now_ms())?;
        }
        // One that discovery has taken away has to be shown again first, or its next link would take new messages.
        if self.membership().is_withdrawn(name, theirs) {
            return Err(Refusal::Unknown(name.clone()));
        }
        self.children().admit(name, theirs, Instant::now())
    }

    /// Takes a child's link; that of an older incarnation is retired, one of the same incarnation is closed. False when
    /// a newer incarnation has come meanwhile.
    pub(crate) fn add_child(&self, link: Link) -> bool {
        let kind = || link.peer().kind.clone();
        let taken = self.children().take(link.clone(), kind, Instant::now());
        self.links_changed();
        taken
    }

    /// Forgets a child's link. True when that child is linked no more.
    pub(crate) fn remove_child(&self, link: &Link) -> bool {
        let gone = self.children().ended(link, Instant::now());
        self.links_changed();
        gone
    }

    /// Lets an older start of a child serve on after a newer one, which has left: it was the successor of nobody. Its link is
    /// closed, and it links anew. Waits until it is sure that the newer one does not come back.
    pub(crate) async fn let_older_serve(&self, child: &NodeName) {
        let older = self.children().get(child.as_str()).is_some_and(|known| known.links().next().is_some());
        if !older {
            return;
        }
        sleep(FENCED).await;
        for link in self.children().forsaken(child, Instant::now()) {
            link.close("a newer start of this node has come and gone: link anew");
        }
    }

    /// Ends the links of those that have linked with keys which nobody takes any more.
    pub(crate) fn hang_up_on_strangers(&self) {
        for link in self.links().iter().filter(|link| !self.identity().trusts(link.peer().root)) {
            warn!(peer = %link.peer().name, "its key is of before the last change of keys: its link ends");
            link.close(STRANGER);
        }
    }

    /// Expects the neighbours to link from now on; with `come` they were linked to the predecessor.
    pub(crate) fn expect_peers(&self, come: bool) {
        let now = Instant::now();
        self.parents().expect_from(now, come);
        self.children().expect_from(now, come);
    }

    /// Expects a neighbour that discovery shows. One that was withdrawn, and whose link lives, is used again.
    pub(crate) fn show_peer(&self, at: &PeerKey, group: &str) {
        let was_withdrawn = self.peers(at.side).is_withdrawn(&at.name);
        self.membership().show(&at.name);
        self.peers(at.side).show(&at.name, group, Instant::now());
        if was_withdrawn {
            self.membership().use_again(at);
        }
        self.links_changed();
    }

    /// Gives up a neighbour that discovery shows no more: its sessions go elsewhere, each when nothing of it is under way
    /// there, and no way leads over it. Returns its links, which the neighbour ends when it has nothing left.
    pub(crate) fn withdraw_peer(&self, at: &PeerKey, named: bool) -> Vec<Link> {
        let links = self.peers(at.side).withdraw(&at.name, named);
        self.membership().avoid(at);
        self.links_changed();
        links
    }

    /// Takes a neighbour's word about its link as a whole.
    pub(crate) fn link_changed(&self, link: &Link, change: Change) {
        let now = Instant::now();
        match change {
            Change::Paused => {
                let _ = self.parents().paused(link, now) || self.children().paused(link, now);
            }
            Change::Resumed => {
                self.parents().resumed(link);
                self.children().resumed(link);
            }
            Change::Quieter => {
                // A release comes with every read: only those messages are looked at that have waited for it.
                return link.take_released().into_iter().for_each(|session| self.look_at_parked_of(session));
            }
            Change::Switched | Change::PeerPaused => {}
        }
        self.0.turned.notify_one();
        self.look_at_parked();
    }

    fn links_changed(&self) {
        self.identity().lifecycle().status_changed().notify_one();
        self.0.linked.notify_waiters();
        self.0.turned.notify_one();
        self.look_at_parked();
    }

    /// The children that are linked now.
    pub(crate) fn linked_children(&self) -> Vec<NodeName> {
        let children = self.children();
        children.iter().filter(|child| child.link().is_some()).map(|child| child.name.clone()).collect()
    }

    /// The parents, and whether each is linked now.
    pub(crate) fn parent_list(&self) -> Vec<(NodeName, bool)> {
        self.parents().iter().map(|parent| (parent.name.clone(), parent.link().is_some())).collect()
    }

    /// Ends every link in good order.
    pub(crate) fn close_links(&self, why: &str) {
        self.links().iter().for_each(|link| link.close(why));
    }

    /// Waits until every link to a parent is over, see [`Link::is_over`]. Cancel-safe.
    pub(crate) async fn parents_gone(&self) {
        self.linked(|transit| transit.parents().are_over()).await;
    }

    /// Waits until every configured parent is linked. Cancel-safe.
    pub(crate) async fn parents_up(&self) {
        self.linked(|transit| transit.parents().iter().all(|parent| parent.link().is_some())).await;
    }

    /// Waits until an incarnation of a parent wants a link: it has none, and this process has no successor, which the parent
    /// has instead. Cancel-safe.
    pub(crate) async fn parent_wanted(&self, name: &NodeName, incarnation: Incarnation) {
        self.linked(|transit| {
            let handed_over = transit.identity().lifecycle().phase() == Phase::HandedOver;
            !handed_over && !transit.has_parent(name, incarnation)
        })
        .await;
    }

    /// Waits until a parent is linked, or until none of that name is. Cancel-safe.
    pub(crate) async fn parent_is(&self, name: &NodeName, linked: bool) {
        let has = |transit: &Self| transit.parent_list().contains(&(name.clone(), true));
        self.linked(|transit| has(transit) == linked).await;
    }

    /// Waits until a child is linked, or until none of that name is. Cancel-safe.
    pub(crate) async fn child_is(&self, name: &NodeName, linked: bool) {
        self.linked(|transit| transit.linked_children().contains(name) == linked).await;
    }

    /// Waits until something is so that depends on links and on the phase.
    async fn linked(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let phase_changed = self.identity().lifecycle().phase_changed();
            let (mut links, mut phase) = (pin!(self.0.linked.notified()), pin!(phase_changed.notified()));
            // Enabled before the look, so that no change is missed between the two.
            links.as_mut().enable();
            phase.as_mut().enable();
            if is_so(self) {
                return;
            }
            tokio::select! {
                () = links => {}
                () = phase => {}
            }
        }
    }

    /// Adds a link, which is about to be used, to the membership.
    pub(crate) fn link_up(&self, side: Side, link: &Link) {
        self.membership().link_up(side, link);
    }

    /// Removes a link that has ended from the membership.
    pub(crate) fn link_down(&self, side: Side, link: &Link) {
        self.membership().link_down(side, link);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use ffproto::credential::{PublicKey, Signature};
    use tokio::time::timeout;

    use super::*;
    use crate::runtime::server::bare;

    #[tokio::test]
    async fn a_child_that_was_taken_away_is_let_in_when_it_is_shown_again_or_starts_anew() {
        let config = r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": {
            "gate": { "rootport": 3, "app": "gate" },
            "game": { "app": "game", "remoteport": [{ "rootport": 3, "rootname": "gate" }] } } }"#;
        let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
        let executor = bare(&cluster, "gate").unwrap();
        let (transit, name) = (executor.node.transit(), NodeName::try_from("game.9").unwrap());
        let below = |below: &str, incarnation| {
            let below = vec![below.to_owned()];
            let claims = Claims { name: name.clone(), below, ..cluster.claims(&cluster.nodes[1]) };
            let (key, signature) = (PublicKey([0; 32]), Signature([0; 32], [0; 32]));
            let (incarnation, root, via) = (Incarnation(incarnation), key, None);
            transit.admit_child(&Credential { claims, incarnation, key, root, via, signature })
        };
        let admitted = |incarnation| below("gate", incarnation);
        assert!(matches!(below("hub", 1), Err(Refusal::NoChild { .. })), "its config has it below others");
        assert_eq!(admitted(u64::MAX), Err(Refusal::Future(Incarnation(u64::MAX))));
        assert_eq!(admitted(1), Ok(()), "a config that adds a node is taken over by the children first");
        transit.membership().withdraw(&name, Incarnation(1));
        assert_eq!(admitted(1), Err(Refusal::Unknown(name.clone())));
        assert_eq!(admitted(2), Ok(()));
        transit.show_peer(&PeerKey::new(Side::Child, name.clone()), "game");
        assert_eq!(admitted(1), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_parent_wants_a_link_as_soon_as_its_last_one_ends_and_when_this_process_serves_again() {
        let config = r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": {
            "gate": { "rootport": 3, "app": "gate" },
            "game": { "app": "game", "remoteport": [{ "rootport": 3, "rootname": "gate" }] } } }"#;
        let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
        let executor = bare(&cluster, "game").unwrap();
        let (transit, lifecycle) = (executor.node.transit(), executor.node.identity().lifecycle());
        let (name, incarnation) = (NodeName::try_from("gate").unwrap(), Incarnation(1));
        let peer = Peer {
            name: name.clone(),
            kind: "gate".into(),
            incarnation,
            pid: 1,
            program: String::new(),
            methods: vec![],
            version: ffproto::Versions::OURS.max,
            root: ffproto::credential::PublicKey([0; 32]),
        };
        let link = transit.new_link(peer);
        transit.parent_wanted(&name, incarnation).await;
        transit.add_parent(link.clone());
        let mut wanted = pin!(transit.parent_wanted(&name, incarnation));
        assert!(timeout(Duration::from_secs(60), wanted.as_mut()).await.is_err(), "the parent is linked");
        link.close("the predecessor has ended");
        assert!(transit.remove_parent(&link));
        assert!(timeout(Duration::ZERO, wanted).await.is_ok());
        lifecycle.set_phase(Phase::HandedOver);
        let mut wanted = pin!(transit.parent_wanted(&name, incarnation));
        assert!(timeout(Duration::from_secs(60), wanted.as_mut()).await.is_err(), "the successor serves");
        lifecycle.set_phase(Phase::Ready);
        assert!(timeout(Duration::ZERO, wanted).await.is_ok());
    }
}
