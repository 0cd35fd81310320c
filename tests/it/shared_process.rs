//! Several nodes in one process, started by hand: links in memory between them and over TCP to the others, and how they end.

#![allow(clippy::unwrap_used, reason = "that is how tests fail, in their helpers, too")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result};
use ffnet::listen::Inherited;
use ffserver::db::{Sql, Value};
use ffserver::discovery::{Discovery, DiscoveryError, Found, Incarnation, NodeNumber, OwnNode, Snapshot};
use ffserver::keys::{ClusterKeys, ClusterSecret, Startup};
use ffserver::prelude::*;
use ffserver::record::create;
use ffserver::{Ambient, FFServer, Stop, process};
use tests::bins;
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::terminal::Shown;
use tests::wait;
use tokio::process::Command;
use tokio::sync::watch;

/// The demo, whose master has `game1` and leaves the others to another host. Those run in one process by hand.
async fn by_hand(names: &[&str]) -> Result<(Cluster, Shown)> {
    let fixture = Fixture::new(
        r#"{
  "master": { "rootport": @master, "webport": @admin },
  "servers": {
    "gate":  { "host": "192.0.2.1", "rootport": @gate, "app": "gateserver" },
    "net":   { "host": "192.0.2.1", "netport": @net, "remoteport": [{ "rootname": "gate" }], "app": "netserver" },
    "game1": { "remoteport": [{ "rootname": "gate" }], "app": "game1server" }
  }
}"#,
    )?;
    let cluster = Cluster::processes(fixture).await?;
    let mut command = Command::new(bins::folder()?.join("testnode"));
    command.args(names).arg(cluster.folder().join("config.json")).env("FF_RUN_DIR", cluster.run_dir());
    let shown = Shown::in_pipe(command)?;
    for name in names {
        shown.until_shown(&format!("{name} is ready")).await?;
    }
    Ok((cluster, shown))
}

fn line<'a>(text: &'a str, parts: &[&str]) -> Result<&'a str> {
    let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
    text.lines().find(has_all).with_context(|| format!("no line with {parts:?}:\n{text}"))
}

