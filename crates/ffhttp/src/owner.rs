//! The owner of the socket at the other end of a connection on this host, as the kernel's table of sockets has it.
//!
//! A connection over loopback has no name: every user of the host can open one. But both its ends are sockets of one kernel, which
//! knows whose the other one is. It is asked for exactly that socket (`sock_diag`, netlink); where it does not know how, its list is
//! read (`/proc/net/tcp`). A socket that its owner has closed has no owner any more: the table shows it with uid 0 and inode 0.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// The most of a table that is read: some 100,000 sockets.
const TABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The owner of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The socket's number among the files of its kernel; 0: nobody has it open any more, and `uid` says nothing.
    pub inode: u32,
}

/// The two ends of a connection that this process has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    /// The inode of this process's own socket.
    pub(crate) inode: u32,
}

impl Ends {
    /// The ends of an accepted connection.
    pub(crate) fn of(stream: &tokio::net::TcpStream) -> io::Result<Self> {
        let inode = nix::sys::stat::fstat(stream)?.st_ino as u32;
        Ok(Self { client: canonical(stream.peer_addr()?), server: canonical(stream.local_addr()?), inode })
    }

    /// Whether the other end may be of this host: from anywhere else nobody's socket is in this kernel's table.
    fn is_of_this_host(&self) -> bool {
        self.client.ip().is_loopback() && self.server.ip().is_loopback()
    }
}

/// An IPv4 address that an IPv6 socket shows is an IPv4 address.
fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

/// A connection of whose other end the owner is to be found.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) ends: Ends,
    pub(crate) owners: Arc<Owners>,
}

/// The look-ups of a front.
#[derive(Debug)]
pub(crate) struct Owners {
    /// Reads of the table at a time: each takes as long as the host has sockets.
    reads: Semaphore,
}

impl Owners {
    pub(crate) fn new() -> Self {
        Self { reads: Semaphore::new(1) }
    }

    /// The owner of the other end of a connection; `None` when it has none in this kernel, or the connection is not any more.
    pub(crate) async fn of(&self, ends: Ends) -> io::Result<Option<Owner>> {
        if !ends.is_of_this_host() {
            return Ok(None);
        }
        if let Ok(owner) = check(ends, by_netlink) {
            return Ok(owner);
        }
        let _turn = self.reads.acquire().await.map_err(io::Error::other)?;
        spawn_blocking(move || check(ends, by_table)).await.map_err(io::Error::other)?
    }
}

/// Looks for the socket from the first address to the second.
type Look = fn(SocketAddr, SocketAddr) -> io::Result<Option<Owner>>;

/// The other end, then this one: as long as this end is open, nobody else's socket can be connected from the other one's address.
/// Without that, a connection that its client has reset could pass for the next one from the same port.
fn check(ends: Ends, look: Look) -> io::Result<Option<Owner>> {
    let owner = look(ends.client, ends.server)?;
    let own = look(ends.server, ends.client)?;
    Ok(owner.filter(|_| own.is_some_and(|own| own.inode == ends.inode)))
}

/// The states in which a socket is connected, or its owner has said that no more comes from there.
fn is_connected(state: u8) -> bool {
    const ESTABLISHED: u8 = 1;
    const FIN_WAIT1: u8 = 4;
    const FIN_WAIT2: u8 = 5;
    const CLOSE_WAIT: u8 = 8;
    matches!(state, ESTABLISHED | FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT)
}

/// Asks the kernel for one socket.
fn by_netlink(from: SocketAddr, to: SocketAddr) -> io::Result<Option<Owner>> {
    let (family, kind) = (AddressFamily::Netlink, SockType::Datagram);
    let kernel = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    let descriptor = kernel.as_raw_fd();
    sendto(descriptor, &question(from, to), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 1024];
    // The answer is there when the question has been taken.
    let length = recv(descriptor, &mut answer, MsgFlags::MSG_DONTWAIT)?;
    read_answer(answer.get(..length).unwrap_or_default(), from, to)
}

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// The bytes of a netlink message's head, and of its two parts before a socket's owner (linux/inet_diag.h).
const HEAD: usize = 16;
const ANSWER: usize = 72;

