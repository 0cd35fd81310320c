//! Logging in first: who decides, what is not accepted before, and what survives.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::client::{Client, ErrorFrame};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::websocket::WebClient;
use tests::{bins, wait};

/// The commands of logins that the net node, its gate and a hall decide over.
const DECIDED_BY: [(u32, &str); 3] = [(100, "net"), (101, "gate"), (2110, "hall.")];

async fn seen(client: &mut Client) -> Result<Value> {
    Ok(serde_json::from_slice(&client.call(20, b"").await?)?)
}

fn error(command: u32, code: &str, message: &str, executed: &str) -> ErrorFrame {
    let (code, message, executed) = (code.to_owned(), message.to_owned(), executed.to_owned());
    ErrorFrame { command: command.into(), code, message, executed }
}

fn early(command: u32, login: u32) -> ErrorFrame {
    let message = format!("the login, command {login}, comes first and alone");
    error(command, "not_logged_in", &message, "no")
}

fn events(cluster: &Cluster, node: &str, event: &str, session: &str) -> usize {
    cluster.log().matches(&format!("event: {node} {event} {session}\n")).count()
}

#[tokio::test]
async fn a_handler_of_the_net_node_its_gate_or_a_routed_node_lets_clients_in() -> Result<()> {
    for (command, by) in DECIDED_BY {
        let cluster = Cluster::processes(Fixture::login(&format!("\"command\": {command}"))?).await?;
        let mut client = cluster.client().await?;
        assert_eq!(client.call(command, b"ann").await?, "welcome ann");
        let seen = seen(&mut client).await?;
        let decided_by = seen["attributes"]["by"].as_str().unwrap_or_default();
        assert!(seen["user"] == "ann" && decided_by.starts_with(by), "{seen}");
        let again = client.call_error(command, b"bob").await?;
        assert_eq!(again, error(command, "bad_request", "the client has logged in already", "no"));
        client.call(2101, b"").await?;

        let mut web = WebClient::connect(cluster.at("net2")).await?;
        let answer = web.call_json(&json!({"command": command, "body": "web"})).await?;
        assert_eq!(answer, json!({"command": command, "body": "welcome web"}));
        web.call_json(&json!({"command": 2101, "body": ""})).await?;
        cluster.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_message_before_the_verdict_closes_the_connection_with_a_typed_reason() -> Result<()> {
    for (login, _) in DECIDED_BY {
        let cluster = Cluster::processes(Fixture::login(&format!("\"command\": {login}"))?).await?;
        for other in [20, 2101, 9999] {
            let mut client = cluster.client().await?;
            assert_eq!(client.call_error(other, b"").await?, early(other, login));
            client.until_closed().await?;
        }
        // While the login is decided over nothing else is accepted either, the login again included.
        for other in [20, login] {
            let mut client = cluster.client().await?;
            client.send(login, b"slow 3000 ann").await?;
            assert_eq!(client.call_error(other, b"bob").await?, early(other, login));
            client.until_closed().await?;
        }
        let mut web = WebClient::connect(cluster.at("net")).await?;
        let answer = web.call_json(&json!({"command": 20, "body": ""})).await?;
        assert_eq!((&answer["command"], &answer["error"]["code"]), (&json!(20), &json!("not_logged_in")));
        let closed = web.closed().await?;
        assert_eq!(
            closed,
            (1008, format!("not_logged_in: the login, command {login}, comes first and alone"))
        );
        cluster.until("net", "has counted them", |node| node["counters"]["logins_early"] == 6).await?;
        cluster.until_logged("closed by the server: not_logged_in: the login").await?;
        cluster.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_client_is_told_why_and_disconnected() -> Result<()> {
    for (login, _) in DECIDED_BY {
        let cluster = Cluster::processes(Fixture::login(&format!("\"command\": {login}"))?).await?;
        let mut client = cluster.client().await?;
        let refused = client.call_error(login, b"refuse wrong password").await?;
        assert_eq!(refused, error(login, "refused", "wrong password", "unknown"));
        client.until_closed().await?;
        let mut web = WebClient::connect(cluster.at("net")).await?;
        let answer = web.call_json(&json!({"command": login, "body": "refuse banned"})).await?;
        assert_eq!(answer["error"]["message"], "banned", "{answer}");
        assert_eq!(web.closed().await?, (1008, "refused: banned".to_owned()));
        cluster.until("net", "has counted both", |node| node["counters"]["logins_refused"] == 2).await?;
        cluster.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_login_that_nobody_could_decide_over_may_be_tried_again() -> Result<()> {
    let cluster = Cluster::processes(Fixture::login("\"command\": 2110")?).await?;
    let mut client = cluster.client().await?;
    assert_eq!(client.call_error(2110, b"fail").await?.code, "handler");
    let mut olds = Vec::new();
    client.send(2110, b"slow 3000 ann").await?;
    cluster.until_logged("call command 2110").await?;
    for hall in ["hall.1", "hall.2"] {
        olds.push((hall, cluster.kill_hard(hall).await?));
    }
    let lost = client.receive_error().await?;
    assert!(["link_lost", "no_node"].contains(&lost.code.as_str()), "{lost:?}");
    for (hall, old) in olds {
        cluster.until_back(hall, old).await?;
    }
    wait::until("a hall lets it in", async || {
        let answer = client.call(2110, b"ann").await;
        answer.map_err(|e| format!("{e:#}"))
    })
    .await?;
    assert_eq!(seen(&mut client).await?["user"], "ann");
    cluster.stop().await
}

#[tokio::test]
async fn a_handler_that_answers_no_verdict_lets_nobody_in() -> Result<()> {
    let cluster = Cluster::processes(Fixture::login("\"command\": 2101")?).await?;
    let mut client = cluster.client().await?;
    let failed = client.call_error(2101, b"").await?;
    assert_eq!(failed, error(2101, "handler", "the login was not decided over", "unknown"));
    cluster.until_logged("the handler of login.command answers no Verdict").await?;
    assert_eq!(client.call_error(20, b"").await?, early(20, 2101));
    // The same for a user without a name, and for what is too much to be noted.
    cluster.stop().await?;
    let cluster = Cluster::processes(Fixture::login("\"command\": 100")?).await?;
    let mut client = cluster.client().await?;
    assert_eq!(client.call_error(100, b"").await?.code, "handler");
    cluster.until_logged("accepts a user without a name").await?;
    assert_eq!(client.call_error(100, &[b'x'; 1024]).await?.code, "handler");
    cluster.until_logged("are above limits.session_state_bytes_max").await?;
    assert_eq!(client.call(100, b"ann").await?, "welcome ann");
    cluster.stop().await
}

#[tokio::test]
async fn a_client_that_has_not_logged_in_in_time_is_disconnected() -> Result<()> {
    let keys = "\"command\": 2110, \"timeout_s\": 1";
    let cluster = Cluster::processes(Fixture::login(keys)?).await?;
    let late = error(2110, "timeout", "not logged in within login.timeout_s", "unknown");
    let (mut silent, mut slow, mut fails) =
        (cluster.client().await?, cluster.client().await?, cluster.client().await?);
    let mut stays = cluster.client().await?;
    stays.call(2110, b"ann").await?;
    assert_eq!(fails.call_error(2110, b"fail").await?.code, "handler");
    slow.send(2110, b"slow 4000 ann").await?;
    for client in [&mut silent, &mut slow, &mut fails] {
        assert_eq!(client.receive_error().await?, late);
        client.until_closed().await?;
    }
    cluster.until("net", "has counted them", |node| node["counters"]["logins_late"] == 3).await?;
    assert_eq!(seen(&mut stays).await?["user"], "ann");
    cluster.stop().await
}

#[tokio::test]
async fn every_node_that_a_session_touches_is_told_once_of_its_user() -> Result<()> {
    let cluster = Cluster::processes(Fixture::login("\"command\": 2110")?).await?;
    let mut client = cluster.client().await?;
    client.call(2110, b"ann").await?;
    let session = seen(&mut client).await?["session"].as_str().context("no id")?.to_owned();
    let told = async |nodes: &[&str]| {
        for node in nodes {
            cluster.until_logged(&format!("event: {node} verified {session}\n")).await?;
        }
        anyhow::Ok(())
    };
    // Before the login was answered on the net node; a moment later on the hall that has decided.
    told(&["net"]).await?;
    client.call(22, b"").await?;
    told(&["gate"]).await?;
    let mut halls = std::collections::BTreeSet::new();
    while halls.len() < 2 {
        let hall: Value = serde_json::from_slice(&client.call(2000, b"").await?)?;
        halls.insert(hall["node"].as_str().context("no node")?.to_owned());
    }
    told(&["hall.1", "hall.2"]).await?;
    client.call(2103, b"bob").await?;
    assert_eq!(seen(&mut client).await?["user"], "bob", "another name is no second event");
    drop(client);
    for node in ["net", "gate", "hall.1", "hall.2"] {
        cluster.until_logged(&format!("event: {node} closed {session}\n")).await?;
        assert_eq!(events(&cluster, node, "verified", &session), 1, "{node}");
        let log = cluster.log();
        let place = |event: &str| log.find(&format!("event: {node} {event} {session}\n"));
        assert!(place("opened") < place("verified") && place("verified") < place("closed"), "{node}");
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_user_that_a_handler_gives_is_told_to_every_node_that_was_touched_before() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    client.call(22, b"").await?;
    let session = seen(&mut client).await?["session"].as_str().context("no id")?.to_owned();
    client.call(2103, b"ann").await?;
    let hall: Value = serde_json::from_slice(&client.call(2101, b"").await?)?;
    let hall = hall["node"].as_str().context("no node")?;
    for node in ["net", "gate", hall] {
        cluster.until_logged(&format!("event: {node} verified {session}\n")).await?;
    }
    client.call(2103, b"bob").await?;
    for node in ["net", "gate", hall] {
        assert_eq!(events(&cluster, node, "verified", &session), 1, "{node}");
    }
    cluster.stop().await
}

#[test]
fn a_login_that_nobody_decides_over_is_a_fault_at_the_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fixture = Fixture::login("\"command\": 7")?;
    std::fs::write(folder.path().join("config.json"), &fixture.text)?;
    let (text, code) = bins::check("net", folder.path())?;
    ensure!(code != Some(0), "{text}");
    let fault = "nobody decides over logins: command 7 (login.command) has neither a handler nor a route";
    ensure!(text.contains(fault), "{text}");
    Ok(())
}

/// Clients at every stage of a login while every process is replaced: who is being decided over gets its
/// verdict or an error and tries again, who is expected may log in, and who is in stays in.
#[tokio::test]
async fn a_reload_in_the_middle_of_logins_loses_none() -> Result<()> {
    for (login, _) in DECIDED_BY {
        let keys = format!("\"command\": {login}, \"timeout_s\": 30");
        let cluster = Cluster::processes(Fixture::login(&keys)?).await?;
        let (mut inside, mut before) = (cluster.client().await?, cluster.client().await?);
        inside.call(login, b"inside").await?;
        let session = seen(&mut inside).await?["session"].as_str().context("no id")?.to_owned();
        let mut half = cluster.client().await?;
        let frame = half.frame(login, b"half");
        half.send_bytes(&frame[..9]).await?;
        let mut asked = Vec::new();
        for n in 0..10 {
            let mut client = cluster.client().await?;
            client.send(login, format!("slow {} asked{n}", n * 200).as_bytes()).await?;
            asked.push(client);
        }
        let mut web = WebClient::connect(cluster.at("net2")).await?;
        web.send_json(&json!({"command": login, "body": "slow 1500 web"})).await?;
        let reloaded = cluster.admin("POST", "/reload").await?;
        ensure!(reloaded.status < 300, "{reloaded:?}");
        for (n, client) in asked.iter_mut().enumerate() {
            let answer = client.receive().await?;
            if answer.0 == u32::MAX {
                assert_eq!(
                    client.call(login, format!("asked{n}").as_bytes()).await?,
                    format!("welcome asked{n}")
                );
            } else {
                assert_eq!(answer, (login, format!("welcome asked{n}").into()));
            }
            assert_eq!(seen(client).await?["user"], format!("asked{n}"));
        }
        let mut answer = web.receive_json().await?;
        if answer.get("error").is_some() {
            answer = web.call_json(&json!({"command": login, "body": "web"})).await?;
        }
        assert_eq!(answer["body"], "welcome web");
        half.send_bytes(&frame[9..]).await?;
        assert_eq!(half.receive().await?, (login, "welcome half".into()));
        assert_eq!(before.call(login, b"before").await?, "welcome before");
        assert_eq!(seen(&mut inside).await?["user"], "inside");
        for event in ["opened", "verified"] {
            cluster.until_logged(&format!("event: net {event} {session}\n")).await?;
            assert_eq!(events(&cluster, "net", event, &session), 1, "{event}");
        }
        // And one that must log in still must.
        assert_eq!(cluster.client().await?.call_error(20, b"").await?, early(20, login));
        cluster.stop().await?;
    }
    Ok(())
}
