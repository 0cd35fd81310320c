//! The facts of the machine: what goes in and what comes out, as plain values.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ffconfig::Cluster;
use ffproto::control::{ToMaster, ToNode};
use ffproto::{Incarnation, NodeName};
use serde::Serialize;
use tokio::time::Instant;

/// Everything impure that a decision may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For deadlines.
    pub at: Instant,
    /// For incarnations and for people.
    pub unix_ms: u64,
    /// A random number from 0 to 1, for jitter.
    pub chance: f64,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The process left with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// The process could not be waited for.
    Unknown(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "signal {number} ({signal})"),
                Err(_) => write!(f, "signal {number}"),
            },
            Exit::Unknown(why) => write!(f, "an unknown end ({why})"),
        }
    }
}

/// The two ends of a control connection: where the node is, and how it reaches this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// The node's address as seen here.
    pub peer: IpAddr,
    /// This host's address as the node reached it.
    pub local: IpAddr,
}

/// A number for a question, to match its answer.
pub type Ask = u64;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Seen {
    /// Everything is open: start the nodes.
    Begin,
    /// A launch has made a process.
    Launched {
        /// The node, or one of several: it is said once for a process.
        node: NodeName,
        /// The node's incarnation.
        incarnation: Incarnation,
        /// The process.
        pid: u32,
    },
    /// A launch has failed.
    LaunchFailed {
        /// The node, or one of several: it is said once for a process.
        node: NodeName,
        /// The node's incarnation.
        incarnation: Incarnation,
        /// Why.
        reason: String,
        /// Whether descriptors, memory or processes are short at the moment: then nothing is wrong with the node.
        shortage: bool,
    },
    /// A node has opened a control connection and has proved who it is.
    Registered {
        /// The node.
        node: NodeName,
        /// The node's incarnation.
        incarnation: Incarnation,
        /// The process.
        pid: u32,
        /// Both ends of the connection.
        wire: Wire,
    },
    /// A node says something on its control connection.
    Said {
        /// The node.
        node: NodeName,
        /// The node's incarnation.
        incarnation: Incarnation,
        /// The message.
        message: ToMaster,
    },
    /// A node's control connection has ended.
    Unlinked {
        /// The node.
        node: NodeName,
        /// The node's incarnation.
        incarnation: Incarnation,
    },
    /// A process of ours has ended.
    Exited {
        /// The node, or one of several: it is said once for a process.
        node: NodeName,
        /// The node's incarnation.
        incarnation: Incarnation,
        /// The end of the process.
        exit: Exit,
        /// The lines that are kept of it, oldest first.
        lines: Vec<String>,
    },
    /// An adopted node has given its listening sockets, or has not.
    HandedBack {
        /// The node.
        node: NodeName,
        /// The node's incarnation.
        incarnation: Incarnation,
        /// Why not.
        sockets: Result<(), String>,
    },
    /// What the system says of a process that is silent.
    Looked {
        /// The node.
        node: NodeName,
        /// The node's incarnation.
        incarnation: Incarnation,
        /// In words.
        process: String,
    },
    /// Somebody wants something.
    Asked {
        /// The question's number.
        ask: Ask,
        /// The command.
        command: Command,
    },
    /// Time has passed.
    Tick,
}

