//! What operators ask of all nodes, and tell them: who is connected, one session's story, close, kick, notice, and the commands
//! of the app; with a node that hangs.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::http::{self, Response};
use tests::wait;
use tokio::time::{Instant, timeout};

/// A client of a net node who has become a user there.
async fn user(cluster: &Cluster, net: &str, name: &str) -> Result<Client> {
    let mut client = Client::connect(cluster.at(net)).await?;
    assert_eq!(client.call(100, name.as_bytes()).await?, format!("welcome {name}"));
    Ok(client)
}

/// Two net nodes on which a login is the first message.
async fn two_nets() -> Result<Cluster> {
    let cluster = Cluster::processes(Fixture::login("\"command\": 100")?).await?;
    for child in ["net", "net2", "hall.1", "hall.2"] {
        cluster.until_linked(child, "gate").await?;
    }
    Ok(cluster)
}

async fn get(cluster: &Cluster, path: &str) -> Result<Value> {
    let response = cluster.admin("GET", path).await?;
    ensure!(response.status == 200, "{path}: {response:?}");
    response.json()
}

async fn post(cluster: &Cluster, path: &str, body: &str) -> Result<Response> {
    http::request_with(cluster.at("admin"), "POST", path, &[], body.as_bytes()).await
}

fn sessions(page: &Value) -> Vec<Value> {
    page["sessions"].as_array().cloned().unwrap_or_default()
}

/// The users on a page, by their names.
fn users(page: &Value) -> Vec<String> {
    let mut users: Vec<_> =
        sessions(page).iter().map(|one| one["user"].as_str().unwrap_or("?").to_owned()).collect();
    users.sort();
    users
}

/// The nodes of an answer that have not answered, with why.
fn silent(answer: &Value) -> Vec<(String, String)> {
    let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    nodes
        .iter()
        .filter(|node| node["ok"] == false)
        .map(|node| (text(&node["node"]), text(&node["error"])))
        .collect()
}

async fn until_users(cluster: &Cluster, wanted: &[&str]) -> Result<()> {
    wait::until("the list has these users", async || {
        let page = get(cluster, "/sessions").await.map_err(|e| format!("{e:#}"))?;
        if users(&page) == wanted { Ok(()) } else { Err(page.to_string()) }
    })
    .await
}

#[tokio::test]
async fn who_is_connected_is_listed_from_every_node_and_found_by_each_filter() -> Result<()> {
    let cluster = two_nets().await?;
    let mut ann = user(&cluster, "net", "ann").await?;
    let mut bob = user(&cluster, "net2", "bob").await?;
    let eve = user(&cluster, "net", "eve").await?;
    ann.call(2101, b"").await?;
    bob.call(20, b"").await?;
    bob.call(20, b"").await?;
    let page = get(&cluster, "/sessions").await?;
    assert_eq!((users(&page), &page["next"]), (vec!["ann".into(), "bob".into(), "eve".into()], &Value::Null));
    let named: Vec<_> =
        page["nodes"].as_array().context("no nodes")?.iter().map(|n| n["node"].clone()).collect();
    assert_eq!(named, ["gate", "net", "net2", "hall.1", "hall.2"], "{page}");
    assert_eq!(silent(&page), []);
    let all = sessions(&page);
    let of = |user: &str| all.iter().find(|one| one["user"] == user).cloned().context("not listed");
    let (first, second) = (of("ann")?, of("bob")?);
    assert_eq!((&first["node"], &second["node"]), (&json!("net"), &json!("net2")));
    assert_eq!((&first["requests"], &first["last"]["command"]), (&json!(2), &json!(2101)));
    assert_eq!((&second["requests"], &second["last"]["command"]), (&json!(3), &json!(20)));
    assert_eq!((&first["protocol"], &first["running"]), (&json!("firefly"), &json!(0)));
    let address = first["address"].as_str().context("no address")?;
    for (filter, expected) in [
        ("user=ann", vec!["ann"]),
        ("user=nobody", vec![]),
        ("node=net", vec!["ann", "eve"]),
        ("node=hall.1", vec![]),
        ("command=20", vec!["bob"]),
        ("command=100", vec!["eve"]),
        ("address=127.0.0.1", vec!["ann", "bob", "eve"]),
        ("address=10.0.0.0/8", vec![]),
        (&format!("address={address}"), vec!["ann"]),
        ("older_s=0&user=bob", vec!["bob"]),
        ("older_s=86400", vec![]),
        ("user=bob&node=net", vec![]),
    ] {
        assert_eq!(users(&get(&cluster, &format!("/sessions?{filter}")).await?), expected, "{filter}");
    }
    for (wrong, status) in
        [("usr=ann", 400), ("limit=0", 400), ("command=x", 400), ("after=z", 400), ("node=nobody", 404)]
    {
        assert_eq!(cluster.admin("GET", &format!("/sessions?{wrong}")).await?.status, status, "{wrong}");
    }
    let page = http::request(cluster.at("admin"), "GET", "/sessions", &[("Accept", "text/html")]).await?;
    assert!(page.body.contains("<form method=post action=\"/users/ann/kick\">"), "{page:?}");
    drop(eve);
    until_users(&cluster, &["ann", "bob"]).await?;
    cluster.stop().await
}

