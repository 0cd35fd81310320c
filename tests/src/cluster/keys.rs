//! The keys of a cluster, as somebody has them who has its master's secret.

use std::sync::Arc;

use anyhow::{Context, Result};
use ffkeys::{ClusterKeys, ClusterSecret};
use ffnet::handshake::Local;
use ffnet::run_folder;
use ffproto::credential::Claims;
use ffproto::{Incarnation, NodeName, Versions};

use super::Cluster;

impl Cluster {
    /// The keys of the cluster's master, as it keeps them without a token.
    ///
    /// # Errors
    /// There is no secret.
    pub fn master_keys(&self) -> Result<ClusterKeys> {
        Ok(ClusterKeys::new(&ClusterSecret::of_hex(&self.secret()?)?, 0, None)?)
    }

    /// The secret of the cluster's master, as it keeps it without a token.
    ///
    /// # Errors
    /// There is none.
    pub fn secret(&self) -> Result<String> {
        let uid = nix::unistd::geteuid().as_raw();
        let folder = run_folder::of_config(&self.run_dir(), &self.folder().join("config.json"), uid);
        let text = std::fs::read_to_string(folder.join("secret"))?;
        Ok(text.lines().next().context("no secret")?.to_owned())
    }

    /// This side of a handshake as the node `like` of the config has it, under another name, in this start.
    ///
    /// # Errors
    /// There is no secret, or no such node.
    pub fn local_of(&self, like: &str, name: &str, incarnation: Incarnation) -> Result<Local> {
        let config = self.folder().join("config.json");
        let config = ffconfig::parse(&self.fixture.text, &config, &|_| None)?.cluster;
        let node = config.nodes.iter().find(|node| node.key == like).context("no such node")?;
        let claims = Claims { name: NodeName::try_from(name)?, ..config.claims(node) };
        let ambient = ffserver::Ambient::system();
        let keys = self.master_keys()?.start(claims, incarnation, &ambient.chance)?;
        Ok(Local {
            keys: Arc::new(keys),
            versions: Versions::OURS,
            methods: Vec::new(),
            chance: ambient.chance,
            clock: ambient.clock,
            binding: Vec::new(),
        })
    }
}
