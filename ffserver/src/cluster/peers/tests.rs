//! What is so of neighbours, link by link.

use ffambient::Chance;
use ffnet::handshake::Peer;
use ffnet::link::{Change, Driver, LinkLimits, Service};
use ffproto::link::{Head, Kind};
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;

use super::*;

const PARK: Duration = Duration::from_secs(2);

fn link(incarnation: u64) -> Link {
    link_of("game1", incarnation)
}

fn link_of(name: &str, incarnation: u64) -> Link {
    let peer = Peer {
        name: NodeName::try_from(name).unwrap(),
        kind: "game".into(),
        incarnation: Incarnation(incarnation),
        pid: 1,
        program: String::new(),
        methods: vec![],
        version: ffproto::Versions::OURS.max,
    };
    let limits =
        LinkLimits { frame_bytes_max: 1 << 20, outbox_bytes_max: 1 << 20, calls_max: 10, heartbeat: PARK };
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
        PeerState::Withdrawn => "withdrawn".into(),
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
    let now = Instant::now();
    let game = (NodeName::try_from("game1").unwrap(), "game".to_owned());
    let mut all = Peers::expecting([game].into_iter(), now);
    let first = take(&mut all, 5, now);
    assert_eq!(state(&all, now), "open 5");
    first.close("killed");
    assert!(all.ended(&first, now + PARK));
    assert_eq!(state(&all, now + PARK), "missed");
    assert!(!all.take(link(4), || "game".into(), now + PARK), "older");
    take(&mut all, 6, now + PARK);
    assert_eq!(state(&all, now + PARK), "open 6");
}

#[test]
fn a_start_that_has_left_keeps_older_ones_out_for_a_moment_only() {
    let (mut all, now) = (Peers::default(), Instant::now());
    all.show(&link(5).peer().name, "game", now);
    let newer = take(&mut all, 6, now);
    let older = || link(5);
    assert!(!all.take(older(), || "game".into(), now + 10 * FENCED), "while the newer one is linked");
    newer.close("left");
    all.ended(&newer, now + 10 * FENCED);
    assert!(!all.take(older(), || "game".into(), now + 11 * FENCED - Duration::from_millis(1)));
    take(&mut all, 5, now + 11 * FENCED);
    assert_eq!(state(&all, now + 11 * FENCED), "open 5");
}

#[tokio::test]
async fn an_older_start_that_hands_over_to_nobody_may_link_anew_when_the_newer_one_has_left() {
    let (mut all, now) = (Peers::default(), Instant::now());
    let replaced = take(&mut all, 4, now);
    let _driver = says(&replaced, Kind::Pause);
    let old = take(&mut all, 5, now);
    let new = take(&mut all, 6, now);
    let name = new.peer().name.clone();
    let forsaken =
        |all: &Peers, now| all.forsaken(&name, now).map(|link| link.peer().incarnation.0).collect::<Vec<_>>();
    assert!(forsaken(&all, now + 9 * FENCED).is_empty(), "the newer one is there");
    new.close("an intruder");
    assert!(all.ended(&new, now));
    assert!(forsaken(&all, now + FENCED / 2).is_empty(), "it may come back");
    assert_eq!(forsaken(&all, now + FENCED), [5]);
    old.close("so it links anew");
    take(&mut all, 5, now + FENCED);
    assert_eq!(state(&all, now + FENCED), "open 5");
}

/// The driver of a link whose peer says that; the link lives as long.
fn says(link: &Link, kind: Kind) -> impl Sized {
    struct Deaf;
    impl Service for Deaf {
        fn call(&self, _: &Link, _: &Head, _: &[u8], _: Instant) {}
        fn notify(&self, _: &Link, _: &Head, _: &[u8], _: Instant) {}
        fn changed(&self, _: &Link, _: Change) {}
    }
    let (ours, mut theirs) = tokio::io::duplex(1024);
    let mut frame = Vec::new();
    Head::new(kind).write(&[], &mut frame);
    let mut driver = Driver::new(link.clone(), ours, Deaf);
    assert!(theirs.write_all(&frame).now_or_never().is_some());
    assert!((&mut driver).now_or_never().is_none());
    (driver, theirs)
}

#[test]
fn a_found_neighbour_is_waited_for_and_one_that_is_withdrawn_gets_nothing_new_until_it_is_shown_again() {
    let (mut all, now) = (Peers::default(), Instant::now());
    let name = NodeName::try_from("game1").unwrap();
    all.show(&name, "game", now);
    assert_eq!((state(&all, now), state(&all, now + PARK)), ("missed".into(), "gone".into()));
    let link = take(&mut all, 5, now);
    assert!(all.withdraw(&name, false)[0].same(&link));
    assert_eq!(state(&all, now), "withdrawn");
    assert!(!link.is_closed() && !link.is_open(), "the last outcomes come");
    all.show(&name, "game", now);
    assert_eq!(state(&all, now), "open 5");
    all.withdraw(&name, false);
    link.close("it has left");
    assert!(all.ended(&link, now) && all.get("game1").is_none(), "nobody waits for it");
}

#[test]
fn a_withdrawn_neighbour_of_the_config_is_known_and_not_waited_for() {
    let (mut all, now) = (Peers::default(), Instant::now());
    let link = take(&mut all, 5, now);
    let name = link.peer().name.clone();
    all.withdraw(&name, true);
    link.close("it has left");
    assert!(all.ended(&link, now));
    assert_eq!(state(&all, now), "withdrawn");
    all.show(&name, "game", now + PARK);
    assert_eq!(state(&all, now + PARK), "missed");
}

