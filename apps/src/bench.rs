//! The apps that `bench` measures: nothing but the way of a message. Command 1 has no handler on the net
//! node and follows the route; command 2 goes through a handler on each node. Its handler on the net node
//! is `concurrent`: one at a time, a session would measure one round trip after the other.

use ffserver::prelude::*;

parents! { Gate = "gate" }

#[net_handle(2, concurrent)]
async fn relay_to_gate(gate: Parent<Gate>, Body(data): Body<Bytes>) -> Result<Bytes, CallError> {
    gate.call("relay", data).await
}

pub(crate) fn net() -> App {
    App::new("benchnet").handlers(handlers![relay_to_gate])
}

#[root_handle]
async fn relay(children: Children, Body(data): Body<Bytes>) -> Result<Bytes, CallError> {
    children.call("game", "echo", data).await
}

pub(crate) fn gate() -> App {
    App::new("benchgate").handlers(handlers![relay])
}

#[remote_handle("gate")]
async fn echo(Body(data): Body<Bytes>) -> Bytes {
    data
}

#[net_handle(1)]
async fn echo_to_client(Body(data): Body<Bytes>) -> Bytes {
    data
}

pub(crate) fn game() -> App {
    App::new("benchgame").handlers(handlers![echo, echo_to_client])
}
