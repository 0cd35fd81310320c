//! The protocols that a node's clients may speak, and which of them one speaks by its first bytes.

use std::sync::Arc;

use super::{
    Begins, ClientProtocol, FaultSaid, FireflyFrames, ProtocolFault, ReplyTo, WebSocketBinary, WebSocketJson,
};
use crate::frame::json;
use crate::{CommandId, Fault};

/// The most protocols of one node: a broadcast keeps room for its bytes in each.
pub const PROTOCOLS_MAX: usize = 8;

/// The protocols of a node. The first is taken for granted when the server has to speak before its client.
#[derive(Debug, Clone)]
pub struct Protocols {
    /// What is queued for a client that has not told its protocol is kept in firefly frames.
    neutral: FireflyFrames,
    /// Those that a new client may speak, and behind them the others that there are: a client that speaks one of these
    /// already, with another process, goes on.
    all: Vec<Arc<dyn ClientProtocol>>,
    offered: usize,
}

/// The place of a protocol among those of its node; another node, or process, has another order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolId(u8);

impl ProtocolId {
    /// The place, below [`PROTOCOLS_MAX`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A protocol that has been found by a connection's first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Which one.
    pub id: ProtocolId,
    /// The bytes of its opening.
    pub bytes: usize,
    /// The answer to its opening, which goes before everything else.
    pub answer: Vec<u8>,
}

/// Why a list of protocols is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListFault {
    /// The program has no such protocol.
    #[error("this program has no protocol `{name}` for clients; it has {known}")]
    Unknown {
        /// The name in the config.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// Two have one name.
    #[error("two protocols for clients are called `{0}`")]
    Twice(String),
    /// There are too many.
    #[error("{0} protocols for clients are more than {PROTOCOLS_MAX}")]
    TooMany(usize),
}

impl Protocols {
    /// The protocols that every program has, with those constants.
    pub fn built_in(frames: FireflyFrames) -> Self {
        let all: Vec<Arc<dyn ClientProtocol>> = vec![
            Arc::new(frames),
            Arc::new(WebSocketBinary(frames)),
            Arc::new(WebSocketJson { framing: frames.framing }),
        ];
        Self { neutral: frames, offered: all.len(), all }
    }

    /// The protocols of these names, in this order, of the built-in and the program's `own`; without names the built-in
    /// ones and behind them the program's.
    ///
    /// # Errors
    /// [`ListFault`].
    pub fn choose(
        frames: FireflyFrames,
        own: &[Arc<dyn ClientProtocol>],
        names: Option<&[String]>,
    ) -> Result<Self, ListFault> {
        let mut known = Self::built_in(frames).all;
        known.extend(own.iter().cloned());
        for (at, protocol) in known.iter().enumerate() {
            if known[..at].iter().any(|other| other.name() == protocol.name()) {
                return Err(ListFault::Twice(protocol.name().to_owned()));
            }
        }
        let find = |name: &String| match known.iter().find(|protocol| protocol.name() == name) {
            Some(protocol) => Ok(protocol.clone()),
            None => {
                let known: Vec<_> = known.iter().map(|protocol| protocol.name()).collect();
                Err(ListFault::Unknown { name: name.clone(), known: known.join(", ") })
            }
        };
        if known.len() > PROTOCOLS_MAX {
            return Err(ListFault::TooMany(known.len()));
        }
        let Some(names) = names else {
            return Ok(Self { neutral: frames, offered: known.len(), all: known });
        };
        let mut all = names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let offered = all.len();
        let is_offered = |name| names.iter().any(|offered| offered == name);
        all.extend(known.iter().filter(|protocol| !is_offered(protocol.name())).cloned());
        Ok(Self { neutral: frames, offered, all })
    }

    /// The protocol at that place.
    #[inline]
    pub fn get(&self, id: ProtocolId) -> &dyn ClientProtocol {
        // An id comes from this list, whose length does not change.
        self.all.get(id.index()).map_or(&self.neutral, |protocol| &**protocol)
    }

    /// The protocol of that name.
    pub fn named(&self, name: &str) -> Option<ProtocolId> {
        self.all.iter().position(|protocol| protocol.name() == name).map(|at| ProtocolId(at as u8))
    }

    /// Those that a new client may speak.
    fn offered(&self) -> &[Arc<dyn ClientProtocol>] {
        self.all.get(..self.offered).unwrap_or_default()
    }

