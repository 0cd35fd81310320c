//! One session for each user, wherever in the cluster, whoever dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::client::{Client, ErrorFrame, parse_error};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::wait;
use tests::websocket::WebClient;

const LOGIN: u32 = 100;
const REFUSE_NEW: &str = "\"second_login\": \"refuse_new\", \"servers\"";

fn kicks_old() -> Result<Fixture> {
    Fixture::login("\"command\": 100")
}

fn refuses_new() -> Result<Fixture> {
    Ok(kicks_old()?.replace("\"servers\"", REFUSE_NEW))
}

async fn logged_in(cluster: &Cluster, net: &str, user: &str) -> Result<Client> {
    let mut client = Client::connect(cluster.at(net)).await?;
    assert_eq!(client.call(LOGIN, user.as_bytes()).await?, format!("welcome {user}"));
    Ok(client)
}

async fn user(client: &mut Client) -> Result<Value> {
    let seen: Value = serde_json::from_slice(&client.call(20, b"").await?)?;
    Ok(seen["user"].clone())
}

fn error(code: &str, message: &str, executed: &str) -> ErrorFrame {
    let (code, message, executed) = (code.to_owned(), message.to_owned(), executed.to_owned());
    ErrorFrame { command: LOGIN.into(), code, message, executed }
}

async fn is_kicked(client: &mut Client, user: &str) -> Result<()> {
    assert_eq!(
        client.receive_error().await?,
        error("kicked", &format!("`{user}` has another session"), "no")
    );
    client.until_closed().await
}

/// Both net nodes see each other.
async fn until_joined(cluster: &Cluster) -> Result<()> {
    cluster.until_linked("net", "gate").await?;
    cluster.until_linked("net2", "gate").await?;
    let mut web = WebClient::connect(cluster.at("net")).await?;
    let mut other = Client::connect(cluster.at("net2")).await?;
    web.call_json(&json!({"command": LOGIN, "body": "joined"})).await?;
    wait::until("the net nodes know each other", async || {
        let mut first = logged_in(cluster, "net", "probe").await.map_err(|e| format!("{e:#}"))?;
        other = Client::connect(cluster.at("net2")).await.map_err(|e| format!("{e:#}"))?;
        other.send(LOGIN, b"probe").await.map_err(|e| format!("{e:#}"))?;
        let (command, body) = other.receive().await.map_err(|e| format!("{e:#}"))?;
        if command == u32::MAX {
            return Ok(()); // Refused.
        }
        let one = tokio::time::timeout(Duration::from_millis(500), first.receive()).await;
        one.map_err(|_| format!("both are in: {body:?}"))?.map(drop).map_err(|e| format!("{e:#}"))
    })
    .await
}

