//! What a credential proves, and what a stolen key does not make.

#![allow(clippy::unwrap_used, reason = "that is how tests fail, in their helpers, too")]

use ffambient::Chance;
use ffkeys::{
    ClusterKeys, ClusterSecret, CredentialFault, KeyError, NameKey, NodeKeys, TokenCheck, TrustRoots, verify,
};
use ffproto::credential::{Claims, Credential, PublicKey, Role};
use ffproto::{ClusterName, Incarnation, NodeName};

fn cluster(name: &str) -> ClusterName {
    ClusterName::try_from(name).unwrap()
}

fn claims(name: &str) -> Claims {
    Claims {
        cluster: cluster("demo"),
        role: Role::Node,
        name: NodeName::try_from(name).unwrap(),
        kind: "game".into(),
        below: vec!["gate".into()],
    }
}

fn keys(seed: u64, generation: u64, previous: Option<PublicKey>) -> ClusterKeys {
    let secret = ClusterSecret::new(&Chance::seeded(seed)).unwrap();
    ClusterKeys::new(&secret, generation, previous).unwrap()
}

fn start(keys: &ClusterKeys, name: &str) -> NodeKeys {
    keys.start(claims(name), Incarnation(7), &Chance::system()).unwrap()
}

fn check(roots: TrustRoots, credential: &Credential) -> Result<(), CredentialFault> {
    roots.check(&cluster("demo"), credential)
}

/// Every credential that a thief of `stolen` could write without another key.
fn forged(stolen: &Credential) -> Vec<Credential> {
    let with = |change: &dyn Fn(&mut Credential)| {
        let mut forged = stolen.clone();
        change(&mut forged);
        forged
    };
    vec![
        with(&|it| it.claims.name = NodeName::try_from("net").unwrap()),
        with(&|it| it.claims.kind = "gate".into()),
        with(&|it| it.claims.role = Role::Master),
        with(&|it| it.claims.below.push("hub".into())),
        with(&|it| it.incarnation = Incarnation(8)),
        with(&|it| it.key = PublicKey([1; 32])),
    ]
}

#[test]
fn a_stolen_node_key_makes_nobody_else() {
    let keys = keys(1, 0, None);
    let game = start(&keys, "game1");
    assert_eq!(check(keys.roots(), game.credential()), Ok(()));
    for forged in forged(game.credential()) {
        assert_eq!(check(keys.roots(), &forged), Err(CredentialFault::Signature), "{forged:?}");
    }
    let mut elsewhere = game.credential().clone();
    elsewhere.claims.cluster = cluster("other");
    assert_eq!(check(keys.roots(), &elsewhere), Err(CredentialFault::Cluster));
    let there = keys.roots().check(&cluster("other"), &elsewhere);
    assert_eq!(there, Err(CredentialFault::Signature), "another cluster of the same secret");
    // The thief signs as a root itself, and as a name key.
    let thief = ClusterKeys::new(&ClusterSecret::new(&Chance::seeded(9)).unwrap(), 0, None).unwrap();
    assert_eq!(check(keys.roots(), start(&thief, "net").credential()), Err(CredentialFault::Root));
    let mut mine = start(&thief, "net").credential().clone();
    mine.root = keys.roots().current;
    assert_eq!(check(keys.roots(), &mine), Err(CredentialFault::Signature));
}

#[test]
fn a_credential_is_of_who_has_its_key() {
    let keys = keys(1, 0, None);
    let (game, net) = (start(&keys, "game1"), start(&keys, "net"));
    let signature = game.sign(b"transcript");
    assert_eq!(verify(game.credential(), b"transcript", &signature), Ok(()));
    assert_eq!(verify(game.credential(), b"another", &signature), Err(CredentialFault::Possession));
    assert_eq!(verify(net.credential(), b"transcript", &signature), Err(CredentialFault::Possession));
}

#[test]
fn a_name_key_signs_starts_of_its_name_alone() {
    let keys = keys(1, 0, None);
    let name_key = keys.name_key(claims("game1"), &Chance::system()).unwrap();
    let read = NameKey::of_text(&name_key.to_text().unwrap()).unwrap();
    let first = read.start(Incarnation(1), &Chance::system()).unwrap();
    let second = name_key.start(Incarnation(2), &Chance::system()).unwrap();
    for start in [&first, &second] {
        assert_eq!(check(keys.roots(), start.credential()), Ok(()));
        for forged in forged(start.credential()) {
            assert_eq!(check(keys.roots(), &forged), Err(CredentialFault::Signature), "{forged:?}");
        }
    }
    // The key of a start is no name key, and one name's delegation is not another's.
    let other = keys.name_key(claims("net"), &Chance::system()).unwrap();
    let other = other.start(Incarnation(1), &Chance::system()).unwrap();
    let mut crossed = first.credential().clone();
    crossed.via = other.credential().via;
    assert_eq!(check(keys.roots(), &crossed), Err(CredentialFault::Signature));
    let mut headless = first.credential().clone();
    headless.via = None;
    assert_eq!(check(keys.roots(), &headless), Err(CredentialFault::Signature));
}