    /// The names of all: those that a new client may speak come first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.all.iter().map(|protocol| protocol.name())
    }

    /// The protocol that is taken for granted when the first bytes do not tell.
    pub fn first(&self) -> ProtocolId {
        ProtocolId(0)
    }

    /// The protocol of every client, when that is known before its first bytes.
    pub fn only(&self) -> Option<ProtocolId> {
        let known = self.offered == 1 && self.get(self.first()).opening_bytes_max() == 0;
        known.then(|| self.first())
    }

    /// The most first bytes that may be waited for.
    pub fn opening_bytes_max(&self) -> usize {
        self.offered().iter().map(|protocol| protocol.opening_bytes_max()).max().unwrap_or_default()
    }

    /// Which protocol begins with these bytes; `None` when more must come. What may be several is the first of the list, as
    /// soon as none of them waits for more; what is none is the first, whose fault says what was expected; unless that has an opening.
    ///
    /// # Errors
    /// [`ProtocolFault`]: it is one for certain, and wrong.
    pub fn start(&self, bytes: &[u8]) -> Result<Option<Started>, ProtocolFault> {
        let (mut found, mut wrong, mut more) = (None, None, false);
        for (at, protocol) in self.offered().iter().enumerate() {
            match protocol.begins(bytes) {
                Ok(Begins::Not) => {}
                Ok(Begins::More) => more = true,
                Ok(Begins::Here { bytes: opening, .. }) if opening > bytes.len() => {
                    let (name, read) = (protocol.name(), bytes.len());
                    let text =
                        format!("the protocol `{name}` takes an opening of {opening} bytes out of {read}");
                    wrong = wrong.or(Some(ProtocolFault::new(text)));
                }
                Ok(Begins::Here { bytes, answer }) => {
                    found.get_or_insert(Started { id: ProtocolId(at as u8), bytes, answer });
                }
                Err(fault) => wrong = wrong.or(Some(fault)),
            }
        }
        match (found, wrong) {
            _ if more => Ok(None),
            (Some(started), _) => Ok(Some(started)),
            (None, Some(fault)) => Err(fault),
            (None, None) if self.get(self.first()).opening_bytes_max() > 0 => {
                let names: Vec<_> = self.names().take(self.offered).collect();
                Err(ProtocolFault::new(format!("illegal: the first bytes begin no {}", names.join(", "))))
            }
            (None, None) => Ok(Some(Started { id: self.first(), bytes: 0, answer: Vec::new() })),
        }
    }

    /// Appends a message; for a client whose protocol is not known in frames that [`Protocols::restate`] reads.
    #[inline]
    pub fn push(&self, id: Option<ProtocolId>, command: CommandId, body: &[u8], out: &mut Vec<u8>) {
        match id {
            Some(id) => self.get(id).push(command, body, out),
            None => self.neutral.push(command, body, out),
        }
    }

    /// Appends an answer, as [`Protocols::push`] does.
    #[inline]
    pub fn reply(&self, id: Option<ProtocolId>, to: ReplyTo, body: &[u8], out: &mut Vec<u8>) {
        match id {
            Some(id) => self.get(id).reply(to, body, out),
            None => self.neutral.reply(to, body, out),
        }
    }

    /// Appends an error, as [`Protocols::push`] does.
    pub fn fault(&self, id: Option<ProtocolId>, to: ReplyTo, fault: &Fault, out: &mut Vec<u8>) -> FaultSaid {
        match id {
            Some(id) => self.get(id).fault(to, fault, out),
            None => self.neutral.fault(to, fault, out),
        }
    }

    /// Appends in a protocol what was queued before it was known.
    pub fn restate(&self, queued: &[u8], id: ProtocolId, out: &mut Vec<u8>) {
        let (protocol, mut rest) = (self.get(id), queued);
        while let Ok(Some(frame)) = self.neutral.framing.read(rest, u32::MAX) {
            let fault = (frame.command == self.neutral.error_command).then(|| json::read_error(frame.body));
            match fault.flatten() {
                // The session ends by itself: nothing but its end is told before its protocol is known.
                Some((command, fault)) => drop(protocol.fault(command.into(), &fault, out)),
                None => protocol.push(frame.command, frame.body, out),
            }
            rest = &rest[frame.bytes..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Firefly;
    use crate::protocol::Decoder;
    use crate::{Code, Executed, NodeName};

    fn frames(head: [u8; 4]) -> FireflyFrames {
        let framing = Firefly { head, proto_version: 0, server_version: 0 };
        FireflyFrames { framing, error_command: CommandId(u32::MAX) }
    }

    fn started(protocols: &Protocols, bytes: &[u8]) -> Option<&'static str> {
        protocols.start(bytes).unwrap().map(|started| protocols.get(started.id).name())
    }

    #[test]
    fn the_protocol_is_known_from_the_first_four_bytes_or_the_request() {
        let zeros = Protocols::built_in(frames([0; 4]));
        for (bytes, name) in [
            (&b"G"[..], None),
            (b"GET", None),
            (b"GET /", None),
            (b"\0", Some("firefly")),
            (b"POST", Some("firefly")),
        ] {
            assert_eq!(started(&zeros, bytes), name, "{bytes:?}");
        }
        let game = Protocols::built_in(frames(*b"GAME"));
        assert_eq!(started(&game, b"G"), None);
        assert_eq!(started(&game, b"GA"), Some("firefly"));
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        let begun = zeros.start(request).unwrap().unwrap();
        assert_eq!((zeros.get(begun.id).name(), begun.bytes), ("websocket-binary", request.len()));
        assert!(begun.answer.starts_with(b"HTTP/1.1 101 "));
        let wrong = zeros.start(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap_err();
        assert!(wrong.farewell().unwrap().starts_with(b"HTTP/1.1 426 "));
        // A cluster whose constants begin with `GET ` has no WebSocket.
        let get = Protocols::built_in(frames(*b"GET "));
        assert_eq!(started(&get, b"GET"), None);
        assert_eq!(started(&get, request), Some("firefly"));
    }

    #[test]
    fn what_is_queued_before_the_protocol_is_known_is_written_in_it() {
        let protocols = Protocols::built_in(frames([0; 4]));
        let fault = Fault {
            code: Code::NotLoggedIn,
            at: NodeName::master(),
            executed: Executed::No,
            message: "first".into(),
        };
        let write = |id: Option<ProtocolId>| {
            let mut out = Vec::new();
            protocols.push(id, CommandId(7), b"hello", &mut out);
            protocols.fault(id, CommandId(8).into(), &fault, &mut out);
            out
        };
        for name in protocols.names() {
            let (id, mut restated) = (protocols.named(name).unwrap(), Vec::new());
            protocols.restate(&write(None), id, &mut restated);
            assert_eq!(restated, write(Some(id)), "{name}");
        }
    }

    #[test]
    fn a_list_names_protocols_that_there_are_once() {
        let choose = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Protocols::choose(frames([0; 4]), &[], Some(&names))
        };
        let json = choose(&["websocket-json"]).unwrap();
        assert_eq!((json.names().next(), json.only()), (Some("websocket-json"), None));
        assert!(json.start(b"\0").is_err(), "frames without an opening");
        assert!(json.named("firefly").is_some(), "a client of another process may speak it");
        assert_eq!(choose(&["firefly"]).unwrap().only(), Some(ProtocolId(0)));
        let unknown = choose(&["firefly", "lines"]).unwrap_err().to_string();
        assert_eq!(
            unknown,
            "this program has no protocol `lines` for clients; it has firefly, websocket-binary, websocket-json"
        );
        let own: [Arc<dyn ClientProtocol>; 1] = [Arc::new(frames([1; 4]))];
        let twice = Protocols::choose(frames([0; 4]), &own, None).unwrap_err();
        assert_eq!(twice, ListFault::Twice("firefly".into()));
    }

    /// A protocol whose opening is careless, or never whole.
    #[derive(Debug)]
    struct Opening(Begins);

    impl ClientProtocol for Opening {
        fn name(&self) -> &'static str {
            "opening"
        }

        fn begins(&self, _: &[u8]) -> Result<Begins, ProtocolFault> {
            Ok(self.0.clone())
        }

        fn opening_bytes_max(&self) -> usize {
            8
        }

        fn decoder(&self, _: &[u8]) -> Result<Box<dyn Decoder>, ProtocolFault> {
            Err(ProtocolFault::new("not read"))
        }

        fn push(&self, _: CommandId, _: &[u8], _: &mut Vec<u8>) {}

        fn fault(&self, _: ReplyTo, _: &Fault, _: &mut Vec<u8>) -> FaultSaid {
            FaultSaid::Untold
        }
    }

    #[test]
    fn an_opening_of_more_bytes_than_there_are_is_a_fault() {
        let begins = |bytes| {
            let opening: Arc<dyn ClientProtocol> = Arc::new(Opening(Begins::Here { bytes, answer: vec![1] }));
            let names = ["opening".to_owned()];
            Protocols::choose(frames([0; 4]), &[opening], Some(&names)).unwrap().start(b"1234")
        };
        assert_eq!(begins(4).unwrap().unwrap().bytes, 4);
        let fault = begins(5).unwrap_err().to_string();
        assert_eq!(fault, "the protocol `opening` takes an opening of 5 bytes out of 4");
    }
}
