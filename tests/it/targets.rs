//! Calls of handlers on nodes that are no neighbours: by name, any or all of a kind.

use anyhow::{Context, Result};
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;

/// What a call from the net node came to.
async fn call(client: &mut Client, text: &str) -> Result<String> {
    let answer = client.call(3900, text.as_bytes()).await?;
    Ok(String::from_utf8(answer.to_vec())?)
}

/// The code and the message of a call that fails. Whether it ran is `unknown` to the client: net's handler did.
async fn fails(client: &mut Client, text: &str) -> Result<(String, String)> {
    let error = client.call_error(3900, text.as_bytes()).await?;
    Ok((error.code, error.message))
}

fn error(code: &str, message: &str) -> (String, String) {
    (code.to_owned(), message.to_owned())
}

#[tokio::test]
async fn any_node_calls_any_other_by_name_over_all_levels() -> Result<()> {
    let cluster = Cluster::in_process(Fixture::maze()?).await?;
    let mut client = cluster.client().await?;
    for name in ["gate1", "hub", "far2", "room.1", "room.2", "net2"] {
        let expected = format!("{name} was greeted by net: hello");
        assert_eq!(call(&mut client, &format!("name {name} greet hello")).await?, expected);
    }
    // From the other end of the tree, too.
    let answer = client.call(3050, b"name net2 greet hello").await?;
    assert!(answer.starts_with(b"net2 was greeted by room."), "{answer:?}");
    let answer = client.call(3050, b"name lobby greet hello").await?;
    assert!(answer.starts_with(b"lobby was greeted by room."), "{answer:?}");
    cluster.stop().await
}

#[tokio::test]
async fn one_or_all_nodes_of_a_kind_are_called_and_told() -> Result<()> {
    let cluster = Cluster::in_process(Fixture::maze()?).await?;
    let mut client = cluster.client().await?;
    let first = call(&mut client, "any room greet x").await?;
    assert!(first.starts_with("room."), "{first}");
    assert_eq!(call(&mut client, "any room greet x").await?, first, "the same for the same client");
    assert_eq!(
        call(&mut client, "all room greet x").await?,
        "room.1: room.1 was greeted by net: x; room.2: room.2 was greeted by net: x"
    );
    // Of its own kind there is one other.
    assert_eq!(call(&mut client, "all mazenet greet x").await?, "net2: net2 was greeted by net: x");
    assert_eq!(call(&mut client, "all nobody greet x").await?, "");
    // What is told runs there for the client: both rooms answer with a push.
    client.send(3900, b"tell-all room speak hi").await?;
    let mut got = [client.receive().await?, client.receive().await?, client.receive().await?];
    got.sort();
    let shown = got.map(|(command, body)| format!("{command} {}", String::from_utf8_lossy(&body)));
    assert_eq!(shown, ["9 room.1 says hi", "9 room.2 says hi", "3900 2"]);
    client.send(3900, b"tell room.2 speak ho").await?;
    let mut got = [client.receive().await?.1, client.receive().await?.1];
    got.sort();
    assert_eq!(got, ["room.2 says ho", "told"]);
    cluster.stop().await
}

#[tokio::test]
async fn every_way_in_which_a_far_call_fails_has_its_own_code() -> Result<()> {
    let fixture = Fixture::maze()?
        .replace("\"servers\"", "\"limits\": { \"call_timeout_ms\": 1000, \"park_ms\": 300 }, \"servers\"");
    let cluster = Cluster::processes(fixture).await?;
    let mut client = cluster.client().await?;
    // A node that has just started does not know yet who there is.
    let nobody = error("no_node", "`net` reaches no node `nobody`");
    tests::wait::until("an unknown name is refused at once", async || {
        match fails(&mut client, "name nobody greet x").await {
            Ok(got) if got == nobody => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let none = fails(&mut client, "any nobody greet x").await?;
    assert_eq!(none, error("no_node", "`net` reaches no other node of kind `nobody`"));
    let itself = fails(&mut client, "name net greet x").await?;
    assert_eq!(itself, error("no_node", "`net` would call itself"));
    let method = fails(&mut client, "name room.1 nothing x").await?;
    assert_eq!(method, error("no_method", "`room.1` has no method `nothing` for other nodes"));
    let handler = fails(&mut client, "name room.1 fail because").await?;
    assert_eq!(handler, error("handler", "because"));
    let late = fails(&mut client, "name room.1 wait 5000").await?;
    assert_eq!(late.0, "timeout", "{}", late.1);
    assert_eq!(call(&mut client, "all room fail x").await?, "room.1: handler; room.2: handler");

    // One that is stopped is gone, and its kind has the other one.
    cluster.admin("POST", "/nodes/room.1/stop").await?;
    cluster.until("room.1", "is stopped", |node| node["state"] == "stopped").await?;
    tests::wait::until("room.1 is out of reach", async || {
        match fails(&mut client, "name room.1 greet x").await {
            Ok((code, _)) if code == "no_node" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    assert_eq!(call(&mut client, "all room greet x").await?, "room.2: room.2 was greeted by net: x");
    cluster.stop().await
}

#[tokio::test]
async fn a_far_node_that_is_killed_is_waited_for_and_what_it_ran_is_lost_with_its_link() -> Result<()> {
    let patient = Fixture::maze()?.replace("\"servers\"", "\"limits\": { \"park_ms\": 5000 }, \"servers\"");
    let cluster = Cluster::processes(patient).await?;
    let (mut running, mut waiting) = (cluster.client().await?, cluster.client().await?);
    running.send(3900, b"name room.1 wait 4000").await?;
    // What has not begun there waits for the next start of the room, and is answered by it.
    cluster.until_logged("call method wait").await?;
    let old = cluster.kill_hard("room.1").await?;
    let lost = tests::client::parse_error(&running.receive().await?.1)?;
    assert_eq!((lost.code.as_str(), lost.executed.as_str()), ("link_lost", "unknown"));
    let answer = loop {
        waiting.send(3900, b"name room.1 greet again").await?;
        let (command, body) = waiting.receive().await?;
        if command == 3900 {
            break body;
        }
        let error = tests::client::parse_error(&body)?;
        assert_eq!(error.code, "link_lost", "{error:?}");
    };
    assert_eq!(answer, "room.1 was greeted by net: again");
    cluster.until_back("room.1", old).await.context("back")?;
    cluster.stop().await
}