#[tokio::test]
async fn pages_have_nobody_twice_and_leave_nobody_out_while_others_come_and_go() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut stay = Vec::new();
    for n in 0..20 {
        let mut client = Client::connect(cluster.at(if n % 3 == 0 { "net2" } else { "net" })).await?;
        client.call(if n % 3 == 0 { 20 } else { 22 }, b"").await?;
        stay.push(client);
    }
    let ids = |page: &Value| -> Vec<String> {
        sessions(page).iter().filter_map(|one| one["session"].as_str().map(str::to_owned)).collect()
    };
    let here: BTreeSet<String> = ids(&get(&cluster, "/sessions").await?).into_iter().collect();
    assert_eq!(here.len(), 20);
    // Others come and go between each two pages, and on both net nodes.
    let (mut seen, mut after, mut pages, mut guests) = (Vec::new(), String::new(), 0, Vec::new());
    loop {
        let page = get(&cluster, &format!("/sessions?limit=3{after}")).await?;
        let found = ids(&page);
        ensure!(found.len() <= 3 && !found.is_empty(), "{page}");
        seen.extend(found);
        pages += 1;
        guests.truncate(2);
        for net in ["net", "net2"] {
            let mut guest = Client::connect(cluster.at(net)).await?;
            guest.call(20, b"").await?;
            guests.push(guest);
        }
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
        ensure!(pages < 100, "it never ends: {seen:?}");
    }
    let distinct: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!(distinct.len(), seen.len(), "somebody is there twice: {seen:?}");
    assert!(here.is_subset(&distinct), "missing: {:?}", here.difference(&distinct));
    assert!(pages >= 7, "{pages} pages");
    cluster.stop().await
}

#[tokio::test]
async fn a_session_has_one_story_out_of_all_nodes() -> Result<()> {
    let cluster = two_nets().await?;
    let mut ann = user(&cluster, "net", "ann").await?;
    ann.call(2101, b"").await?;
    ann.call(2102, b"room red").await?;
    ann.call(2107, b"knights").await?;
    let page = get(&cluster, "/sessions?user=ann").await?;
    let id = page["sessions"][0]["session"].as_str().context("no id")?.to_owned();
    let story = get(&cluster, &format!("/sessions/{id}")).await?;
    assert_eq!((&story["session"]["user"], &story["session"]["node"]), (&json!("ann"), &json!("net")));
    assert_eq!((&story["attributes"]["room"], &story["groups"]), (&json!("red"), &json!(["knights"])));
    let requests: Vec<_> = story["requests"]
        .as_array()
        .context("no requests")?
        .iter()
        .map(|one| one["command"].clone())
        .collect();
    assert_eq!(requests, [2107, 2102, 2101, 100]);
    let places = story["at"].as_array().context("no places")?;
    let role = |role: &str| places.iter().filter(|place| place["role"] == role).collect::<Vec<_>>();
    let (net, replicas) = (role("net"), role("replica"));
    assert_eq!((net.len(), &net[0]["node"]), (1, &json!("net")));
    let hall = replicas.iter().find(|place| place["here"] == true).context("nobody handles it")?;
    assert_eq!((&hall["user"], &hall["neighbour"]), (&json!("ann"), &json!("gate")), "{story}");
    assert_eq!(net[0]["affinity"][0]["target"], "hall");
    assert_eq!(
        (&net[0]["affinity"][0]["node"], &net[0]["affinity"][0]["neighbour"]),
        (&hall["node"], &json!("gate"))
    );
    assert_eq!(net[0]["watchers"], json!([hall["node"]]));
    assert_eq!(cluster.admin("GET", "/sessions/1").await?.status, 404);
    assert_eq!(cluster.admin("GET", "/sessions/nobody").await?.status, 400);
    cluster.stop().await
}

