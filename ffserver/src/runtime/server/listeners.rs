//! The listening sockets of a node: inherited, or opened here for a node that was started by hand.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use ffnet::listen::{self, Inherited};
use ffproto::NodeName;
use ffproto::control::ToMaster;
use tokio::net::TcpListener;

use super::RunError;
use crate::runtime::control::Sockets;

/// The open ports of a node.
pub(super) struct Listeners {
    pub(super) net: Option<TcpListener>,
    pub(super) root: Option<TcpListener>,
    pub(super) web: Option<TcpListener>,
}

impl Listeners {
    /// Takes the sockets that were inherited, and opens those that the config wants besides.
    pub(super) fn open(config: &ffconfig::Node, inherited: Inherited) -> Result<Self, RunError> {
        let Inherited { net, root, web } = inherited;
        let open = |key, inherited, at| listener(&config.name, key, inherited, at);
        Ok(Self {
            net: open("netport", net, config.netport)?,
            root: open("rootport", root, config.rootport)?,
            web: open("webport", web, config.webport)?,
        })
    }

    /// Where the node listens, for its master.
    pub(super) fn addresses(&self) -> ToMaster {
        let address = |listener: &Option<TcpListener>| listener.as_ref().and_then(|l| l.local_addr().ok());
        ToMaster::Ready { root: address(&self.root), net: address(&self.net), web: address(&self.web) }
    }

    /// Copies of the sockets, for a new master.
    pub(super) fn copies(&self) -> Sockets {
        let copy = |listener: &Option<TcpListener>| listener.as_ref()?.as_fd().try_clone_to_owned().ok();
        Sockets { net: copy(&self.net), root: copy(&self.root), web: copy(&self.web) }
    }
}

fn listener(
    node: &NodeName,
    key: &'static str,
    inherited: Option<std::net::TcpListener>,
    at: Option<SocketAddr>,
) -> Result<Option<TcpListener>, RunError> {
    let listener = match (inherited, at) {
        (Some(listener), _) => listener,
        (None, None) => return Ok(None),
        (None, Some(at)) => {
            listen::open(at).map_err(|source| RunError::Listen { node: node.clone(), key, source })?
        }
    };
    TcpListener::from_std(listener).map(Some).map_err(|source| RunError::Socket {
        node: node.clone(),
        key,
        source,
    })
}
