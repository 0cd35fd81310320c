//! The typed messages, in bincode: those of a handshake, those between a master and its nodes, and those of
//! a hand-over.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bincode::Options;
use ffproto::control::{ControlMessage, ToMaster, ToNode};
use ffproto::credential::{Credential, PublicKey, Signature};
use ffproto::handover::{self, FromPredecessor, FromSuccessor};
use ffproto::handshake::{
    self, Answer, Hello, Methods, Opening, PREAMBLE_BYTES, Purpose, Refusal, Reply, Transcript, Verdict,
};
use ffproto::question::AddressFilter;
use ffproto::{Incarnation, Version, Versions};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How messages of at most `bytes_max` are written, as `ffnet::handshake` and `ffnet::control` do it.
pub fn coding(bytes_max: usize) -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(bytes_max as u64)
}

/// `which u8`, then a preamble (2), an acceptor's answer (1), its methods (3), a dialer's reply (4) or its first one
/// (else): what is read has no other encoding, and no change in it leaves what is signed the same.
///
/// # Panics
/// One of these does not hold.
pub fn handshake(data: &[u8]) {
    let Some((which, body)) = data.split_first() else { return };
    match which {
        2 => preamble(body),
        1 => drop(message::<Answer>(body, handshake::PROOF_BYTES_MAX)),
        3 => drop(message::<Methods>(body, handshake::MESSAGE_BYTES_MAX)),
        4 => drop(message::<Reply>(body, handshake::MESSAGE_BYTES_MAX)),
        _ => {
            if let Some(hello) = message::<Hello>(body, handshake::PROOF_BYTES_MAX) {
                transcripts(&hello);
            }
        }
    }
}

/// `which u8`, then a message to the master (1), from an old process (2), from its successor (3), an operator's text for addresses
/// (4), or a message to a node (else): what is read has no other encoding, and addresses have those that they name.
///
/// # Panics
/// It has.
pub fn control(data: &[u8]) {
    match data.split_first() {
        Some((1, body)) => controls::<ToMaster>(body),
        Some((2, body)) => drop(message::<FromPredecessor>(body, handover::MESSAGE_BYTES_MAX)),
        Some((3, body)) => drop(message::<FromSuccessor>(body, handover::MESSAGE_BYTES_MAX)),
        Some((4, body)) => addresses(&String::from_utf8_lossy(body)),
        Some((_, body)) => controls::<ToNode>(body),
        None => {}
    }
}

fn addresses(text: &str) {
    let Ok(filter) = text.parse::<AddressFilter>() else { return };
    let port = filter.port.unwrap_or(7);
    assert!(filter.has(SocketAddr::new(filter.ip, port)), "{text} does not have its own address");
    if filter.bits == if filter.ip.is_ipv4() { 32 } else { 128 } {
        let next = match filter.ip {
            IpAddr::V4(ip) => IpAddr::V4(u32::from(ip).wrapping_add(1).into()),
            IpAddr::V6(ip) => IpAddr::V6(u128::from(ip).wrapping_add(1).into()),
        };
        assert!(!filter.has(SocketAddr::new(next, port)), "{text} has another one");
    }
}

/// In every version: what is read has no other encoding in it.
fn controls<M: ControlMessage>(body: &[u8]) {
    for version in [Versions::OURS.min, Versions::OURS.max] {
        if let Some(message) = M::of_bytes(body, version) {
            assert_eq!(message.to_bytes(version).as_deref(), Some(body), "another encoding in {version:?}");
        }
    }
}

fn message<M: DeserializeOwned + Serialize + PartialEq + fmt::Debug>(
    body: &[u8],
    bytes_max: usize,
) -> Option<M> {
    // A longer one is refused by its length: the limit of the coding is for what is written.
    if body.len() > bytes_max {
        return None;
    }
    let coding = || coding(bytes_max);
    let message: M = coding().deserialize(body).ok()?;
    assert_eq!(coding().serialize(&message).ok().as_deref(), Some(body), "another encoding of {message:?}");
    Some(message)
}

fn preamble(body: &[u8]) {
    let Some(theirs) = body.first_chunk::<PREAMBLE_BYTES>() else { return };
    for purpose in [Purpose::Link, Purpose::Control] {
        let (ours, versions) = (purpose.preamble(Versions::OURS), Versions::OURS);
        match purpose.negotiate(versions, *theirs) {
            Ok(version) => {
                assert_eq!((&theirs[..4], theirs[6]), (&ours[..4], ours[6]));
                assert!((versions.min..=versions.max).contains(&version));
                assert!(u16::from_le_bytes([theirs[4], theirs[5]]) <= version.0);
                assert!(u16::from_le_bytes([theirs[8], theirs[9]]) >= version.0);
            }
            Err(bad) => {
                assert_ne!(*theirs, ours);
                assert!(!bad.to_string().is_empty());
            }
        }
    }
}

fn transcripts(hello: &Hello) {
    let preamble = Purpose::Link.preamble(Versions::OURS);
    let opening = Opening {
        purpose: Purpose::Link,
        version: Version(4),
        dialer: &preamble,
        acceptor: &preamble,
        nonce: &[7; 32],
        binding: &[],
    };
    let signed = Transcript { opening, hello }.of_dialer();
    let differs = |opening: Opening<'_>, hello: &Hello, what: &str| {
        assert_ne!(signed, Transcript { opening, hello }.of_dialer(), "{what}");
    };
    differs(Opening { purpose: Purpose::Control, ..opening }, hello, "purpose");
    differs(Opening { version: Version(3), ..opening }, hello, "version");
    differs(Opening { nonce: &[8; 32], ..opening }, hello, "nonce");
    differs(Opening { binding: b"x", ..opening }, hello, "binding");
    let changed = |what: &str, change: &dyn Fn(&mut Hello)| {
        let mut other = hello.clone();
        change(&mut other);
        differs(opening, &other, what);
    };
    changed("incarnation", &|it| it.credential.incarnation = Incarnation(it.credential.incarnation.0 ^ 1));
    changed("key", &|it| it.credential.key.0[0] ^= 1);
    changed("kind", &|it| it.credential.claims.kind.push('x'));
    changed("below", &|it| it.credential.claims.below.push(String::new()));
    changed("nonce of the dialer", &|it| it.nonce[0] ^= 1);
    changed("program", &|it| it.program.push('x'));
    let acceptor = Credential { key: PublicKey([9; 32]), ..hello.credential.clone() };
    let of = |hello: &Hello, verdict| Transcript { opening, hello }.of_acceptor(&acceptor, &verdict);
    let answer = of(hello, Verdict::Welcome);
    assert_ne!(answer, signed, "reflected");
    assert_ne!(answer, of(hello, Verdict::Refused(Refusal::Stopping)), "another verdict");
    let other = Hello { signature: Signature([1; 32], [2; 32]), ..hello.clone() };
    assert!(other.signature == hello.signature || answer != of(&other, Verdict::Welcome), "another proof");
}
