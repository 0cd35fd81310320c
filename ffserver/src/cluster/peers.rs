//! The neighbours of a node: each with its current link, and with the older links of predecessors. Values in, values
//! out; the clock comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use ffnet::Link;
use ffproto::handshake::{Refusal, fence};
use ffproto::{Incarnation, NodeName, SessionId};
use rustc_hash::FxHashSet;
use tokio::time::Instant;

/// How long a start that has no link any more keeps older ones out: longer than a link needs to come back over a new connection.
/// Not for ever, or whoever has linked once as a node and left would have ended that node.
pub(crate) const FENCED: Duration = Duration::from_secs(1);

/// The neighbours on one side of a node: its parents, or its children.
#[derive(Default)]
pub(crate) struct Peers {
    known: BTreeMap<NodeName, KnownPeer>,
    /// Neighbours that have not linked yet were linked to the predecessor.
    come: bool,
}

/// One neighbour.
pub(crate) struct KnownPeer {
    pub(crate) name: NodeName,
    /// The name that several neighbours have in common: a child's kind, a parent's key in the config.
    pub(crate) group: String,
    /// The incarnation of the last link that was taken. It fences older ones, also for [`FENCED`] after the link's end.
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
    /// Where the knowledge of the neighbour comes from, and whether discovery has taken it away.
    standing: Standing,
}

/// The standing of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The neighbour is to be there, as the config or discovery says; it stays known when its link ends.
    Known,
    /// The neighbour has come by itself, under a name that nobody has told: nothing is left of it when its last link ends.
    Guest,
    /// Discovery has taken the neighbour away: it gets nothing new, and its link brings the last outcomes. Forgotten with
    /// the link when no config names it.
    Withdrawn { named: bool },
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
    /// Discovery has taken the neighbour away: it gets nothing new, and is not waited for. A session's messages go elsewhere
    /// when its last outcome has come ([`KnownPeer::holds`]).
    Withdrawn,
}

impl KnownPeer {
    fn new(name: NodeName, group: String, now: Instant) -> Self {
        let (incarnation, current, older) = (None, None, Vec::new());
        let (turned, fenced) = (FxHashSet::default(), false);
        let standing = Standing::Known;
        Self { name, group, incarnation, current, older, missed: now, comes: false, turned, fenced, standing }
    }

