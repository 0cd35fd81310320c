//! The apps that `bench` measures: nothing but the way of a message. Command 1 has no handler on the net
//! node and follows the route; command 2 goes through a handler on each node. Its handler on the net node
//! is `concurrent`: one at a time, a session would measure one round trip after the other. Command 3 follows the
//! route, too, and its body goes to everybody who has joined by command 5, under command 4. Command 6 is a login.

use ffserver::prelude::*;

parents! { Gate = "gate" }

/// Every app that a config of the benchmark can name.
pub fn all() -> Vec<App> {
    vec![net(), gate(), game()]
}

const EVERYBODY: &str = "everybody";

#[net_handle(2, concurrent)]
async fn relay_to_gate(gate: Parent<Gate>, Body(data): Body<Bytes>) -> Result<Bytes, CallError> {
    gate.call("relay", data).await
}

/// On the net node, so that game need not know who its clients are: it would be told of each.
#[net_handle(5)]
async fn joins_everybody(session: Session, Body(data): Body<Bytes>) -> Result<Bytes, HandlerError> {
    session.join(EVERYBODY).await?;
    Ok(data)
}

fn net() -> App {
    App::new("benchnet").handlers(handlers![relay_to_gate, joins_everybody])
}

#[root_handle]
async fn relay(children: Children, Body(data): Body<Bytes>) -> Result<Bytes, CallError> {
    children.call("game", "echo", data).await
}

fn gate() -> App {
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

#[net_handle(3)]
async fn tells_everybody(node: Node, Body(data): Body<Bytes>) {
    node.broadcasts().to_group(EVERYBODY, CommandId(4), &data);
}

/// Everybody may come in, once: the body's first bytes are unique.
#[net_handle(6)]
async fn logs_in(Body(data): Body<Bytes>) -> Verdict {
    let user: String = data.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Verdict::accept(user).greeting(data)
}

fn game() -> App {
    App::new("benchgame").handlers(handlers![echo, echo_to_client, tells_everybody, logs_in])
}
