//! The floor: client, relay (net), relay (gate), echo (game) as three processes over TCP, with the header
//! work of our nodes and nothing else: no limits, no deadlines, no heartbeats, no back-pressure.
//!
//! The edge speaks the firefly framing, links speak [`ffproto::link`] with the client part. The floor that
//! this one was adapted from keeps one 16-byte header all the way. Both run in turn on one quiet machine
//! (2 vCPU, 64 B, medians of three; this one / that one), requests/s and server CPU per request:
//! `epoll` (100,1) 1.21 and 0.84, (100,16) 0.94 and 1.15, (1000,1) 0.93 and 1.07, (1,64) 1.23 and 0.69;
//! `tokio-ct-task` 1.04 and 0.93, 1.03 and 0.99, 1.24 and 0.79, 0.85 and 1.14. So it is as tight, within the
//! noise; only at (100,16) does the extra header work show.

mod broadcast;
mod epoll;
mod logic;
mod tasks;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use nix::sys::socket::Backlog;

use crate::cli::RelayArgs;
use crate::machine;
use crate::system::Node;

/// How a relay does its I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// One thread, level-triggered epoll, one shared read buffer, one write per destination and turn
    Epoll,
    /// tokio current_thread, a task per client, a writer task per outbox
    TokioCtTask,
}

/// Which of the three processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Serves the clients, makes and takes off the links' header
    Net,
    /// Forwards link frames, knows which link a session came on
    Gate,
    /// Answers
    Game,
    /// Alone: writes what one client asks for to all of them
    Broadcast,
}

/// The three processes; they end when this is dropped.
pub(crate) struct Floor {
    pub(crate) addr: SocketAddr,
    pub(crate) nodes: Vec<Node>,
    children: Vec<Child>,
}

impl Floor {
    /// Starts game, gate and net, each after the one it connects to.
    pub(crate) fn start(backend: Backend) -> anyhow::Result<Self> {
        let mut floor =
            Self { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), nodes: vec![], children: vec![] };
        let mut up = None;
        for role in [Role::Game, Role::Gate, Role::Net] {
            let addr = floor.start_relay(backend, role, up)?;
            (up, floor.addr) = (Some(addr), addr);
        }
        floor.nodes.reverse();
        Ok(floor)
    }

    /// Starts the one process that writes to all its clients.
    pub(crate) fn start_broadcast() -> anyhow::Result<Self> {
        let mut floor =
            Self { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), nodes: vec![], children: vec![] };
        floor.addr = floor.start_relay(Backend::Epoll, Role::Broadcast, None)?;
        Ok(floor)
    }

    fn start_relay(
        &mut self,
        backend: Backend,
        role: Role,
        up: Option<SocketAddr>,
    ) -> anyhow::Result<SocketAddr> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["relay", "--backend", name_of(&backend).as_str(), "--role", name_of(&role).as_str()]);
        if let Some(up) = up {
            command.arg("--up").arg(up.to_string());
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("a relay")?;
        let stdout = child.stdout.take();
        self.nodes.push(Node { name: name_of(&role), pid: child.id() as i32 });
        self.children.push(child);
        let mut line = String::new();
        BufReader::new(stdout.context("a relay's output")?).read_line(&mut line)?;
        line.trim().parse().with_context(|| format!("the {} relay did not say its address", name_of(&role)))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

/// `bench floor`: starts one and keeps it.
pub(crate) fn stand(backend: Backend) -> anyhow::Result<()> {
    let floor = Floor::start(backend)?;
    println!("{} floor on {}", name_of(&backend), floor.addr);
    for node in &floor.nodes {
        println!("  {:<4} process {}", node.name, node.pid);
    }
    let pids: Vec<_> = floor.nodes.iter().map(|n| n.pid.to_string()).collect();
    println!(
        "load it with: bench load --addr {} --conns 100 --pipe 16 --watch {}",
        floor.addr,
        pids.join(",")
    );
    println!("Ctrl-C ends it");
    loop {
        machine::pause(Duration::from_secs(3600));
    }
}

/// `bench relay`: one process of a floor, until its neighbour or the bench ends.
pub(crate) fn relay(args: &RelayArgs) -> anyhow::Result<()> {
    machine::die_with_parent(nix::sys::signal::Signal::SIGKILL)?;
    let needs_up = matches!(args.role, Role::Net | Role::Gate);
    anyhow::ensure!(args.up.is_some() == needs_up, "net and gate need --up, the others have none");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    nix::sys::socket::listen(&listener, Backlog::MAXALLOWABLE)?;
    listener.set_nonblocking(true)?;
    let up = args.up.map(TcpStream::connect).transpose().context("the next relay")?;
    println!("{}", listener.local_addr()?);
    if args.role == Role::Broadcast {
        return broadcast::run(&listener);
    }
    match args.backend {
        Backend::Epoll => epoll::run(args.role, listener, up),
        Backend::TokioCtTask => tasks::run(args.role, listener, up),
    }
}
