//! Messages between nodes that are no neighbours: which nodes can be reached over a link, and envelopes that every node
//! on the way passes on untouched.
//!
//! ```text
//! body of `@@to`:   off 0  u16 to      number of the node that it is for
//!                   off 2  u16 from    number of the node that wrote it
//!                   off 4  u8  op      see [`Op`]
//!                   off 5  payload
//! ```
//!
//! Little-endian, as links are. The session and the command that it is about stand in the frame's client part.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{CommandId, Incarnation, NodeName, NodeNumber, SessionId};

/// The method of [`ReachChange`]; links only, never passed on.
pub const REACH: &str = "@@reach";
/// The method of [`AffinityNotice`]; links only, never passed on as it is.
pub const AFFINITY: &str = "@@stick";
/// The method of [`MethodsChange`]; links only, never passed on. A node of a release without it does not list it in its
/// handshake, and is not told.
pub const METHODS: &str = "@@methods";
/// The method of envelopes.
pub const TO: &str = "@@to";
/// Bytes of an envelope before its payload.
pub const ENVELOPE_BYTES: usize = 5;

/// A node that can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reachable {
    /// The node's number.
    pub number: NodeNumber,
    /// The node's name.
    pub name: NodeName,
    /// The node's kind.
    pub kind: String,
    /// Whether the node takes clients.
    pub net: bool,
    /// The node's incarnation.
    pub incarnation: Incarnation,
    /// The first session that the node may have: those before it ended with an earlier incarnation. A successor of a
    /// living process has that one's sessions: the lowest id of its number.
    pub since: SessionId,
}

/// A change in the nodes that the sender reaches on its other links, for this one. The first on a link tells all of
/// them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReachChange {
    /// Whether this is everything: what was said before no longer holds.
    pub all: bool,
    /// New, or not as they were.
    pub add: Vec<Reachable>,
    /// No longer reached.
    pub remove: Vec<NodeNumber>,
}

impl ReachChange {
    /// Makes the change in what was said before.
    pub fn apply(&self, nodes: &mut BTreeMap<NodeNumber, Reachable>) {
        if self.all {
            nodes.clear();
        }
        self.remove.iter().for_each(|number| drop(nodes.remove(number)));
        nodes.extend(self.add.iter().map(|node| (node.number, node.clone())));
    }
}

/// A change in the methods that the sender takes on this link, since the handshake or the last change. A number belongs to
/// one name for as long as the sender's process lives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MethodsChange {
    /// The methods that may be called from now on, each by its number and its name.
    pub add: Vec<(u16, String)>,
    /// The numbers of the methods that may not be called any more.
    pub remove: Vec<u16>,
}

/// The op of an envelope: what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Call, to the session's net node: `from` handles messages of the session from now on. The answer is its
    /// [`SessionState`], or nothing when it is gone.
    Touch,
    /// Notify, from the net node: the session's state has changed; [`SessionState`].
    State,
    /// Call, to the net node: change the state; [`SessionChange`]. Answered as Touch is.
    Set,
    /// Notify or call, to the net node: send the client a message.
    Push,
    /// Notify, to the net node: end the session; the payload says why, as text.
    Close,
    /// Notify, from the net node: the session has ended.
    Ended,
    /// Notify, to a net node: these sessions are known here, u64 each; Ended comes for those that are gone.
    Check,
    /// Call, to the net node: the session is in a group from now on; the payload is its name. The answer is one
    /// byte: 0, it is; 1, the session is gone; 2, it is in too many groups.
    Join,
    /// Call, to the net node: the session is in the group no longer. Answered as Join is.
    Leave,
    /// Notify, to a net node: send these clients a message; [`Broadcast`].
    Broadcast,
    /// Call, from a net node to another one: these users are of sessions of `from`; a list of [`Claim`]. The answer
    /// lists the sessions that lose theirs, u64 each.
    Claim,
    /// Notify or call, to any node: run a handler; [`Call`]. Answered as the handler does.
    Call,
    /// Call, to the net node: the session shall go on at another node; [`MoveOrder`]. The answer is one byte, see
    /// [`MoveAnswer`].
    Move,
    /// Call, from the net node: the session is here from now on; [`MoveEntry`]. Answered empty when the app has been told.
    Enter,
    /// Notify, from the net node: the session is here no longer, for the kind in the payload.
    Left,
    /// Call, to a net node: answered empty, when everything is done that came the same way before.
    Fence,
    /// Call, from the net node, to the node that wanted the session to move: it has stayed; the [`MoveOrder`] of that.
    /// Answered empty when the app has been told.
    NotMoved,
    /// Notify, to a net node: messages of these sessions go over `from`, u64 each; Ended comes for those that are gone.
    Ways,
}

