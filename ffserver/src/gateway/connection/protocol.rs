//! The protocol of a connection, told by the client's first bytes: firefly frames, which the connection reads itself,
//! or WebSocket, whose beginning, messages and end are here.

use std::cell::RefCell;
use std::task::{Context, Poll};
use std::time::Duration;

use ffproto::frame::upgrade::{self, Begins};
use ffproto::frame::websocket::{self, Assembly, Opcode, Taken, WebSocketFault};
use ffproto::frame::{Form, firefly, json};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::{Closed, Connection};
use crate::session::local::CloseKind;

/// The wait of a push for the client's first bytes, which tell its framing: a WebSocket's client sends its request as
/// soon as it is connected.
const FIRST_BYTES_WAIT: Duration = Duration::from_millis(300);
/// The time for a client to read why it was closed.
const FAREWELL: Duration = Duration::from_secs(1);

thread_local! {
    /// The buffer where messages lose their mask; taken while in use.
    static UNMASKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The protocol that a connection speaks. With its unread bytes this is all that must be known to go on, between two
/// whole frames, in another process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum SpokenProtocol {
    /// The first bytes have not told yet.
    #[default]
    Unknown,
    /// Firefly frames.
    Firefly,
    /// WebSocket; boxed, for most connections are not.
    WebSocket(Box<WebSocket>),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct WebSocket {
    assembly: Assembly,
    /// The form of the client's first message, which its answers take.
    form: Option<Form>,
    /// The client has closed, with that code if it gave one.
    closed: Option<Option<u16>>,
}

impl SpokenProtocol {
    /// Settles for firefly frames when the first bytes have not told: the server speaks first.
    pub(super) fn settle(&mut self) {
        if *self == SpokenProtocol::Unknown {
            *self = SpokenProtocol::Firefly;
        }
    }
}

impl Connection {
    /// Handles the first bytes: tells the framing, and answers the request of a WebSocket.
    pub(super) fn handle_first(
        &mut self,
        bytes: &[u8],
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Result<usize, Closed> {
        match upgrade::begins(&self.session.framing(), bytes) {
            Begins::More => Ok(0),
            Begins::Firefly => {
                self.input.protocol = SpokenProtocol::Firefly;
                self.handle_firefly(bytes, now, cx).map_err(Closed::Frame)
            }
            Begins::Http => {
                let read = upgrade::read(bytes).map_err(|fault| Closed::WebSocket(fault.into()))?;
                let Some(upgrade) = read else { return Ok(0) };
                self.session.restart_in(Form::Binary, &upgrade.response);
                self.input.protocol = SpokenProtocol::WebSocket(Box::default());
                let handled = self.handle_messages(&bytes[upgrade.bytes..], now, cx);
                handled.map(|bytes| upgrade.bytes + bytes).map_err(Closed::WebSocket)
            }
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
            self.input.protocol.settle();
        }
        Poll::Ready(())
    }

    /// Handles a WebSocket's frames until a message has to wait; returns how many bytes are handled.
    pub(super) fn handle_messages(
        &mut self,
        bytes: &[u8],
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Result<usize, WebSocketFault> {
        let max = self.executor.node.identity().limits().frame_bytes_max as usize + firefly::UNCOUNTED_BYTES;
        let mut unmasked = UNMASKED.take();
        let mut at = 0;
        while let SpokenProtocol::WebSocket(socket) = &self.input.protocol
            && let Some(next) = socket.assembly.next(&bytes[at..], max)?
        {
            if next.ends_message() && !self.may_start(now, cx) {
                self.input.stalled = true;
                break;
            }
            let SpokenProtocol::WebSocket(socket) = &mut self.input.protocol else { break };
            let frame = &bytes[at..];
            at += next.bytes;
            match socket.assembly.take(&next, frame, &mut unmasked)? {
                Taken::Message { text, payload } => {
                    let form = if text { Form::Text } else { Form::Binary };
                    if socket.form.is_none() {
                        socket.form = Some(form);
                        self.session.set_form(form);
                    }
                    self.session.note_message(now);
                    self.handle_message(text, payload, now, cx)?;
                }
                Taken::Ping(payload) => {
                    self.session.beat(now);
                    self.session.queue_control(|out| websocket::write(Opcode::Pong, payload, out));
                }
                Taken::Fragment | Taken::Pong => self.session.beat(now),
                Taken::Close(code) => {
                    // The same as when a client closes its sending side: its requests are still answered.
                    socket.closed = Some(code);
                    self.input.ended = true;
                    at = bytes.len();
                    break;
                }
            }
        }
        // A large message is rare, and its room is not kept.
        unmasked.clear();
        unmasked.shrink_to(64 * 1024);
        UNMASKED.set(unmasked);
        Ok(at)
    }

    fn handle_message(
        &mut self,
        text: bool,
        payload: &[u8],
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Result<(), WebSocketFault> {
        if text {
            let text = std::str::from_utf8(payload).map_err(|_| WebSocketFault::Utf8)?;
            let (command, body) = json::read(text)?;
            self.handle(command, &body, now, cx);
            return Ok(());
        }
        let max = self.executor.node.identity().limits().frame_bytes_max;
        match self.session.framing().read(payload, max)? {
            Some(frame) if frame.bytes == payload.len() => {
                self.handle(frame.command, frame.body, now, cx);
                Ok(())
            }
            _ => Err(WebSocketFault::NotOneFrame),
        }
    }

    /// Tells a WebSocket's client why it is closed, and likewise a request that begins no WebSocket; a firefly client
    /// is told nothing. Ends when the client has read it and closed, or after a second.
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
        if let (SpokenProtocol::Unknown, Closed::WebSocket(WebSocketFault::Request(fault))) =
            (&self.input.protocol, closed)
        {
            return Some(fault.response());
        }
        let SpokenProtocol::WebSocket(socket) = &self.input.protocol else { return None };
        let (code, why) = match closed {
            Closed::WebSocket(fault) => (fault.close_code(), fault.to_string()),
            Closed::Here(why) => (close_code(why.kind), why.text.clone()),
            Closed::Draining => (1001, closed.to_string()),
            Closed::ByPeer => match socket.closed {
                Some(Some(code)) => (code, String::new()),
                Some(None) => {
                    let mut bare = Vec::new();
                    websocket::write(Opcode::Close, &[], &mut bare);
                    return Some(bare);
                }
                None => return None,
            },
            Closed::Frame(_) | Closed::Io(_) | Closed::Leaving => return None,
        };
        let mut frame = Vec::new();
        websocket::write_close(code, &why, &mut frame);
        Some(frame)
    }
}

/// The code of a WebSocket's close (RFC 6455, 7.4.1).
fn close_code(kind: CloseKind) -> u16 {
    match kind {
        CloseKind::Normal => 1000,
        CloseKind::Policy => 1008,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_speaks_is_a_small_value_that_travels() {
        assert!(size_of::<SpokenProtocol>() <= 16);
        let socket =
            WebSocket { form: Some(Form::Text), closed: Some(Some(1000)), assembly: Assembly::default() };
        for protocol in
            [SpokenProtocol::Unknown, SpokenProtocol::Firefly, SpokenProtocol::WebSocket(Box::new(socket))]
        {
            let bytes = bincode::serialize(&protocol).unwrap();
            assert_eq!(bincode::deserialize::<SpokenProtocol>(&bytes).unwrap(), protocol);
        }
    }
}
