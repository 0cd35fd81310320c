//! The neighbours of a node: each with its current link, and with the older links of predecessors. Values in, values
//! out; the clock comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use ffnet::Link;
use ffproto::handshake::{Refusal, fence};
use ffproto::{Incarnation, NodeName, SessionId};
use rustc_hash::FxHashSet;
use tokio::time::Instant;

/// The neighbours on one side of a node: its parents, or its children.
#[derive(Default)]
pub(crate) struct Peers {
    known: BTreeMap<NodeName, KnownPeer>,
}

/// One neighbour.
pub(crate) struct KnownPeer {
    pub(crate) name: NodeName,
    /// The name that several neighbours have in common: a child's kind, a parent's key in the config.
    pub(crate) group: String,
    /// The newest incarnation that has been seen; it stays when the link ends, to fence older ones.
    incarnation: Option<Incarnation>,
    /// The link for new messages, while it is open; also the last one after its end, for the methods that the peer
    /// takes.
    current: Option<Link>,
    /// Links of older incarnations: they bring outcomes, and come back when their successor fails.
    older: Vec<Link>,
    /// Since when the neighbour is waited for: its link has ended, has not come yet, or it has said Pause.
    missed: Instant,
    /// Was linked to the predecessor; expected to reconnect.
    comes: bool,
    /// Sessions whose messages have come over the current link while an older one lives: nothing of them is under way
    /// there any more.
    turned: FxHashSet<SessionId>,
    /// Whether the flush barrier of an older link is being waited for.
    fenced: bool,
}

/// Which link a message for a client takes while a neighbour's process is replaced.
pub(crate) enum LinkChoice {
    /// The older link: an answer may go there that must come behind the message.
    Old(Link),
    /// The current link.
    New,
    /// The current link, when everything has arrived that was sent over the older one.
    Wait,
}

/// How a neighbour can be reached.
pub(crate) enum PeerState {
    /// Over this link.
    Open(Link),
    /// The neighbour is being replaced: it is back soon, with all that it knows.
    Replaced,
    /// The neighbour has ended or has not come yet, and may be there soon.
    Missed,
    /// The neighbour is not there, and is not waited for.
    Gone,
}

impl KnownPeer {
    fn new(name: NodeName, group: String, now: Instant) -> Self {
        let (incarnation, current, older) = (None, None, Vec::new());
        let (turned, fenced) = (FxHashSet::default(), false);
        Self { name, group, incarnation, current, older, missed: now, comes: false, turned, fenced }
    }

    /// How the neighbour can be reached; it is waited for at most `park`.
    pub(crate) fn state(&self, now: Instant, park: Duration) -> PeerState {
        match &self.current {
            Some(link) if link.is_open() => PeerState::Open(link.clone()),
            _ if self.missed + park <= now => PeerState::Gone,
            // After a Pause the successor's link may come only when the old one has ended.
            Some(link) if link.is_paused() => PeerState::Replaced,
            Some(_) if self.older.iter().any(|old| !old.is_closed()) => PeerState::Replaced,
            // The predecessor's affinity names it: sessions do not go elsewhere while the neighbour is on its way.
            None if self.comes => PeerState::Replaced,
            _ => PeerState::Missed,
        }
    }

    /// The current link, as long as it lives.
    pub(crate) fn link(&self) -> Option<&Link> {
        self.current.as_ref().filter(|link| !link.is_closed())
    }

    /// The link that tells which methods the neighbour takes: the current one, or the last.
    pub(crate) fn last_link(&self) -> Option<&Link> {
        self.current.as_ref()
    }

    /// Whether a message of the session waits for its outcome on a link that was replaced: the next one
    /// must wait as well, or it might overtake.
    pub(crate) fn holds(&self, session: SessionId) -> bool {
        self.older.iter().any(|link| link.holds(session))
    }

