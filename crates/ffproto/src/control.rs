//! Control messages between the master and its nodes, after the handshake: few and small typed values in bincode, moved by
//! `ffnet::control`.
//!
//! What a version has brought is written and read by that version alone ([`ControlMessage`]): a message that it has brought is none
//! before it, and a field that it has brought stands behind the message, where an older version has nothing.

use std::net::SocketAddr;

use bincode::Options;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::credential::PublicKey;
use crate::question::{Answer, Question};
use crate::{Incarnation, NodeName, NodeNumber, Version};

/// The longest control message in bytes. A status of a thousand children fits many times.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// From the master to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToNode {
    /// The first message after the handshake.
    Registered {
        /// The node's number, for the ids of its sessions.
        number: NodeNumber,
        /// The release of the master, for people; since [`Version::RELEASE`].
        #[serde(skip)]
        release: Option<String>,
    },
    /// A parent of this node is up: connect to it there (firefly's `remote_connect`). Said again whenever
    /// the parent comes back.
    ParentUp {
        /// The parent.
        name: NodeName,
        /// Where it listens for children.
        at: SocketAddr,
        /// The parent's incarnation.
        incarnation: Incarnation,
    },
    /// A parent's process is gone: fail its calls now, not when a heartbeat notices.
    ParentGone {
        /// The parent.
        name: NodeName,
        /// The incarnation that is gone.
        incarnation: Incarnation,
    },
    /// Stop in good order: take no new clients, let what runs end within `drain_ms`, run the app's hook,
    /// leave with exit code 0.
    Stop {
        /// Milliseconds that the node may take.
        drain_ms: u64,
    },
    /// A successor of this process waits at the door: hand everything over to it, see [`crate::handover`].
    /// From then on the two agree between themselves; the master hears [`ToMaster::Ready`] of the successor,
    /// or [`ToMaster::TookBack`] of this process.
    HandOver {
        /// Where the successor waits.
        door: Door,
    },
    /// The master was started anew and has adopted this process: connect to the door, give copies of the
    /// listening sockets, and take new pipes for what is printed.
    HandBack {
        /// Where the master waits.
        door: Door,
    },
    /// Tell the metrics.
    Metrics {
        /// The number of the question.
        ask: u64,
    },
    /// The public keys by which others are known from now on. After the first message, and after each rotation.
    Roots {
        /// What signs now.
        current: PublicKey,
        /// What has signed before the last rotation, and is valid still.
        previous: Option<PublicKey>,
    },
    /// Answer a question of an operator; since [`Version::QUESTIONS`].
    Ask {
        /// The number of the question.
        ask: u64,
        /// What is asked.
        question: Question,
    },
    /// An order about the log of the process; since [`Version::LOG_ORDERS`].
    Log(LogOrder),
}

/// What a process shall do with its log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogOrder {
    /// Open the files again: somebody has moved them.
    Reopen,
    /// Show these levels from now on, in the syntax of `FF_LOG`; an empty text is what was shown at the start.
    Levels(String),
}

/// The name of a Unix socket in Linux's abstract namespace: it has no file, and goes with its owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Door(pub String);

/// From a node to the master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToMaster {
    /// Every listener serves, database and cache answered, the app's start hook has returned.
    Ready {
        /// Where children connect, when there is a rootport.
        root: Option<SocketAddr>,
        /// Where clients connect, when there is a netport.
        net: Option<SocketAddr>,
        /// Where the web server answers, when there is a webport.
        web: Option<SocketAddr>,
    },
    /// The node cannot start and leaves; one line for the operator, naming the key in the config.
    CannotStart {
        /// Why.
        reason: String,
    },
    /// What the node sees now; sent when it changes, at most ten times a second, and at least twice a second:
    /// it is told from the loop that runs the handlers, so its silence shows a loop that does not turn.
    Status(NodeStatus),
    /// The node has begun to stop, on the master's word or on a signal.
    Stopping,
    /// From a successor: everything is prepared that can be while the predecessor serves. The predecessor shall hand
    /// over at the door.
    Prepared {
        /// Where this process waits.
        door: Door,
    },
    /// The hand-over to a successor has failed, or the successor died soon after: this process has taken
    /// back what it could and serves on.
    TookBack {
        /// Why, in one sentence for the operator.
        reason: String,
    },
    /// The successor serves, and this process has ended what it had begun: its neighbours do not need it any
    /// more. It stands by until the successor is proven, and then leaves by itself.
    HandedOver,
    /// The node's metrics.
    Metrics {
        /// The number of the question; 0 when nobody has asked, and the node is about to leave.
        ask: u64,
        /// In Prometheus' text format.
        text: String,
    },
    /// The release of the node's program, for people; since [`Version::RELEASE`].
    Release {
        /// Its version.
        release: String,
    },
    /// The answer to a question of an operator; since [`Version::QUESTIONS`].
    Answer {
        /// The number of the question.
        ask: u64,
        /// What is answered.
        answer: Answer,
    },
}

/// A message of a control connection, as each version has it.
pub trait ControlMessage: Serialize + DeserializeOwned {
    /// The version that has brought it, where the first one did not have it.
    fn since(&self) -> Option<Version> {
        None
    }

    /// The fields that later versions have brought, behind the message.
    fn write_later(&self, _version: Version, _out: &mut Vec<u8>) -> Option<()> {
        Some(())
    }

    /// Reads them.
    fn read_later(&mut self, _version: Version, _rest: &mut &[u8]) -> Option<()> {
        Some(())
    }

    /// The message in a version; `None` when that does not have it, or it is too long.
    fn to_bytes(&self, version: Version) -> Option<Vec<u8>> {
        if self.since().is_some_and(|since| !version.has(since)) {
            return None;
        }
        let mut out = coding().serialize(self).ok()?;
        self.write_later(version, &mut out)?;
        (out.len() <= MESSAGE_BYTES_MAX).then_some(out)
    }