#[tokio::test]
async fn a_user_is_kicked_from_whichever_net_node_and_nobody_else_is_while_a_node_hangs() -> Result<()> {
    let cluster = two_nets().await?;
    let mut ann = user(&cluster, "net", "ann").await?;
    let mut bob = user(&cluster, "net2", "bob").await?;
    let mut anna = user(&cluster, "net", "anna").await?;
    cluster.signal("hall.1", Signal::SIGSTOP).await?;
    let begun = Instant::now();
    let page = get(&cluster, "/sessions").await?;
    // A quarter of a second, on a machine that may be busy.
    ensure!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(users(&page), ["ann", "anna", "bob"]);
    assert_eq!(silent(&page), [("hall.1".into(), "no answer within 250 ms".into())]);
    for (net, reason) in [("net", "spam"), ("net2", "spam+again")] {
        let kicked = post(&cluster, &format!("/users/ann/kick?reason={reason}"), "").await?;
        assert_eq!(kicked.status, 200, "{kicked:?}");
        let kicked = kicked.json()?;
        assert_eq!((&kicked["ok"], &kicked["sessions"]), (&json!(true), &json!(1)), "{kicked}");
        let said = ann.receive_error().await?;
        assert_eq!((said.code.as_str(), said.message), ("kicked", reason.replace('+', " ")), "at {net}");
        ann.until_closed().await?;
        until_users(&cluster, &["anna", "bob"]).await?;
        ann = user(&cluster, "net2", "ann").await?;
    }
    let nobody = post(&cluster, "/users/nobody/kick", "").await?;
    assert_eq!((nobody.status, &nobody.json()?["sessions"]), (200, &json!(0)));
    for client in [&mut bob, &mut anna, &mut ann] {
        client.call(20, b"").await?;
    }
    cluster.signal("hall.1", Signal::SIGCONT).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_session_is_closed_and_notices_reach_one_client_or_all_that_are_meant() -> Result<()> {
    let cluster = two_nets().await?;
    let mut ann = user(&cluster, "net", "ann").await?;
    let mut bob = user(&cluster, "net2", "bob").await?;
    let page = get(&cluster, "/sessions?user=ann").await?;
    let id = page["sessions"][0]["session"].as_str().context("no id")?.to_owned();
    let sent = post(&cluster, &format!("/sessions/{id}/notice?command=9"), "for ann").await?;
    assert_eq!((sent.status, &sent.json()?["sessions"]), (200, &json!(1)));
    assert_eq!(ann.receive().await?, (9, "for ann".into()));
    for (filter, reached) in [("", 2), ("&user=bob", 1), ("&node=net", 1), ("&address=10.0.0.0/8", 0)] {
        let sent = post(&cluster, &format!("/sessions/notice?command=10{filter}"), filter).await?;
        assert_eq!((sent.status, &sent.json()?["sessions"]), (200, &json!(reached)), "{filter}");
    }
    assert_eq!(ann.receive().await?, (10, "".into()));
    assert_eq!(ann.receive().await?, (10, "&node=net".into()));
    assert_eq!(bob.receive().await?, (10, "".into()));
    assert_eq!(bob.receive().await?, (10, "&user=bob".into()));
    // What would mean everybody by a slip is refused.
    for wrong in ["command=10&usr=bob", "user=bob", "command=x"] {
        assert_eq!(post(&cluster, &format!("/sessions/notice?{wrong}"), "x").await?.status, 400, "{wrong}");
    }
    let long = "x".repeat(64 * 1024 + 1);
    assert_eq!(post(&cluster, "/sessions/notice?command=10", &long).await?.status, 413);
    assert_eq!(cluster.admin("GET", &format!("/sessions/{id}/close")).await?.status, 404, "by POST alone");
    assert_eq!(post(&cluster, &format!("/sessions/{id}/close"), "").await?.status, 200);
    let said = ann.receive_error().await?;
    assert_eq!((said.code.as_str(), said.message.as_str()), ("kicked", "closed by an operator"));
    ann.until_closed().await?;
    until_users(&cluster, &["bob"]).await?;
    assert_eq!(post(&cluster, &format!("/sessions/{id}/close"), "").await?.status, 404);
    bob.call(20, b"").await?;
    cluster.stop().await
}

async fn run(cluster: &Cluster, path: &str, arguments: &str) -> Result<(u16, Value)> {
    let answer = post(cluster, &format!("/run/{path}"), arguments).await?;
    Ok((answer.status, answer.json()?))
}

#[tokio::test]
async fn a_command_of_the_app_runs_on_a_node_on_a_kind_and_on_all() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let list = get(&cluster, "/run").await?;
    let greet = list["commands"].as_array().context("no commands")?.iter().find(|one| one["name"] == "greet");
    assert_eq!(
        greet,
        Some(&json!({
            "name": "greet", "help": "Greets a user, as often as is said.", "arguments": ["user", "times"],
            "nodes": ["gate", "hall.1", "hall.2"],
        }))
    );
    let greeted = |node: &str, text: &str| json!({ "node": node, "ok": true, "result": { "node": node, "by": "master", "text": text } });
    let arguments = r#"{"user": "ann", "times": 2}"#;
    let text = "hello ann, hello ann";
    let (status, ran) = run(&cluster, "greet?on=hall.2", arguments).await?;
    assert_eq!((status, &ran["results"]), (200, &json!([greeted("hall.2", text)])));
    let (_, ran) = run(&cluster, "greet?on=kind:hall", arguments).await?;
    assert_eq!(ran["results"], json!([greeted("hall.1", text), greeted("hall.2", text)]));
    let (status, ran) = run(&cluster, "greet", r#"{"user": "ann", "times": 1}"#).await?;
    assert_eq!((status, &ran["ok"], &ran["without"]), (200, &json!(true), &json!(["net", "net2"])));
    assert_eq!(ran["results"].as_array().map(Vec::len), Some(3), "{ran}");
    for (path, arguments, status, error) in [
        ("nothing", "", 404, "no app of those nodes has a command `nothing`; `/run` lists them"),
        ("greet?on=nobody", arguments, 404, "there is no such node or kind; `/status` lists them"),
        ("greet", "{", 400, "the arguments are not JSON: EOF while parsing an object at line 1 column 1"),
        ("greet?within_ms=0", arguments, 400, "within_ms: 1 to 60000"),
    ] {
        let (is, answer) = run(&cluster, path, arguments).await?;
        assert_eq!((is, answer["error"].as_str()), (status, Some(error)), "{path}");
    }
    for (path, arguments, error) in [
        (
            "greet?on=gate",
            "",
            "bad_request: the body is not the expected JSON: missing field `user` at line 1 column 2",
        ),
        ("greet?on=gate", r#"{"user": ""}"#, "handler: nobody to greet"),
        (
            "waits?on=gate&within_ms=50",
            r#"{"ms": 60000}"#,
            "timeout: the handler did not end within the deadline",
        ),
    ] {
        let (status, answer) = run(&cluster, path, arguments).await?;
        assert_eq!((status, answer["results"][0]["error"].as_str()), (500, Some(error)), "{path}: {answer}");
    }
    let (status, answer) = run(&cluster, "panic?on=gate", "").await?;
    let error = answer["results"][0]["error"].as_str().unwrap_or_default();
    let place = error.strip_prefix("panic: the handler panicked: tests/apps/src/hall/commands.rs:");
    assert!(status == 500 && place.is_some_and(|place| place.ends_with(": as asked")), "{answer}");
    // Replaced handlers are the ones that run; what is gone is not there any more.
    assert_eq!(run(&cluster, "turn?on=gate", "").await?.0, 200);
    let (_, ran) = run(&cluster, "greet?on=gate", "").await?;
    assert_eq!(ran["results"][0]["result"], json!({ "text": "otherwise" }));
    assert_eq!(run(&cluster, "waits?on=gate", r#"{"ms": 0}"#).await?.0, 404);
    assert_eq!(run(&cluster, "waits?on=hall.1", r#"{"ms": 0}"#).await?.1["results"][0]["result"], "waited");
    // A reload brings the handlers of the program.
    assert_eq!(cluster.admin("POST", "/nodes/gate/reload").await?.status, 200);
    assert_eq!(run(&cluster, "waits?on=gate", r#"{"ms": 0}"#).await?.1["results"][0]["result"], "waited");
    cluster.stop().await
}

#[tokio::test]
async fn of_three_nodes_with_a_command_one_hangs_and_is_named_with_two_results_within_the_deadline()
-> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    cluster.signal("hall.2", Signal::SIGSTOP).await?;
    let asked = run(&cluster, "greet?within_ms=500", r#"{"user": "ann", "times": 1}"#);
    let (status, ran) = timeout(Duration::from_secs(3), asked).await.context("it waits for who hangs")??;
    let results = ran["results"].as_array().cloned().unwrap_or_default();
    assert_eq!((status, results.len()), (500, 3), "{ran}");
    for (result, node) in results.iter().zip(["gate", "hall.1"]) {
        assert_eq!(
            (&result["node"], &result["result"]["text"]),
            (&json!(node), &json!("hello ann")),
            "{ran}"
        );
    }
    assert_eq!(results[2], json!({ "node": "hall.2", "ok": false, "error": "no answer within 750 ms" }));
    cluster.signal("hall.2", Signal::SIGCONT).await?;
    cluster.stop().await
}