    /// Which link a message for that session's client takes; `at_work` says of the session's own net node whether a
    /// message of the session is under way here: with its end the session may go to the successor.
    pub(crate) fn turn(&self, session: SessionId, at_work: Option<bool>) -> LinkChoice {
        let Some(old) = self.older.iter().rfind(|old| !old.is_closed()) else { return LinkChoice::New };
        match at_work {
            _ if self.turned.contains(&session) => LinkChoice::New,
            Some(true) => LinkChoice::Old(old.clone()),
            Some(false) => LinkChoice::New,
            None if !old.peer_has_switched() => LinkChoice::Old(old.clone()),
            None if self.fenced => LinkChoice::Wait,
            None => LinkChoice::New,
        }
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.current.iter().chain(&self.older).filter(|link| !link.is_closed())
    }

    fn take(&mut self, link: Link) {
        self.incarnation = Some(link.peer().incarnation);
        self.older.retain(|old| !old.is_closed());
        if let Some(old) = self.current.replace(link.clone())
            && !old.is_closed()
        {
            if old.peer().incarnation == link.peer().incarnation {
                old.close("a newer link of the same node took its place");
            } else {
                old.retire();
                self.older.push(old);
                link.set_young(true);
                self.turned.clear();
            }
        }
    }

    /// Removes a link that has ended. True when it was the neighbour's current one.
    fn ended(&mut self, link: &Link, now: Instant) -> bool {
        self.older.retain(|old| !old.same(link));
        if self.older.is_empty() {
            self.turned.clear();
            self.current.iter().for_each(|current| current.set_young(false));
        }
        let current = self.current.as_ref().is_some_and(|known| known.same(link));
        if !current {
            return false;
        }
        // A pause began the wait already.
        if !link.is_paused() {
            self.missed = now;
        }
        self.reinstate();
        true
    }

    /// Makes the newest older link whose peer has said Resume the current one, if the successor's link has ended.
    fn reinstate(&mut self) {
        if self.link().is_some_and(|link| !link.is_paused()) {
            return;
        }
        let resumed = |link: &Link| link.is_resumed() && !link.is_closed();
        if let Some(at) = self.older.iter().rposition(resumed) {
            let link = self.older.remove(at);
            link.reinstate();
            self.incarnation = Some(link.peer().incarnation);
            self.current = Some(link);
        }
    }
}

impl Peers {
    /// The neighbours of a config, which are to be there soon, counted from `now`.
    pub(crate) fn expecting(names: impl Iterator<Item = (NodeName, String)>, now: Instant) -> Self {
        let new = |(name, group): (NodeName, String)| (name.clone(), KnownPeer::new(name, group, now));
        Self { known: names.map(new).collect() }
    }

