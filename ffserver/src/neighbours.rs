//! The nodes that this one is linked to: each with its current link, and with the older ones of processes
//! that are being replaced. Values in, values out; the clock comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use ffnet::Link;
use ffproto::handshake::{Refusal, fence};
use ffproto::{Incarnation, NodeName, SessionId};
use tokio::time::Instant;

/// The parents of a node, or its children.
#[derive(Default)]
pub(crate) struct Neighbours {
    known: BTreeMap<NodeName, Neighbour>,
}

/// One neighbour.
pub(crate) struct Neighbour {
    pub(crate) name: NodeName,
    /// What several have in common: a child's kind, a parent's key in the config.
    pub(crate) group: String,
    /// The newest start that has been seen; stays when the link ends, to fence older ones.
    incarnation: Option<Incarnation>,
    /// For what is new, while it is open; also the last one after its end, for what the peer takes.
    current: Option<Link>,
    /// Of older starts: they bring outcomes, and come back when their successor fails.
    older: Vec<Link>,
    /// Since when it is waited for: it has ended, is not there yet, or has said Pause.
    missed: Instant,
    /// It was linked to this process's predecessor, and comes.
    comes: bool,
}

/// How a neighbour can be reached.
pub(crate) enum Way {
    /// On this link.
    Open(Link),
    /// It is being replaced: it is back soon, with all that it knows.
    Replaced,
    /// It has ended or is not there yet, and may be there soon.
    Missed,
    /// It is not there.
    Gone,
}

impl Neighbour {
    fn new(name: NodeName, group: String, now: Instant) -> Self {
        Self { name, group, incarnation: None, current: None, older: Vec::new(), missed: now, comes: false }
    }

    /// The way to it; it is waited for at most `park`.
    pub(crate) fn way(&self, now: Instant, park: Duration) -> Way {
        match &self.current {
            Some(link) if link.is_open() => Way::Open(link.clone()),
            _ if self.missed + park <= now => Way::Gone,
            // After a Pause the successor's link may come only when the old one has ended.
            Some(link) if link.is_paused() => Way::Replaced,
            Some(_) if self.older.iter().any(|old| !old.is_closed()) => Way::Replaced,
            // Its sessions are known from the predecessor: they do not go elsewhere while it is on its way.
            None if self.comes => Way::Replaced,
            _ => Way::Missed,
        }
    }

    /// Its link, as long as it lives.
    pub(crate) fn link(&self) -> Option<&Link> {
        self.current.as_ref().filter(|link| !link.is_closed())
    }

    /// The link that tells what it takes: the current one, or the last.
    pub(crate) fn last_link(&self) -> Option<&Link> {
        self.current.as_ref()
    }

