//! Cycles: a connection comes, logs in if it must, asks some times one after the other, and goes; the next one takes
//! its place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::Context;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};

use super::Outcome;
use super::client::{Answer, Client, Template};
use super::ledger::Ledger;
use crate::cli::LoadArgs;

const READ_BYTES: usize = 64 * 1024;
const EVENTS: usize = 1024;
/// How long cycles may still take after the end.
const DRAIN: Duration = Duration::from_secs(6);
/// In each of the last two bytes of an address of ours.
const ADDRESS_STEP: u32 = 250;

/// A place that one client after the other takes.
struct Lane {
    client: Client,
    began: u64,
    /// Answers that it has.
    answers: u32,
}

pub(super) struct Drive<'a> {
    args: &'a LoadArgs,
    epoll: Epoll,
    lanes: Vec<Option<Lane>>,
    /// The first message of a client, and the others.
    first: Template,
    rest: Template,
    /// Messages of a client.
    messages: u32,
    clients: u32,
    ledger: Ledger<'a>,
}

impl<'a> Drive<'a> {
    pub(super) fn start(args: &'a LoadArgs, requests: u32) -> anyhow::Result<Self> {
        let template = |command| Template::new(command, args.error_command, args.body);
        let mut drive = Self {
            args,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            lanes: Vec::new(),
            first: template(args.login.unwrap_or(args.command)),
            rest: template(args.command),
            // Without a login there is one more request: as many messages.
            messages: requests + 1,
            clients: 0,
            ledger: Ledger::start(args),
        };
        for at in 0..args.conns {
            drive.lanes.push(None);
            drive.come(at)?;
        }
        Ok(drive)
    }

    pub(super) fn run(mut self) -> anyhow::Result<Outcome> {
        let mut events = vec![EpollEvent::empty(); EVENTS];
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::from(100u8)) {
                Err(nix::errno::Errno::EINTR) => 0,
                ready => ready?,
            };
            let now = self.ledger.tick()?;
            let drained =
                self.lanes.iter().all(Option::is_none) || now > self.ledger.end + DRAIN.as_nanos() as u64;
            if self.ledger.is_over(now) && drained || self.ledger.is_silent(now) {
                break;
            }
            for event in &events[..ready] {
                self.ready(event.data() as usize, &mut buffer)?;
            }
        }
        let outstanding = |lane: &Option<Lane>| lane.as_ref().map_or(0, |l| l.client.flight.outstanding());
        let missing = self.lanes.iter().map(outstanding).sum::<usize>();
        Ok(self.ledger.finish(missing as u64))
    }

    /// The next client takes a place, and sends its first message.
    fn come(&mut self, at: usize) -> anyhow::Result<()> {
        let number = self.clients;
        self.clients = number.wrapping_add(1);
        let began = self.ledger.now();
        let stream = connect_from(source(self.args.addr, number), self.args.addr)
            .with_context(|| format!("connection {number} to {}", self.args.addr))?;
        stream.set_nodelay(true)?;
        let mut client = Client::over(stream, number as usize)?;
        self.epoll.add(&client.stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        client.request(&self.first, began);
        self.ledger.outcome.sent += 1;
        anyhow::ensure!(!client.flush(), "a new socket does not take one request");
        self.lanes[at] = Some(Lane { client, began, answers: 0 });
        Ok(())
    }

    fn ready(&mut self, at: usize, buffer: &mut [u8]) -> anyhow::Result<()> {
        let now = self.ledger.now();
        let Self { lanes, first, rest, ledger, messages, .. } = self;
        let Some(lane) = &mut lanes[at] else { return Ok(()) };
        let Lane { client, began, answers } = lane;
        let template = if *answers == 0 { first } else { &*rest };
        let read = client.read(template, buffer, |client, answer| match answer {
            Answer::Good(_) | Answer::Overtook(_) => {
                ledger.outcome.good += 1;
                *answers += 1;
                if answers < messages {
                    client.request(rest, now);
                    ledger.outcome.sent += 1;
                }
            }
            Answer::Error(body) => {
                ledger.outcome.note_error(body);
                client.open = false;
            }
            Answer::Wrong => ledger.outcome.wrong += 1,
        });
        ledger.heard(now);
        if let Err(error) = read {
            eprintln!("load: a client's bytes: {error}");
            ledger.outcome.wrong += 1;
            client.open = false;
        }
        let complete = answers == messages;
        if complete {
            ledger.answer(now, now.saturating_sub(*began));
        } else if client.open {
            anyhow::ensure!(!client.flush(), "a socket does not take one request");
            return Ok(());
        } else {
            ledger.outcome.closed += 1;
        }
        // Closes the connection, which leaves epoll with it.
        self.lanes[at] = None;
        if self.ledger.is_over(now) { Ok(()) } else { self.come(at) }
    }
}

/// Where the client with that number comes from: many addresses, where there are many (the loopback network).
fn source(to: SocketAddr, number: u32) -> Option<Ipv4Addr> {
    let IpAddr::V4(address) = to.ip() else { return None };
    let byte = |n: u32| 1 + (n % ADDRESS_STEP) as u8;
    address.is_loopback().then(|| Ipv4Addr::new(127, 1, byte(number / ADDRESS_STEP), byte(number)))
}

fn connect_from(source: Option<Ipv4Addr>, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let (Some(source), SocketAddr::V4(to)) = (source, to) else { return Ok(TcpStream::connect(to)?) };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Else a port would be taken for all destinations.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(TcpStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn clients_come_from_many_addresses_of_the_loopback_network_and_only_there() {
        let local: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let address = |number| source(local, number).unwrap().octets();
        assert_eq!(
            (address(0), address(249), address(250)),
            ([127, 1, 1, 1], [127, 1, 1, 250], [127, 1, 2, 1])
        );
        let distinct: std::collections::BTreeSet<_> = (0..62_500).map(address).collect();
        assert_eq!((distinct.len(), address(62_500)), (62_500, address(0)));
        assert_eq!(source("10.0.0.1:1".parse().unwrap(), 0), None);
        assert_eq!(source("[::1]:1".parse().unwrap(), 0), None);
    }

    #[test]
    fn a_connection_comes_from_the_address_that_was_chosen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let source = Ipv4Addr::new(127, 1, 2, 3);
        let stream = connect_from(Some(source), listener.local_addr().unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
        assert_eq!(stream.local_addr().unwrap().ip(), source);
    }
}
