//! The command line: what can be asked, with its defaults and its help.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::floor::{Backend, Role};
use crate::system::System;

const EXAMPLES: &str = "\
Examples:
  cargo build --release --workspace        the programs that are measured
  bench compare --json results.json        everything: about ten minutes
  bench compare --points 100:1 --bodies 64 --runs 3 --systems floor-epoll,ours-forward
  bench open --rate 40000 --conns 100      latency from the intended moment of sending
  bench compare --systems ours-forward,ours-websocket --points 100:1,1000:1,100:16
  bench compare --against OLD --runs 15    the programs beside this one against those in the folder OLD
  bench idle --conns 10000                 memory of a connection that does nothing
  bench broadcast                          one message for a thousand clients
  bench logins                             clients that come and go
  bench floor --backend epoll              three processes to load by hand:
  bench load --addr 127.0.0.1:PORT --conns 100 --pipe 16

Systems:
  floor-epoll          client, relay, relay, echo over TCP, one epoll loop each: the least that three hops cost
  floor-tokio-ct-task  the same on tokio: current_thread, a task per client, a writer task per outbox
  ours-forward         net, gate, game as real nodes; the command has no handler and follows the route
  ours-handler         a handler of net calls its parent, whose handler calls a child
  ours-all             the handler path with all nodes in one process (benchnode --all)
  ours-forward-tls     ours-forward with all links encrypted (TLS), which on loopback they are not otherwise
  ours-websocket       ours-forward for clients that speak WebSocket: binary messages, masked as a browser's are

Numbers of a shared machine are worth their ratios only: compare pairs samples that lie seconds apart.
Where the scheduler puts four processes that wake each other is worth a factor of two at (1,1), for the same code and
for as long as they live. So compare measures it twice: \"spin\" as the scheduler has it, ten times a run, a quarter as
long, with a new client each time; and \"one cpu\" with all processes on one processor, where five runs agree within a
few percent and every microsecond of the servers counts.";

/// Measures the cluster against the floor of this machine.
#[derive(Debug, Parser)]
#[command(name = "bench", after_help = EXAMPLES)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Closed loop: alternates the systems at every point and prints ratios to the floors
    Compare(CompareArgs),
    /// Open loop: requests at a fixed rate whether or not answers come; no coordinated omission
    Open(OpenArgs),
    /// Memory that a connection without traffic costs each server process
    Idle(IdleArgs),
    /// Messages for everybody: a group of clients of one net node gets them from game through gate
    Broadcast(BroadcastArgs),
    /// Clients that connect, log in, ask ten times and leave, again and again
    Logins(LoginsArgs),
    /// Starts one floor and keeps it until Ctrl-C, to be loaded by hand
    Floor(FloorArgs),
    /// The load client by itself; prints one JSON line
    Load(LoadArgs),
    /// One process of a floor
    #[command(hide = true)]
    Relay(RelayArgs),
    /// Becomes another program that is told to stop when the bench ends
    #[command(hide = true)]
    Leash {
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
}

/// Which systems are compared.
#[derive(Debug, Clone, Args)]
pub(crate) struct Systems {
    /// Which systems, separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "floor-epoll,floor-tokio-ct-task,ours-forward,ours-handler"
    )]
    pub(crate) systems: Vec<System>,
}

/// What all measurements of systems have in common.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Writes every sample and every row there as JSON
    #[arg(long, value_name = "OUT")]
    pub(crate) json: Option<PathBuf>,
    /// Where `master` and `benchnode` (in older releases `appmain`) are; default: beside this program
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// More for `limits` in the config of ours, e.g. `idle_s=600`; may be repeated
    #[arg(long, value_name = "KEY=NUMBER", value_parser = key_and_number)]
    pub(crate) limit: Vec<(String, u64)>,
}

/// Another release to compare with.
#[derive(Debug, Clone, Args)]
pub(crate) struct Against {
    /// Where the programs of another release are: systems of ours run by those and by the ones of `--bin-dir`, in turn,
    /// and what is told is ratios, `--bin-dir` / `--against`. Floors are left out
    #[arg(long, value_name = "DIR")]
    pub(crate) against: Option<PathBuf>,
    /// By how much a median may be worse than the other release's; more is exit code 1
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, requires = "against")]
    pub(crate) within: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) which: Systems,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) against: Against,
    /// Connections:pipelined, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1:1,1:64,100:1,100:16,1000:1")]
    pub(crate) points: Vec<Point>,
    /// Bytes of the body, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "64,1024", value_parser = body_bytes)]
    pub(crate) bodies: Vec<usize>,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
    /// Idle-priority spinners that keep the processors awake: without them a single connection measures
    /// how a virtual machine's host wakes it up
    #[arg(long, value_enum, default_value_t = Spin::Auto)]
    pub(crate) spin: Spin,
    /// Where the servers and the load client run
    #[arg(long, value_enum, default_value_t = Place::Auto)]
    pub(crate) place: Place,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct OpenArgs {
    #[command(flatten)]
    pub(crate) which: Systems,
    #[command(flatten)]
    pub(crate) common: Common,
    /// Requests per second, the same for every system; default: `--share` of the slowest one's capacity
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Part of the capacity, which a closed loop of `--conns` with one request each finds out first
    #[arg(long, default_value_t = 0.5)]
    pub(crate) share: f64,
    /// Connections
    #[arg(long, default_value_t = 100)]
    pub(crate) conns: usize,
    /// Bytes of the body
    #[arg(long, default_value_t = 64, value_parser = body_bytes)]
    pub(crate) body: usize,
    /// How often each system is measured
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
    /// Seconds measured
    #[arg(long, default_value_t = 3.0)]
    pub(crate) secs: f64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warm: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) which: Systems,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) against: Against,
    /// Connections
    #[arg(long, default_value_t = 10_000)]
    pub(crate) conns: usize,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = BROADCAST)]