    /// Waits from `now` on for the neighbours that have not linked yet; with `come` they were linked to the
    /// predecessor.
    pub(crate) fn expect_from(&mut self, now: Instant, come: bool) {
        for known in self.known.values_mut().filter(|known| known.current.is_none()) {
            (known.missed, known.comes) = (now, come);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &KnownPeer> {
        self.known.values()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&KnownPeer> {
        self.known.get(name)
    }

    /// The neighbours that `who` means: the neighbour of that name, else all of that group.
    pub(crate) fn meant<'a>(&'a self, who: &'a str) -> impl Iterator<Item = &'a KnownPeer> {
        let one = self.known.get(who);
        let group = self.known.values().filter(move |known| one.is_none() && known.group == *who);
        one.into_iter().chain(group)
    }

    /// Whether an incarnation of a neighbour may link.
    pub(crate) fn admit(&self, name: &NodeName, theirs: Incarnation) -> Result<(), Refusal> {
        fence(name, self.known.get(name).and_then(|known| known.incarnation), theirs)
    }

    /// Takes a link for new messages; one of an older incarnation is retired, one of the same incarnation is closed.
    /// False when a newer incarnation has come meanwhile.
    pub(crate) fn take(&mut self, link: Link, group: impl FnOnce() -> String, now: Instant) -> bool {
        let name = link.peer().name.clone();
        if self.admit(&name, link.peer().incarnation).is_err() {
            return false;
        }
        let new = || KnownPeer::new(name.clone(), group(), now);
        self.known.entry(name.clone()).or_insert_with(new).take(link);
        true
    }

    /// Removes a link that has ended. True when it was the neighbour's current one.
    pub(crate) fn ended(&mut self, link: &Link, now: Instant) -> bool {
        self.known.get_mut(&link.peer().name).is_some_and(|known| known.ended(link, now))
    }

    /// Notes that the peer of a link is being replaced. False when the peer is none of these neighbours.
    pub(crate) fn paused(&mut self, link: &Link, now: Instant) -> bool {
        let known = self.known.get_mut(&link.peer().name);
        known.map(|known| known.missed = now).is_some()
    }

    /// Notes that the peer of a link is not replaced after all.
    pub(crate) fn resumed(&mut self, link: &Link) {
        let Some(known) = self.known.get_mut(&link.peer().name) else { return };
        match &known.current {
            Some(current) if current.same(link) => link.reinstate(),
            _ => known.reinstate(),
        }
    }

    /// Notes that a message of the session has come over the current link. True for the first.
    pub(crate) fn turned(&mut self, link: &Link, session: SessionId) -> bool {
        let known = self.known.get_mut(&link.peer().name);
        let is_current =
            |known: &&mut KnownPeer| known.current.as_ref().is_some_and(|current| current.same(link));
        known.filter(is_current).is_some_and(|known| known.turned.insert(session))
    }

    /// Notes whether the flush barrier of an older link is being waited for. False when the link is not an older one.
    pub(crate) fn fence(&mut self, link: &Link, fenced: bool) -> bool {
        let Some(known) = self.known.get_mut(&link.peer().name) else { return false };
        let is_older = known.older.iter().any(|old| old.same(link));
        known.fenced = fenced && is_older;
        is_older
    }

    /// Whether an incarnation of a neighbour has a link, current or not.
    pub(crate) fn has(&self, name: &NodeName, incarnation: Incarnation) -> bool {
        let is = |link: &Link| link.peer().incarnation == incarnation;
        self.known.get(name).is_some_and(|known| known.links().any(is))
    }

    /// Whether every link has said its last word.
    pub(crate) fn are_over(&self) -> bool {
        self.known.values().flat_map(|known| known.current.iter().chain(&known.older)).all(Link::is_over)
    }

    /// Every link that lives.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        self.known.values().flat_map(KnownPeer::links)
    }
}

#[cfg(test)]
mod tests {
    use ffnet::handshake::Peer;
    use ffnet::link::LinkLimits;

    use super::*;

    const PARK: Duration = Duration::from_secs(2);

    fn link(incarnation: u64) -> Link {
        let peer = Peer {
            name: NodeName::try_from("game1").unwrap(),
            kind: "game".into(),
            incarnation: Incarnation(incarnation),
            pid: 1,
            program: String::new(),
            methods: vec![],
        };
        let limits = LinkLimits {
            frame_bytes_max: 1 << 20,
            outbox_bytes_max: 1 << 20,
            calls_max: 10,
            heartbeat: PARK,
        };
        Link::new(NodeName::try_from("gate").unwrap(), peer, limits, Default::default())
    }

    fn take(all: &mut Peers, incarnation: u64, now: Instant) -> Link {
        let link = link(incarnation);
        assert!(all.take(link.clone(), || "game".into(), now));
        link
    }

    fn state(all: &Peers, now: Instant) -> String {
        match all.get("game1").unwrap().state(now, PARK) {
            PeerState::Open(link) => format!("open {}", link.peer().incarnation),
            PeerState::Replaced => "replaced".into(),
            PeerState::Missed => "missed".into(),
            PeerState::Gone => "gone".into(),
        }
    }

    #[test]
    fn an_expected_neighbour_is_waited_for_and_then_gone() {
        let now = Instant::now();
        let game = (NodeName::try_from("game1").unwrap(), "game".to_owned());
        let all = Peers::expecting([game].into_iter(), now);
        assert_eq!(state(&all, now), "missed");
        assert_eq!(state(&all, now + PARK), "gone");
        assert_eq!(all.meant("game").count(), 1);
        assert_eq!(all.meant("other").count(), 0);
    }

    #[test]
    fn a_neighbour_of_the_predecessor_is_on_its_way_until_its_time_is_over() {
        let now = Instant::now();
        let game = (NodeName::try_from("game1").unwrap(), "game".to_owned());
        let mut all = Peers::expecting([game].into_iter(), now);
        all.expect_from(now + PARK, true);
        assert_eq!(state(&all, now + PARK), "replaced");
        assert_eq!(state(&all, now + PARK * 2), "gone");
        take(&mut all, 5, now + PARK);
        assert_eq!(state(&all, now + PARK), "open 5");
    }

    #[test]
    fn a_lost_neighbour_is_waited_for_from_its_end_and_an_older_start_is_fenced() {
        let (mut all, now) = (Peers::default(), Instant::now());
        let first = take(&mut all, 5, now);
        assert_eq!(state(&all, now), "open 5");
        first.close("killed");
        assert!(all.ended(&first, now + PARK));
        assert_eq!(state(&all, now + PARK), "missed");
        assert!(!all.take(link(4), || "game".into(), now), "older");
        take(&mut all, 6, now);
        assert_eq!(state(&all, now), "open 6");
    }

    #[test]
    fn what_is_for_a_client_goes_the_old_way_until_its_messages_come_the_new_way() {
        let (mut all, now) = (Peers::default(), Instant::now());
        let (alice, bob) = (SessionId(1), SessionId(2));
        let turn = |all: &Peers, session, at_work| match all.get("game1").unwrap().turn(session, at_work) {
            LinkChoice::Old(link) => format!("old {}", link.peer().incarnation),
            LinkChoice::New => "new".into(),
            LinkChoice::Wait => "wait".into(),
        };
        let old = take(&mut all, 5, now);
        assert_eq!((turn(&all, alice, None), old.is_young()), ("new".into(), false));
        let new = take(&mut all, 6, now);
        assert!(new.is_young() && !old.is_young());
        all.turned(&old, alice);
        assert_eq!(turn(&all, alice, None), "old 5", "that was the old link");
        all.turned(&new, alice);
        assert_eq!((turn(&all, alice, None), turn(&all, bob, None)), ("new".into(), "old 5".into()));
        // Of its own net node a session is at the successor when nothing of it is under way at the predecessor.
        assert_eq!(
            (turn(&all, bob, Some(false)), turn(&all, bob, Some(true))),
            ("new".into(), "old 5".into())
        );
        assert_eq!(turn(&all, alice, Some(true)), "new");
        assert!(all.fence(&old, true) && !all.fence(&new, false));
        old.close("left");
        assert_eq!(turn(&all, bob, None), "new");
        all.ended(&old, now);
        assert!(!new.is_young());
    }

    #[test]
    fn a_successors_link_retires_the_old_one_which_comes_back_when_the_successor_fails() {
        let (mut all, now) = (Peers::default(), Instant::now());
        let old = take(&mut all, 5, now);
        let new = take(&mut all, 6, now);
        assert_eq!(state(&all, now), "open 6");
        assert!(!old.is_open() && !old.is_closed());
        assert!(all.has(&old.peer().name, Incarnation(5)));
        // Its end alone brings nobody back: the predecessor has not said that it goes on.
        new.close("died");
        assert!(all.ended(&new, now));
        assert_eq!(state(&all, now), "replaced");
        all.resumed(&old);
        assert_eq!(state(&all, now), "replaced", "the flag is set by the driver");
        assert!(!all.ended(&link(6), now), "not its link");
    }
}