#[test]
fn the_next_start_of_a_withdrawn_neighbour_gets_what_is_new_although_discovery_has_not_shown_it_yet() {
    let (mut all, now) = (Peers::default(), Instant::now());
    let link = take(&mut all, 5, now);
    all.withdraw(&link.peer().name, true);
    take(&mut all, 5, now);
    assert_eq!(state(&all, now), "withdrawn");
    take(&mut all, 6, now);
    assert_eq!(state(&all, now), "open 6");
}

#[test]
fn a_withdrawn_neighbour_that_resumes_stays_withdrawn() {
    let (mut all, now) = (Peers::default(), Instant::now());
    let link = take(&mut all, 5, now);
    all.withdraw(&link.peer().name, false);
    all.resumed(&link);
    assert!(!link.is_open());
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
    assert_eq!((turn(&all, bob, Some(false)), turn(&all, bob, Some(true))), ("new".into(), "old 5".into()));
    assert_eq!(turn(&all, alice, Some(true)), "new");
    assert!(all.fence(&old, true) && !all.fence(&new, false));
    old.close("left");
    assert_eq!(turn(&all, bob, None), "new");
    all.ended(&old, now);
    assert!(!new.is_young());
}

#[tokio::test]
async fn a_successors_link_retires_the_old_one_which_comes_back_when_the_successor_fails() {
    let (mut all, now) = (Peers::default(), Instant::now());
    let old = take(&mut all, 5, now);
    let _driver = says(&old, Kind::Pause);
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

#[test]
fn nothing_is_left_of_a_thousand_neighbours_that_nobody_had_named() {
    let now = Instant::now();
    let mut all =
        Peers::expecting([(NodeName::try_from("game1").unwrap(), "game".to_owned())].into_iter(), now);
    let named = take(&mut all, 1, now);
    for n in 0..1_000 {
        let guest = link_of(&format!("guest{n}"), 1);
        assert!(all.take(guest.clone(), || "game".into(), now));
        assert_eq!(all.iter().count(), 2);
        guest.close("it has left");
        assert!(all.ended(&guest, now));
    }
    named.close("it has left");
    all.ended(&named, now);
    assert_eq!(all.iter().map(|known| known.name.as_str()).collect::<Vec<_>>(), ["game1"]);
}

#[test]
fn a_guest_that_discovery_shows_stays_known() {
    let now = Instant::now();
    let mut all = Peers::default();
    let guest = take(&mut all, 1, now);
    all.show(&NodeName::try_from("game1").unwrap(), "game", now);
    guest.close("it has left");
    all.ended(&guest, now);
    assert_eq!(state(&all, now), "missed");
}

/// What links do to the neighbours of a node: those of the real start of one of them, and of others with its name.
struct Sequence {
    all: Peers,
    now: Instant,
    linked: Vec<Link>,
}

impl Sequence {
    const REAL: u64 = 50;

    fn end(&mut self, link: &Link) {
        link.close("it has left");
        self.linked.retain(|linked| !linked.same(link));
        self.all.ended(link, self.now);
    }

    /// Links of which the other side has heard that they are closed.
    fn end_closed(&mut self) {
        let closed: Vec<_> = self.linked.iter().filter(|link| link.is_closed()).cloned().collect();
        closed.iter().for_each(|link| self.end(link));
    }

    fn end_forsaken(&mut self) {
        let name = link(0).peer().name.clone();
        let forsaken: Vec<_> = self.all.forsaken(&name, self.now).cloned().collect();
        forsaken.iter().for_each(|link| self.end(link));
    }

    fn act(&mut self, draw: u64) {
        let of = draw >> 8;
        match draw % 8 {
            0 | 1 => {
                let start =
                    [Self::REAL, Self::REAL + 1, Self::REAL - 1, Self::REAL + of % 9][of as usize / 9 % 4];
                let link = link(start);
                if self.all.take(link.clone(), || "game".into(), self.now) {
                    self.linked.push(link);
                }
                self.end_closed();
            }
            2 | 3 if !self.linked.is_empty() => {
                let link = self.linked[of as usize % self.linked.len()].clone();
                self.end(&link);
            }
            4 => self.end_forsaken(),
            5 if !self.linked.is_empty() => {
                let link = self.linked[of as usize % self.linked.len()].clone();
                self.all.paused(&link, self.now);
            }
            6 if !self.linked.is_empty() => {
                let link = self.linked[of as usize % self.linked.len()].clone();
                self.all.resumed(&link);
            }
            _ => self.now += FENCED * (of % 30) as u32 / 10,
        }
    }
}

#[test]
fn no_sequence_of_links_keeps_the_real_start_of_a_neighbour_out_when_the_others_have_left() {
    let game = (NodeName::try_from("game1").unwrap(), "game".to_owned());
    for seed in 0..500 {
        let (chance, now) = (Chance::seeded(seed), Instant::now());
        let known = [game.clone()].into_iter().filter(|_| seed % 2 == 0);
        let mut sequence = Sequence { all: Peers::expecting(known, now), now, linked: Vec::new() };
        for _ in 0..40 {
            sequence.act(chance.u64().unwrap());
        }
        let real = Incarnation(Sequence::REAL);
        let strangers = sequence.linked.iter().filter(|link| link.peer().incarnation != real);
        strangers.cloned().collect::<Vec<_>>().iter().for_each(|link| sequence.end(link));
        sequence.now += FENCED;
        sequence.end_forsaken();
        let (all, now) = (&mut sequence.all, sequence.now);
        assert_eq!(all.admit(&game.0, real, now), Ok(()), "seed {seed}");
        take(all, Sequence::REAL, now);
        assert_eq!(state(all, now), "open 50", "seed {seed}");
    }
}
