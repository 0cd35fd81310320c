//! What the tests of a hand-over share: the two processes of a node, a node that nobody runs, and messages in words.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ffnet::Link;
use ffnet::handshake::Peer;
use ffnet::transport::TcpTransport;
use ffproto::credential::PublicKey;
use ffproto::handover::ProcessIdentity;
use ffproto::{Incarnation, NodeName, Versions};
use tokio::sync::watch;

use super::HandoverContext;
use super::receiver_machine::Abilities;
use crate::gateway::acceptor::Clients;
use crate::runtime::server::bare;

pub(super) const MS: fn(u64) -> Duration = Duration::from_millis;

/// The process of a node that has that incarnation.
pub(super) fn who(incarnation: u64) -> ProcessIdentity {
    let name = NodeName::try_from("game").unwrap();
    ProcessIdentity {
        cluster: "cluster".into(),
        name,
        incarnation: Incarnation(incarnation),
        versions: Versions::OURS,
    }
}

/// Of an app that takes a frozen state, or not, with firefly's clients.
pub(super) fn abilities(thaws: bool, prove: Duration) -> Abilities {
    Abilities { thaws, protocols: vec!["firefly"], transport: "tcp", prove }
}

/// The name of a message, which is the first word of its Debug text.
pub(super) fn name(message: &dyn Debug) -> String {
    format!("{message:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()
}

/// A node that nobody runs, with a port for clients that is not open.
pub(super) fn context() -> HandoverContext {
    let config = r#"{ "master": { "rootport": 1, "webport": 2 },
                      "servers": { "net": { "netport": 3, "app": "net" } } }"#;
    let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
    let executor = bare(&cluster, "net").unwrap();
    let (node, hooks) = (executor.node.clone(), executor.hooks.clone());
    let clients = Some(Clients::new(executor, Arc::new(TcpTransport)));
    HandoverContext { node, hooks, ports: watch::Sender::new(true), clients, front: None }
}

/// A link to a child that nobody drives.
pub(super) fn child(context: &HandoverContext) -> Link {
    let peer = Peer {
        name: NodeName::try_from("game").unwrap(),
        kind: "game".into(),
        incarnation: Incarnation(1),
        pid: 1,
        program: String::new(),
        methods: vec!["method".into()],
        version: Versions::OURS.max,
        root: PublicKey([0; 32]),
    };
    let link = context.node.transit().new_link(peer);
    assert!(context.node.transit().add_child(link.clone()));
    link
}
