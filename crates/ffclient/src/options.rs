//! The options of a client: the constants of its cluster, deadlines, and bounds.

use std::time::Duration;

use ffproto::CommandId;
use ffproto::frame::Firefly;

/// What a client must know of its cluster, how long it waits, and what it keeps.
///
/// The defaults are those of a cluster whose config has no `client` section.
#[derive(Debug, Clone)]
pub struct Options {
    /// The constants in every frame (`client.head_0` … `client.server_version`).
    pub framing: Firefly,
    /// The command of error frames (`client.error_command`).
    pub error_command: CommandId,
    /// Deadline of connecting, with a WebSocket's handshake. Default 10 s.
    pub connect_timeout: Duration,
    /// Deadline of a call, and of waiting for a message. Default 10 s: longer than the cluster's own deadline for a call
    /// (`limits.call_timeout_ms`), whose error frame says more than silence.
    pub call_timeout: Duration,
    /// Deadline of writing one message; a server that takes none for so long is gone. Default 10 s.
    pub send_timeout: Duration,
    /// Deadline of a [`close`](crate::Client::close), with the answers to what is under way. Default 10 s.
    pub close_timeout: Duration,
    /// Longest request, as `length` of the frame: body + 4. Default 65,536, the cluster's `limits.frame_bytes_max`, above
    /// which it would close the connection.
    pub request_bytes_max: u32,
    /// Longest message of the server, as `length` of the frame. Default 16 MiB.
    pub reply_bytes_max: u32,
    /// Calls that wait for their reply at a time; one more is [`Overloaded`](crate::CallError::Overloaded). Default 1,024.
    pub calls_max: usize,
    /// Requests that wait to be written. Default 64.
    pub requests_max: usize,
    /// Pushes that wait to be taken; the oldest is lost when one more comes. Default 1,024.
    pub pushes_max: usize,
    /// Bytes of pushes that wait to be taken. Default 16 MiB.
    pub pushes_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        const TEN_SECONDS: Duration = Duration::from_secs(10);
        const SIXTEEN_MIB: u32 = 16 << 20;
        Self {
            framing: Firefly::default(),
            error_command: CommandId(u32::MAX),
            connect_timeout: TEN_SECONDS,
            call_timeout: TEN_SECONDS,
            send_timeout: TEN_SECONDS,
            close_timeout: TEN_SECONDS,
            request_bytes_max: 65_536,
            reply_bytes_max: SIXTEEN_MIB,
            calls_max: 1024,
            requests_max: 64,
            pushes_max: 1024,
            pushes_bytes_max: SIXTEEN_MIB as usize,
        }
    }
}

impl Options {
    /// Appends a request to `out`; false if its body is longer than the options allow.
    pub(crate) fn write(&self, command: CommandId, body: &[u8], out: &mut Vec<u8>) -> bool {
        let fits = self.fits(body);
        if fits {
            self.framing.write(command, body, out);
        }
        fits
    }

    /// Whether a request may have this body.
    pub(crate) fn fits(&self, body: &[u8]) -> bool {
        body.len() as u64 + 4 <= u64::from(self.request_bytes_max)
    }
}
