//! A relay on level-triggered epoll: one thread, one shared read buffer; every destination is written once
//! per turn of the loop, however many frames came for it.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{Role, logic};

const LISTENER: u64 = u64::MAX;
const READ_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;
/// A client's outbox keeps no more than this once it is empty.
const OUTBOX_KEPT_BYTES: usize = 8 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// A player; keeps no large buffer while idle.
    Client,
    /// Another relay.
    Link,
}

struct Conn {
    stream: TcpStream,
    side: Side,
    /// The start of a frame that has not arrived whole; unallocated while idle.
    partial: Vec<u8>,
    /// Bytes to send; `sent` of them are gone.
    out: Vec<u8>,
    sent: usize,
    dirty: bool,
    blocked: bool,
}

impl Conn {
    /// Lets `fill` append to the outbox; the loop writes it at the end of the turn.
    #[inline]
    fn push(&mut self, id: usize, dirty: &mut Vec<usize>, fill: impl FnOnce(&mut Vec<u8>)) {
        fill(&mut self.out);
        if !self.dirty {
            self.dirty = true;
            dirty.push(id);
        }
    }

    /// Writes what the socket takes. `Err` when the connection is gone.
    fn flush(&mut self, id: usize, epoll: &Epoll) -> std::io::Result<()> {
        self.dirty = false;
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return self.block(id, epoll, true),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.sent = 0;
        if self.side == Side::Client && self.out.capacity() > OUTBOX_KEPT_BYTES {
            self.out = Vec::new();
        } else {
            self.out.clear();
        }
        self.block(id, epoll, false)
    }

    /// Asks epoll for writability, or no longer.
    fn block(&mut self, id: usize, epoll: &Epoll, blocked: bool) -> std::io::Result<()> {
        if self.blocked != blocked {
            self.blocked = blocked;
            let flags =
                if blocked { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            epoll.modify(&self.stream, &mut EpollEvent::new(flags, id as u64))?;
        }
        Ok(())
    }
}

struct Relay {
    role: Role,
    epoll: Epoll,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    dirty: Vec<usize>,
    up: Option<usize>,
    /// net: the last call id.
    call: u32,
    /// gate: the link that each session came on.
    owners: Vec<Option<usize>>,
}

/// Runs the relay until the one behind it ends.
pub(super) fn run(role: Role, listener: TcpListener, up: Option<TcpStream>) -> anyhow::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut relay =
        Relay { role, epoll, conns: vec![], free: vec![], dirty: vec![], up: None, call: 0, owners: vec![] };
    if let Some(up) = up {
        relay.up = Some(relay.add(up, Side::Link)?);
    }
    let mut events = vec![EpollEvent::empty(); EVENTS];
    let mut buffer = vec![0; READ_BYTES];
    while relay.up.is_some() || role == Role::Game {
        let ready = match relay.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            ready => ready?,
        };
        for event in &events[..ready] {
            match event.data() {
                LISTENER => relay.accept(&listener)?,
                id => relay.ready(id as usize, event.events(), &mut buffer),
            }
        }
        relay.flush_all();
    }
    Ok(())
}

