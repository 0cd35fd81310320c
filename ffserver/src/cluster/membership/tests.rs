//! Who is waited for, over whom ways lead, and what may come from whom.

use ffnet::handshake::Peer;
use ffnet::link::LinkLimits;

use super::*;

fn link(name: &str) -> Link {
    let peer = Peer {
        name: NodeName::try_from(name).unwrap(),
        kind: "gate".into(),
        incarnation: Incarnation(1),
        pid: 1,
        program: String::new(),
        methods: vec![],
        version: ffproto::Versions::OURS.max,
        root: ffproto::credential::PublicKey([0; 32]),
    };
    let bytes_max = 1 << 20;
    let limits = LinkLimits {
        frame_bytes_max: bytes_max,
        outbox_bytes_max: bytes_max as usize,
        calls_max: 10,
        heartbeat: Duration::from_secs(1),
    };
    Link::new(NodeName::try_from("game").unwrap(), peer, limits, std::sync::Arc::default())
}

fn change(all: bool, add: &[u16], remove: &[u16]) -> ReachChange {
    let node = |number: &u16| Reachable {
        number: NodeNumber(*number),
        name: NodeName::try_from(format!("room{number}").as_str()).unwrap(),
        kind: "room".into(),
        net: false,
        incarnation: Incarnation(1),
        since: SessionId(u64::from(*number) << 52),
    };
    let remove = remove.iter().copied().map(NodeNumber).collect();
    ReachChange { all, add: add.iter().map(node).collect(), remove }
}

#[test]
fn a_node_that_is_withdrawn_is_not_waited_for_whether_it_leaves_before_or_after() {
    let (membership, patience) = (Membership::default(), Duration::from_secs(2));
    let room = change(true, &[1], &[]).add.remove(0);
    let left = |now| membership.table.lock().note_left(vec![room.clone()], now);
    let awaited = |now| membership.awaited_until(now, patience, |name, _| *name == room.name).is_some();
    let begun = Instant::now();
    assert!(awaited(begun), "the process has just begun to look");
    let now = begun + patience;
    left(now);
    assert!(awaited(now));
    membership.withdraw(&room.name, room.incarnation);
    assert!(!awaited(now) && membership.is_withdrawn(&room.name, room.incarnation));
    left(now);
    assert!(!awaited(now), "another neighbour has told later that it reaches the node no more");
    membership.show(&room.name);
    left(now);
    assert!(awaited(now) && !membership.is_withdrawn(&room.name, room.incarnation));
}

#[test]
fn no_way_leads_over_a_neighbour_that_is_avoided_and_what_it_brings_for_others_is_taken() {
    let (membership, room) = (Membership::default(), NodeNumber(7));
    let [gate1, gate2] = ["gate.1", "gate.2"].map(|name| {
        let link = link(name);
        membership.link_up(Side::Parent, &link);
        let at = PeerKey::new(Side::Parent, link.peer().name.clone());
        membership.take_notice(&at, &link, change(true, &[7], &[]));
        (at, link)
    });
    let way = |prefer: &PeerKey| membership.neighbour_to(room, None, Some(prefer), 0).unwrap();
    assert_eq!(way(&gate2.0), gate2.0);
    membership.avoid(&gate2.0);
    assert_eq!(way(&gate2.0), gate1.0);
    assert!(membership.leads(&gate2.0, &gate2.1, room), "its answers are under way");
    membership.use_again(&gate2.0);
    assert_eq!(way(&gate2.0), gate2.0);
    membership.avoid(&gate2.0);
    membership.link_down(Side::Parent, &gate2.1);
    assert!(!membership.leads(&gate2.0, &gate2.1, room));
    assert_eq!(way(&gate2.0), gate1.0);
}

#[test]
fn what_a_node_has_sent_may_come_although_the_neighbour_does_not_reach_it_any_more() {
    let (mut reach, begun) = (LinkReach::default(), Instant::now());
    reach.change(&change(true, &[1, 2, 3], &[]), begun);
    reach.change(&change(false, &[], &[2]), begun);
    // The neighbour's successor tells what it reaches so far.
    reach.change(&change(true, &[1], &[]), begun);
    for number in [1, 2, 3] {
        assert!(
            reach.bringing_from(NodeNumber(number), begun).is_some(),
            "{number} was reached a moment ago"
        );
    }
    assert!(reach.bringing_from(NodeNumber(4), begun).is_none(), "it was never reached there");
    let late = begun + LEFT_KNOWN;
    assert!(
        reach.bringing_from(NodeNumber(1), late).is_some()
            && reach.bringing_from(NodeNumber(2), late).is_none()
    );
    reach.change(&change(false, &[2], &[]), late);
    assert!(reach.before.is_empty(), "what is long ago takes no room: {:?}", reach.before);
}
