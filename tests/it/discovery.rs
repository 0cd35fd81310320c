//! Discovery by a backend of a program's own: a table in this test, that shows nodes which no config names and takes them
//! away again. Real nodes in this process, over TCP, without a master.

#![allow(clippy::unwrap_used, reason = "that is how tests fail, in their helpers, too")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use ffnet::listen::Inherited;
use ffproto::Incarnation;
use ffserver::discovery::{Discovery, DiscoveryError, Found, LinkAddress, NodeNumber, OwnNode, Snapshot};
use ffserver::keys::{ClusterKeys, ClusterSecret, Startup};
use ffserver::prelude::*;
use ffserver::{Ambient, Chance, Clock, FFServer, Stop};
use tests::client::Client;
use tests::wait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The table that stands for a backend, as it is.
#[derive(Clone, Default)]
struct Rows {
    nodes: BTreeMap<NodeName, Found>,
    /// The names that have ever had a number, which is their place.
    names: Vec<NodeName>,
    /// Names that an operator has taken away, although their processes live.
    taken_away: BTreeSet<NodeName>,
    /// Nobody reaches the table; counts who has tried.
    outage: Option<u32>,
}

impl Rows {
    fn number(&mut self, name: &NodeName) -> NodeNumber {
        let place = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.clone());
            self.names.len() - 1
        });
        NodeNumber(place as u16 + 1)
    }
}

#[derive(Clone, Default)]
struct Table(Arc<watch::Sender<Rows>>);

impl Table {
    fn rows(&self) -> Rows {
        self.0.borrow().clone()
    }

    fn take_away(&self, name: &str) {
        self.0.send_modify(|rows| {
            rows.nodes.remove(name);
            rows.taken_away.insert(self::name(name));
        });
    }

    fn put_back(&self, name: &str) {
        self.0.send_if_modified(|rows| rows.taken_away.remove(name));
    }

    /// Writes what a node says of itself.
    fn tell(&self, own: &OwnNode) -> Result<NodeNumber, DiscoveryError> {
        let mut told = Err(DiscoveryError::Backend("the table is out of reach".into()));
        self.0.send_if_modified(|rows| {
            if let Some(tries) = &mut rows.outage {
                *tries += 1;
                return false;
            }
            let (number, is_there) = (rows.number(&own.name), !rows.taken_away.contains(&own.name));
            told = Ok(number);
            if rows.nodes.get(&own.name).is_some_and(|known| known.incarnation > own.incarnation) {
                return false;
            }
            let before = rows.nodes.remove(&own.name);
            let now = (is_there && !own.leaving).then(|| own.found(number));
            rows.nodes.extend(now.clone().map(|found| (own.name.clone(), found)));
            now != before
        });
        told
    }
}

impl Discovery for Table {
    async fn run(
        &mut self,
        own: &mut watch::Receiver<OwnNode>,
        shown: &watch::Sender<Snapshot>,
    ) -> Result<(), DiscoveryError> {
        let mut rows = self.0.subscribe();
        loop {
            let now = own.borrow_and_update().clone();
            let number = self.tell(&now)?;
            if now.leaving {
                return Ok(());
            }
            let nodes = rows.borrow_and_update().nodes.clone();
            shown.send_replace(Snapshot { number: Some(number), nodes });
            tokio::select! {
                changed = own.changed() => if changed.is_err() {
                    return Ok(());
                },
                _ = rows.changed() => {}
            }
        }
    }
}

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

/// The name of the node that runs it, and what the client says. So something is always under way; and every seventh takes longer
/// than those behind it.
#[net_handle(1)]
async fn who(node: Node, Body(said): Body<String>) -> String {
    let takes_long = said.parse::<u64>().is_ok_and(|n| n.is_multiple_of(7));
    tokio::time::sleep(Duration::from_millis(if takes_long { 5 } else { 1 })).await;
    format!("{} {said}", node.name())
}

parents! { Gate = "gate" }