impl Op {
    const ALL: [Op; 18] = [
        Op::Touch,
        Op::State,
        Op::Set,
        Op::Push,
        Op::Close,
        Op::Ended,
        Op::Check,
        Op::Join,
        Op::Leave,
        Op::Broadcast,
        Op::Claim,
        Op::Call,
        Op::Move,
        Op::Enter,
        Op::Left,
        Op::Fence,
        Op::NotMoved,
        Op::Ways,
    ];

    fn number(self) -> u8 {
        self as u8 + 1
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number.checked_sub(1)?)).copied()
    }
}

/// An envelope, borrowed from the frame that it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The node that the envelope is for.
    pub to: NodeNumber,
    /// The node that wrote the envelope.
    pub from: NodeNumber,
    /// The op; `None` is of a later version.
    pub op: Option<Op>,
    /// The payload.
    pub payload: &'a [u8],
}

/// Reads an envelope; `None` when the bytes do not hold its head.
pub fn read(body: &[u8]) -> Option<Envelope<'_>> {
    let (&[t0, t1, f0, f1, op], payload) = body.split_first_chunk::<ENVELOPE_BYTES>()?;
    let number = |low, high| NodeNumber(u16::from_le_bytes([low, high]));
    Some(Envelope { to: number(t0, t1), from: number(f0, f1), op: Op::from_number(op), payload })
}

/// Appends an envelope.
pub fn write(to: NodeNumber, from: NodeNumber, op: Op, payload: &[u8], out: &mut Vec<u8>) {
    let ([t0, t1], [f0, f1]) = (to.0.to_le_bytes(), from.0.to_le_bytes());
    out.reserve(ENVELOPE_BYTES + payload.len());
    out.extend_from_slice(&[t0, t1, f0, f1, op.number()]);
    out.extend_from_slice(payload);
}

/// The audience of a broadcast, among the sessions of the net node that gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience<'a> {
    /// All of them.
    All,
    /// The sessions in the group of that name.
    Group(&'a str),
    /// These: ids of 8 bytes each.
    Sessions(&'a [[u8; 8]]),
}

/// One message for many clients: `command u32, kind u8, n u32, n bytes of the audience, body`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broadcast<'a> {
    /// The command.
    pub command: CommandId,
    /// The node that the envelope is for.
    pub audience: Audience<'a>,
    /// The payload.
    pub body: &'a [u8],
}

impl<'a> Broadcast<'a> {
    /// Reads a payload; `None` when it is malformed.
    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let (&[c0, c1, c2, c3, kind, n0, n1, n2, n3], rest) = payload.split_first_chunk::<9>()?;
        let n = usize::try_from(u32::from_le_bytes([n0, n1, n2, n3])).ok()?;
        let (who, body) = rest.split_at_checked(n)?;
        let audience = match kind {
            0 if who.is_empty() => Audience::All,
            1 => Audience::Group(std::str::from_utf8(who).ok()?),
            2 => match who.as_chunks::<8>() {
                (ids, []) => Audience::Sessions(ids),
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { command: CommandId(u32::from_le_bytes([c0, c1, c2, c3])), audience, body })
    }

    /// Appends the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (kind, who) = match self.audience {
            Audience::All => (0, &[][..]),
            Audience::Group(name) => (1, name.as_bytes()),
            Audience::Sessions(ids) => (2, ids.as_flattened()),
        };
        out.reserve(9 + who.len() + self.body.len());
        out.extend_from_slice(&self.command.0.to_le_bytes());
        out.push(kind);
        out.extend_from_slice(&(who.len() as u32).to_le_bytes());
        out.extend_from_slice(who);
        out.extend_from_slice(self.body);
    }
}

/// Where a session shall go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveOrder {
    /// The node.
    pub node: NodeName,
    /// The bytes that the app gives with the session.
    pub extra: Vec<u8>,
}

