//! What a log says: how often an event was, the lines of it and those that were suppressed; and whether anything in it acts.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How often the event was: each line that has this text, and as many as a line says were suppressed.
///
/// # Errors
/// A line about suppressed ones has no number.
pub fn said(log: &str, event: &str) -> Result<u64> {
    let mut sum = 0;
    for line in log.lines().filter(|line| line.contains(event)) {
        let suppressed = line.split_once(" more suppressed: ").filter(|(_, of)| of.starts_with(event));
        sum += match suppressed {
            None => 1,
            Some((before, _)) => {
                before.rsplit(' ').next().unwrap_or_default().parse().with_context(|| line.to_owned())?
            }
        };
    }
    Ok(sum)
}

/// A log without the lines that an app of the tests writes of its sessions: how many those are is the app's matter.
#[must_use]
pub fn without_the_apps(log: &str) -> String {
    log.lines().filter(|line| !line.contains(" INFO hook: ")).map(|line| format!("{line}\n")).collect()
}

/// Fails when a text has a control character beside its line breaks.
///
/// # Errors
/// It has.
pub fn nothing_acts(what: &str, text: &str) -> Result<()> {
    let acting = text.lines().find(|line| line.contains(char::is_control));
    ensure!(acting.is_none(), "{what}: {acting:?}");
    Ok(())
}

/// What comes to a port from somebody who knows nothing of it, or too much of terminals.
const GARBAGE: [&[u8]; 5] = [
    b"\x1b[2J\x1b]0;owned\x07\r\n\r\n",
    b"\r\n2026-11-30T00:00:00.000000Z ERROR forged\r\n\r\n",
    b"GET /\x1b[31m HTTP/1.1\r\n\x1b: \x07\r\n\r\n",
    &[0xff; 64],
    b"",
];

/// Opens connections to a port, one after the other and as fast as they go, says garbage on each and closes it.
///
/// # Errors
/// A connection is not made.
pub async fn throw_garbage(at: SocketAddr, connections: usize) -> Result<()> {
    for garbage in GARBAGE.iter().cycle().take(connections) {
        let mut stream = TcpStream::connect(at).await.with_context(|| at.to_string())?;
        // Who closes first is a matter of luck.
        let _ = stream.write_all(garbage).await;
    }
    // It is served behind the others.
    let mut last = TcpStream::connect(at).await?;
    let _ = last.write_all(GARBAGE[0]).await;
    let _ = last.shutdown().await;
    let _ = last.read_to_end(&mut Vec::new()).await;
    Ok(())
}
