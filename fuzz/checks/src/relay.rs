//! What nodes tell each other that are no neighbours: `which u8`, then the body of a frame.

use bincode::Options;
use ffproto::relay::{
    self, AffinityNotice, Broadcast, Claim, MethodsChange, MoveEntry, MoveOrder, Op, ReachChange,
    SessionChange, SessionState,
};

use crate::coding;

/// `which u8`, then who can be reached (odd), which node a session has (254), which methods there are (252), or an
/// envelope: what is read has no other encoding, and no length asks for more memory than has arrived.
///
/// # Panics
/// One of these does not hold.
pub fn relay(data: &[u8]) {
    let Some((which, body)) = data.split_first() else { return };
    if which % 2 == 1 {
        return typed::<ReachChange>(body);
    }
    if *which == 252 {
        return typed::<MethodsChange>(body);
    }
    if *which == 254 {
        return assert!(
            AffinityNotice::read(body).is_none_or(|stick| stick.write() == body),
            "another encoding"
        );
    }
    let Some(envelope) = relay::read(body) else {
        return assert!(body.len() < relay::ENVELOPE_BYTES);
    };
    let Some(op) = envelope.op else { return };
    let mut again = Vec::new();
    relay::write(envelope.to, envelope.from, op, envelope.payload, &mut again);
    assert_eq!(again, body, "another encoding");
    match op {
        Op::State => typed::<SessionState>(envelope.payload),
        Op::Set => typed::<SessionChange>(envelope.payload),
        Op::Move => typed::<MoveOrder>(envelope.payload),
        Op::Enter => typed::<MoveEntry>(envelope.payload),
        Op::Claim => typed::<Vec<Claim>>(envelope.payload),
        Op::Broadcast => {
            if let Some(broadcast) = Broadcast::read(envelope.payload) {
                let mut again = Vec::new();
                broadcast.write(&mut again);
                assert_eq!(again, envelope.payload, "another encoding");
            }
        }
        Op::Call => {
            let call = relay::Call::read(envelope.payload);
            assert!(call.is_none_or(|call| call.write() == envelope.payload), "another encoding");
        }
        _ => {}
    }
}

fn typed<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) {
    let Ok(read) = coding(bytes.len()).deserialize::<T>(bytes) else { return };
    let again = coding(usize::MAX >> 1).serialize(&read).unwrap_or_default();
    // A map is read in any order, with keys given twice, and written in one.
    assert!(again.len() <= bytes.len(), "another encoding");
    let twice = coding(again.len()).deserialize::<T>(&again);
    assert!(twice.is_ok_and(|twice| coding(again.len()).serialize(&twice).is_ok_and(|same| same == again)));
}