/// The command of an operator.
#[derive(Debug, Clone)]
pub enum Command {
    /// Stop everything, in waves.
    StopAll,
    /// Kill everything at once.
    KillAll,
    /// Leave, and let the nodes run on for the next master.
    Detach,
    /// Stop one node.
    Stop(NodeName),
    /// Start one node.
    Start(NodeName),
    /// Stop and start one node, as it is configured now.
    Restart(NodeName),
    /// Take over a config that has been checked: all of it, or one node's part.
    Reload {
        /// The new config.
        cluster: Box<Cluster>,
        /// The nodes of it that belong on another host.
        elsewhere: Vec<NodeName>,
        /// Only this node.
        only: Option<NodeName>,
    },
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Do {
    /// Start a process.
    Launch {
        /// The nodes that it runs, in the order of the config, each with the incarnation that it is to take over from.
        nodes: Vec<(NodeName, Option<Incarnation>)>,
        /// The incarnation of all of them.
        incarnation: Incarnation,
    },
    /// SIGTERM, to the node's whole process.
    Terminate {
        /// The node.
        node: NodeName,
        /// The node's incarnation.
        incarnation: Incarnation,
    },
    /// SIGKILL, to the node's whole process.
    Kill {
        /// The node.
        node: NodeName,
        /// The node's incarnation.
        incarnation: Incarnation,
    },
    /// Say something on a control connection.
    Tell {
        /// To whom.
        node: NodeName,
        /// To which start of it.
        incarnation: Incarnation,
        /// The order.
        tell: Tell,
    },
    /// Ask an adopted node for its listening sockets, and give it new pipes for what it prints.
    TakeBack {
        /// Which.
        node: NodeName,
        /// The node's incarnation.
        incarnation: Incarnation,
    },
    /// Ask the system what a silent process does.
    Look {
        /// The node.
        node: NodeName,
        /// The node's incarnation.
        incarnation: Incarnation,
        /// The process.
        pid: u32,
    },
    /// End a control connection that has no business here.
    Hangup {
        /// The node whose connection it is.
        node: NodeName,
        /// Of which start of it.
        incarnation: Incarnation,
    },
    /// The answer to a question.
    Answer {
        /// The question's number.
        ask: Ask,
        /// The outcome of the command.
        answer: Answer,
    },
    /// Something for the log.
    Report(Report),
    /// There is nothing left to supervise.
    End(End),
}

/// A message for a control connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Tell {
    /// The message as it stands.
    Message(ToNode),
    /// [`ToNode::ParentUp`], once the host's name has been resolved.
    ParentUp {
        /// The parent.
        name: NodeName,
        /// The parent's host, as the child's config names it.
        host: String,
        /// The parent's port.
        port: u16,
        /// The node's incarnation.
        incarnation: Incarnation,
    },
}

/// The answer to a command: its outcome node by node, or why nothing was done.
pub type Answer = Result<Vec<Outcome>, Refused>;

/// The outcome of a command for one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The node.
    pub node: NodeName,
    /// Whether the node is as the command wanted it.
    pub ok: bool,
    /// In words.
    pub outcome: String,
}

/// Why a command was refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another command runs.
    #[error("{0}; try again when that is done")]
    Busy(String),
    /// The cluster is stopping.
    #[error("the cluster is stopping")]
    Stopping,
    /// There is no such node.
    #[error("there is no node `{name}`{}", .nearest.as_ref().map_or_else(String::new, |n| format!("; did you mean `{n}`?")))]
    Unknown {
        /// The name as it was asked for.
        name: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// The config has faults: all of them, one a line.
    #[error("{0}")]
    Config(String),
    /// The config is sound but cannot be taken over by a running master.
    #[error("{0}")]
    Conflict(String),
}

/// Something worth a line in the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A node serves.
    Ready {
        /// Which.
        node: NodeName,
        /// Its kind.
        kind: String,
        /// The process.
        pid: Option<u32>,
        /// The addresses where the node listens.
        listens: Listens,
        /// How long its start took.
        took_ms: u128,
    },
    /// Every node of the first start serves.
    Up {
        /// How many nodes are ready.
        nodes: usize,
        /// Nodes that belong on other hosts and are not there yet.
        missing: Vec<NodeName>,
        /// How long the start took.
        took_ms: u128,
    },
    /// A process has ended that nobody had asked to.
    Crashed(Arc<CrashView>),
    /// Something usual.
    Info(String),
    /// Something that a person should know.
    Warn(String),
}

/// How a process ended that nobody had asked to, and what is known of why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CrashView {
    /// Of which node; the name of the process where that has run several.
    pub node: NodeName,
    /// The nodes of the process, where there were several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeName>,
    /// The node's incarnation.
    pub incarnation: Incarnation,
    /// The process.
    pub pid: Option<u32>,
    /// When, UTC.
    pub at: String,
    /// Exit code or signal.
    pub exit: String,
    /// Why, in its own words or in those of who ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The handler that the process was in, as far as that is known.
    pub during: String,
    /// How long it lived.
    pub lived_ms: u64,
    /// The last lines that it printed, oldest first.
    pub lines: Vec<String>,
}

impl CrashView {
    /// The name of the file in which it is kept: nodes by name, the newest last.
    pub fn file(&self) -> String {
        format!("{}-{}.txt", self.node, self.at.replace(':', ""))
    }
}

/// Where a node listens, as it announced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Listens {
    /// For clients.
    pub net: Option<SocketAddr>,
    /// For children.
    pub root: Option<SocketAddr>,
    /// For HTTP.
    pub web: Option<SocketAddr>,
}

/// How the whole ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Stopped in order.
    Stopped,
    /// The first start failed; everything has been stopped again.
    Failed(String),
    /// A second signal: everything was killed.
    Forced,
    /// The nodes run on; the next master adopts them.
    Detached,
}
