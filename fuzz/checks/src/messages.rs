//! The typed messages, in bincode: those of a handshake, those between a master and its nodes, and those of
//! a hand-over.

use std::fmt;

use bincode::Options;
use ffproto::control::{self, ToMaster, ToNode};
use ffproto::handover::{self, FromPredecessor, FromSuccessor};
use ffproto::handshake::{self, FromAcceptor, FromDialer, Hello, PREAMBLE_BYTES, Purpose, Side, Transcript};
use ffproto::{ClusterName, Incarnation, NodeName};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How messages of at most `bytes_max` are written, as `ffnet::handshake` and `ffnet::control` do it.
pub fn coding(bytes_max: usize) -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(bytes_max as u64)
}

/// `which u8`, then a preamble (2), a message of an acceptor (1) or of a dialer (else): what is read has no
/// other encoding, and the proofs over any names hold for their side only.
///
/// # Panics
/// One of these does not hold.
pub fn handshake(data: &[u8]) {
    let Some((which, body)) = data.split_first() else { return };
    match which {
        2 => preamble(body),
        1 => {
            message::<FromAcceptor>(body, handshake::MESSAGE_BYTES_MAX);
        }
        _ => {
            if let Some(FromDialer::Hello(hello)) = message(body, handshake::MESSAGE_BYTES_MAX) {
                proofs(&hello);
            }
        }
    }
}

/// `which u8`, then a message to the master (1), from an old process (2), from its successor (3), or to a node
/// (else): what is read has no other encoding.
///
/// # Panics
/// It has.
pub fn control(data: &[u8]) {
    match data.split_first() {
        Some((1, body)) => drop(message::<ToMaster>(body, control::MESSAGE_BYTES_MAX)),
        Some((2, body)) => drop(message::<FromPredecessor>(body, handover::MESSAGE_BYTES_MAX)),
        Some((3, body)) => drop(message::<FromSuccessor>(body, handover::MESSAGE_BYTES_MAX)),
        Some((_, body)) => drop(message::<ToNode>(body, control::MESSAGE_BYTES_MAX)),
        None => {}
    }
}

fn message<M: DeserializeOwned + Serialize + PartialEq + fmt::Debug>(
    body: &[u8],
    bytes_max: usize,
) -> Option<M> {
    let coding = || coding(bytes_max);
    let message: M = coding().deserialize(body).ok()?;
    assert!(body.len() <= bytes_max);
    assert_eq!(coding().serialize(&message).ok().as_deref(), Some(body), "another encoding of {message:?}");
    Some(message)
}

fn preamble(body: &[u8]) {
    let Some(theirs) = body.first_chunk::<PREAMBLE_BYTES>() else { return };
    for purpose in [Purpose::Link, Purpose::Control] {
        let ours = purpose.preamble();
        match purpose.check_preamble(*theirs) {
            Ok(()) => assert_eq!(theirs[..7], ours[..7]),
            Err(bad) => {
                assert_ne!(theirs[..7], ours[..7]);
                assert!(!bad.to_string().is_empty());
            }
        }
    }
}

fn proofs(hello: &Hello) {
    let Ok(cluster) = ClusterName::try_from(hello.cluster.as_str()) else { return };
    let (name, nonce): (&NodeName, _) = (&hello.to, [7; 32]);
    let transcript = Transcript {
        purpose: Purpose::Link,
        cluster: &cluster,
        dialer: (&hello.name, hello.incarnation, &hello.nonce),
        acceptor: (name, Incarnation(1), &nonce),
    };
    let proof = transcript.prove("token", Side::Dialer);
    assert!(transcript.check("token", Side::Dialer, &proof).is_ok());
    assert!(transcript.check("token", Side::Acceptor, &proof).is_err(), "reflected");
    assert!(transcript.check("tokem", Side::Dialer, &proof).is_err(), "with another token");
}
