//! The protocols that an author's program brings, with their panics caught: a session's bytes are encoded wherever a push
//! comes from, and what goes wrong there must end neither a link nor the node.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ffproto::protocol::{
    Begins, ClientProtocol, Decoder, Ending, FaultSaid, FireflyFrames, ListFault, Next, ProtocolFault,
    Protocols, Received, ReplyTo,
};
use ffproto::{CommandId, Fault};
use tracing::error;

/// A protocol of an author.
#[derive(Debug)]
pub(crate) struct CaughtProtocol(pub(crate) Arc<dyn ClientProtocol>);

struct CaughtDecoder {
    name: &'static str,
    decoder: Box<dyn Decoder>,
}

/// The protocols that a node's clients may speak: by its config, of the built-in ones and the app's.
///
/// # Errors
/// The config names one that there is not.
pub(crate) fn protocols_of(
    own: &[Arc<dyn ClientProtocol>],
    frames: FireflyFrames,
    config: &ffconfig::Node,
) -> Result<Protocols, ListFault> {
    if config.netport.is_none() {
        // A key for all nodes is none of a node without clients, whose app need not have the protocol.
        return Ok(Protocols::built_in(frames));
    }
    Protocols::choose(frames, own, config.client.protocols.as_deref())
}

/// Runs code of a protocol.
fn run<T>(name: &str, what: &str, code: impl FnOnce() -> T) -> Result<T, ProtocolFault> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|_| {
        error!(limited_by = name, "the protocol `{name}` panicked in {what}");
        ProtocolFault::new(format!("the protocol `{name}` panicked"))
    })
}

impl CaughtProtocol {
    /// Appends what the protocol writes, or nothing.
    fn write<T>(&self, what: &str, out: &mut Vec<u8>, code: impl FnOnce(&mut Vec<u8>) -> T) -> Option<T> {
        let before = out.len();
        let written = run(self.name(), what, || code(out)).ok();
        if written.is_none() {
            out.truncate(before);
        }
        written
    }
}

impl ClientProtocol for CaughtProtocol {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn begins(&self, bytes: &[u8]) -> Result<Begins, ProtocolFault> {
        run(self.name(), "begins", || self.0.begins(bytes))?
    }

    fn opening_bytes_max(&self) -> usize {
        self.0.opening_bytes_max()
    }

    fn decoder(&self, state: &[u8]) -> Result<Box<dyn Decoder>, ProtocolFault> {
        let decoder = run(self.name(), "decoder", || self.0.decoder(state))??;
        Ok(Box::new(CaughtDecoder { name: self.name(), decoder }))
    }

    fn push(&self, command: CommandId, body: &[u8], out: &mut Vec<u8>) {
        self.write("push", out, |out| self.0.push(command, body, out));
    }

    fn reply(&self, to: ReplyTo, body: &[u8], out: &mut Vec<u8>) {
        self.write("reply", out, |out| self.0.reply(to, body, out));
    }

    fn fault(&self, to: ReplyTo, fault: &Fault, out: &mut Vec<u8>) -> FaultSaid {
        self.write("fault", out, |out| self.0.fault(to, fault, out)).unwrap_or(FaultSaid::Closes)
    }
}

impl Decoder for CaughtDecoder {
    fn next<'a>(&self, bytes: &'a [u8], message_bytes_max: usize) -> Result<Option<Next<'a>>, ProtocolFault> {
        run(self.name, "next", || self.decoder.next(bytes, message_bytes_max))?
    }

    fn take<'a>(&mut self, frame: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Received<'a>, ProtocolFault> {
        run(self.name, "take", || self.decoder.take(frame, scratch))?
    }

    fn farewell(&self, why: Ending<'_>) -> Option<Vec<u8>> {
        run(self.name, "farewell", || self.decoder.farewell(why)).ok().flatten()
    }

    fn state(&self) -> Vec<u8> {
        run(self.name, "state", || self.decoder.state()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Broken;

    impl ClientProtocol for Broken {
        fn name(&self) -> &'static str {
            "broken"
        }

        fn begins(&self, _: &[u8]) -> Result<Begins, ProtocolFault> {
            panic!("begins")
        }

        fn decoder(&self, _: &[u8]) -> Result<Box<dyn Decoder>, ProtocolFault> {
            panic!("decoder")
        }

        fn push(&self, _: CommandId, _: &[u8], out: &mut Vec<u8>) {
            out.push(1);
            panic!("push")
        }

        fn fault(&self, _: ReplyTo, _: &Fault, _: &mut Vec<u8>) -> FaultSaid {
            panic!("fault")
        }
    }

    #[test]
    fn what_a_protocol_panics_with_ends_a_connection_at_most() {
        let broken = CaughtProtocol(Arc::new(Broken));
        let fault = ProtocolFault::new("the protocol `broken` panicked");
        assert_eq!(broken.begins(b"x"), Err(fault.clone()));
        assert_eq!(broken.decoder(&[]).err(), Some(fault));
        let mut out = vec![7];
        broken.push(CommandId(1), b"x", &mut out);
        broken.reply(CommandId(1).into(), b"x", &mut out);
        assert_eq!(out, [7], "nothing of it is left");
    }
}
