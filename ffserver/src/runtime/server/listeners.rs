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
    /// What the transport of clients listens on.
    pub(super) net: Option<std::net::TcpListener>,
    pub(super) root: Option<TcpListener>,
    pub(super) web: Option<TcpListener>,
}

impl Listeners {
    /// Takes the sockets that were inherited, and opens those that the config wants besides.
    pub(super) fn open(config: &ffconfig::Node, inherited: Inherited) -> Result<Self, RunError> {
        let Inherited { net, root, web } = inherited;
        let open = |key, inherited, at| listener(&config.name, key, inherited, at);
        let tokios = |key, listener: Option<std::net::TcpListener>| {
            let listener = listener.map(TcpListener::from_std).transpose();
            listener.map_err(|source| RunError::Socket { node: config.name.clone(), key, source })
        };
        Ok(Self {
            net: open("netport", net, config.netport)?,
            root: tokios("rootport", open("rootport", root, config.rootport)?)?,
            web: tokios("webport", open("webport", web, config.webport)?)?,
        })
    }

    /// Where the node listens, for its master.
    pub(super) fn addresses(&self) -> ToMaster {
        let address = |listener: &Option<TcpListener>| listener.as_ref().and_then(|l| l.local_addr().ok());
        let net = self.net.as_ref().and_then(|listener| listener.local_addr().ok());
        ToMaster::Ready { root: address(&self.root), net, web: address(&self.web) }
    }

    /// Copies of the sockets, for a new master.
    pub(super) fn copies(&self) -> Sockets {
        let copy = |listener: &dyn AsFd| listener.as_fd().try_clone_to_owned().ok();
        let tokios = |listener: &Option<TcpListener>| copy(listener.as_ref()?);
        let net = self.net.as_ref().and_then(|listener| copy(listener));
        Sockets { net, root: tokios(&self.root), web: tokios(&self.web) }
    }
}

fn listener(
    node: &NodeName,
    key: &'static str,
    inherited: Option<std::net::TcpListener>,
    at: Option<SocketAddr>,
) -> Result<Option<std::net::TcpListener>, RunError> {
    match (inherited, at) {
        (Some(listener), _) => Ok(Some(listener)),
        (None, None) => Ok(None),
        (None, Some(at)) => {
            let opened = listen::open(at);
            opened.map(Some).map_err(|source| RunError::Listen { node: node.clone(), key, source })
        }
    }
}