/// From the net node over a gate to a child of the gate, by name, and back.
#[net_handle(2)]
async fn down(gate: Parent<Gate>, Body(child): Body<Bytes>) -> Result<Bytes, CallError> {
    gate.call("passes_on", child).await
}

#[root_handle]
async fn passes_on(children: Children, Body(child): Body<String>) -> Result<Bytes, CallError> {
    children.call(&child, "called", &child).await
}

#[remote_handle("gate")]
async fn called(node: Node, Body(child): Body<String>) -> String {
    format!("{} is {child}", node.name())
}

/// From the game node up to its gate, and back.
#[net_handle(3)]
async fn up(node: Node, gate: Parent<Gate>) -> Result<String, CallError> {
    let gate = gate.call("which", "").await?;
    Ok(format!("{} of {}", node.name(), String::from_utf8_lossy(&gate)))
}

#[root_handle]
async fn which(node: Node) -> String {
    node.name().to_string()
}

/// With a time to drain beyond the patience of a test: links end because nothing is left on them.
const CONFIG: &str = r#"{ "cluster": "discovery", "master": { "rootport": 1, "webport": 2 },
    "servers": {
        "net": { "netport": 3, "drain_s": 60, "app": "net", "route": { "special": { "game": [1, 3] } },
                 "remoteport": [{ "rootname": "gate", "rootport": 4 }] },
        "gate": { "rootport": 4, "drain_s": 60, "app": "gate", "count": 1 },
        "game": { "app": "game", "count": 2, "drain_s": 60, "remoteport": [{ "rootname": "gate", "rootport": 4 }] } } }"#;

struct Running {
    stop: Stop,
    task: JoinHandle<Result<(), ffserver::RunError>>,
}

/// A cluster of one net node, one gate and two game nodes, which find each other in a table.
struct World {
    table: Table,
    config: ffconfig::Cluster,
    keys: ClusterKeys,
    /// The nodes that have started, by name.
    nodes: Arc<Mutex<BTreeMap<String, Node>>>,
    running: BTreeMap<String, Running>,
    incarnation: u64,
    clock: Clock,
    /// The links that children have had to the gate.
    links: Arc<AtomicUsize>,
    net: SocketAddr,
}

impl World {
    async fn new() -> Result<Self> {
        let config = ffconfig::parse(CONFIG, "/tmp/config.json".as_ref(), &|_| None)?.cluster;
        let net = "127.0.0.1:0".parse()?;
        let (table, nodes, running) = (Table::default(), Arc::default(), BTreeMap::new());
        let keys = ClusterKeys::new(&ClusterSecret::new(&Chance::system())?, 0, None)?;
        let clock = Clock::starting_at(Clock::system().now());
        let (incarnation, links) = (clock.now_ms(), Arc::default());
        let mut world = Self { table, config, keys, nodes, running, incarnation, clock, links, net };
        for node in ["gate.1", "game.1", "game.2", "net"] {
            world.start(node)?;
        }
        let net = world.node("net").await?;
        wait::until("every node is reached", async || {
            let reached = net.reachable();
            if reached.len() == 3 { Ok(()) } else { Err(reached) }
        })
        .await?;
        Ok(world)
    }

