//! The hand-off of a connection: what the gateway and its transport have to know of it in another process.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ffnet::transport::{ClientStream, TcpTransport, Transport, tcp};
use ffproto::protocol::ProtocolFault;
use serde::{Deserialize, Serialize};

use super::protocol::ProtocolRecord;
use crate::session::local::SessionHandoff;

/// The gateway's part of a connection's hand-off.
#[derive(Serialize, Deserialize)]
pub(super) struct ConnectionHandoff {
    pub(super) protocol: ProtocolRecord,
    pub(super) handoff: SessionHandoff,
}

/// The transport's part, which follows where it is not plain TCP's: earlier releases know no other, and do not write it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TransportRecord {
    name: String,
    state: Vec<u8>,
}

/// Why a connection of the predecessor cannot go on here.
#[derive(Debug, thiserror::Error)]
pub(in crate::gateway) enum AdoptError {
    #[error("its record is of another version of the program: {0}")]
    Record(#[from] bincode::Error),
    #[error("{0}")]
    Protocol(#[from] ProtocolFault),
    #[error("it came over the transport `{theirs}`, and this process has `{ours}`")]
    Transport { theirs: String, ours: &'static str },
    #[error("its transport does not go on: {0}")]
    Stream(#[from] io::Error),
}

impl TransportRecord {
    /// Of a connection over that transport.
    pub(super) fn new(transport: &dyn Transport, state: Vec<u8>) -> Self {
        Self { name: transport.name().to_owned(), state }
    }

    /// Appends both parts to `out`.
    pub(super) fn write(&self, connection: &ConnectionHandoff, out: &mut Vec<u8>) -> bincode::Result<()> {
        bincode::serialize_into(&mut *out, connection)?;
        if self.name == tcp::NAME && self.state.is_empty() {
            Ok(())
        } else {
            bincode::serialize_into(out, self)
        }
    }

    /// Reads both parts.
    pub(super) fn read(mut bytes: &[u8]) -> bincode::Result<(ConnectionHandoff, Self)> {
        let connection = bincode::deserialize_from(&mut bytes)?;
        let plain = || Self { name: tcp::NAME.to_owned(), state: Vec::new() };
        let transport = if bytes.is_empty() { plain() } else { bincode::deserialize(bytes)? };
        Ok((connection, transport))
    }

    /// Goes on over this process's transport, or TCP, which every process has.
    ///
    /// # Errors
    /// [`AdoptError::Transport`] when it is another one, [`AdoptError::Stream`] when it cannot.
    pub(super) fn adopt(
        self,
        transport: &dyn Transport,
        socket: OwnedFd,
    ) -> Result<Arc<dyn ClientStream>, AdoptError> {
        if self.name == tcp::NAME {
            return Ok(TcpTransport.adopt(socket, &self.state)?);
        }
        if transport.name() != self.name {
            return Err(AdoptError::Transport { theirs: self.name, ours: transport.name() });
        }
        Ok(transport.adopt(socket, &self.state)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ffnet::transport::MemoryTransport;
    use ffproto::relay::SessionState;

    use super::*;
    use crate::session::local::Stage;

    fn connection() -> ConnectionHandoff {
        let address = "127.0.0.1:1".parse().unwrap();
        let state = SessionState { version: 1, address, user: None, attributes: BTreeMap::new() };
        ConnectionHandoff {
            protocol: ProtocolRecord::Firefly,
            handoff: SessionHandoff::new(state, Stage::In),
        }
    }

    #[test]
    fn a_plain_connection_is_written_as_earlier_releases_have_written_it() {
        let mut written = Vec::new();
        TransportRecord::new(&TcpTransport, Vec::new()).write(&connection(), &mut written).unwrap();
        assert_eq!(written, bincode::serialize(&connection()).unwrap());
        let (_, transport) = TransportRecord::read(&written).unwrap();
        assert_eq!(transport, TransportRecord::new(&TcpTransport, Vec::new()));
    }

    #[test]
    fn a_connection_goes_on_over_its_own_transport_only() {
        let (mut written, record) =
            (Vec::new(), TransportRecord::new(&MemoryTransport::default(), vec![1, 2]));
        record.write(&connection(), &mut written).unwrap();
        let (_, read) = TransportRecord::read(&written).unwrap();
        assert_eq!(read, record);
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let refused = read.adopt(&TcpTransport, socket.into()).err().unwrap().to_string();
        assert_eq!(refused, "it came over the transport `memory`, and this process has `tcp`");
    }
}