impl Relay {
    fn add(&mut self, stream: TcpStream, side: Side) -> anyhow::Result<usize> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let id = self.free.pop().unwrap_or(self.conns.len());
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, id as u64))?;
        let (partial, out) = (vec![], vec![]);
        let conn = Some(Conn { stream, side, partial, out, sent: 0, dirty: false, blocked: false });
        match self.conns.get_mut(id) {
            Some(free) => *free = conn,
            None => self.conns.push(conn),
        }
        Ok(id)
    }

    fn accept(&mut self, listener: &TcpListener) -> anyhow::Result<()> {
        let side = if self.role == Role::Net { Side::Client } else { Side::Link };
        loop {
            match listener.accept() {
                Ok((stream, _)) => _ = self.add(stream, side)?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => eprintln!("relay: accept: {e}"),
            }
        }
    }

    fn remove(&mut self, id: usize) {
        if self.conns[id].take().is_some() {
            self.free.push(id);
            self.dirty.retain(|&dirty| dirty != id);
            self.up = self.up.filter(|&up| up != id);
        }
    }

    fn ready(&mut self, id: usize, events: EpollFlags, buffer: &mut [u8]) {
        let Some(conn) = &mut self.conns[id] else { return };
        if events.contains(EpollFlags::EPOLLOUT) && conn.flush(id, &self.epoll).is_err() {
            return self.remove(id);
        }
        if events.difference(EpollFlags::EPOLLOUT).is_empty() {
            return;
        }
        match conn.stream.read(buffer) {
            Ok(0) => self.remove(id),
            Ok(n) => {
                if let Err(error) = self.arrived(id, &buffer[..n]) {
                    eprintln!("relay: {error}");
                    self.remove(id);
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.remove(id),
        }
    }

    /// Handles the whole frames and keeps the rest.
    fn arrived(&mut self, id: usize, chunk: &[u8]) -> anyhow::Result<()> {
        let mut partial = match &mut self.conns[id] {
            Some(conn) => std::mem::take(&mut conn.partial),
            None => return Ok(()),
        };
        if partial.is_empty() {
            let used = self.batch(id, chunk)?;
            partial.extend_from_slice(&chunk[used..]);
        } else {
            partial.extend_from_slice(chunk);
            let used = self.batch(id, &partial)?;
            partial.drain(..used);
            if partial.is_empty() && partial.capacity() > OUTBOX_KEPT_BYTES {
                partial = Vec::new();
            }
        }
        if let Some(conn) = &mut self.conns[id] {
            conn.partial = partial;
        }
        Ok(())
    }

    fn batch(&mut self, id: usize, bytes: &[u8]) -> anyhow::Result<usize> {
        let Self { role, conns, dirty, up, call, owners, .. } = self;
        let mut used = Ok(0);
        match (role, *up) {
            (Role::Net, Some(up)) if up == id => {
                used = logic::frames(bytes, |slot, frame, _| {
                    if let Some(Some(client)) = conns.get_mut(slot) {
                        client.push(slot, dirty, |out| logic::answer(frame, out));
                    }
                });
            }
            (Role::Net, Some(up)) => {
                if let Some(link) = &mut conns[up] {
                    link.push(up, dirty, |out| used = logic::calls(bytes, logic::session_of(id), call, out));
                }
            }
            (Role::Gate, Some(up)) if up == id => {
                let owner = |slot| owners.get(slot).copied().flatten();
                used = logic::runs(bytes, owner, |to, run| {
                    if let Some(link) = &mut conns[to] {
                        link.push(to, dirty, |out| out.extend_from_slice(run));
                    }
                });
            }
            (Role::Gate, Some(up)) => {
                used = logic::frames(bytes, |slot, _, _| own(owners, slot, id));
                if let (Ok(used @ 1..), Some(link)) = (&used, &mut conns[up]) {
                    link.push(up, dirty, |out| out.extend_from_slice(&bytes[..*used]));
                }
            }
            (Role::Game, _) => {
                if let Some(link) = &mut conns[id] {
                    link.push(id, dirty, |out| used = logic::echoes(bytes, out));
                }
            }
            (Role::Net | Role::Gate, None) | (Role::Broadcast, _) => {}
        }
        used
    }

    fn flush_all(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            if let Some(conn) = &mut self.conns[id]
                && conn.flush(id, &self.epoll).is_err()
            {
                self.remove(id);
            }
        }
        self.dirty = dirty;
    }
}

#[inline]
fn own(owners: &mut Vec<Option<usize>>, slot: usize, link: usize) {
    if slot >= owners.len() {
        owners.resize(slot + 1, None);
    }
    owners[slot] = Some(link);
}