pub(crate) struct BroadcastArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Connections, which all get every broadcast
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) conns: u32,
    /// Bytes of the body
    #[arg(long, default_value_t = 64, value_parser = body_bytes)]
    pub(crate) body: usize,
    /// Broadcasts that have been asked for and have not reached everybody; several are separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,4", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) window: Vec<u32>,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
    /// Idle-priority spinners that keep the processors awake: without them a server that is a little slower than
    /// the client that reads wakes a halted processor for every delivery
    #[arg(long, value_enum, default_value_t = Spin::Auto)]
    pub(crate) spin: Spin,
}

const BROADCAST: &str = "\
One of the connections asks, all of them get. The next broadcast is asked for when every connection has one that
was asked for, so nothing piles up in an outbox.

  floor-broadcast   one process with one epoll loop that writes the frame to every socket, one send each and turn
  ours-broadcast    the ask goes through net and gate to game, whose handler sends it to a group; one frame comes
                    back over gate to net, which encodes it once and queues it for every member

Deliveries are counted where they arrive, each checked for its number and its body. Frames/broadcast is how many
frames net has got for all of these broadcasts (the counter `broadcasts` in /status), by the number of broadcasts.

Examples:
  bench broadcast
  bench broadcast --conns 1000 --window 1 --runs 9 --json broadcast.json
  bench broadcast --body 1024                what is shared in memory, from 256 bytes on";

#[derive(Debug, Clone, Args)]
#[command(after_help = LOGINS)]
pub(crate) struct LoginsArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Clients at a time; when one leaves, the next one connects
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) conns: u32,
    /// Bytes of the body
    #[arg(long, default_value_t = 64, value_parser = body_bytes)]
    pub(crate) body: usize,
    /// Requests after the login, one after the other
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) requests: u32,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

const LOGINS: &str = "\
A cycle is: connect, log in, ask `--requests` times, disconnect. The login and what is asked are handled on game,
behind net and gate; every login is of another user.

  floor-epoll     client, relay, relay, echo: a cycle's messages are all requests, one more of them
  ours-forward    the same over our nodes, without a login
  ours-login      the net node has a login stage, and game decides

A client closes its connection in good order, so its port is in TIME_WAIT for a minute. That is why clients come
from many addresses of the loopback network (127.1.0.1 and up): no port is missing, and none has to be looked for.

Examples:
  bench logins
  bench logins --conns 1000 --runs 9 --json logins.json
  bench logins --requests 0                  nothing but the login";

/// How often, and how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rounds {
    /// How often each system is measured; medians want five
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
    /// Seconds measured
    #[arg(long, default_value_t = 1.0)]
    pub(crate) secs: f64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 0.3)]
    pub(crate) warm: f64,
    /// A sample is taken again, up to twice, when other work used more than this many cores
    #[arg(long, value_name = "CORES", default_value_t = 0.15)]
    pub(crate) quiet: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct FloorArgs {
    /// How the floor does its I/O
    #[arg(long, value_enum, default_value_t = Backend::Epoll)]
    pub(crate) backend: Backend,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RelayArgs {
    #[arg(long, value_enum)]
    pub(crate) backend: Backend,
    #[arg(long, value_enum)]
    pub(crate) role: Role,
    /// The next relay towards the game
    #[arg(long)]
    pub(crate) up: Option<SocketAddr>,
}

/// What the load client does.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// The server: anything that speaks the firefly framing and echoes the body
    #[arg(long)]
    pub(crate) addr: SocketAddr,
    /// Connections
    #[arg(long, default_value_t = 1)]
    pub(crate) conns: usize,
    /// Requests outstanding on each (closed loop)
    #[arg(long, default_value_t = 1)]
    pub(crate) pipe: usize,
    /// Bytes of the body, at least 8
    #[arg(long, default_value_t = 64, value_parser = body_bytes)]
    pub(crate) body: usize,
    /// The command that is sent; its replies bear it too
    #[arg(long, default_value_t = 1)]
    pub(crate) command: u32,
    /// The command of error frames
    #[arg(long, default_value_t = u32::MAX)]
    pub(crate) error_command: u32,
    /// Open loop at this many requests per second instead of a closed loop
    #[arg(long, group = "way")]
    pub(crate) rate: Option<f64>,
    /// Broadcasts: the first connection asks for them, all get them, and at most so many are under way
    #[arg(long, group = "way", value_name = "WINDOW")]
    pub(crate) broadcast: Option<u32>,
    /// Cycles: every connection sends so many requests, one after the other, and is replaced by another one
    #[arg(long, group = "way", value_name = "REQUESTS")]
    pub(crate) cycles: Option<u32>,
    /// The command of a connection's first message in a cycle; default: that of all
    #[arg(long, requires = "cycles")]
    pub(crate) login: Option<u32>,
    /// Over WebSocket: every frame is a binary message
    #[arg(long, conflicts_with_all = ["idle", "broadcast", "cycles"])]
    pub(crate) websocket: bool,
    /// No load: opens the connections, says READY, waits for a line, one request each, READY, waits again
    #[arg(long, group = "way")]
    pub(crate) idle: bool,
    /// Seconds measured
    #[arg(long, default_value_t = 1.0)]
    pub(crate) secs: f64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 0.3)]
    pub(crate) warm: f64,
    /// The processor to run on
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// Processes of the server, separated by commas, whose CPU time is taken meanwhile
    #[arg(long, value_delimiter = ',')]
    pub(crate) watch: Vec<i32>,
}

