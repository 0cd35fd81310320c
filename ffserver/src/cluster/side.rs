//! On which side of a node a neighbour stands.

use ffproto::NodeName;

/// The side of a node on which a neighbour stands. Messages that have come from a parent only go down, so the side decides
/// over every way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// Above: this node dials it.
    Parent,
    /// Below: it dials this node.
    Child,
}

/// The key of a neighbour: its side and its name. Not its link, for its process may be replaced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerKey {
    pub(crate) side: Side,
    pub(crate) name: NodeName,
}

impl PeerKey {
    pub(crate) fn new(side: Side, name: NodeName) -> Self {
        Self { side, name }
    }
}
