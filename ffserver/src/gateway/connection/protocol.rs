//! The protocol of a connection: told by the client's first bytes, carried to the successor, and asked for a word at the
//! end.

use std::task::{Context, Poll};
use std::time::Duration;

use ffproto::protocol::firefly::NAME as FIREFLY;
use ffproto::protocol::websocket::{BINARY, JSON, MessageForm, WebSocketState};
use ffproto::protocol::{Decoder, Ending, ProtocolFault, ProtocolId, Protocols, Started};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::{Closed, Connection};
use crate::session::local::CloseKind;

/// The wait of a push for the client's first bytes, which tell its protocol: a WebSocket's client sends its request as
/// soon as it is connected.
const FIRST_BYTES_WAIT: Duration = Duration::from_millis(300);
/// The time for a client to read why it was closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// The input of a connection whose protocol is known: what its decoder remembers between two frames. Which protocol that
/// is, is the session's to know, for that is where messages are written.
pub(super) struct SpokenProtocol {
    pub(super) decoder: Box<dyn Decoder>,
}

/// A connection's protocol on its way to another process. With the unread bytes this is all that must be known to go on,
/// between two whole frames.
// The first three are as earlier releases have written them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ProtocolRecord {
    /// The first bytes have not told yet.
    Unknown,
    /// Firefly frames.
    Firefly,
    /// WebSocket, in either form.
    WebSocket(WebSocketState),
    /// Any other.
    Named {
        /// Its name.
        name: String,
        /// The state of its decoder.
        state: Vec<u8>,
    },
}

impl SpokenProtocol {
    /// A protocol of a node, and its decoder of a new connection.
    pub(super) fn new(protocols: &Protocols, id: ProtocolId) -> Result<Self, ProtocolFault> {
        Ok(Self { decoder: protocols.get(id).decoder(&[])? })
    }

    /// A protocol that another process has spoken on this connection.
    ///
    /// # Errors
    /// [`ProtocolFault`]: this process does not speak it, or cannot read its state.
    pub(super) fn adopt(
        record: ProtocolRecord,
        protocols: &Protocols,
    ) -> Result<Option<(ProtocolId, Self)>, ProtocolFault> {
        let (name, state) = match record {
            ProtocolRecord::Unknown => return Ok(None),
            ProtocolRecord::Firefly => (FIREFLY.to_owned(), Vec::new()),
            ProtocolRecord::WebSocket(socket) => {
                let name = if socket.form == Some(MessageForm::Text) { JSON } else { BINARY };
                let state = bincode::serialize(&socket).map_err(|e| ProtocolFault::new(e.to_string()))?;
                (name.to_owned(), state)
            }
            ProtocolRecord::Named { name, state } => (name, state),
        };
        let unknown = || ProtocolFault::new(format!("this process does not speak `{name}` with clients"));
        let id = protocols.named(&name).ok_or_else(unknown)?;
        Ok(Some((id, Self { decoder: protocols.get(id).decoder(&state)? })))
    }

    /// The record for another process, and the form of messages that an earlier release wants beside it.
    pub(super) fn record(spoken: Option<(&'static str, &Self)>) -> (ProtocolRecord, MessageForm) {
        let Some((name, Self { decoder })) = spoken else {
            return (ProtocolRecord::Unknown, MessageForm::Firefly);
        };
        let state = decoder.state();
        let socket = || bincode::deserialize(&state).unwrap_or_default();
        match name {
            FIREFLY => (ProtocolRecord::Firefly, MessageForm::Firefly),
            BINARY => (ProtocolRecord::WebSocket(socket()), MessageForm::Binary),
            JSON => (ProtocolRecord::WebSocket(socket()), MessageForm::Text),
            name => (ProtocolRecord::Named { name: name.to_owned(), state }, MessageForm::Firefly),
        }
    }
}

impl Connection {
    /// Finds the protocol by the first bytes, and returns how many of them its opening has taken; `None` when more must
    /// come.
    pub(super) fn find_protocol(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolFault> {
        let Some(started) = self.session.protocols().start(bytes)? else { return Ok(None) };
        let Started { id, bytes, answer } = started;
        self.begin_protocol(id, &answer)?;
        Ok(Some(bytes))
    }

    fn begin_protocol(&mut self, id: ProtocolId, first: &[u8]) -> Result<(), ProtocolFault> {
        self.input.spoken = Some(SpokenProtocol::new(self.session.protocols(), id)?);
        self.session.begin_protocol(id, first);
        Ok(())
    }

    /// Begins what every client of the node speaks, if that is one protocol.
    pub(super) fn begin_only_protocol(&mut self) {
        if let Some(id) = self.session.protocols().only() {
            // One that cannot begin says so when the first bytes come.
            let _ = self.begin_protocol(id, &[]);
        }
    }

    /// Settles for the node's first protocol when the first bytes have not told, and it needs no opening: the server
    /// speaks first.
    pub(super) fn settle_protocol(&mut self) {
        let protocols = self.session.protocols();
        let first = protocols.first();
        if self.input.spoken.is_none() && protocols.get(first).opening_bytes_max() == 0 {
            let _ = self.begin_protocol(first, &[]);
        }
    }

    /// Ready when the client's protocol is known, or taken for granted, so that it may be written to.
    pub(super) fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.session.has_queued() {
            let until = self.session.opened() + FIRST_BYTES_WAIT;
            // Once the moment is over the timer belongs to the handler that runs.
            if Instant::now() < until && self.poll_timer(until, cx).is_pending() {
                self.session.remember(cx.waker());
                return Poll::Pending;
            }
            self.settle_protocol();
            if self.input.spoken.is_none() {
                // Remembered before the look, so that no close is missed. A client that is being closed is not waited for.
                self.session.remember(cx.waker());
                return if self.session.drop_unsayable() { Poll::Ready(()) } else { Poll::Pending };
            }
        }
        Poll::Ready(())
    }

