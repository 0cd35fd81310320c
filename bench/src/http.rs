//! The little HTTP that talking to a master's webport takes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

const PATIENCE: Duration = Duration::from_secs(10);

/// The body of a good answer.
pub(crate) fn request(addr: SocketAddr, method: &str, path: &str) -> anyhow::Result<String> {
    let ask = || -> anyhow::Result<String> {
        let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // 1.0: the answer ends with the connection and has no chunks.
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: {addr}\r\nContent-Length: 0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().with_context(|| format!("{method} http://{addr}{path}"))?;
    body_of(&answer).with_context(|| format!("{method} http://{addr}{path}")).map(str::to_owned)
}

fn body_of(answer: &str) -> anyhow::Result<&str> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1."), "the answer is no HTTP");
    match status.split(' ').nth(1) {
        Some(code) if code.starts_with('2') => Ok(body),
        _ => bail!("{status}: {}", body.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_answer_is_its_body() {
        assert_eq!(body_of("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"x\":1}").unwrap(), "{\"x\":1}");
    }

    #[test]
    fn a_bad_answer_says_what_it_was() {
        let error = body_of("HTTP/1.1 403 Forbidden\r\n\r\nno token\n").unwrap_err();
        assert_eq!(error.to_string(), "HTTP/1.1 403 Forbidden: no token");
        assert!(body_of("nonsense").is_err());
        assert!(body_of("SSH-2.0 200\r\n\r\nx").is_err());
    }
}
