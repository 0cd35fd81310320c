//! What a node is started with beside its config and its app: which start it is, its keys, and what it speaks.

use std::path::PathBuf;
use std::sync::Arc;

use ffambient::Chance;
use ffkeys::{ClusterKeys, ClusterSecret, KeyError, NodeKeys};
use ffproto::{Incarnation, Versions};
use tokio::sync::watch;

/// What a node is started with, beside its config and its app.
#[derive(Debug)]
pub struct Startup {
    /// Which start of the node this is.
    pub incarnation: Incarnation,
    /// Where its keys come from.
    pub keys: KeySource,
    /// The versions of the protocol between nodes that it speaks.
    pub versions: Versions,
}

/// Where a node's keys come from.
#[derive(Debug)]
pub enum KeySource {
    /// It has none, and links to nobody.
    Nowhere,
    /// It was given them.
    Given(Box<NodeKeys>),
    /// The master that runs with this run folder gives them, as soon as it is there: a node that is started by hand.
    Master(PathBuf),
}

impl Startup {
    /// A start without keys.
    pub fn without_keys(incarnation: Incarnation) -> Self {
        Self { incarnation, keys: KeySource::Nowhere, versions: Versions::OURS }
    }

    /// The start of those keys.
    pub fn with_keys(keys: NodeKeys) -> Self {
        let incarnation = keys.incarnation();
        Self { incarnation, keys: KeySource::Given(Box::new(keys)), versions: Versions::OURS }
    }
}

/// The keys of a node, which one that is started by hand gets later than it starts, and which know others by other roots after
/// each rotation.
#[derive(Debug, Clone)]
pub(crate) struct OwnKeys {
    pub(crate) keys: Arc<watch::Sender<Option<Arc<NodeKeys>>>>,
    pub(crate) versions: Versions,
}

/// What brings a node its keys.
#[derive(Debug)]
pub(crate) struct KeyBringer {
    pub(crate) to: Arc<watch::Sender<Option<Arc<NodeKeys>>>>,
    /// The run folder of the master that gives them, when they are not there.
    pub(crate) folder: Option<PathBuf>,
}

impl KeySource {
    /// The keys that are there, and what brings those that are not.
    pub(crate) fn begin(self, versions: Versions) -> (OwnKeys, KeyBringer) {
        let (there, folder) = match self {
            Self::Nowhere => (None, None),
            Self::Given(keys) => (Some(Arc::new(*keys)), None),
            Self::Master(folder) => (None, Some(folder)),
        };
        let keys = Arc::new(watch::Sender::new(there));
        (OwnKeys { keys: keys.clone(), versions }, KeyBringer { to: keys, folder })
    }
}

/// The keys of a cluster in one process, which end with it.
pub(crate) fn keys_of_all(chance: &Chance) -> Result<ClusterKeys, KeyError> {
    ClusterKeys::new(&ClusterSecret::new(chance)?, 0, None)
}