/// When the spinners spin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spin {
    /// With one connection
    Auto,
    Always,
    Never,
}

impl Spin {
    pub(crate) fn spins(self, conns: usize) -> bool {
        match self {
            Self::Auto => conns == 1,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Where the processes of a system run, and its load client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// As the scheduler has it; a single request at a time also on one processor
    Auto,
    /// As the scheduler has it
    Free,
    /// On one processor
    OneCpu,
}

impl Place {
    /// The grounds on which a point is measured.
    pub(crate) fn grounds(self, point: Point) -> &'static [Ground] {
        match self {
            Self::Auto if (point.conns, point.pipe) == (1, 1) => &[Ground::Free, Ground::OneCpu],
            Self::Auto | Self::Free => &[Ground::Free],
            Self::OneCpu => &[Ground::OneCpu],
        }
    }
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ground {
    /// Wherever the scheduler puts them.
    Free,
    /// All on the last processor that this program may use.
    OneCpu,
}

/// How many connections, and how many requests outstanding on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) conns: usize,
    pub(crate) pipe: usize,
}

impl FromStr for Point {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once(':').and_then(|(c, p)| Some((c.parse().ok()?, p.parse().ok()?)));
        match numbers {
            Some((conns, pipe)) if conns > 0 && pipe > 0 => Ok(Self { conns, pipe }),
            _ => Err("a point is CONNECTIONS:PIPELINED, e.g. 100:16".into()),
        }
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("({},{})", self.conns, self.pipe))
    }
}

fn body_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (8..=60_000).contains(&bytes) => Ok(bytes),
        _ => Err("a body has 8 to 60000 bytes: its first 8 tell which request it belongs to".into()),
    }
}

fn key_and_number(text: &str) -> Result<(String, u64), String> {
    let pair = text.split_once('=').and_then(|(key, number)| Some((key.to_owned(), number.parse().ok()?)));
    pair.ok_or_else(|| "expected KEY=NUMBER".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Bench::command().debug_assert();
    }

    #[test]
    fn points_are_two_positive_numbers() {
        assert_eq!("100:16".parse(), Ok(Point { conns: 100, pipe: 16 }));
        for bad in ["", "100", "0:1", "1:0", "a:b", "1:2:3"] {
            assert!(bad.parse::<Point>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn defaults_are_the_issues_points_and_bodies() {
        let Command::Compare(args) = Bench::parse_from(["bench", "compare"]).command else { panic!() };
        let points: Vec<_> = args.points.iter().map(|p| (p.conns, p.pipe)).collect();
        assert_eq!(points, [(1, 1), (1, 64), (100, 1), (100, 16), (1000, 1)]);
        assert_eq!((args.bodies, args.rounds.runs, args.which.systems.len()), (vec![64, 1024], 5, 4));
        let grounds = points.iter().map(|&(conns, pipe)| args.place.grounds(Point { conns, pipe }).len());
        assert_eq!(
            grounds.collect::<Vec<_>>(),
            [2, 1, 1, 1, 1],
            "one request at a time is measured on one processor, too"
        );
    }

    #[test]
    fn how_far_two_releases_may_differ_is_asked_only_where_two_are_compared() {
        assert!(Bench::try_parse_from(["bench", "compare", "--within", "3"]).is_err());
        let two = Bench::parse_from(["bench", "idle", "--against", "old", "--within", "3"]).command;
        let Command::Idle(args) = two else { panic!() };
        assert_eq!((args.against.against, args.against.within), (Some("old".into()), 3.0));
    }

    #[test]
    fn a_body_must_hold_its_number() {
        assert!(Bench::try_parse_from(["bench", "compare", "--bodies", "7"]).is_err());
        assert!(Bench::try_parse_from(["bench", "compare", "--bodies", "8"]).is_ok());
    }
}
