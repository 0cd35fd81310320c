//! The presence of a node in discovery: what others are told of it while it runs, and how it leaves them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use fftelemetry::tagged;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::assembly::Foundation;
use crate::cluster::found::{LinkAddress, Load, OwnNode, Snapshot};
use crate::handover::HandoverContext;
use crate::identity::Identity;
use crate::node::Node;
use crate::runtime::discovery::backend::Backend;

/// The presence of one node, which ends with this value.
pub(super) struct Presence {
    own: watch::Sender<OwnNode>,
    task: JoinHandle<()>,
    /// Whether the node leaves before it stops.
    leaves_first: bool,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Presence {
    /// Runs discovery by a backend, and takes the number that it gives.
    pub(super) fn begin(foundation: &Foundation, backend: Backend, leaves_first: bool) -> Self {
        let own = watch::Sender::new(own_node(foundation.transit.identity()));
        let (foundation, told) = (foundation.clone(), own.subscribe());
        let task = tokio::spawn(tagged(async move {
            let shown = foundation.transit.membership().found();
            let chance = foundation.transit.identity().chance().stream("discovery");
            tokio::join!(backend.run(told, shown, &chance), foundation.take_number(shown.subscribe()));
        }));
        Self { own, task, leaves_first }
    }

    /// Tells where children may link to the node.
    pub(super) fn advertise(&self, address: Option<LinkAddress>) {
        self.own.send_if_modified(|own| std::mem::replace(&mut own.address, address) != address);
    }

    /// Tells the node's load once a second, for as long as it is polled.
    pub(super) fn tell_load(&self, node: Node) -> impl Future<Output = ()> + Send + 'static {
        let own = self.own.clone();
        async move {
            let mut seconds = tokio::time::interval(Duration::from_secs(1));
            loop {
                seconds.tick().await;
                let load = node.own_load();
                own.send_if_modified(|own| std::mem::replace(&mut own.load, load) != load);
            }
        }
    }

    /// Leaves discovery, and waits until nothing is under way at the node any more, at most until `deadline`: then its
    /// neighbours have nothing to lose by its stop.
    pub(super) async fn leave(&self, context: &HandoverContext, deadline: Instant) {
        if !self.leaves_first {
            return;
        }
        self.own.send_modify(|own| own.leaving = true);
        if timeout_at(deadline, context.at_rest()).await.is_err() {
            warn!("{} stops although something of its neighbours is under way here", context.node.name());
        }
    }
}

fn own_node(identity: &Identity) -> OwnNode {
    OwnNode {
        name: identity.name().clone(),
        kind: identity.kind().to_owned(),
        incarnation: identity.incarnation(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since_ms: identity.now_ms(),
        address: None,
        load: Load::default(),
        leaving: false,
    }
}

/// Ends the links of a node that discovery has shown and shows no more, when nothing is left on them. Returns then, or when
/// the node is shown again. Cancel-safe.
pub(super) async fn while_taken_away(context: &HandoverContext) {
    let (transit, name) = (context.node.transit(), context.node.name());
    let mut shown = transit.membership().found().subscribe();
    let is_there = |shown: &Snapshot| shown.nodes.contains_key(name);
    // The sender is the node's own.
    let _ = shown.wait_for(is_there).await;
    let _ = shown.wait_for(|shown| !is_there(shown)).await;
    info!("{name} is taken away by discovery: its links end when nothing is left on them");
    tokio::select! {
        _ = shown.wait_for(is_there) => {}
        () = context.at_rest() => transit.close_links("discovery shows this node no more"),
    }
}

/// The address under which others reach a listener: one on every address is reached at the node's `host`, when that is an
/// address, else on this host.
pub(super) fn advertised(listening: SocketAddr, host: Option<&str>) -> SocketAddr {
    let local = match listening.ip() {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let ip = match listening.ip() {
        ip if ip.is_unspecified() => host.and_then(|host| host.parse().ok()).unwrap_or(local),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_at_the_nodes_host_or_here() {
        let at = |listening: &str, host| advertised(listening.parse().unwrap(), host).to_string();
        assert_eq!(at("10.0.0.9:7", Some("10.0.0.1")), "10.0.0.9:7");
        assert_eq!(at("0.0.0.0:7", Some("10.0.0.1")), "10.0.0.1:7");
        assert_eq!(at("0.0.0.0:7", Some("a-name")), "127.0.0.1:7");
        assert_eq!(at("[::]:7", None), "[::1]:7");
    }
}
