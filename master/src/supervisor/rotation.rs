//! The keys of a running master, and what follows when they change: what it shows to nodes, which tokens its webport takes.

use std::sync::Arc;

use ffambient::Ambient;
use ffkeys::{ClusterKeys, KeyError};
use ffnet::handshake::Local;
use ffproto::control::ToNode;
use ffproto::credential::PublicKey;
use ffproto::{ClusterName, Incarnation, Versions};
use parking_lot::RwLock;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::keys::{KeysError, MasterKeys, Next};

/// A token.
type Token = Arc<Zeroizing<String>>;

/// The tokens that the webport takes: that of the config and, until the next rotation, the one before it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tokens(Arc<RwLock<Option<Vec<Token>>>>);

impl Tokens {
    /// That one; without one nothing is asked for.
    pub(crate) fn of(token: Option<Token>) -> Self {
        Self(Arc::new(RwLock::new(token.map(|token| vec![token]))))
    }

    /// Any of these; `None`: nothing is asked for.
    pub(crate) fn current(&self) -> Option<Vec<Token>> {
        self.0.read().clone()
    }

    /// Whether a token is asked for.
    pub(crate) fn are_asked_for(&self) -> bool {
        self.0.read().is_some()
    }

    fn follow(&self, token: Option<Token>) {
        let mut tokens = self.0.write();
        let before = tokens.take().and_then(|tokens| tokens.into_iter().next());
        *tokens = token.map(|token| [Some(token), before].into_iter().flatten().collect());
    }
}

/// The keys of a running master.
pub(crate) struct Keyring {
    keys: MasterKeys,
    tokens: Tokens,
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
        let (tokens, ambient) = (Tokens::of(keys.token.clone()), ambient.clone());
        Ok(Self { keys, tokens, local, cluster, versions, ambient })
    }

    pub(crate) fn tokens(&self) -> Tokens {
        self.tokens.clone()
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

    /// Signs with other keys from now on. When it fails, everything is as it was.
    pub(crate) fn rotate(&mut self, next: Next) -> Result<(), KeysError> {
        let keys = self.keys.rotated(next, &self.ambient.chance)?;
        let local = local(&keys, &self.cluster, self.versions, &self.ambient)?;
        self.local.send_replace(Arc::new(local));
        self.tokens.follow(keys.token.clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tokens_are_taken_at_a_time() {
        let token = |text: &str| Some(Arc::new(Zeroizing::new(text.to_owned())));
        let shown = |tokens: &Tokens| -> Option<Vec<String>> {
            Some(tokens.current()?.iter().map(|token| token.to_string()).collect())
        };
        let tokens = Tokens::of(token("one"));
        tokens.follow(token("two"));
        assert_eq!(shown(&tokens).unwrap(), ["two", "one"]);
        tokens.follow(token("three"));
        assert_eq!(shown(&tokens).unwrap(), ["three", "two"]);
        tokens.follow(None);
        assert_eq!(shown(&tokens), None);
        assert!(!tokens.are_asked_for());
    }
}