    /// How the neighbour can be reached; it is waited for at most `park`.
    pub(crate) fn state(&self, now: Instant, park: Duration) -> PeerState {
        match &self.current {
            _ if self.is_withdrawn() => PeerState::Withdrawn,
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

    /// Whether a message of the session waits for its outcome on a link that was replaced, or withdrawn: the next one
    /// must wait as well, or it might overtake.
    pub(crate) fn holds(&self, session: SessionId) -> bool {
        let withdrawn = self.current.iter().filter(|_| self.is_withdrawn());
        self.older.iter().chain(withdrawn).any(|link| link.holds(session))
    }

    fn is_withdrawn(&self) -> bool {
        matches!(self.standing, Standing::Withdrawn { .. })
    }

    /// Retires the links, as those of a neighbour that gets nothing new.
    fn withdraw(&mut self, named: bool) -> Vec<Link> {
        self.standing = Standing::Withdrawn { named };
        self.comes = false;
        if let Some(link) = self.link().filter(|link| !link.is_paused()) {
            link.retire();
        }
        self.links().cloned().collect()
    }

    /// Takes the link of a withdrawn neighbour into use again.
    fn show(&mut self, now: Instant) {
        let was_withdrawn = self.is_withdrawn();
        self.standing = Standing::Known;
        if was_withdrawn {
            self.missed = now;
            if let Some(link) = self.link() {
                link.reinstate();
                link.resume();
            }
        }
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

    /// The links that live.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        self.current.iter().chain(&self.older).filter(|link| !link.is_closed())
    }

    fn take(&mut self, link: Link) {
        // The next start of a neighbour that was taken away is there, whether discovery has shown it yet or not.
        if let Standing::Withdrawn { named } = self.standing
            && self.incarnation.is_some_and(|last| last < link.peer().incarnation)
        {
            self.standing = if named { Standing::Known } else { Standing::Guest };
        }
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
        if !self.is_withdrawn() {
            self.reinstate();
        }
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
        Self { known: names.map(new).collect(), come: false }
    }

    /// Expects a neighbour that discovery shows, from `now` on, if it was not known or has been withdrawn.
    pub(crate) fn show(&mut self, name: &NodeName, group: &str, now: Instant) {
        let comes = self.come;
        let new = || KnownPeer { comes, ..KnownPeer::new(name.clone(), group.to_owned(), now) };
        self.known.entry(name.clone()).or_insert_with(new).show(now);
    }

    /// Gives up a neighbour that discovery shows no more: it gets nothing new from now on. Without a link it is forgotten at
    /// once, unless the config names it. Returns its links, which are to end when the last outcomes have come.
    pub(crate) fn withdraw(&mut self, name: &NodeName, named: bool) -> Vec<Link> {
        let Some(known) = self.known.get_mut(name) else { return Vec::new() };
        let links = known.withdraw(named);
        self.forget_unnamed(name);
        links
    }

    /// Forgets a neighbour that nobody expects, when its last link has ended: a guest, or one that is withdrawn. One of the
    /// config stays known.
    fn forget_unnamed(&mut self, name: &NodeName) {
        let Some(known) = self.known.get(name) else { return };
        let unnamed = matches!(known.standing, Standing::Guest | Standing::Withdrawn { named: false });
        if unnamed && known.links().next().is_none() {
            self.known.remove(name);
        }
    }

    /// Whether discovery has withdrawn a neighbour whose links still live.
    pub(crate) fn is_withdrawn(&self, name: &NodeName) -> bool {
        self.known.get(name).is_some_and(KnownPeer::is_withdrawn)
    }

    /// Waits from `now` on for the neighbours that have not linked yet; with `come` they were linked to the
    /// predecessor.
    pub(crate) fn expect_from(&mut self, now: Instant, come: bool) {
        self.come = come;
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
    pub(crate) fn admit(&self, name: &NodeName, theirs: Incarnation, now: Instant) -> Result<(), Refusal> {
        let known =
            self.known.get(name).filter(|known| known.link().is_some() || now < known.missed + FENCED);
        fence(name, known.and_then(|known| known.incarnation), theirs)
    }

    /// Takes a link for new messages; one of an older incarnation is retired, one of the same incarnation is closed.
    /// False when a newer incarnation has come meanwhile.
    pub(crate) fn take(&mut self, link: Link, group: impl FnOnce() -> String, now: Instant) -> bool {
        let name = link.peer().name.clone();
        if self.admit(&name, link.peer().incarnation, now).is_err() {
            return false;
        }
        let new = || KnownPeer { standing: Standing::Guest, ..KnownPeer::new(name.clone(), group(), now) };
        self.known.entry(name.clone()).or_insert_with(new).take(link);
        true
    }

    /// Removes a link that has ended. True when it was the neighbour's current one.
    pub(crate) fn ended(&mut self, link: &Link, now: Instant) -> bool {
        let name = &link.peer().name;
        let was_current = self.known.get_mut(name).is_some_and(|known| known.ended(link, now));
        self.forget_unnamed(name);
        was_current
    }

    /// The links of older starts of a neighbour that hand over to nobody, although a newer start has linked and left: no
    /// replacement was that, and they may link anew.
    pub(crate) fn forsaken(&self, name: &NodeName, now: Instant) -> impl Iterator<Item = &Link> {
        let known =
            self.known.get(name).filter(|known| known.link().is_none() && now >= known.missed + FENCED);
        let serves = |link: &&Link| !link.is_paused() && !link.is_resumed() && !link.peer_has_switched();
        known.into_iter().flat_map(KnownPeer::links).filter(serves)
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
            _ if known.is_withdrawn() => {}
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
mod tests;
