//! The park: what waits behind what, what a look does, and its bounds.

use std::time::Duration;

use ffproto::CommandId;

use super::*;

const LIMITS: ParkLimits = ParkLimits { messages_max: 3, bytes_max: 100 };

fn entry(session: u64, kind: &str, body: &'static str) -> ParkedMessage {
    let client = Client { session: SessionId(session), command: CommandId(1), stateless: false };
    let (target, sink) = (kind.into(), (Arc::new(OutcomeSlot::default()) as Arc<dyn Sink>, 0));
    let kind = ParkedKind::Message { target, client, from: None, routed_here: false, hops: 0, sink };
    ParkedMessage { kind, body: body.into(), deadline: Instant::now() + Duration::from_secs(5) }
}

fn parked(park: &Park, entry: ParkedMessage) -> &'static str {
    match park.park(entry) {
        ParkResult::Waits { watch: true } => "waits, watch",
        ParkResult::Waits { watch: false } => "waits",
        ParkResult::Full => "full",
    }
}

#[test]
fn a_message_waits_behind_those_of_its_session_and_kind_only() {
    let park = Park::new(LIMITS);
    let game = Destination::Target("game".into());
    assert!(!park.blocks(&game, Some(SessionId(1))));
    assert_eq!(parked(&park, entry(1, "game", "a")), "waits, watch");
    assert_eq!(parked(&park, entry(1, "game", "b")), "waits");
    assert_eq!(parked(&park, entry(2, "game", "c")), "waits");
    assert!(park.blocks(&game, Some(SessionId(1))));
    assert!(!park.blocks(&game, Some(SessionId(3))));
    assert!(!park.blocks(&Destination::Target("hall".into()), Some(SessionId(1))));
    // Session 1 still waits, so its second message is not free; session 2 goes.
    let mut seen = Vec::new();
    park.look(|entry, free| {
        seen.push((entry.body.clone(), free));
        if entry.session() == Some(SessionId(2)) { RetryResult::Gone } else { RetryResult::Waits(entry) }
    });
    assert_eq!(seen, [("a".into(), true), ("b".into(), false), ("c".into(), true)]);
    assert!(!park.blocks(&game, Some(SessionId(2))));
    assert!(!park.is_over());
    let mut order = Vec::new();
    park.look(|entry, free| {
        assert!(free);
        order.push(entry.body);
        RetryResult::Gone
    });
    assert_eq!(order, ["a", "b"]);
    assert!(park.is_over() && !park.any());
    assert_eq!(parked(&park, entry(1, "game", "d")), "waits, watch", "watched again");
}

#[test]
fn who_looks_may_let_others_wait_which_are_looked_at_next_and_count() {
    let park = Park::new(LIMITS);
    let game = Destination::Target("game".into());
    assert_eq!(parked(&park, entry(1, "game", "a")), "waits, watch");
    assert_eq!(parked(&park, entry(2, "game", "b")), "waits");
    let mut seen = Vec::new();
    park.look(|entry, free| {
        seen.push((entry.body.clone(), free));
        if seen.len() == 1 {
            // While it is in hand, later ones of its session wait behind it, and it counts.
            assert!(park.any() && park.blocks(&game, Some(SessionId(1))) && !park.is_over());
            assert_eq!(parked(&park, self::entry(1, "game", "c")), "waits");
            assert_eq!(parked(&park, self::entry(1, "game", "d")), "full");
            park.look(|_, _| unreachable!("somebody looks already"));
        }
        if entry.session() == Some(SessionId(1)) { RetryResult::Gone } else { RetryResult::Waits(entry) }
    });
    let seen: Vec<(&[u8], bool)> = seen.iter().map(|(body, free)| (&**body, *free)).collect();
    assert_eq!(seen, [(&b"a"[..], true), (b"b", true), (b"b", true), (b"c", true)]);
    assert!(park.any() && !park.blocks(&game, Some(SessionId(1))));
}

#[tokio::test]
async fn who_waits_until_nothing_waits_is_woken_by_the_last_message_that_goes() {
    let park = Park::new(ParkLimits { messages_max: 10, bytes_max: 100 });
    parked(&park, entry(1, "game", "a"));
    parked(&park, entry(2, "game", "b"));
    let mut emptied = std::pin::pin!(park.emptied());
    let mut is_woken = || {
        let mut cx = Context::from_waker(Waker::noop());
        emptied.as_mut().poll(&mut cx).is_ready()
    };
    assert!(!is_woken());
    park.look_of(SessionId(1), |_, _| RetryResult::Gone);
    assert!(park.any() && !is_woken(), "one still waits");
    park.look(|entry, _| RetryResult::Waits(entry));
    assert!(!is_woken());
    park.look(|_, _| RetryResult::Gone);
    assert!(!park.any() && is_woken());
}

#[test]
fn a_look_at_one_session_leaves_the_others_alone() {
    let park = Park::new(ParkLimits { messages_max: 10, bytes_max: 1000 });
    for (session, kind, body) in [(1, "game", "a"), (2, "game", "b"), (1, "game", "c"), (1, "hall", "d")] {
        park.park(entry(session, kind, body));
    }
    let mut seen = Vec::new();
    let mut look = |session, goes: fn(&ParkedMessage) -> bool| {
        park.look_of(SessionId(session), |entry, free| {
            seen.push((entry.body.clone(), free));
            if goes(&entry) { RetryResult::Gone } else { RetryResult::Waits(entry) }
        });
        std::mem::take(&mut seen)
    };
    let waits = look(1, |_| false);
    assert_eq!(waits, [("a".into(), true), ("c".into(), false), ("d".into(), true)]);
    assert_eq!(look(1, |entry| entry.destination() != Destination::Target("game".into())).len(), 3);
    assert_eq!(look(1, |_| true), [("a".into(), true), ("c".into(), true)]);
    assert_eq!(look(1, |_| true), []);
    assert!(park.any() && park.blocks(&Destination::Target("game".into()), Some(SessionId(2))));
    assert_eq!(look(2, |_| true), [("b".into(), true)]);
    assert!(!park.any() && park.is_over());
}

#[test]
fn what_waits_is_bounded_in_count_and_bytes() {
    let park = Park::new(LIMITS);
    let long = "123456789012345678901234567890123456789012345678901234567890";
    assert_eq!(parked(&park, entry(1, "game", long)), "waits, watch");
    assert_eq!(parked(&park, entry(1, "game", long)), "full", "120 bytes");
    assert_eq!(parked(&park, entry(1, "game", "x")), "waits");
    assert_eq!(parked(&park, entry(1, "game", "x")), "waits");
    assert_eq!(parked(&park, entry(1, "game", "x")), "full", "the fourth");
}
