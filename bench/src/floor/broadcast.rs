//! The floor of a broadcast: one process, one epoll loop. What a client asks for is written to every client that has
//! joined, with one send each, whatever has been asked for in one turn of the loop.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use ffproto::CommandId;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::logic::{FIREFLY, FRAME_MAX};
use crate::ours::{BROADCAST_COMMAND, DELIVERED_COMMAND, JOIN_COMMAND};

const LISTENER: u64 = u64::MAX;
const READ_BYTES: usize = 64 * 1024;
const EVENTS: usize = 1024;

struct Client {
    stream: TcpStream,
    /// The start of a frame that has not arrived whole.
    partial: Vec<u8>,
    joined: bool,
    /// What the socket did not take.
    rest: Vec<u8>,
}

impl Client {
    /// Sends behind what waits. `Err` when the connection is gone.
    fn send(&mut self, id: u64, bytes: &[u8], epoll: &Epoll) -> std::io::Result<()> {
        if !self.rest.is_empty() {
            self.rest.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = match self.stream.write(bytes) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(e) => return Err(e),
        };
        if sent < bytes.len() {
            self.rest.extend_from_slice(&bytes[sent..]);
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
            epoll.modify(&self.stream, &mut EpollEvent::new(flags, id))?;
        }
        Ok(())
    }

    /// The socket takes more.
    fn send_rest(&mut self, id: u64, epoll: &Epoll) -> std::io::Result<()> {
        let rest = std::mem::take(&mut self.rest);
        epoll.modify(&self.stream, &mut EpollEvent::new(EpollFlags::EPOLLIN, id))?;
        self.send(id, &rest, epoll)
    }

    /// Reads once. What is for this client goes to `own`, what is for all of them to `all`.
    fn read(&mut self, buffer: &mut [u8], own: &mut Vec<u8>, all: &mut Vec<u8>) -> anyhow::Result<()> {
        match self.stream.read(buffer) {
            Ok(0) => anyhow::bail!("closed"),
            Ok(n) => self.partial.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let (used, joined) = requests(&self.partial, own, all)?;
        self.partial.drain(..used);
        self.joined |= joined;
        Ok(())
    }
}

/// Handles the whole frames at the start of `bytes`; returns the bytes used, and whether one asked to join.
fn requests(bytes: &[u8], own: &mut Vec<u8>, all: &mut Vec<u8>) -> anyhow::Result<(usize, bool)> {
    let (mut used, mut joined) = (0, false);
    while let Some(frame) = FIREFLY.read(&bytes[used..], FRAME_MAX)? {
        match frame.command.0 {
            JOIN_COMMAND => {
                joined = true;
                FIREFLY.write(frame.command, frame.body, own);
            }
            BROADCAST_COMMAND => FIREFLY.write(CommandId(DELIVERED_COMMAND), frame.body, all),
            other => anyhow::bail!("this floor does not know command {other}"),
        }
        used += frame.bytes;
    }
    Ok((used, joined))
}

/// Runs until the bench ends.
pub(super) fn run(listener: &TcpListener) -> anyhow::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut events = vec![EpollEvent::empty(); EVENTS];
    let mut buffer = vec![0; READ_BYTES];
    let (mut own, mut all) = (Vec::new(), Vec::new());
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            ready => ready?,
        };
        for event in &events[..ready] {
            if event.data() == LISTENER {
                accept(listener, &epoll, &mut clients)?;
                continue;
            }
            let Some(slot) = clients.get_mut(event.data() as usize) else { continue };
            let Some(client) = slot else { continue };
            let mut went = Ok(());
            if event.events().contains(EpollFlags::EPOLLOUT) {
                went = client.send_rest(event.data(), &epoll).map_err(Into::into);
            }
            if went.is_ok() && !event.events().difference(EpollFlags::EPOLLOUT).is_empty() {
                went = client.read(&mut buffer, &mut own, &mut all);
            }
            if went.is_ok() && !own.is_empty() {
                went = client.send(event.data(), &own, &epoll).map_err(Into::into);
                own.clear();
            }
            if went.is_err() {
                *slot = None;
            }
        }
        if !all.is_empty() {
            for (id, slot) in clients.iter_mut().enumerate() {
                if let Some(client) = slot.as_mut().filter(|client| client.joined)
                    && client.send(id as u64, &all, &epoll).is_err()
                {
                    *slot = None;
                }
            }
            all.clear();
        }
    }
}

/// The clients of one measurement come together, and their places are not used again.
fn accept(listener: &TcpListener, epoll: &Epoll, clients: &mut Vec<Option<Client>>) -> anyhow::Result<()> {
    if clients.iter().all(Option::is_none) {
        clients.clear();
    }
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, clients.len() as u64))?;
                clients.push(Some(Client { stream, partial: vec![], joined: false, rest: vec![] }));
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => eprintln!("relay: accept: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_is_answered_and_an_ask_is_for_all() {
        let (mut wire, mut own, mut all) = (vec![], vec![], vec![]);
        FIREFLY.write(CommandId(JOIN_COMMAND), b"me", &mut wire);
        let join = wire.clone();
        FIREFLY.write(CommandId(BROADCAST_COMMAND), b"hello", &mut wire);
        let whole = wire.len();
        wire.extend_from_slice(&join[..join.len() - 1]);
        assert_eq!(requests(&wire, &mut own, &mut all).unwrap(), (whole, true));
        assert_eq!(own, join);
        let frame = FIREFLY.read(&all, FRAME_MAX).unwrap().unwrap();
        assert_eq!((frame.command.0, frame.body, frame.bytes), (DELIVERED_COMMAND, &b"hello"[..], all.len()));
        FIREFLY.write(CommandId(9), b"", &mut all);
        assert!(requests(&all, &mut own, &mut vec![]).is_err());
    }
}