#[test]
fn two_roots_are_valid_at_a_time_and_the_first_is_refused_after_the_second_rotation() {
    let first = keys(1, 0, None);
    let second = keys(1, 1, Some(first.roots().current));
    let third = keys(1, 2, Some(second.roots().current));
    let old = first.name_key(claims("game1"), &Chance::system()).unwrap();
    let old = old.start(Incarnation(1), &Chance::system()).unwrap();
    for credential in [start(&first, "game1").credential(), old.credential()] {
        assert_eq!(check(first.roots(), credential), Ok(()));
        assert_eq!(check(second.roots(), credential), Ok(()));
        assert_eq!(check(third.roots(), credential), Err(CredentialFault::Root));
    }
    assert_eq!(check(first.roots(), start(&second, "game1").credential()), Err(CredentialFault::Root));
    assert_eq!(first.roots().rotated(second.roots().current), second.roots());
    assert_eq!(second.roots().rotated(second.roots().current), second.roots(), "no rotation");
}

#[test]
fn keys_go_to_another_process_whole_or_not_at_all() {
    let keys = keys(1, 0, None);
    let keys = keys.with_token(TokenCheck::of("a-secret-of-sixteen", &Chance::system()).unwrap());
    let game = start(&keys, "game1");
    let bytes = game.to_bytes().unwrap();
    let read = NodeKeys::of_bytes(&bytes).unwrap();
    assert_eq!((read.credential(), read.roots()), (game.credential(), game.roots()));
    assert!(read.token().unwrap().is("a-secret-of-sixteen"));
    let signature = read.sign(b"transcript");
    assert_eq!(verify(game.credential(), b"transcript", &signature), Ok(()));
    let mut other = bytes.to_vec();
    other[0] ^= 1;
    for wrong in [&bytes[..bytes.len() - 1], &other, b""] {
        assert!(matches!(NodeKeys::of_bytes(wrong), Err(KeyError::Malformed)));
    }
    for wrong in ["", "x", "firefly node key 1\n", "firefly node key 1\nAAAA\n"] {
        assert!(matches!(NameKey::of_text(wrong), Err(KeyError::Malformed)), "{wrong}");
    }
}

#[test]
fn the_keys_of_several_nodes_go_to_their_process_in_order_whole_or_not_at_all() {
    let keys = keys(1, 0, None);
    let several = [start(&keys, "gate"), start(&keys, "game1")];
    let bytes = NodeKeys::several_to_bytes(&several).unwrap();
    assert_eq!(bytes[..4], u32::try_from(several[0].to_bytes().unwrap().len()).unwrap().to_le_bytes());
    let read = NodeKeys::several_of_bytes(&bytes).unwrap();
    let credentials =
        |several: &[NodeKeys]| several.iter().map(|keys| keys.credential().clone()).collect::<Vec<_>>();
    assert_eq!(credentials(&read), credentials(&several));
    assert!(NodeKeys::several_of_bytes(b"").unwrap().is_empty());
    let behind = [&bytes[..], b"x"].concat();
    let huge = [&u32::MAX.to_le_bytes()[..], &bytes[4..]].concat();
    let first = 4 + several[0].to_bytes().unwrap().len();
    for wrong in [&bytes[..bytes.len() - 1], &bytes[..first + 2], &bytes[4..], &behind, &huge] {
        assert!(matches!(NodeKeys::several_of_bytes(wrong), Err(KeyError::Malformed)));
    }
}

#[test]
fn nothing_secret_is_printed() {
    let keys = keys(1, 0, None);
    let (game, name_key) = (start(&keys, "game1"), keys.name_key(claims("x"), &Chance::seeded(1)).unwrap());
    let seed = &name_key.to_text().unwrap()[20..40];
    for shown in [format!("{keys:?}"), format!("{game:?}"), format!("{name_key:?}")] {
        assert!(!shown.contains("seed") && !shown.contains(seed), "{shown}");
    }
}