    /// Starts a node, of the config or of another key's kind.
    fn start(&mut self, node: &str) -> Result<()> {
        let key = node.split('.').next().unwrap();
        let config = self.config.with_another(key, name(node)).unwrap_or_else(|| self.config.clone());
        self.incarnation += 1;
        let nodes = self.nodes.clone();
        let started = move |app: App| {
            let nodes = nodes.clone();
            app.on_started(move |node| {
                nodes.lock().unwrap().insert(node.name().to_string(), node);
                async { Ok(()) }
            })
        };
        let links = self.links.clone();
        let linked = move |_, _| {
            links.fetch_add(1, Ordering::Relaxed);
            async {}
        };
        let apps = vec![
            started(App::new("net").handlers(handlers![down])),
            started(App::new("gate").handlers(handlers![passes_on, which])).on_child_connected(linked),
            started(App::new("game").handlers(handlers![who, called, up])),
        ];
        let ambient = Ambient { clock: self.clock.clone(), chance: Chance::system() };
        let claims = config.claims(config.node(node).unwrap());
        let startup =
            Startup::with_keys(self.keys.start(claims, Incarnation(self.incarnation), &ambient.chance)?);
        let server = FFServer::with_startup(&config, node, apps, startup, &ambient)?;
        let server = server.discovery(self.table.clone());
        let (stop, mut inherited) = (server.stop_handle(), Inherited::default());
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        match key {
            "net" => {
                self.net = listener.local_addr()?;
                inherited.net = Some(listener);
            }
            "gate" => inherited.root = Some(listener),
            _ => {}
        }
        let task = tokio::spawn(server.run(inherited));
        self.running.insert(node.to_owned(), Running { stop, task });
        Ok(())
    }

    /// Stops a node in good order, and waits until it is over.
    async fn stop(&mut self, node: &str) -> Result<()> {
        let Running { stop, task } = self.running.remove(node).unwrap();
        stop.begin(None);
        self.nodes.lock().unwrap().remove(node);
        Ok(task.await??)
    }

    /// The handle of a node that has started.
    async fn node(&self, name: &str) -> Result<Node> {
        wait::until(&format!("{name} starts"), async || {
            self.nodes.lock().unwrap().get(name).cloned().ok_or_else(|| self.table.rows().names)
        })
        .await
    }

    /// What a node is shown of another one.
    async fn until_shown(&self, to: &Node, name: &str) -> Result<Found> {
        wait::until(&format!("{name} is shown to {}", to.name()), async || {
            let found = to.found();
            found.iter().find(|found| found.name == *name).cloned().ok_or(found)
        })
        .await
    }

    async fn until_children(&self, of: &Node, names: &[&str]) -> Result<()> {
        wait::until(&format!("{} has the children {names:?}", of.name()), async || {
            let children = of.children();
            if children == names { Ok(()) } else { Err(children) }
        })
        .await
    }