/// A session comes to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveEntry {
    /// The node that it comes from.
    pub from: NodeName,
    /// The bytes that the app gives with the session.
    pub extra: Vec<u8>,
    /// Which of the session's moves this is: the same one may be told twice.
    pub number: u32,
}

/// The answer to an [`Op::Join`] or [`Op::Leave`], as one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupAnswer {
    /// The session is in the group, or no longer.
    Done,
    /// The session has ended.
    Gone,
    /// The session is in too many groups, or the group's name is too long.
    TooMany,
}

impl GroupAnswer {
    /// The byte.
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Gone => 1,
            Self::TooMany => 2,
        }
    }

    /// The answer of a byte; `None` for one of a later version.
    pub fn from_number(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Done,
            1 => Self::Gone,
            2 => Self::TooMany,
            _ => return None,
        })
    }
}

/// The answer to an [`Op::Push`] that was a call, as one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushAnswer {
    /// The message is queued for the client.
    Queued,
    /// The session has ended.
    Gone,
    /// The client reads too slowly.
    TooSlow,
}

impl PushAnswer {
    /// The byte.
    pub fn number(self) -> u8 {
        match self {
            Self::Queued => 0,
            Self::Gone => 1,
            Self::TooSlow => 2,
        }
    }

    /// The answer of a byte; `None` for one of a later version.
    pub fn from_number(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Queued,
            1 => Self::Gone,
            2 => Self::TooSlow,
            _ => return None,
        })
    }
}

/// The answer to an [`Op::Move`], as one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveAnswer {
    /// The session moves as soon as what runs for it has ended.
    Begun,
    /// The session has ended.
    Gone,
    /// The net node does not reach a node of that name.
    NoNode,
    /// No command of the net node goes to that kind of node.
    NotRouted,
    /// Another move of it is under way.
    Moving,
}

impl MoveAnswer {
    const ALL: [Self; 5] = [Self::Begun, Self::Gone, Self::NoNode, Self::NotRouted, Self::Moving];

    /// The byte.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The answer of a byte.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// The most claims that travel together.
pub const CLAIMS_MAX: usize = 512;

/// A user that a session has, or wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The session that has, or wants, the user.
    pub session: SessionId,
    /// When it was made, in the time that claims move on: milliseconds, and later than every claim that was known.
    pub stamp: u64,
    /// Whether the session has the user; else it has just begun to ask.
    pub held: bool,
    /// The user.
    pub user: String,
}

/// Neighbours tell each other which node a session's messages go to, so that all of them send them there: a
/// notify with the session in the client part. `what u8, target, a zero byte, the node's name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AffinityNotice<'a> {
    /// The kind of the word: who tells whom.
    pub what: AffinityWord,
    /// A kind of nodes, as in `@KIND`.
    pub target: &'a str,
    /// The node; empty for [`AffinityWord::Forget`].
    pub node: &'a str,
}

/// See [`AffinityNotice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AffinityWord {
    /// To where the messages go: they are for this node.
    Prefer,
    /// To where the messages come from: this node was chosen.
    Chosen,
    /// To where the messages went: they go another way now.
    Forget,
}

impl<'a> AffinityNotice<'a> {
    /// Reads a body; `None` when it is malformed.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (what, text) = body.split_first()?;
        let what = match what {
            0 => AffinityWord::Prefer,
            1 => AffinityWord::Chosen,
            2 => AffinityWord::Forget,
            _ => return None,
        };
        let (target, node) = std::str::from_utf8(text).ok()?.split_once('\0')?;
        let fits =
            (what == AffinityWord::Forget) == node.is_empty() && !target.is_empty() && !node.contains('\0');
        fits.then_some(Self { what, target, node })
    }

    /// The body.
    pub fn write(&self) -> Vec<u8> {
        let mut body = vec![self.what as u8];
        body.extend_from_slice(self.target.as_bytes());
        body.push(0);
        body.extend_from_slice(self.node.as_bytes());
        body
    }
}

/// A handler's name and its argument: `n u8, n bytes of the name, argument`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// The method, at most 255 bytes; what is longer is cut, and no handler is called so.
    pub method: &'a str,
    /// The body of the call.
    pub body: &'a [u8],
}

