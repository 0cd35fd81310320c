//! The HTTP request with which a WebSocket begins (RFC 6455, section 4). The handshake itself is tungstenite's.

use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};

/// The largest request that begins a WebSocket, in bytes: browsers send below 1 KiB, and cookies a few.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;

const GET: &[u8] = b"GET ";

/// Whether `bytes` may be the beginning of an HTTP request for a WebSocket.
pub fn may_begin(bytes: &[u8]) -> bool {
    let seen = bytes.len().min(GET.len());
    bytes[..seen] == GET[..seen]
}

/// Why an HTTP request does not begin a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    /// The request is longer than [`REQUEST_BYTES_MAX`].
    #[error("the HTTP request is longer than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// The bytes are no HTTP/1.1 request.
    #[error("no HTTP/1.1 request: {0}")]
    Malformed(String),
    /// The request does not ask for a WebSocket.
    #[error("an HTTP request that asks for no WebSocket: {0}")]
    NoWebSocket(String),
    /// The request asks for another version of WebSocket.
    #[error("a WebSocket of another version than 13")]
    Version,
}

impl RequestFault {
    /// The response that the client gets before its connection is closed.
    pub fn response(&self) -> Vec<u8> {
        let status = match self {
            RequestFault::TooLong => "431 Request Header Fields Too Large",
            RequestFault::Malformed(_) => "400 Bad Request",
            RequestFault::NoWebSocket(_) | RequestFault::Version => "426 Upgrade Required",
        };
        let text = format!("{self}.\nThis port is for game clients: firefly frames, or WebSocket.\n");
        let length = text.len();
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{text}"
        )
        .into_bytes()
    }
}

/// A request that has been granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The number of bytes of the request: frames follow.
    pub bytes: usize,
    /// The response that the client gets.
    pub response: Vec<u8>,
}

/// Reads the request at the start of `bytes`. `Ok(None)` means that more bytes must come.
///
/// The path, `Origin` and the offered protocols and extensions are not looked at: none is chosen.
///
/// # Errors
/// [`RequestFault`] as soon as the bytes cannot become such a request.
pub fn read(bytes: &[u8]) -> Result<Option<Upgrade>, RequestFault> {
    let seen = &bytes[..bytes.len().min(REQUEST_BYTES_MAX)];
    let malformed = |error: Error| RequestFault::Malformed(error.to_string());
    let (length, request) = match Request::try_parse(seen) {
        Ok(Some(whole)) => whole,
        Ok(None) if bytes.len() >= REQUEST_BYTES_MAX => return Err(RequestFault::TooLong),
        Ok(None) => return Ok(None),
        Err(error) => return Err(malformed(error)),
    };
    let response = create_response(&request).map_err(|error| match error {
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => RequestFault::Version,
        other => RequestFault::NoWebSocket(other.to_string()),
    })?;
    let mut written = Vec::with_capacity(160);
    write_response(&mut written, &response).map_err(malformed)?;
    Ok(Some(Upgrade { bytes: length, response: written }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: localhost:10001\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    #[test]
    fn the_request_of_the_rfc_gets_its_answer_once_it_is_whole() {
        for end in 0..REQUEST.len() {
            assert_eq!(read(&REQUEST.as_bytes()[..end]), Ok(None), "at {end}");
        }
        let glued = [REQUEST.as_bytes(), b"\x81\x80"].concat();
        let upgrade = read(&glued).unwrap().unwrap();
        assert_eq!(upgrade.bytes, REQUEST.len());
        let response = String::from_utf8(upgrade.response).unwrap().to_lowercase();
        assert!(response.starts_with("http/1.1 101 switching protocols\r\n"), "{response}");
        assert!(response.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\n"));
    }

    #[test]
    fn other_requests_are_values_with_a_status() {
        let status = |text: &str| {
            let fault = read(text.as_bytes()).unwrap_err();
            let response = String::from_utf8(fault.response()).unwrap();
            response.split_once(' ').unwrap().1[..3].parse::<u16>().unwrap()
        };
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 426);
        assert_eq!(status(&REQUEST.replace("Version: 13", "Version: 8")), 426);
        assert_eq!(status(&REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ==", "short")), 426);
        assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 400);
        assert_eq!(status("GET \0"), 400);
        assert_eq!(status(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(REQUEST_BYTES_MAX))), 431);
    }
}