    /// Of the bytes of a version; `None` when they are none of its messages.
    fn of_bytes(bytes: &[u8], version: Version) -> Option<Self> {
        let mut rest = bytes;
        let mut message: Self = coding().deserialize_from(&mut rest).ok()?;
        if message.since().is_some_and(|since| !version.has(since)) {
            return None;
        }
        message.read_later(version, &mut rest)?;
        rest.is_empty().then_some(message)
    }
}

fn coding() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(MESSAGE_BYTES_MAX as u64)
}

impl ControlMessage for ToNode {
    fn since(&self) -> Option<Version> {
        match self {
            Self::Ask { .. } => Some(Version::QUESTIONS),
            Self::Log(_) => Some(Version::LOG_ORDERS),
            _ => None,
        }
    }

    fn write_later(&self, version: Version, out: &mut Vec<u8>) -> Option<()> {
        if let (Self::Registered { release, .. }, true) = (self, version.has(Version::RELEASE)) {
            out.extend(coding().serialize(release).ok()?);
        }
        Some(())
    }

    fn read_later(&mut self, version: Version, rest: &mut &[u8]) -> Option<()> {
        if let (Self::Registered { release, .. }, true) = (self, version.has(Version::RELEASE)) {
            *release = coding().deserialize_from(rest).ok()?;
        }
        Some(())
    }
}

impl ControlMessage for ToMaster {
    fn since(&self) -> Option<Version> {
        match self {
            Self::Release { .. } => Some(Version::RELEASE),
            Self::Answer { .. } => Some(Version::QUESTIONS),
            _ => None,
        }
    }
}

/// The status of a node: what it sees of itself and of its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Client sessions open now.
    pub sessions: u64,
    /// Each configured parent, and whether the link to it is up.
    pub parents: Vec<(NodeName, bool)>,
    /// The children that are linked now.
    pub children: Vec<NodeName>,
    /// The node's counters, by the name of the queue or limit; only those that are not zero.
    pub counters: Vec<(String, u64)>,
}

/// The counter that is 1 when the node's app has state that a reload loses. A counter and no field of [`NodeStatus`], because
/// masters and nodes of two releases must read each other's status.
pub const STATE_WITHOUT_FREEZE: &str = "state_without_freeze";

impl NodeStatus {
    /// Whether the node's app has state that a reload loses.
    pub fn loses_state(&self) -> bool {
        self.counters.iter().any(|(name, count)| name == STATE_WITHOUT_FREEZE && *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Version = Version(3);

    fn registered(release: Option<&str>) -> ToNode {
        ToNode::Registered { number: NodeNumber(7), release: release.map(str::to_owned) }
    }

    #[test]
    fn a_field_of_a_version_is_neither_sent_nor_taken_by_the_one_before_it() {
        let new = registered(Some("0.2.0"));
        let bytes = new.to_bytes(Version::RELEASE).unwrap();
        assert_eq!(ToNode::of_bytes(&bytes, Version::RELEASE), Some(new.clone()));
        let old = new.to_bytes(OLD).unwrap();
        assert_eq!(old, [0, 0, 0, 0, 7, 0]);
        assert_eq!(ToNode::of_bytes(&old, OLD), Some(registered(None)));
        assert_eq!(ToNode::of_bytes(&bytes, OLD), None);
        assert_eq!(ToNode::of_bytes(&old, Version::RELEASE), None);
    }

    #[test]
    fn a_message_of_a_version_is_neither_sent_nor_taken_by_the_one_before_it() {
        let release = ToMaster::Release { release: "0.2.0".into() };
        let bytes = release.to_bytes(Version::RELEASE).unwrap();
        assert_eq!(ToMaster::of_bytes(&bytes, Version::RELEASE), Some(release.clone()));
        assert_eq!((release.to_bytes(OLD), ToMaster::of_bytes(&bytes, OLD)), (None, None));
        let (question, answer) = (Question::Commands, Answer::NoCommand);
        let (ask, answer) = (ToNode::Ask { ask: 1, question }, ToMaster::Answer { ask: 1, answer });
        assert_eq!((ask.to_bytes(OLD), answer.to_bytes(OLD)), (None, None));
        let (asked, answered) = (ask.to_bytes(Version::QUESTIONS), answer.to_bytes(Version::QUESTIONS));
        let (asked, answered) = (asked.unwrap(), answered.unwrap());
        assert_eq!((ToNode::of_bytes(&asked, OLD), ToMaster::of_bytes(&answered, OLD)), (None, None));
        assert_eq!(ToNode::of_bytes(&asked, Version::QUESTIONS), Some(ask));
        assert_eq!(ToMaster::of_bytes(&answered, Version::QUESTIONS), Some(answer));
        for order in [LogOrder::Reopen, LogOrder::Levels("info,ffserver=debug".into())] {
            let order = ToNode::Log(order);
            let bytes = order.to_bytes(Version::LOG_ORDERS).unwrap();
            assert_eq!(ToNode::of_bytes(&bytes, Version::LOG_ORDERS), Some(order.clone()));
            assert_eq!((order.to_bytes(OLD), ToNode::of_bytes(&bytes, OLD)), (None, None));
        }
        for version in [OLD, Version::RELEASE] {
            let bytes = ToMaster::Stopping.to_bytes(version).unwrap();
            assert_eq!(ToMaster::of_bytes(&bytes, version), Some(ToMaster::Stopping));
            assert_eq!(ToMaster::of_bytes(&[bytes, vec![0]].concat(), version), None);
        }
    }
}