impl<'a> Call<'a> {
    /// Reads a payload; `None` when it is malformed.
    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let (n, rest) = payload.split_first()?;
        let (method, body) = rest.split_at_checked(usize::from(*n))?;
        Some(Self { method: std::str::from_utf8(method).ok()?, body })
    }

    /// The payload.
    pub fn write(&self) -> Vec<u8> {
        let method = &self.method.as_bytes()[..self.method.floor_char_boundary(255)];
        let mut payload = Vec::with_capacity(1 + method.len() + self.body.len());
        payload.push(method.len() as u8);
        payload.extend_from_slice(method);
        payload.extend_from_slice(self.body);
        payload
    }
}

/// The state of a session that the whole cluster knows, beside its id. Small: it travels whole with every change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// Counts the changes: a state with a lower one is older.
    pub version: u64,
    /// Where the client connects from.
    pub address: SocketAddr,
    /// The user, once the app has said so.
    pub user: Option<String>,
    /// The attributes that the app has noted.
    pub attributes: BTreeMap<String, String>,
}

/// A change of a session's state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionChange {
    /// The session's user from now on.
    pub user: Option<String>,
    /// Attributes to set, or to remove.
    pub attributes: Vec<(String, Option<String>)>,
}

impl SessionState {
    /// The state after the change.
    #[must_use]
    pub fn with(&self, change: SessionChange) -> Self {
        let mut next = self.clone();
        next.version += 1;
        next.user = change.user.or(next.user);
        for (key, value) in change.attributes {
            match value {
                Some(value) => drop(next.attributes.insert(key, value)),
                None => drop(next.attributes.remove(&key)),
            }
        }
        next
    }

    /// What it takes, in bytes: the user and the attributes, keys and values.
    pub fn bytes(&self) -> usize {
        let attributes = self.attributes.iter().map(|(key, value)| key.len() + value.len());
        self.user.as_ref().map_or(0, String::len) + attributes.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_comes_back_as_it_was_written() {
        for op in Op::ALL {
            let mut body = Vec::new();
            write(NodeNumber(3), NodeNumber(4095), op, b"payload", &mut body);
            let envelope =
                Envelope { to: NodeNumber(3), from: NodeNumber(4095), op: Some(op), payload: b"payload" };
            assert_eq!(read(&body), Some(envelope));
            assert!(read(&body[..4]).is_none());
        }
        assert_eq!(read(&[3, 0, 4, 0, 99]).unwrap().op, None, "of a later version");
        assert_eq!(read(&[3, 0, 4, 0, 0]).unwrap().op, None);
    }

    #[test]
    fn a_broadcast_comes_back_as_it_was_written_and_half_of_one_is_none() {
        let ids = [[1; 8], [2; 8]];
        for audience in [Audience::All, Audience::Group("room 1"), Audience::Sessions(&ids)] {
            let broadcast = Broadcast { command: CommandId(9), audience, body: b"hello" };
            let mut payload = Vec::new();
            broadcast.write(&mut payload);
            assert_eq!(Broadcast::read(&payload), Some(broadcast));
            assert_eq!(Broadcast::read(&payload[..8]), None);
        }
        assert_eq!(
            Broadcast::read(&[0, 0, 0, 0, 2, 7, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]),
            None,
            "7 bytes of ids"
        );
        assert_eq!(Broadcast::read(&[0, 0, 0, 0, 1, 255, 255, 255, 255]), None);
        assert_eq!(Broadcast::read(&[0, 0, 0, 0, 3, 0, 0, 0, 0]), None);
    }

    #[test]
    fn a_change_makes_the_next_version_of_a_state() {
        let address = "127.0.0.1:1".parse().unwrap();
        let first = SessionState { version: 1, address, user: None, attributes: BTreeMap::new() };
        let set = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
        let change = SessionChange { user: Some("ann".into()), attributes: vec![set("hp", Some("10"))] };
        let second = first.with(change);
        assert_eq!((second.version, second.user.as_deref(), second.bytes()), (2, Some("ann"), 7));
        let third = second.with(SessionChange { user: None, attributes: vec![set("hp", None)] });
        assert_eq!((third.version, third.user.as_deref(), third.bytes()), (3, Some("ann"), 3));
    }
}