    /// A client whose messages go to that game node.
    async fn client_of(&self, game: &str) -> Result<Client> {
        wait::until(&format!("{game} gets a client"), async || {
            let mut client = Client::connect(self.net).await.map_err(|error| format!("{error:#}"))?;
            match client.call(1, b"").await {
                Ok(answer) if answer == format!("{game} ") => Ok(client),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.running.values().for_each(|running| running.task.abort());
    }
}

/// A client that keeps four requests on their way: every answer must be the next one's, and none an error. The first node has
/// answered when this returns.
async fn play(mut client: Client, over: &Arc<AtomicBool>) -> Result<Player> {
    const AHEAD: u64 = 4;
    for n in 0..AHEAD {
        client.send(1, n.to_string().as_bytes()).await?;
    }
    let nodes = Arc::new(Mutex::new(vec![answer(&mut client, 0).await?]));
    let (over, seen, mut sent) = (over.clone(), nodes.clone(), AHEAD);
    let task = tokio::spawn(async move {
        for n in 1.. {
            if !over.load(Ordering::Relaxed) {
                client.send(1, sent.to_string().as_bytes()).await?;
                sent += 1;
            }
            if n == sent {
                break;
            }
            let node = answer(&mut client, n).await?;
            let mut seen = seen.lock().unwrap();
            if seen.last() != Some(&node) {
                seen.push(node);
            }
        }
        Ok(())
    });
    Ok(Player { nodes, task })
}

/// A client that plays.
struct Player {
    /// The nodes that have answered, in order, each once.
    nodes: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<Result<()>>,
}

impl Player {
    fn nodes(&self) -> Vec<String> {
        self.nodes.lock().unwrap().clone()
    }

    /// The nodes that have answered, when it is over.
    async fn over(self) -> Result<Vec<String>> {
        self.task.await??;
        Ok(self.nodes.lock().unwrap().clone())
    }
}

/// The node that has answered the client's request.
async fn answer(client: &mut Client, n: u64) -> Result<String> {
    let (command, body) = client.receive().await?;
    let text = String::from_utf8_lossy(&body).into_owned();
    ensure!(command == 1, "an error: {text}");
    let (node, said) = text.split_once(' ').unwrap();
    ensure!(said == n.to_string(), "answer {n} is {text}");
    Ok(node.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_game_node_that_no_config_names_comes_and_goes_and_no_client_notices() -> Result<()> {
    let mut world = World::new().await?;
    let over = Arc::new(AtomicBool::new(false));
    let mut playing = vec![play(world.client_of("game.1").await?, &over).await?];
    let (gate, net) = (world.node("gate.1").await?, world.node("net").await?);

    world.start("game.9")?;
    // Before they play: what is new goes to the node with the least load.
    let second = world.client_of("game.9").await?;
    let mut client = world.client_of("game.9").await?;
    assert_eq!(client.call(2, b"game.9").await?, "game.9 is game.9");
    assert_eq!(client.call(3, b"").await?, "game.9 of gate.1");
    assert_eq!(gate.call_nodes().of_kind("game").len(), 3);
    let found = world.until_shown(&net, "game.9").await?;
    assert_eq!((found.kind.as_str(), found.incarnation), ("game", Incarnation(world.incarnation)));
    assert_eq!((found.number, found.address), (Some(NodeNumber(5)), None));
    assert_eq!(found.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert!(found.load.is_some() && found.since_ms >= world.incarnation, "{found:?}");
    let gates = world.until_shown(&net, "gate.1").await?;
    assert!(matches!(gates.address, Some(LinkAddress::Tcp(at)) if at.ip().is_loopback()), "{gates:?}");
    wait::until("the net node's load is shown", async || {
        let load = world.until_shown(&gate, "net").await.unwrap().load;
        load.filter(|load| load.sessions >= 2).ok_or(load)
    })
    .await?;

    playing.push(play(client, &over).await?);
    playing.push(play(second, &over).await?);
    world.table.take_away("game.9");
    world.until_children(&gate, &["game.1", "game.2", "net"]).await?;
    wait::until("it is reached no more", async || {
        let reached = net.reachable();
        if reached.contains(&name("game.9")) { Err(reached) } else { Ok(()) }
    })
    .await?;
    for player in &playing {
        wait::until("another node answers", async || {
            let nodes = player.nodes();
            if nodes.last().is_some_and(|last| last == "game.9") { Err(nodes) } else { Ok(()) }
        })
        .await?;
    }
    // It lives, and makes no new link.
    assert!(!world.running["game.9"].task.is_finished());
    over.store(true, Ordering::Relaxed);
    for (player, first) in playing.into_iter().zip(["game.1", "game.9", "game.9"]) {
        let answers = player.over().await?;
        assert_eq!(answers[0], first, "{answers:?}");
        assert_eq!(answers.len(), if first == "game.9" { 2 } else { 1 }, "{answers:?}");
    }

    world.stop("game.9").await?;
    world.start("game.10")?;
    let found = world.until_shown(&net, "game.10").await?;
    assert_eq!(found.number, Some(NodeNumber(6)), "the number of game.9 is game.9's");
    world.client_of("game.10").await?;
    world.table.put_back("game.9");
    world.start("game.9")?;
    world.client_of("game.9").await?;
    assert_eq!(world.until_shown(&net, "game.9").await?.number, Some(NodeNumber(5)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_game_node_that_is_taken_away_by_mistake_is_used_again_when_it_is_shown_again() -> Result<()> {
    let mut world = World::new().await?;
    let gate = world.node("gate.1").await?;
    world.start("game.9")?;
    world.client_of("game.9").await?;
    world.table.take_away("game.9");
    world.until_children(&gate, &["game.1", "game.2", "net"]).await?;
    world.table.put_back("game.9");
    // With its next word, which its load has.
    world.until_children(&gate, &["game.1", "game.2", "game.9", "net"]).await?;
    world.client_of("game.9").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_no_config_names_is_dialed_by_its_children_and_carries_all_when_the_other_leaves()
-> Result<()> {
    let mut world = World::new().await?;
    let over = Arc::new(AtomicBool::new(false));
    let (mut clients, mut playing) = (Vec::new(), Vec::new());
    for game in ["game.1", "game.2", "game.1"] {
        clients.push(world.client_of(game).await?);
    }
    let mut client = world.client_of("game.1").await?;
    for client in clients {
        playing.push(play(client, &over).await?);
    }
    world.start("gate.9")?;
    let second = world.node("gate.9").await?;
    world.until_children(&second, &["game.1", "game.2", "net"]).await?;
    // A stop in good order leaves discovery first.
    world.stop("gate.1").await?;
    assert_eq!(client.call(3, b"").await?, "game.1 of gate.9");
    assert_eq!(client.call(2, b"game.2").await?, "game.2 is game.2");
    // And back.
    world.start("gate.1")?;
    let first = world.node("gate.1").await?;
    world.until_children(&first, &["game.1", "game.2", "net"]).await?;
    world.table.take_away("gate.9");
    world.until_children(&second, &[]).await?;
    assert_eq!(client.call(3, b"").await?, "game.1 of gate.1");
    over.store(true, Ordering::Relaxed);
    for player in playing {
        let answers = player.over().await?;
        assert_eq!(answers.len(), 1, "a session keeps its game node: {answers:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_goes_away_takes_no_link_down_and_is_heard_again_when_it_is_back() -> Result<()> {
    let mut world = World::new().await?;
    let over = Arc::new(AtomicBool::new(false));
    let player = play(world.client_of("game.2").await?, &over).await?;
    let (gate, net) = (world.node("gate.1").await?, world.node("net").await?);
    world.table.0.send_modify(|rows| rows.outage = Some(0));
    wait::until("every node has tried in vain, again and again", async || {
        let tries = world.table.rows().outage;
        if tries > Some(20) { Ok(()) } else { Err(tries) }
    })
    .await?;
    assert_eq!((gate.children().len(), net.found().len()), (3, 4));
    world.client_of("game.1").await?;
    // A node that starts meanwhile is found when the backend is back.
    world.start("game.9")?;
    world.table.0.send_modify(|rows| rows.outage = None);
    world.client_of("game.9").await?;
    over.store(true, Ordering::Relaxed);
    assert_eq!(player.over().await?, ["game.2"]);
    Ok(())
}

/// Each day every timer of every node is over at once, so all links end; the keys of before open the next ones.
#[tokio::test]
async fn a_week_without_a_master_ends_no_link_for_good() -> Result<()> {
    let world = World::new().await?;
    let begin = world.clock.now();
    for day in 1..=7 {
        let links = world.links.load(Ordering::Relaxed);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(86_400)).await;
        tokio::time::resume();
        wait::until("the net node and both game nodes have linked anew", async || {
            let anew = world.links.load(Ordering::Relaxed) - links;
            if anew >= 3 { Ok(()) } else { Err(format!("day {day}: {anew}")) }
        })
        .await?;
        let (gate, net) = (world.node("gate.1").await?, world.node("net").await?);
        world.until_children(&gate, &["game.1", "game.2", "net"]).await?;
        wait::until("every node is reached", async || {
            let reached = net.reachable();
            if reached.len() == 3 { Ok(()) } else { Err(reached) }
        })
        .await?;
        for game in ["game.1", "game.2"] {
            let mut client = world.client_of(game).await?;
            assert_eq!(client.call(2, game.as_bytes()).await?, format!("{game} is {game}").as_str());
            assert_eq!(client.call(3, b"").await?, format!("{game} of gate.1").as_str());
        }
    }
    assert_eq!((world.clock.now() - begin).as_secs() / 86_400, 7);
    Ok(())
}
