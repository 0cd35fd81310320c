//! The keys of a running master, and what follows when they change: what it shows to nodes.

use std::sync::Arc;

use ffambient::Ambient;
use ffkeys::{ClusterKeys, KeyError, TrustRoots};
use ffnet::handshake::Local;
use ffproto::control::ToNode;
use ffproto::credential::PublicKey;
use ffproto::{ClusterName, Incarnation, Versions};
use tokio::sync::watch;

use crate::keys::{KeysError, MasterKeys, Next};

/// The keys of a running master.
pub(crate) struct Keyring {
    keys: MasterKeys,
    /// What the master says of itself to nodes.
    local: watch::Sender<Arc<Local>>,
    cluster: ClusterName,
    versions: Versions,
    ambient: Ambient,
}

impl Keyring {
    pub(crate) fn new(
        keys: MasterKeys,
        cluster: ClusterName,
        versions: Versions,
        ambient: &Ambient,
    ) -> Result<Self, KeyError> {
        let local = watch::Sender::new(Arc::new(local(&keys, &cluster, versions, ambient)?));
        Ok(Self { keys, local, cluster, versions, ambient: ambient.clone() })
    }

    pub(crate) fn local(&self) -> watch::Receiver<Arc<Local>> {
        self.local.subscribe()
    }

    /// The versions of the protocol between nodes that the master speaks.
    pub(crate) fn versions(&self) -> Versions {
        self.versions
    }

    pub(crate) fn cluster(&self) -> &ClusterKeys {
        &self.keys.cluster
    }

    pub(crate) fn keys(&self) -> MasterKeys {
        self.keys.clone()
    }

    /// What nodes are told.
    pub(crate) fn roots(&self) -> ToNode {
        let roots = self.keys.cluster.roots();
        ToNode::Roots { current: roots.current, previous: roots.previous }
    }

    /// Whether nodes take a credential of that key.
    pub(crate) fn has(&self, root: PublicKey) -> bool {
        self.keys.cluster.roots().has(root)
    }

    /// By which keys nodes are known after a rotation.
    pub(crate) fn roots_after(&self, next: &Next) -> Result<TrustRoots, KeysError> {
        self.keys.roots_after(next)
    }

    /// Signs with other keys from now on. When it fails, everything is as it was.
    pub(crate) fn rotate(&mut self, next: Next) -> Result<(), KeysError> {
        let keys = self.keys.rotated(next)?;
        let local = local(&keys, &self.cluster, self.versions, &self.ambient)?;
        self.local.send_replace(Arc::new(local));
        self.keys = keys;
        Ok(())
    }
}

fn local(
    keys: &MasterKeys,
    cluster: &ClusterName,
    versions: Versions,
    ambient: &Ambient,
) -> Result<Local, KeyError> {
    let incarnation = Incarnation::next(ambient.clock.now_ms(), None);
    Ok(Local {
        keys: Arc::new(keys.own(cluster, incarnation, &ambient.chance)?),
        versions,
        methods: Vec::new(),
        chance: ambient.chance.stream("control"),
        clock: ambient.clock.clone(),
        binding: Vec::new(),
    })
}