    /// Tells a client why its connection ends, if its protocol has a word for that. Ends when the client has read it and
    /// closed, or after a second.
    pub(in crate::gateway) async fn say_why(&mut self, closed: &Closed) {
        let Some(farewell) = self.farewell(closed) else { return };
        self.detach();
        let said = async {
            let mut rest = self.writing.take();
            rest.extend_from_slice(&farewell);
            self.socket.write_all(&rest).await?;
            self.socket.shutdown().await?;
            // Were bytes left unread, the kernel would reset the connection, and the client might never
            // read what was written.
            let mut ignored = [0; 1024];
            while self.socket.read(&mut ignored).await? > 0 {}
            std::io::Result::Ok(())
        };
        let _ = timeout(FAREWELL, said).await;
    }

    fn farewell(&self, closed: &Closed) -> Option<Vec<u8>> {
        let stopping = closed.to_string();
        let ending = match closed {
            Closed::Illegal(fault) => return fault.farewell().map(<[u8]>::to_vec),
            Closed::Io(_) | Closed::Leaving => return None,
            Closed::Here(why) if why.kind == CloseKind::Policy => Ending::Policy(&why.text),
            Closed::Here(why) => Ending::Closed(&why.text),
            Closed::Draining => Ending::Stopping(&stopping),
            Closed::ByPeer => Ending::ByClient,
        };
        self.input.spoken.as_ref()?.decoder.farewell(ending)
    }
}

#[cfg(test)]
mod tests {
    use ffproto::frame::websocket::Assembly;

    use super::*;
    use crate::session::local::frames;

    #[test]
    fn what_a_connection_speaks_is_a_small_value_that_travels() {
        assert!(size_of::<Option<SpokenProtocol>>() <= 16);
        let protocols = Protocols::built_in(frames(&ffconfig::ClientFraming::default()));
        let socket = |form| WebSocketState { form, closed: Some(Some(1000)), assembly: Assembly::default() };
        for (record, form) in [
            (ProtocolRecord::Unknown, MessageForm::Firefly),
            (ProtocolRecord::Firefly, MessageForm::Firefly),
            (ProtocolRecord::WebSocket(socket(None)), MessageForm::Binary),
            (ProtocolRecord::WebSocket(socket(Some(MessageForm::Binary))), MessageForm::Binary),
            (ProtocolRecord::WebSocket(socket(Some(MessageForm::Text))), MessageForm::Text),
        ] {
            let bytes = bincode::serialize(&record).unwrap();
            let read = bincode::deserialize::<ProtocolRecord>(&bytes).unwrap();
            let adopted = SpokenProtocol::adopt(read, &protocols).unwrap();
            let spoken = adopted.as_ref().map(|(id, spoken)| (protocols.get(*id).name(), spoken));
            assert_eq!(SpokenProtocol::record(spoken), (record, form));
        }
        let lines = ProtocolRecord::Named { name: "lines".into(), state: vec![1] };
        let refused = SpokenProtocol::adopt(lines, &protocols).err().unwrap().to_string();
        assert_eq!(refused, "this process does not speak `lines` with clients");
    }
}
