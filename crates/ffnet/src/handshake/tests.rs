use ffkeys::{ClusterKeys, ClusterSecret};
use ffproto::ClusterName;
use ffproto::credential::Claims;
use tokio::io::DuplexStream;

use super::*;
use crate::admission::{Admission, Bounds};

fn keys(secret: u64) -> ClusterKeys {
    let secret = ClusterSecret::new(&Chance::seeded(secret)).unwrap();
    ClusterKeys::new(&secret, 0, None).unwrap()
}

fn claims(name: &str) -> Claims {
    Claims {
        cluster: ClusterName::try_from("c").unwrap(),
        role: Role::Node,
        name: NodeName::try_from(name).unwrap(),
        kind: name.into(),
        below: vec![],
    }
}

fn local_of(keys: &ClusterKeys, claims: Claims, incarnation: u64) -> Local {
    let methods = vec![format!("{}Method", claims.name)];
    Local {
        keys: Arc::new(keys.start(claims, Incarnation(incarnation), &Chance::system()).unwrap()),
        versions: Versions::OURS,
        methods,
        chance: Chance::system(),
        clock: Clock::system(),
        binding: vec![],
    }
}

pub(crate) fn local(name: &str) -> Local {
    local_of(&keys(1), claims(name), 1)
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

type Both = (Result<Peer, HandshakeError>, Result<Peer, HandshakeError>);

async fn shake_for(purpose: Purpose, dialer: Local, acceptor: Local, admit: Result<(), Refusal>) -> Both {
    let (mut a, mut b) = tokio::io::duplex(1024);
    let to = if purpose == Purpose::Control { NodeName::master() } else { name("gate") };
    let dialing = async move { dial(&mut a, purpose, &dialer, &to).await };
    let accepting = async move { accept(&mut b, purpose, &acceptor, None, |_| admit).await };
    tokio::join!(dialing, accepting)
}

async fn shake(dialer: Local, acceptor: Local) -> Both {
    shake_for(Purpose::Link, dialer, acceptor, Ok(())).await
}

/// Both ends of a link whose dialer is taken for a stranger.
async fn stranger(dialer: Local, acceptor: Local) -> CredentialFault {
    match shake(dialer, acceptor).await {
        (Err(HandshakeError::Silent), Err(HandshakeError::Stranger(why))) => why,
        both => panic!("{both:?}"),
    }
}

#[tokio::test]
async fn two_nodes_of_one_cluster_learn_each_others_methods_and_the_version() {
    let (a, b) = shake(local("net"), local("gate")).await;
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((a.methods, a.name.as_str(), a.version), (vec!["gateMethod".into()], "gate", Version(4)));
    assert_eq!((b.methods, b.name.as_str(), b.version), (vec!["netMethod".into()], "net", Version(4)));
    assert_eq!(b.pid, std::process::id());
}

#[tokio::test]
async fn a_stranger_is_left_without_a_word_whatever_is_wrong_with_it() {
    let of_other_secret = local_of(&keys(2), claims("net"), 1);
    assert_eq!(stranger(of_other_secret, local("gate")).await, CredentialFault::Root);
    let other = ClusterName::try_from("other").unwrap();
    let of_other_cluster = local_of(&keys(1), Claims { cluster: other, ..claims("net") }, 1);
    assert_eq!(stranger(of_other_cluster, local("gate")).await, CredentialFault::Cluster);
    let master = local_of(&keys(1), Claims { role: Role::Master, ..claims("net") }, 1);
    assert_eq!(stranger(master, local("gate")).await, CredentialFault::Role);
}

#[tokio::test]
async fn a_node_is_no_master_and_a_master_is_nobodys_parent() {
    let (node, master) = (local("master"), Claims::of_master(ClusterName::try_from("c").unwrap()));
    let (a, _) = shake_for(Purpose::Control, local("net"), node, Ok(())).await;
    assert!(matches!(a, Err(HandshakeError::Stranger(CredentialFault::Role))), "{a:?}");
    let of_master = |claims| local_of(&keys(1), claims, 1);
    let (a, _) = shake_for(Purpose::Control, local("net"), of_master(master.clone()), Ok(())).await;
    assert_eq!(a.unwrap().name, NodeName::master());
    let (a, _) = shake(local("net"), of_master(Claims { name: name("gate"), ..master })).await;
    assert!(matches!(a, Err(HandshakeError::Stranger(CredentialFault::Role))), "{a:?}");
}

#[tokio::test]
async fn a_credential_without_its_key_opens_nothing() {
    // The bytes of the real one's handshake, once more: another nonce asks for another signature.
    let (mut a, mut b) = tokio::io::duplex(4096);
    let gate = local("gate");
    let real = async {
        let real = local("net");
        let mut preamble = [0; PREAMBLE_BYTES + 32];
        a.read_exact(&mut preamble).await.unwrap();
        let (theirs, nonce) = preamble.split_first_chunk().unwrap();
        let ours = Purpose::Link.preamble(Versions::OURS);
        let (dialer, acceptor, binding) = (&ours, theirs, &[][..]);
        let nonce: &Nonce = nonce.try_into().unwrap();
        let other = Nonce::default();
        assert_ne!(*nonce, other);
        let (purpose, version) = (Purpose::Link, Version(4));
        let opening = Opening { purpose, version, dialer, acceptor, nonce: &other, binding };
        let hello = hello(&real, &name("gate"), opening).unwrap();
        write(&mut a, &ours).await.unwrap();
        send(&mut a, &hello, PROOF_BYTES_MAX).await.unwrap();
    };
    let (_, accepted) = tokio::join!(real, accept(&mut b, Purpose::Link, &gate, None, |_| Ok(())));
    assert!(matches!(accepted, Err(HandshakeError::Stranger(CredentialFault::Possession))), "{accepted:?}");
}

#[tokio::test]
async fn what_a_connection_is_bound_to_is_the_same_for_both_or_it_does_not_open() {
    let bound = |name, binding: &[u8]| Local { binding: binding.to_vec(), ..local(name) };
    let (a, b) = shake(bound("net", b"tls"), bound("gate", b"tls")).await;
    assert!(a.is_ok() && b.is_ok());
    let why = stranger(bound("net", b"tls"), bound("gate", b"another")).await;
    assert_eq!(why, CredentialFault::Possession);
}

#[tokio::test]
async fn who_has_proved_to_be_a_node_is_told_why_it_is_refused() {
    let older = Refusal::Older { name: name("net"), newer: Incarnation(2), older: Incarnation(1) };
    let (a, b) = shake_for(Purpose::Link, local("net"), local("gate"), Err(older)).await;
    let text = "a newer `net` is known: incarnation 2, this one is 1";
    assert_eq!(a.unwrap_err().to_string(), format!("refused by the other side: {text}"));
    assert_eq!(b.unwrap_err().to_string(), format!("refused: {text}"));
    let (a, b) = shake(local("net"), local("hub")).await;
    assert!(a.unwrap_err().to_string().ends_with("this is `hub`, not `gate`: is the port right?"));
    assert!(matches!(b, Err(HandshakeError::Refused(Refusal::Name { .. }))));
    let (a, b) = shake(local("net"), local_of(&keys(1), claims("gate"), u64::MAX)).await;
    assert!(matches!(a, Err(HandshakeError::Refused(Refusal::Future(Incarnation(u64::MAX))))), "{a:?}");
    assert!(matches!(b, Err(HandshakeError::RefusedByPeer(Refusal::Future(_)))), "{b:?}");
}

#[tokio::test]
async fn a_credential_is_as_good_after_a_week_without_a_master() {
    let now = Clock::system().now_ms();
    let week = Duration::from_millis(now) + Duration::from_secs(7 * 86_400);
    let of = |name| Local { clock: Clock::starting_at(week), ..local_of(&keys(1), claims(name), now) };
    let (a, b) = shake(of("net"), of("gate")).await;
    assert!(a.is_ok() && b.is_ok());
}

#[tokio::test]
async fn an_impostors_refusal_is_nobodys_word() {
    // It knows everything but a key: what it says is not taken for the gate's.
    let thief = local_of(&keys(2), claims("gate"), 9);
    let (mut a, mut b) = tokio::io::duplex(8192);
    let (net, gate) = (local("net"), name("gate"));
    let impostor = async {
        let ours = Purpose::Link.preamble(Versions::OURS);
        write(&mut b, &[&ours[..], &[7; 32]].concat()).await.unwrap();
        let (theirs, version) = read_preamble(&mut b, Purpose::Link, Versions::OURS).await.unwrap();
        let hello: Hello = receive(&mut b, PROOF_BYTES_MAX).await.unwrap();
        let (dialer, acceptor, nonce, binding) = (&theirs, &ours, &[7; 32], &[][..]);
        let opening = Opening { purpose: Purpose::Link, version, dialer, acceptor, nonce, binding };
        let newer = Refusal::Older { name: name("net"), newer: Incarnation(9), older: Incarnation(1) };
        answer(&mut b, &thief, &Transcript { opening, hello: &hello }, Verdict::Refused(newer))
            .await
            .unwrap();
    };
    let (dialed, ()) = tokio::join!(dial(&mut a, Purpose::Link, &net, &gate), impostor);
    assert!(matches!(dialed, Err(HandshakeError::Stranger(CredentialFault::Root))), "{dialed:?}");
}

#[tokio::test]
async fn an_older_start_of_the_parent_is_left_before_it_takes_anything_for_a_link() {
    let (mut a, mut b) = tokio::io::duplex(1024);
    let (net, gate, to) = (local("net"), local("gate"), name("gate"));
    let (a, b) = tokio::join!(
        dial_start(&mut a, Purpose::Link, &net, &to, Incarnation(2)),
        accept(&mut b, Purpose::Link, &gate, None, |_| Ok(()))
    );
    assert!(matches!(a, Err(HandshakeError::Refused(Refusal::Older { .. }))), "{a:?}");
    assert!(matches!(b, Err(HandshakeError::RefusedByPeer(Refusal::Older { .. }))), "{b:?}");
}

#[tokio::test]
async fn the_newest_common_version_is_spoken_and_ranges_that_do_not_meet_are_named_on_both_sides() {
    let speaks = |name, min, max| {
        let versions = Versions { min: Version(min), max: Version(max) };
        Local { versions, ..local(name) }
    };
    let (a, b) = shake(speaks("net", 3, 3), speaks("gate", 3, 4)).await;
    assert_eq!((a.unwrap().version, b.unwrap().version), (Version(3), Version(3)));
    let (a, b) = shake(speaks("net", 5, 6), speaks("gate", 3, 4)).await;
    let (a, b) = (a.unwrap_err().to_string(), b.unwrap_err().to_string());
    assert!(a.contains("speaks versions 3 to 4 of") && a.contains("this side versions 5 to 6: stop"), "{a}");
    assert!(b.contains("speaks versions 5 to 6 of") && b.contains("this side versions 3 to 4: stop"), "{b}");
}

#[tokio::test]
async fn a_release_that_does_not_negotiate_is_named_at_once() {
    let (mut a, mut b) = tokio::io::duplex(1024);
    a.write_all(b"FFLK\x02\0\x02\0").await.unwrap();
    let gate = local("gate");
    let refused = accept(&mut b, Purpose::Link, &gate, None, |_| Ok(())).await.unwrap_err().to_string();
    assert!(refused.contains("speaks version 2 of"), "{refused}");
    let mut theirs = [0; OLD_PREAMBLE_BYTES];
    a.read_exact(&mut theirs).await.unwrap();
    assert_eq!(theirs, *b"FFLK\x03\0\x02\0", "which the older release reads as version 3");
}

#[tokio::test]
async fn the_bytes_of_a_dialer_are_the_same_for_one_seed_and_differ_for_another() {
    async fn bytes_of_dialer(seed: u64) -> Vec<u8> {
        let drawn = Chance::seeded(seed);
        let of = |name: &str| {
            let start = keys(1).start(claims(name), Incarnation(1), &drawn.stream(&format!("key {name}")));
            Local { keys: Arc::new(start.unwrap()), chance: drawn.stream(name), ..local(name) }
        };
        let (dialer, acceptor, to) = (of("net"), of("gate"), name("gate"));
        let (mut a, mut near) = tokio::io::duplex(1024);
        let (mut far, mut b) = tokio::io::duplex(1024);
        let mut said = Vec::new();
        let both = async {
            let shaken = tokio::join!(
                dial(&mut a, Purpose::Link, &dialer, &to),
                accept(&mut b, Purpose::Link, &acceptor, None, |_| Ok(()))
            );
            (shaken.0.unwrap(), shaken.1.unwrap())
        };
        tokio::select! { _ = both => {}, () = carry(&mut near, &mut far, &mut said) => {} }
        said
    }
    let first = bytes_of_dialer(7).await;
    assert!(first.len() > 300 && first == bytes_of_dialer(7).await);
    assert_ne!(first, bytes_of_dialer(8).await);
}

async fn carry(near: &mut DuplexStream, far: &mut DuplexStream, said: &mut Vec<u8>) {
    let (mut there, mut back) = ([0; 512], [0; 512]);
    loop {
        tokio::select! {
            n = near.read(&mut there) => {
                let n = n.unwrap();
                said.extend_from_slice(&there[..n]);
                far.write_all(&there[..n]).await.unwrap();
            }
            n = far.read(&mut back) => near.write_all(&back[..n.unwrap()]).await.unwrap(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_after_the_deadline_and_has_learned_nothing() {
    let (mut a, mut b) = tokio::io::duplex(1024);
    let gate = local("gate");
    let late = accept(&mut b, Purpose::Control, &gate, None, |_| Ok(())).await;
    assert!(matches!(late, Err(HandshakeError::TooSlow)));
    drop(b);
    let mut heard = Vec::new();
    a.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard.len(), PREAMBLE_BYTES + 32, "versions and random bytes");
}

#[tokio::test]
async fn the_oldest_silent_peer_makes_room_and_one_that_has_proved_itself_does_not() {
    let (admission, gate) = (Admission::new(Bounds { connections: 1, per_block: 1 }), local("gate"));
    let enter = || admission.admit(std::net::Ipv4Addr::LOCALHOST.into());
    let ((_a, mut b), slot) = (tokio::io::duplex(1024), enter());
    let accepting = accept(&mut b, Purpose::Link, &gate, slot.as_ref(), |_| Ok(()));
    let (silent, _next) = tokio::join!(accepting, async { enter() });
    assert!(matches!(silent, Err(HandshakeError::Crowded)));
    drop(slot);
    let ((mut a, mut b), slot) = (tokio::io::duplex(1024), enter());
    let (net, to) = (local("net"), name("gate"));
    let admit = |_: &Credential| {
        assert!(enter().is_none(), "one that has proved itself makes no room");
        Ok(())
    };
    let (dialed, accepted) = tokio::join!(
        dial(&mut a, Purpose::Link, &net, &to),
        accept(&mut b, Purpose::Link, &gate, slot.as_ref(), admit)
    );
    assert!(dialed.is_ok() && accepted.is_ok());
}

/// The dialer stops at the acceptor's answer: it has proved who it is, and does not say what it offers.
#[tokio::test]
async fn one_that_has_proved_itself_and_says_no_more_makes_room() {
    let (admission, gate) = (Admission::new(Bounds { connections: 1, per_block: 1 }), local("gate"));
    let enter = || admission.admit(std::net::Ipv4Addr::LOCALHOST.into());
    let ((mut a, mut b), slot) = (tokio::io::duplex(1 << 14), enter());
    let dialing = async {
        let (net, ours, mut nonce) = (local("net"), Purpose::Link.preamble(Versions::OURS), Nonce::default());
        write(&mut a, &ours).await.unwrap();
        let (theirs, version) = read_preamble(&mut a, Purpose::Link, Versions::OURS).await.unwrap();
        a.read_exact(&mut nonce).await.unwrap();
        let (purpose, dialer, acceptor) = (Purpose::Link, &ours, &theirs);
        let opening = Opening { purpose, version, dialer, acceptor, nonce: &nonce, binding: &[] };
        send(&mut a, &hello(&net, &name("gate"), opening).unwrap(), PROOF_BYTES_MAX).await.unwrap();
        let answer: Answer = receive(&mut a, PROOF_BYTES_MAX).await.unwrap();
        assert!(matches!(answer.verdict, Verdict::Welcome));
        tokio::task::yield_now().await;
        enter()
    };
    let accepting = accept(&mut b, Purpose::Link, &gate, slot.as_ref(), |_| Ok(()));
    let (next, accepted) = tokio::join!(dialing, accepting);
    assert!(next.is_some() && matches!(accepted, Err(HandshakeError::Crowded)), "{accepted:?}");
}

#[tokio::test]
async fn before_the_proof_a_length_above_four_kib_takes_no_memory() {
    for length in [u32::MAX, PROOF_BYTES_MAX as u32 + 1] {
        let (mut a, mut b) = tokio::io::duplex(1024);
        a.write_all(&Purpose::Link.preamble(Versions::OURS)).await.unwrap();
        a.write_all(&length.to_le_bytes()).await.unwrap();
        let gate = local("gate");
        let refused = accept(&mut b, Purpose::Link, &gate, None, |_| Ok(())).await;
        assert!(matches!(refused, Err(HandshakeError::Malformed)));
    }
}

/// A master's keys of a generation, and those of the one before, which it shows to who knows no other.
fn master_after_rotation(before: &ClusterKeys) -> (ClusterKeys, Local) {
    let secret = ClusterSecret::new(&Chance::seeded(7)).unwrap();
    let now = ClusterKeys::new(&secret, 0, Some(before.roots().current)).unwrap();
    let claims = Claims::of_master(ClusterName::try_from("c").unwrap());
    let older = local_of(before, claims.clone(), 1).keys;
    let master = local_of(&now, claims, 1);
    let keys = Arc::try_unwrap(master.keys).unwrap().with_older(Arc::try_unwrap(older).unwrap());
    (now, Local { keys: Arc::new(keys), ..master })
}

#[tokio::test]
async fn a_node_that_has_missed_a_rotation_knows_its_master_and_then_its_neighbours() {
    let before = keys(1);
    let (now, master) = master_after_rotation(&before);
    let missed = local_of(&before, claims("net"), 1);
    let (a, b) = shake_for(Purpose::Control, missed.clone(), master.clone(), Ok(())).await;
    assert_eq!((a.unwrap().name, b.unwrap().name), (NodeName::master(), name("net")));
    let (a, _) = shake_for(Purpose::Control, local_of(&now, claims("net"), 1), master, Ok(())).await;
    assert_eq!(a.unwrap().name, NodeName::master());
    // A parent that was started since is a stranger to it, until the master has told it.
    let gate = || local_of(&now, claims("gate"), 1);
    let (a, _) = shake(missed.clone(), gate()).await;
    assert!(matches!(a, Err(HandshakeError::Stranger(CredentialFault::Root))), "{a:?}");
    let told = Local { keys: Arc::new(missed.keys.with_roots(now.roots())), ..missed };
    assert!(shake(told, gate()).await.0.is_ok());
}