#[tokio::test]
async fn nodes_by_hand_share_a_process_beside_a_master_and_link_in_memory_only_inside() -> Result<()> {
    let (cluster, mut shown) = by_hand(&["net", "gate"]).await?;
    cluster.until_answered(300).await?;
    assert_eq!(cluster.pid("net").await?, cluster.pid("gate").await?, "the master knows both");
    assert_ne!(cluster.pid("net").await?, cluster.pid("game1").await?);
    let text = shown.text();
    line(&text, &["parent linked parent=gate", "at=this process node=net"])?;
    line(&text, &["child linked child=net", "from=this process node=gate"])?;
    line(&text, &["child linked child=game1", "from=127.0.0.1:", " node=gate"])?;
    line(&text, &["call command 300: ", " node=net"])?;
    assert_eq!(shown.stop().await?, Some(0), "{}", shown.text());
    let text = shown.text();
    let at = |line: &str| text.find(line).with_context(|| format!("no `{line}`:\n{text}"));
    assert!(at("net has stopped")? < at("gate is stopping")?, "clients leave before their gate:\n{text}");
    cluster.stop().await
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_leaves_its_process_in_which_others_go_on() -> Result<()> {
    let (cluster, mut shown) = by_hand(&["net", "gate"]).await?;
    cluster.until_answered(300).await?;
    assert_eq!(cluster.admin("POST", "/nodes/gate/stop").await?.status, 200);
    shown.until_shown("gate has left this process, in which others go on").await?;
    wait::until("its port is nobody's", async || match ffnet::listen::holder(cluster.at("gate")) {
        None => Ok(()),
        Some(holder) => Err(holder),
    })
    .await?;
    cluster.client().await?;
    assert!(!shown.text().contains("net is stopping"), "{}", shown.text());
    assert_eq!(cluster.admin("POST", "/nodes/net/stop").await?.status, 200);
    assert_eq!(shown.exit_code().await?, Some(0), "the last one has ended:\n{}", shown.text());
    cluster.stop().await
}

#[tokio::test]
async fn a_list_of_nodes_that_cannot_share_a_process_is_refused_with_the_reason() -> Result<()> {
    let (fixture, folder) = (Fixture::demo()?, tempfile::tempdir()?);
    let config = folder.path().join("config.json");
    let said = async |text: &str, arguments: &[&str], code| {
        std::fs::write(&config, text)?;
        let mut command = Command::new(bins::folder()?.join("appmain"));
        command.args(arguments).arg(&config).env("FF_RUN_DIR", folder.path()).kill_on_drop(true);
        let output = tokio::time::timeout(wait::PATIENCE, command.stdin(Stdio::null()).output()).await??;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        anyhow::Ok((String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
    };
    let (_, twice) = said(&fixture.text, &["net", "gate", "net"], 1).await?;
    assert_eq!(twice, "`net` is given twice: a process runs a node once\n");
    let (_, unknown) = said(&fixture.text, &["net", "gaet"], 1).await?;
    assert_eq!(unknown, "servers has no `gaet`; it has: `gate`, `net`, `game1`; did you mean `gate`?\n");
    let differ = fixture.text.replace("\"game1\": {", "\"game1\": { \"threads\": 2,");
    let (_, differ) = said(&differ, &["gate", "game1"], 1).await?;
    let told = "servers.game1.threads is 2, servers.gate.threads is 1: the nodes of a process share it\n";
    assert_eq!(differ, told);
    let (_, key) = said(&fixture.text, &["--key", "net.key", "net", "gate"], 2).await?;
    assert!(key.contains("--key is the key of one node, and these are 2"), "{key}");
    let (checked, _) = said(&fixture.text, &["--check", "gate", "game1"], 0).await?;
    assert!(checked.starts_with("gate:\nok ") && checked.contains("\ngame1:\nok "), "{checked}");

    // A node that cannot start ends its process, whose last line says why.
    let _holder = std::net::TcpListener::bind(fixture.at("gate"))?;
    let (log, failed) = said(&fixture.text, &["game1", "gate"], 1).await?;
    let told = format!(
        "gate has ended by itself, and the nodes of its process were stopped: servers.gate.rootport: cannot listen on {}: `",
        fixture.at("gate")
    );
    assert!(failed.starts_with(&told) && failed.lines().count() == 1, "{failed}");
    assert!(log.contains("game1 has stopped"), "{log}");
    Ok(())
}

/// A table in this test as the backend of discovery: it shows each node where that listens, which is a TCP address.
#[derive(Clone)]
struct Board {
    names: &'static [&'static str],
    nodes: Arc<watch::Sender<BTreeMap<NodeName, Found>>>,
}

impl Discovery for Board {
    async fn run(
        &mut self,
        own: &mut watch::Receiver<OwnNode>,
        shown: &watch::Sender<Snapshot>,
    ) -> Result<(), DiscoveryError> {
        let place = self.names.iter().position(|name| *name == own.borrow().name.as_str());
        let number = NodeNumber(place.ok_or(DiscoveryError::NumbersGiven)? as u16 + 1);
        let mut nodes = self.nodes.subscribe();
        loop {
            let now = own.borrow_and_update().clone();
            if now.leaving {
                self.nodes.send_modify(|nodes| drop(nodes.remove(&now.name)));
                return Ok(());
            }
            let found = now.found(number);
            self.nodes.send_if_modified(|nodes| nodes.insert(now.name, found.clone()) != Some(found));
            let nodes_now = nodes.borrow_and_update().clone();
            shown.send_replace(Snapshot { number: Some(number), nodes: nodes_now });
            tokio::select! {
                changed = own.changed() => if changed.is_err() {
                    return Ok(());
                },
                _ = nodes.changed() => {}
            }
        }
    }
}

#[derive(Record, Clone, PartialEq)]
#[record(table = "shared_purse")]
struct Purse {
    #[record(key)]
    name: String,
    coins: i64,
}

async fn pay(purses: &Table<Purse>, node: &Node) -> Result<String, HandlerError> {
    let name = node.name().to_string();
    purses.update(&name, Save::within_ms(60_000), |purse| purse.coins += 1).await?;
    Ok(name)
}

parents! { Gate = "gate" }

/// Pays here, at the gate, and at each child of the gate that the body names: all say who they are.
#[net_handle(1)]
async fn all_pay(
    gate: Parent<Gate>,
    purses: Table<Purse>,
    node: Node,
    Body(names): Body<Bytes>,
) -> Result<String, HandlerError> {
    let own = pay(&purses, &node).await?;
    let others = gate.call("gate_pays", names).await?;
    Ok(format!("{own} {}", String::from_utf8_lossy(&others)))
}

#[root_handle]
async fn gate_pays(
    children: Children,
    purses: Table<Purse>,
    node: Node,
    Body(names): Body<String>,
) -> Result<String, HandlerError> {
    let mut said = pay(&purses, &node).await?;
    for name in names.split(' ') {
        let child = children.call(name, "game_pays", "").await?;
        said = format!("{said} {}", String::from_utf8_lossy(&child));
    }
    Ok(said)
}

#[remote_handle("gate")]
async fn game_pays(purses: Table<Purse>, node: Node) -> Result<String, HandlerError> {
    pay(&purses, &node).await
}

fn apps() -> Vec<App> {
    vec![
        App::new("net").table::<Purse>().handlers(handlers![all_pay]),
        App::new("gate").table::<Purse>().handlers(handlers![gate_pays]),
        App::new("game").table::<Purse>().handlers(handlers![game_pays]),
    ]
}

/// The open TCP connections that were dialed to a port of this host.
fn connections_to(at: SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", at.port());
    let dialed = |row: &&str| {
        let fields: Vec<&str> = row.split_ascii_whitespace().collect();
        fields.get(2).is_some_and(|peer| peer.ends_with(&port)) && fields.get(3) == Some(&"01")
    };
    table.lines().filter(dialed).count()
}

#[tokio::test]
async fn nodes_of_one_process_have_records_of_their_own_and_only_those_outside_link_over_tcp() -> Result<()> {
    const NAMES: [&str; 4] = ["net", "gate", "game", "far"];
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("game.db").display());
    let gate = r#""db": true, "remoteport": [{ "rootname": "gate", "rootport": 4 }]"#;
    let config = format!(
        r#"{{ "cluster": "shared", "master": {{ "rootport": 1, "webport": 2 }}, "db": {{ "url": "{url}" }}, "servers": {{
        "net": {{ "netport": 3, "app": "net", {gate} }}, "gate": {{ "rootport": 4, "app": "gate", "db": true }},
        "game": {{ "app": "game", {gate} }}, "far": {{ "app": "game", {gate} }} }} }}"#
    );
    let config = ffconfig::parse(&config, &folder.path().join("config.json"), &|_| None)?.cluster;
    let db = Db::connect(&ffconfig::Database::at(url)).await?;
    create::<Purse>(&db).await?;
    for name in NAMES {
        let row = [Value::Text(name.into()), Value::Int(0)];
        db.execute("INSERT INTO shared_purse (name, coins) VALUES (?, ?)", &row).await?;
    }

    let ambient = Ambient::system();
    let keys = ClusterKeys::new(&ClusterSecret::new(&ambient.chance)?, 0, None)?;
    let incarnation = Incarnation(ambient.clock.now_ms());
    let startup = |name: &str| {
        let claims = config.claims(config.node(name).context("no such node")?);
        anyhow::Ok(Startup::with_keys(keys.start(claims, incarnation, &ambient.chance)?))
    };
    let board = Board { names: &NAMES, nodes: Arc::default() };
    let (inside, far) = (["net", "gate", "game"].map(String::from), "far");
    let startups = inside.iter().map(|name| startup(name)).collect::<Result<Vec<_>>>()?;
    let (servers, _) = process::own_nodes(&config, &inside, &apps, startups, &|_| None, &ambient)?;
    let sockets = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let [net_at, gate_at] = [sockets[0].local_addr()?, sockets[1].local_addr()?];
    let [net, root] = sockets.map(|socket| socket.set_nonblocking(true).map(|()| socket));
    let (mut net, mut root) = (Some(net?), Some(root?));
    let with_sockets = |server: FFServer| {
        let (is_net, is_gate) = (server.config().netport.is_some(), server.config().rootport.is_some());
        let inherited =
            Inherited { net: net.take_if(|_| is_net), root: root.take_if(|_| is_gate), web: None };
        (server.discovery(board.clone()), inherited)
    };
    let nodes = servers.into_iter().map(with_sockets).collect();
    let stop = Stop::new(std::time::Duration::ZERO);
    let running = tokio::spawn(process::run_nodes(nodes, stop.clone()));
    let server = FFServer::with_startup(&config, far, apps(), startup(far)?, &ambient)?;
    let server = server.discovery(board.clone());
    let far_stop = server.stop_handle();
    let far = tokio::spawn(server.run(Inherited::default()));

    let said = wait::until("all are linked", async || {
        let mut client = Client::connect(net_at).await.map_err(|error| format!("{error:#}"))?;
        client.call(1, b"game far").await.map_err(|error| format!("{error:#}"))
    })
    .await;
    assert_eq!(String::from_utf8_lossy(&said?), "net gate game far");
    assert_eq!(
        connections_to(gate_at),
        1,
        "only the one of `far`: the others are in the process of their gate"
    );
    far_stop.begin(None);
    far.await??;
    stop.begin(None);
    running.await??;
    // What was written behind is in the database, of each node.
    for name in NAMES {
        let sql = Sql::trusted("SELECT coins FROM shared_purse WHERE name = ?".to_owned());
        let row = db.fetch_optional(sql, &[Value::Text(name.into())]).await?.context("no row")?;
        assert!(row.get::<i64>("coins")? >= 1, "{name}");
    }
    Ok(())
}