    /// Whether a message of the session waits for its outcome on a link that was replaced: the next one
    /// must wait as well, or it might overtake.
    pub(crate) fn holds(&self, session: SessionId) -> bool {
        self.older.iter().any(|link| link.holds(session))
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
            }
        }
    }

    /// A link has ended. True when the neighbour is no longer linked by it.
    fn ended(&mut self, link: &Link, now: Instant) -> bool {
        self.older.retain(|old| !old.same(link));
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

    /// The newest old process that has said Resume, if its successor's link has ended.
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

impl Neighbours {
    /// These are to be there soon, counted from `now`.
    pub(crate) fn expect(names: impl Iterator<Item = (NodeName, String)>, now: Instant) -> Self {
        let new = |(name, group): (NodeName, String)| (name.clone(), Neighbour::new(name, group, now));
        Self { known: names.map(new).collect() }
    }

    /// Those that have not been linked yet are waited for from `now` on; with `come` they were linked to this
    /// process's predecessor.
    pub(crate) fn expect_from(&mut self, now: Instant, come: bool) {
        for known in self.known.values_mut().filter(|known| known.current.is_none()) {
            (known.missed, known.comes) = (now, come);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.known.values()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Neighbour> {
        self.known.get(name)
    }

    /// Those that `who` means: the one of that name, else all of that group.
    pub(crate) fn meant(&self, who: &str) -> Vec<&Neighbour> {
        match self.known.get(who) {
            Some(one) => vec![one],
            None => self.known.values().filter(|known| known.group == *who).collect(),
        }
    }

    /// Whether a start of a neighbour may link.
    pub(crate) fn admit(&self, name: &NodeName, theirs: Incarnation) -> Result<(), Refusal> {
        fence(name, self.known.get(name).and_then(|known| known.incarnation), theirs)
    }

    /// Takes a link for what is new; one of an older start is retired, one of the same start is closed.
    /// False when a newer start has come meanwhile.
    pub(crate) fn take(&mut self, link: Link, group: impl FnOnce() -> String, now: Instant) -> bool {
        let name = link.peer().name.clone();
        if self.admit(&name, link.peer().incarnation).is_err() {
            return false;
        }
        let new = || Neighbour::new(name.clone(), group(), now);
        self.known.entry(name.clone()).or_insert_with(new).take(link);
        true
    }

    /// A link has ended. True when the neighbour is no longer linked by it.
    pub(crate) fn ended(&mut self, link: &Link, now: Instant) -> bool {
        self.known.get_mut(&link.peer().name).is_some_and(|known| known.ended(link, now))
    }

    /// The peer of a link is being replaced. False when it is not of these.
    pub(crate) fn paused(&mut self, link: &Link, now: Instant) -> bool {
        let known = self.known.get_mut(&link.peer().name);
        known.map(|known| known.missed = now).is_some()
    }

    /// The peer of a link is not replaced after all.
    pub(crate) fn resumed(&mut self, link: &Link) {
        let Some(known) = self.known.get_mut(&link.peer().name) else { return };
        match &known.current {
            Some(current) if current.same(link) => link.reinstate(),
            _ => known.reinstate(),
        }
    }

    /// Whether that start of a neighbour has a link, current or not.
    pub(crate) fn has(&self, name: &NodeName, incarnation: Incarnation) -> bool {
        let is = |link: &Link| link.peer().incarnation == incarnation;
        self.known.get(name).is_some_and(|known| known.links().any(is))
    }

    /// Every link that lives.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        self.known.values().flat_map(Neighbour::links)
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

    fn take(all: &mut Neighbours, incarnation: u64, now: Instant) -> Link {
        let link = link(incarnation);
        assert!(all.take(link.clone(), || "game".into(), now));
        link
    }

    fn way(all: &Neighbours, now: Instant) -> String {
        match all.get("game1").unwrap().way(now, PARK) {
            Way::Open(link) => format!("open {}", link.peer().incarnation),
            Way::Replaced => "replaced".into(),
            Way::Missed => "missed".into(),
            Way::Gone => "gone".into(),
        }
    }

    #[test]
    fn an_expected_neighbour_is_waited_for_and_then_gone() {
        let now = Instant::now();
        let game = (NodeName::try_from("game1").unwrap(), "game".to_owned());
        let all = Neighbours::expect([game].into_iter(), now);
        assert_eq!(way(&all, now), "missed");
        assert_eq!(way(&all, now + PARK), "gone");
        assert_eq!(all.meant("game").len(), 1);
        assert_eq!(all.meant("other").len(), 0);
    }

    #[test]
    fn a_neighbour_of_the_predecessor_is_on_its_way_until_its_time_is_over() {
        let now = Instant::now();
        let game = (NodeName::try_from("game1").unwrap(), "game".to_owned());
        let mut all = Neighbours::expect([game].into_iter(), now);
        all.expect_from(now + PARK, true);
        assert_eq!(way(&all, now + PARK), "replaced");
        assert_eq!(way(&all, now + PARK * 2), "gone");
        take(&mut all, 5, now + PARK);
        assert_eq!(way(&all, now + PARK), "open 5");
    }

    #[test]
    fn a_lost_neighbour_is_waited_for_from_its_end_and_an_older_start_is_fenced() {
        let (mut all, now) = (Neighbours::default(), Instant::now());
        let first = take(&mut all, 5, now);
        assert_eq!(way(&all, now), "open 5");
        first.close("killed");
        assert!(all.ended(&first, now + PARK));
        assert_eq!(way(&all, now + PARK), "missed");
        assert!(!all.take(link(4), || "game".into(), now), "older");
        take(&mut all, 6, now);
        assert_eq!(way(&all, now), "open 6");
    }

    #[test]
    fn a_successors_link_retires_the_old_one_which_comes_back_when_the_successor_fails() {
        let (mut all, now) = (Neighbours::default(), Instant::now());
        let old = take(&mut all, 5, now);
        let new = take(&mut all, 6, now);
        assert_eq!(way(&all, now), "open 6");
        assert!(!old.is_open() && !old.is_closed());
        assert!(all.has(&old.peer().name, Incarnation(5)));
        // Its end alone brings nobody back: the old process has not said that it goes on.
        new.close("died");
        assert!(all.ended(&new, now));
        assert_eq!(way(&all, now), "replaced");
        all.resumed(&old);
        assert_eq!(way(&all, now), "replaced", "the flag is set by the driver");
        assert!(!all.ended(&link(6), now), "not its link");
    }
}