#[tokio::test]
async fn a_second_login_ends_the_first_session_on_the_same_and_on_another_net_node() -> Result<()> {
    let cluster = Cluster::processes(kicks_old()?).await?;
    until_joined(&cluster).await?;
    for (first, second) in [("net", "net"), ("net", "net2"), ("net2", "net")] {
        let mut old = logged_in(&cluster, first, "ann").await?;
        let mut bystander = logged_in(&cluster, first, "bob").await?;
        old.call(2101, b"").await?;
        let mut new = logged_in(&cluster, second, "ann").await?;
        is_kicked(&mut old, "ann").await?;
        assert_eq!(user(&mut new).await?, "ann");
        assert_eq!(user(&mut bystander).await?, "bob");
        drop((new, bystander));
        cluster.until("net", "nobody is left but who waits", |node| node["sessions"] == 0).await?;
        cluster.until("net2", "nobody is left", |node| node["sessions"] == 0).await?;
    }
    let mut web = WebClient::connect(cluster.at("net")).await?;
    web.call_json(&json!({"command": LOGIN, "body": "web"})).await?;
    let _new = logged_in(&cluster, "net2", "web").await?;
    let told = web.receive_json().await?;
    assert_eq!(told["error"]["code"], "kicked", "{told}");
    assert_eq!(web.closed().await?, (1008, "kicked: `web` has another session".to_owned()));
    cluster.until("net2", "has counted", |node| node["counters"]["users_kicked"].as_u64() >= Some(1)).await?;
    cluster.until_logged("closed by the server: kicked: `ann` has another session").await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_second_login_is_refused_when_the_config_says_so_until_the_first_session_ends() -> Result<()> {
    let cluster = Cluster::processes(refuses_new()?).await?;
    until_joined(&cluster).await?;
    for (first, second) in [("net", "net"), ("net", "net2")] {
        let mut old = logged_in(&cluster, first, "ann").await?;
        let mut new = Client::connect(cluster.at(second)).await?;
        let refused = new.call_error(LOGIN, b"ann").await?;
        assert_eq!(refused, error("refused", "`ann` has another session", "unknown"));
        new.until_closed().await?;
        assert_eq!(user(&mut old).await?, "ann");
        drop(old);
        wait::until("the user is free", async || {
            logged_in(&cluster, second, "ann").await.map(drop).map_err(|e| format!("{e:#}"))
        })
        .await?;
        wait::until("and free again", async || {
            logged_in(&cluster, first, "ann").await.map(drop).map_err(|e| format!("{e:#}"))
        })
        .await?;
        cluster.until(first, "nobody is left", |node| node["sessions"] == 0).await?;
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_user_that_a_handler_binds_has_one_session_too() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let (mut old, mut new) = (cluster.client().await?, Client::connect(cluster.at("net2")).await?);
    old.call(2103, b"ann").await?;
    new.call(2103, b"ann").await?;
    let kicked = old.receive_error().await?;
    assert_eq!((kicked.code.as_str(), kicked.command), ("kicked", 0));
    old.until_closed().await?;
    // Who takes another name leaves the first one free.
    new.call(2103, b"bob").await?;
    let mut third = cluster.client().await?;
    third.call(2103, b"ann").await?;
    assert_eq!(user(&mut new).await?, "bob");
    cluster.stop().await?;

    let cluster = Cluster::processes(Fixture::hall()?.replace("\"servers\"", REFUSE_NEW)).await?;
    let (mut old, mut new) = (cluster.client().await?, Client::connect(cluster.at("net2")).await?);
    old.call(2103, b"ann").await?;
    old.call(2103, b"ann").await?;
    assert_eq!(new.call_error(2103, b"ann").await?.message, "the user has another session");
    assert_eq!(user(&mut new).await?, Value::Null);
    new.call(2103, b"bob").await?;
    cluster.stop().await
}

#[tokio::test]
async fn users_of_a_killed_net_node_are_free_and_those_of_others_are_not() -> Result<()> {
    let cluster = Cluster::processes(refuses_new()?).await?;
    until_joined(&cluster).await?;
    let mut stays = logged_in(&cluster, "net2", "bob").await?;
    let lost = logged_in(&cluster, "net", "ann").await?;
    let old = cluster.kill_hard("net").await?;
    let mut again = wait::until("the user is free", async || {
        logged_in(&cluster, "net2", "ann").await.map_err(|e| format!("{e:#}"))
    })
    .await?;
    cluster.until_back("net", old).await?;
    cluster.until_linked("net", "gate").await?;
    for taken in ["ann", "bob"] {
        wait::until("the new process knows what was there before it", async || {
            let mut client = cluster.client().await.map_err(|e| format!("{e:#}"))?;
            match client.call_error(LOGIN, taken.as_bytes()).await {
                Ok(error) if error.code == "refused" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
    }
    assert_eq!(user(&mut stays).await?, "bob");
    assert_eq!(user(&mut again).await?, "ann");
    drop(lost);
    cluster.stop().await
}

/// The gate stands still for so long that the net nodes do not reach each other, and both let the user in.
#[tokio::test]
async fn two_sessions_of_a_user_that_was_taken_on_both_sides_of_a_cut_are_one_when_it_heals() -> Result<()> {
    for (fixture, wins) in [(kicks_old()?, "net2"), (refuses_new()?, "net")] {
        let cluster = Cluster::processes(fixture).await?;
        until_joined(&cluster).await?;
        cluster.signal("gate", Signal::SIGSTOP).await?;
        cluster.until("net", "has lost its gate", |node| node["parents"][0]["up"] == false).await?;
        cluster.until("net2", "has lost its gate", |node| node["parents"][0]["up"] == false).await?;
        let mut first = logged_in(&cluster, "net", "ann").await?;
        tokio::time::sleep(Duration::from_millis(5)).await; // The clocks of the two are milliseconds.
        let mut second = logged_in(&cluster, "net2", "ann").await?;
        let mut bystander = logged_in(&cluster, "net2", "bob").await?;
        cluster.signal("gate", Signal::SIGCONT).await?;
        let (mut stays, mut leaves) = if wins == "net" { (first, second) } else { (second, first) };
        is_kicked(&mut leaves, "ann").await?;
        assert_eq!(user(&mut stays).await?, "ann");
        assert_eq!(user(&mut bystander).await?, "bob");
        (first, second) = (stays, bystander);
        drop((first, second));
        cluster.stop().await?;
    }
    Ok(())
}

/// How many of these connections are open, in the user's session.
async fn inside(clients: Vec<Client>, name: &str) -> Result<usize> {
    let mut open = 0;
    for mut client in clients {
        if client.send(20, b"").await.is_err() {
            continue;
        }
        loop {
            match client.receive().await {
                Ok((20, body)) => {
                    ensure!(serde_json::from_slice::<Value>(&body)?["user"] == name, "{body:?}");
                    open += 1;
                    break;
                }
                Ok((LOGIN, _)) => {}
                Ok((u32::MAX, body)) => {
                    let error = parse_error(&body)?;
                    ensure!(["kicked", "refused"].contains(&error.code.as_str()), "{error:?}");
                }
                Ok(other) => anyhow::bail!("{other:?}"),
                Err(_closed) => break,
            }
        }
    }
    Ok(open)
}

#[tokio::test]
async fn of_logins_of_a_user_at_the_same_time_one_is_in_at_the_end() -> Result<()> {
    for fixture in [kicks_old()?, refuses_new()?] {
        let cluster = Cluster::processes(fixture).await?;
        until_joined(&cluster).await?;
        for round in 0..20 {
            let name = format!("user{round}");
            let mut clients = Vec::new();
            for n in 0..6 {
                clients.push(Client::connect(cluster.at(["net", "net2"][n % 2])).await?);
            }
            for client in &mut clients {
                client.send(LOGIN, name.as_bytes()).await?;
            }
            // Each has its verdict.
            let mut rest = Vec::new();
            for mut client in clients {
                if client.receive().await?.0 == LOGIN {
                    rest.push(client);
                }
            }
            let one = wait::until("one is left", async || {
                let sessions =
                    async |net| cluster.node(net).await.map(|node| node["sessions"].as_u64().unwrap_or(99));
                let both = (sessions("net").await, sessions("net2").await);
                match both {
                    (Ok(a), Ok(b)) if a + b == 1 => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
            one.context(name.clone())?;
            ensure!(inside(rest, &name).await? == 1, "round {round}");
            cluster.until("net", "is empty", |node| node["sessions"] == 0).await?;
            cluster.until("net2", "is empty", |node| node["sessions"] == 0).await?;
        }
        cluster.stop().await?;
    }
    Ok(())
}

/// Users log in again and again on both net nodes while every process is replaced.
#[tokio::test]
async fn after_a_reload_under_logins_each_user_has_one_session() -> Result<()> {
    const USERS: usize = 8;
    for fixture in [kicks_old()?, refuses_new()?] {
        let cluster = Cluster::processes(fixture).await?;
        until_joined(&cluster).await?;
        // Idle ones, which travel to the new processes with their users.
        let mut idle = Vec::new();
        for n in 0..USERS {
            idle.push(logged_in(&cluster, "net", &format!("idle{n}")).await?);
        }
        let at = cluster.at("admin");
        let reload = tokio::spawn(async move { tests::http::request(at, "POST", "/reload", &[]).await });
        let mut clients: Vec<Vec<Client>> = (0..USERS).map(|_| Vec::new()).collect();
        let mut rounds = 0;
        while !reload.is_finished() {
            for (n, all) in clients.iter_mut().enumerate() {
                let mut client = Client::connect(cluster.at(["net", "net2"][(rounds + n) % 2])).await?;
                client.send(LOGIN, format!("user{n}").as_bytes()).await?;
                let answer = client.receive().await?;
                if answer.0 == LOGIN {
                    all.push(client);
                } else {
                    ensure!(parse_error(&answer.1)?.code == "refused" || rounds > 0, "{answer:?}");
                }
            }
            rounds += 1;
        }
        let answer = reload.await??;
        ensure!(answer.status < 300, "{answer:?}");
        until_joined(&cluster).await?;
        wait::until("each user has one session", async || {
            let mut sessions = 0;
            for net in ["net", "net2"] {
                let node = cluster.node(net).await.map_err(|e| format!("{e:#}"))?;
                sessions += node["sessions"].as_u64().unwrap_or_default() as usize;
            }
            if sessions == 2 * USERS { Ok(()) } else { Err(sessions.to_string()) }
        })
        .await?;
        for (n, all) in clients.into_iter().enumerate() {
            ensure!(inside(all, &format!("user{n}")).await? == 1, "user{n} after {rounds} rounds");
        }
        for (n, client) in idle.iter_mut().enumerate() {
            assert_eq!(user(client).await?, format!("idle{n}"));
            let mut other = Client::connect(cluster.at("net2")).await?;
            other.send(LOGIN, format!("idle{n}").as_bytes()).await?;
            let refused = other.receive().await?.0 == u32::MAX;
            if !refused {
                is_kicked(client, &format!("idle{n}")).await?;
            }
        }
        cluster.stop().await?;
    }
    Ok(())
}