/// The question for one socket: `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn question(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    const REQUEST: u16 = 1;
    const TCP: u8 = 6;
    const ANY_STATE: u32 = u32::MAX;
    const NO_COOKIE: u32 = u32::MAX;
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let mut body = vec![family as u8, TCP, 0, 0];
    body.extend(ANY_STATE.to_ne_bytes());
    body.extend(from.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    for at in [from, to] {
        match at.ip() {
            IpAddr::V4(v4) => body.extend(v4.octets().into_iter().chain([0; 12])),
            IpAddr::V6(v6) => body.extend(v6.octets()),
        }
    }
    // On any interface.
    body.extend(0u32.to_ne_bytes());
    body.extend(NO_COOKIE.to_ne_bytes().repeat(2));
    let mut message = Vec::with_capacity(HEAD + body.len());
    message.extend(((HEAD + body.len()) as u32).to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    message
}

/// The owner of an answer to [`question`]. Where no such socket is connected, the kernel shows one that listens there, or none.
fn read_answer(answer: &[u8], from: SocketAddr, to: SocketAddr) -> io::Result<Option<Owner>> {
    const ERROR: u16 = 2;
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is not understood");
    let four = |at: usize| answer.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let two = |at: usize| answer.get(at..at + 2)?.try_into().ok();
    match two(4).map(u16::from_ne_bytes).ok_or_else(odd)? {
        ERROR => match four(HEAD).ok_or_else(odd)?.cast_signed() {
            errno if errno == -nix::libc::ENOENT => Ok(None),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        },
        BY_FAMILY => {
            let state = *answer.get(HEAD + 1).ok_or_else(odd)?;
            let ports = (two(HEAD + 4), two(HEAD + 6));
            let asked = (Some(from.port().to_be_bytes()), Some(to.port().to_be_bytes()));
            let uid = four(HEAD + ANSWER - 8).ok_or_else(odd)?;
            let inode = four(HEAD + ANSWER - 4).ok_or_else(odd)?;
            Ok((ports == asked && is_connected(state)).then_some(Owner { uid, inode }))
        }
        _ => Err(odd()),
    }
}

/// Reads the kernel's list of sockets.
fn by_table(from: SocketAddr, to: SocketAddr) -> io::Result<Option<Owner>> {
    // A socket of IPv6 can be connected over IPv4, and is in the other table then.
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = match File::open(table) {
            Ok(table) => BufReader::new(table.take(TABLE_BYTES_MAX)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for line in table.lines() {
            let found = read_line(&line?).filter(|socket| (socket.from, socket.to) == (from, to));
            if let Some(socket) = found.filter(|socket| is_connected(socket.state)) {
                return Ok(Some(socket.owner));
            }
        }
    }
    Ok(None)
}

/// A line of the kernel's list.
struct Listed {
    from: SocketAddr,
    to: SocketAddr,
    state: u8,
    owner: Owner,
}

fn read_line(line: &str) -> Option<Listed> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (from, to) = (read_address(words.next()?)?, read_address(words.next()?)?);
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let uid = words.nth(3)?.parse().ok()?;
    let inode = words.nth(1)?.parse().ok()?;
    Some(Listed { from, to, state, owner: Owner { uid, inode } })
}

/// `0100007F:270E`: words of four bytes as this machine has them in memory, and a port.
fn read_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let address: IpAddr = match address.len() {
        8 => word(0)?.into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(canonical(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?)))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A connection over loopback: its client's end, and the accepted one.
    async fn connected(at: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(at).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = if at.starts_with("[::1") { "::1" } else { "127.0.0.1" };
        let client = TcpStream::connect((to, port)).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn both_ways_to_ask_know_whose_the_other_end_is() {
        let own = nix::unistd::getuid().as_raw();
        for at in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(_) = TcpListener::bind(at).await else { continue };
            for look in [by_netlink, by_table] as [Look; 2] {
                let (client, accepted) = connected(at).await;
                let ends = Ends::of(&accepted).unwrap();
                let inode = nix::sys::stat::fstat(&client).unwrap().st_ino as u32;
                assert_eq!(check(ends, look).unwrap(), Some(Owner { uid: own, inode }), "{at}");
                let another = Ends { inode: ends.inode + 1, ..ends };
                assert_eq!(check(another, look).unwrap(), None, "{at}: of another connection");
            }
        }
    }

    #[tokio::test]
    async fn a_socket_that_its_owner_has_closed_is_nobodys() {
        for look in [by_netlink, by_table] as [Look; 2] {
            let (client, accepted) = connected("127.0.0.1:0").await;
            let ends = Ends::of(&accepted).unwrap();
            drop(client);
            let owner = check(ends, look).unwrap();
            assert!(owner.is_none_or(|owner| owner.inode == 0), "{owner:?}");
        }
    }

    #[tokio::test]
    async fn what_only_listens_or_has_been_reset_is_nobodys() {
        for look in [by_netlink, by_table] as [Look; 2] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
            assert_eq!(look(at, nowhere).unwrap(), None, "it listens there");
            let (client, accepted) = connected("127.0.0.1:0").await;
            let ends = Ends::of(&accepted).unwrap();
            socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(client);
            assert_eq!(check(ends, look).unwrap(), None);
        }
    }

    #[tokio::test]
    async fn from_another_host_nobody_is_looked_for() {
        let at = SocketAddr::from(([192, 0, 2, 1], 1));
        let ends = Ends { client: at, server: at, inode: 1 };
        assert_eq!(Owners::new().of(ends).await.unwrap(), None);
    }

    #[test]
    fn answers_that_are_cut_are_no_owner() {
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        for length in 0..HEAD + ANSWER {
            let mut answer = vec![0; length];
            if length > 5 {
                answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
            }
            assert!(read_answer(&answer, at, at).is_err(), "{length}");
        }
        for line in ["", "0: x", "0: 0100007F:0001 0100007F:0001 01 0 0 0", "0: 01:1 02:2 01 0 0 0 0 0 0"] {
            assert!(read_line(line).is_none(), "{line}");
        }
    }
}
