//! The protocols of clients: what a client means does not depend on how its bytes are cut, nor on the process in which
//! they are read.

use ffproto::CommandId;
use ffproto::frame::Firefly;
use ffproto::protocol::{Decoder, FireflyFrames, Next, ProtocolFault, ProtocolId, Protocols, Received};

/// A small limit, so that a fuzzer finds it.
const MESSAGE_BYTES_MAX: usize = 256;

struct Connection<'a> {
    protocols: &'a Protocols,
    spoken: Option<(ProtocolId, Box<dyn Decoder>)>,
    unread: Vec<u8>,
    heard: Vec<String>,
}

/// Any bytes of a client; the first says where they are cut.
pub fn protocol(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let framing = Firefly::default();
    let protocols = Protocols::built_in(FireflyFrames { framing, error_command: CommandId(u32::MAX) });
    let whole = heard(&protocols, &[bytes], false);
    let (first, rest) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(heard(&protocols, &[first, rest], false), whole, "cut at {cut}");
    assert_eq!(heard(&protocols, &[first, rest], true), whole, "in another process from {cut}");
}

fn heard(protocols: &Protocols, pieces: &[&[u8]], moves: bool) -> (Vec<String>, bool) {
    let mut connection = Connection { protocols, spoken: None, unread: Vec::new(), heard: Vec::new() };
    for piece in pieces {
        if moves {
            connection.moves();
        }
        connection.unread.extend_from_slice(piece);
        match connection.read() {
            Ok(false) => {}
            Ok(true) => break,
            Err(fault) => {
                assert!(!fault.to_string().is_empty());
                return (connection.heard, true);
            }
        }
    }
    (connection.heard, false)
}

impl Connection<'_> {
    /// Goes to another process.
    fn moves(&mut self) {
        let Some((id, decoder)) = &mut self.spoken else { return };
        let state = decoder.state();
        *decoder =
            self.protocols.get(*id).decoder(&state).unwrap_or_else(|fault| panic!("{fault}: {state:?}"));
    }

    /// Whether the client has ended it.
    fn read(&mut self) -> Result<bool, ProtocolFault> {
        if self.unread.is_empty() {
            return Ok(false);
        }
        let (id, decoder) = match &mut self.spoken {
            Some((id, decoder)) => (id, decoder),
            none => {
                let Some(started) = self.protocols.start(&self.unread)? else { return Ok(false) };
                self.unread.drain(..started.bytes);
                let decoder = self.protocols.get(started.id).decoder(&[])?;
                let (id, decoder) = none.insert((started.id, decoder));
                (id, decoder)
            }
        };
        let mut scratch = Vec::new();
        let mut at = 0;
        while let Some(next) = decoder.next(&self.unread[at..], MESSAGE_BYTES_MAX)? {
            let (frame, received) = (
                &self.unread[at..][..next.bytes()],
                match next {
                    Next::Message { to, body, .. } => {
                        Some(Received::Message { to, body: body.into(), spoken: None })
                    }
                    Next::Frame { .. } => None,
                },
            );
            assert!(!frame.is_empty(), "{next:?}");
            at += frame.len();
            let received = received.map_or_else(|| decoder.take(frame, &mut scratch), Ok)?;
            self.heard.push(format!("{received:?}"));
            if let Received::Message { spoken: Some(name), .. } = received {
                *id = self.protocols.named(name).unwrap_or(*id);
            }
            if received == Received::End {
                return Ok(true);
            }
        }
        self.unread.drain(..at);
        Ok(false)
    }
}
