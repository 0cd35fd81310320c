//! How a node's process is replaced, seen from the node's side: real nodes in this process, each on a thread of
//! its own, and a master that only tells them where the others are and when to hand over.

#![allow(clippy::unwrap_used, reason = "that is how tests fail, in their helpers, too")]

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};
use ffnet::control::MasterSide;
use ffnet::handshake::{Local, accept};
use ffnet::listen::Inherited;
use ffproto::control::{Door, ToMaster, ToNode};
use ffproto::credential::Claims;
use ffproto::handshake::Purpose;
use ffproto::{Incarnation, NodeName, NodeNumber, Versions};
use ffserver::keys::{ClusterKeys, ClusterSecret, Startup};
use ffserver::prelude::*;
use ffserver::{Ambient, Chance, Clock, FFServer, Stop, process};
use futures_util::{SinkExt, StreamExt};
use std::sync::Mutex;
use tests::client::Client;
use tests::wait;
use tests::websocket::WebClient;
use tokio::sync::{mpsc, oneshot};

/// What each process has said, and how it can be told something while it lives.
type Known = Arc<Mutex<HashMap<(String, u64), (Vec<ToMaster>, Option<mpsc::UnboundedSender<ToNode>>)>>>;

/// The sessions of each process, as it said last.
type Sessions = Arc<Mutex<HashMap<(String, u64), u64>>>;

/// Tells every node where its parents are, and what a test wants.
#[derive(Clone, Default)]
struct FakeMaster {
    known: Known,
    sessions: Sessions,
}

/// The keys of the cluster, the same each time.
fn keys() -> ClusterKeys {
    ClusterKeys::new(&ClusterSecret::new(&Chance::seeded(1)).unwrap(), 0, None).unwrap()
}

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

impl FakeMaster {
    async fn serve(self, listener: tokio::net::TcpListener, parents: HashMap<String, Vec<String>>) {
        let parents = Arc::new(parents);
        while let Ok((stream, _)) = listener.accept().await {
            let (this, parents) = (self.clone(), parents.clone());
            tokio::spawn(async move { this.connection(stream, &parents).await });
        }
    }

    async fn connection(self, mut stream: tokio::net::TcpStream, parents: &HashMap<String, Vec<String>>) {
        let claims = Claims::of_master("succession".try_into().unwrap());
        let (chance, clock) = (Chance::system(), Clock::system());
        let own = keys().start(claims, Incarnation(1), &chance).unwrap();
        let (keys, versions) = (Arc::new(own), Versions::OURS);
        let local = Local { keys, versions, methods: vec![], chance, clock, binding: vec![] };
        let accepted = accept(&mut stream, Purpose::Control, &local, None, |_| Ok(())).await;
        let Ok(peer) = accepted else { return };
        let mut node = MasterSide::new(stream, peer.version);
        let (tell, mut told) = mpsc::unbounded_channel();
        let number = ["net", "gate", "game"].iter().position(|known| peer.name == **known).unwrap_or(9);
        tell.send(ToNode::Registered { number: NodeNumber(number as u16 + 1), release: None }).unwrap();
        let key = (peer.name.to_string(), peer.incarnation.0);
        self.known.lock().unwrap().insert(key.clone(), (Vec::new(), Some(tell)));
        self.tell_parents(parents);
        loop {
            tokio::select! {
                // What a node has said before it left is heard, also when it takes nothing more.
                Some(message) = told.recv() => drop(node.send(message).await),
                said = node.next() => match said {
                    Some(Ok(ToMaster::Status(status))) => {
                        self.sessions.lock().unwrap().insert(key.clone(), status.sessions);
                    }
                    Some(Ok(said)) => {
                        if let Some((heard, _)) = self.known.lock().unwrap().get_mut(&key) {
                            heard.push(said);
                        }
                        self.tell_parents(parents);
                    }
                    _ => break,
                },
            }
        }
        if let Some((_, tell)) = self.known.lock().unwrap().get_mut(&key) {
            *tell = None;
        }
        self.tell_parents(parents);
    }

    /// The newest start of each node that serves.
    fn tell_parents(&self, parents: &HashMap<String, Vec<String>>) {
        let known = self.known.lock().unwrap();
        let mut up: HashMap<&str, (u64, SocketAddr)> = HashMap::new();
        for ((name, incarnation), (heard, tell)) in known.iter() {
            let serves = tell.is_some()
                && !matches!(
                    heard.last(),
                    None | Some(
                        ToMaster::Prepared { .. } | ToMaster::HandedOver | ToMaster::CannotStart { .. }
                    )
                );
            let root = heard.iter().find_map(|said| match said {
                ToMaster::Ready { root, .. } => *root,
                _ => None,
            });
            if let (true, Some(root)) = (serves, root) {
                let best = up.entry(name).or_insert((*incarnation, root));
                *best = (*best).max((*incarnation, root));
            }
        }
        for ((name, _), (_, tell)) in known.iter() {
            for parent in parents.get(name).into_iter().flatten() {
                if let (Some((incarnation, at)), Some(tell)) = (up.get(parent.as_str()), tell) {
                    let incarnation = Incarnation(*incarnation);
                    let name = self::name(parent);
                    let _ = tell.send(ToNode::ParentUp { name, at: *at, incarnation });
                }
            }
        }
    }

    /// How many sessions the processes of a node have.
    fn sessions(&self, node: &str) -> u64 {
        self.sessions.lock().unwrap().iter().filter(|((name, _), _)| name == node).map(|(_, n)| n).sum()
    }

    fn heard(&self, node: &str, incarnation: u64) -> Vec<ToMaster> {
        let known = self.known.lock().unwrap();
        known.get(&(node.to_owned(), incarnation)).map(|(heard, _)| heard.clone()).unwrap_or_default()
    }

    fn tell(&self, node: &str, incarnation: u64, message: ToNode) {
        let known = self.known.lock().unwrap();
        let (_, tell) = &known[&(node.to_owned(), incarnation)];
        if let Some(tell) = tell {
            let _ = tell.send(message);
        }
    }

    async fn until(&self, node: &str, incarnation: u64, said: fn(&ToMaster) -> bool) -> Result<ToMaster> {
        wait::until(&format!("{node} {incarnation} says it"), async || {
            let heard = self.heard(node, incarnation);
            heard.iter().find(|message| said(message)).cloned().ok_or(heard)
        })
        .await
    }
}

/// What an app shall do wrong, by test.
#[derive(Default)]
struct Faults {
    thaw_fails: AtomicBool,
    thawed: AtomicU64,
}

#[derive(Default)]
struct Counts(Mutex<HashMap<ffserver::SessionId, u64>>, AtomicU64);

/// One more of the session's and one more of all; and which one the client says it is.
#[net_handle(1)]
async fn count(counts: State<Counts>, caller: Caller, Body(number): Body<String>) -> String {
    if number.ends_with("00") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let all = counts.1.fetch_add(1, Ordering::SeqCst) + 1;
    let mut own = counts.0.lock().unwrap();
    let own = own.entry(caller.session.unwrap()).or_default();
    *own += 1;
    format!("{own} {all} {number}")
}

parents! { Gate = "gate" }

#[net_handle(2)]
async fn by_handlers(gate: Parent<Gate>, Body(number): Body<Bytes>) -> Result<Bytes, CallError> {
    gate.call("passes_on", number).await
}

#[root_handle]
async fn passes_on(children: Children, Body(number): Body<Bytes>) -> Result<Bytes, CallError> {
    children.call("game", "counted", number).await
}

#[remote_handle("gate")]
async fn counted(counts: State<Counts>, caller: Caller, Body(number): Body<String>) -> String {
    tokio::time::sleep(Duration::from_millis(1)).await;
    let all = counts.1.fetch_add(1, Ordering::SeqCst) + 1;
    let mut own = counts.0.lock().unwrap();
    let own = own.entry(caller.session.unwrap()).or_default();
    *own += 1;
    format!("{own} {all} {number}")
}

/// Waits as long as the client says, on the net node.
#[net_handle(3)]
async fn slow(Body(ms): Body<String>) -> Result<String, HandlerError> {
    tokio::time::sleep(Duration::from_millis(ms.parse()?)).await;
    Ok(ms)
}

/// The same on the game node.
#[net_handle(4)]
async fn slow_elsewhere(Body(ms): Body<String>) -> Result<String, HandlerError> {
    tokio::time::sleep(Duration::from_millis(ms.parse()?)).await;
    Ok(ms)
}

fn apps(faults: &Arc<Faults>) -> Vec<App> {
    let faults = faults.clone();
    let game = App::new("game")
        .state(Counts::default())
        .handlers(handlers![count, counted, slow_elsewhere])
        .freeze(7, |node| async move {
            let counts = node.state::<Counts>().unwrap();
            let own: Vec<_> = counts.0.lock().unwrap().iter().map(|(id, n)| (id.0, *n)).collect();
            Ok(serde_json::to_vec(&(own, counts.1.load(Ordering::SeqCst)))?)
        })
        .thaw(move |node, frozen| {
            let faults = faults.clone();
            async move {
                let (own, all): (Vec<(u64, u64)>, u64) = serde_json::from_slice(&frozen.bytes)?;
                let counts = node.state::<Counts>().unwrap();
                *counts.0.lock().unwrap() =
                    own.into_iter().map(|(id, n)| (ffserver::SessionId(id), n)).collect();
                counts.1.store(all, Ordering::SeqCst);
                faults.thawed.fetch_add(1, Ordering::SeqCst);
                // The old process puts its own state together again, which must succeed.
                if faults.thaw_fails.swap(false, Ordering::SeqCst) {
                    return Err(HandlerError::new("asked to fail"));
                }
                Ok(())
            }
        });
    vec![
        App::new("net").handlers(handlers![by_handlers, slow]),
        App::new("gate").handlers(handlers![passes_on]),
        game,
    ]
}

/// A node on its thread.
struct Process {
    stop: Stop,
    kill: oneshot::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Process {
    /// As by SIGKILL: nothing of it runs on, and its sockets close.
    fn kill(self) {
        drop(self.kill);
        self.thread.join().unwrap().unwrap();
    }
}

struct World {
    master: FakeMaster,
    config: ffconfig::Cluster,
    faults: Arc<Faults>,
    sockets: HashMap<&'static str, TcpListener>,
    processes: HashMap<(&'static str, u64), Process>,
    newest: u64,
    net: SocketAddr,
}

fn copy(socket: Option<&TcpListener>) -> Option<TcpListener> {
    socket.map(|socket| socket.try_clone().unwrap()).inspect(|s| s.set_nonblocking(true).unwrap())
}

impl World {
    async fn new() -> Result<Self> {
        let open = || TcpListener::bind("127.0.0.1:0").unwrap();
        let port = |socket: &TcpListener| socket.local_addr().unwrap().port();
        let (control, web, net, gate) = (open(), open(), open(), open());
        let text = format!(
            r#"{{"cluster": "succession", "master": {{"rootport": {}, "webport": {}}}, "limits": {{"prove_ms": 300}},
            "servers": {{
                "net": {{"netport": {}, "app": "net", "route": {{"special": {{"game": [1, 4]}}}},
                         "remoteport": [{{"rootname": "gate", "rootport": {}}}]}},
                "gate": {{"rootport": {}, "app": "gate"}},
                "game": {{"app": "game", "remoteport": [{{"rootname": "gate", "rootport": {}}}]}}
            }}}}"#,
            port(&control),
            port(&web),
            port(&net),
            port(&gate),
            port(&gate),
            port(&gate)
        );
        let config = ffconfig::parse(&text, std::path::Path::new("/tmp/config.json"), &|_| None)?.cluster;
        let master = FakeMaster::default();
        control.set_nonblocking(true)?;
        let control = tokio::net::TcpListener::from_std(control)?;
        let parents = HashMap::from([
            ("net".to_owned(), vec!["gate".to_owned()]),
            ("game".to_owned(), vec!["gate".to_owned()]),
        ]);
        tokio::spawn(master.clone().serve(control, parents));
        let at = net.local_addr()?;
        let mut world = Self {
            master,
            config,
            faults: Arc::default(),
            sockets: HashMap::from([("net", net), ("gate", gate)]),
            processes: HashMap::new(),
            newest: Clock::system().now_ms(),
            net: at,
        };
        for node in ["gate", "game", "net"] {
            let incarnation = world.start(node, false);
            world.master.until(node, incarnation, |said| matches!(said, ToMaster::Ready { .. })).await?;
        }
        Ok(world)
    }

    fn start(&mut self, node: &'static str, succeeds: bool) -> u64 {
        self.newest += 1;
        let (incarnation, config, faults) = (self.newest, self.config.clone(), self.faults.clone());
        let (ambient, claims) = (Ambient::system(), config.claims(config.node(node).unwrap()));
        let startup = keys().start(claims, Incarnation(incarnation), &ambient.chance).map(Startup::with_keys);
        let server =
            FFServer::with_startup(&config, node, apps(&faults), startup.unwrap(), &ambient).unwrap();
        let server = if succeeds { server.own_process(true) } else { server };
        let stop = server.stop_handle();
        let socket = copy(self.sockets.get(node));
        let inherited = match node {
            "net" => Inherited { net: socket, ..Inherited::default() },
            _ => Inherited { root: socket, ..Inherited::default() },
        };
        let (kill, killed) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = process::runtime(1)?;
            let ended = runtime.block_on(async {
                tokio::select! { ended = server.run(inherited) => Ok(ended?), _ = killed => Ok(()) }
            });
            runtime.shutdown_background();
            ended
        });
        self.processes.insert((node, incarnation), Process { stop, kill, thread });
        incarnation
    }

    /// Starts a successor and lets the old process hand over.
    async fn begin_replacement(&mut self, node: &'static str, old: u64) -> Result<u64> {
        let (new, door) = self.prepare(node).await?;
        self.master.tell(node, old, ToNode::HandOver { door });
        Ok(new)
    }

    /// Starts a successor and waits until it is prepared.
    async fn prepare(&mut self, node: &'static str) -> Result<(u64, Door)> {
        let new = self.start(node, true);
        let prepared = self.master.until(node, new, |said| matches!(said, ToMaster::Prepared { .. })).await?;
        let ToMaster::Prepared { door } = prepared else { unreachable!() };
        Ok((new, door))
    }

    fn current(&self, node: &str) -> u64 {
        self.processes.keys().filter(|(name, _)| *name == node).map(|(_, n)| *n).max().unwrap()
    }

    /// Replaces a node and waits until the old process has left.
    async fn replace(&mut self, node: &'static str) -> Result<()> {
        let old = self.current(node);
        let new = self.begin_replacement(node, old).await?;
        self.master.until(node, new, |said| matches!(said, ToMaster::Ready { .. })).await?;
        self.until_left(node, old).await
    }

    async fn until_left(&mut self, node: &'static str, old: u64) -> Result<()> {
        let process = self.processes.remove(&(node, old)).unwrap();
        wait::until("the old process leaves", async || {
            if process.thread.is_finished() { Ok(()) } else { Err(self.master.heard(node, old)) }
        })
        .await?;
        process.thread.join().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for process in self.processes.values() {
            process.stop.begin(Some(Duration::from_millis(100)));
        }
    }
}

/// A client that keeps `ahead` requests on their way: every answer must be the next one.
fn play(at: SocketAddr, command: u32, ahead: u64, over: Arc<AtomicBool>) -> Playing {
    tokio::spawn(async move {
        let mut client = Client::connect(at).await?;
        let (mut sent, mut last_all) = (0_u64, 0_u64);
        for n in 1.. {
            while sent < n + ahead && !over.load(Ordering::Relaxed) {
                sent += 1;
                client.send(command, sent.to_string().as_bytes()).await?;
            }
            if sent < n {
                return Ok(sent);
            }
            let (answered, body) = client.receive().await?;
            let text = String::from_utf8_lossy(&body).into_owned();
            ensure!(answered == command, "an error: {text}");
            let numbers: Vec<u64> = text.split(' ').map(str::parse).collect::<Result<_, _>>()?;
            ensure!(numbers[0] == n && numbers[2] == n, "answer {n} is: {text}");
            ensure!(numbers[1] > last_all, "the counter of all went from {last_all} to {}", numbers[1]);
            last_all = numbers[1];
        }
        unreachable!()
    })
}

type Playing = tokio::task::JoinHandle<Result<u64>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_replaced_and_no_client_notices() -> Result<()> {
    let mut world = World::new().await?;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..30).map(|n| play(world.net, 1 + n % 2, n.into(), over.clone())).collect();
    for _ in 0..2 {
        for node in ["gate", "game", "net"] {
            world.replace(node).await?;
        }
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        let answers = client.await??;
        ensure!(answers > 10, "only {answers} answers");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_frame_a_websocket_and_a_running_handler_survive_their_net_nodes_replacement() -> Result<()> {
    let mut world = World::new().await?;
    let mut half = Client::connect(world.net).await?;
    let frame = half.frame(1, b"1");
    half.send_bytes(&frame[..frame.len() - 1]).await?;
    let (mut text, mut binary) = (WebClient::connect(world.net).await?, WebClient::connect(world.net).await?);
    text.send_json(&serde_json::json!({"command": 1, "body": "1"})).await?;
    text.receive_message().await?;
    binary.send(1, b"1").await?;
    binary.receive().await?;
    let mut silent = WebClient::connect(world.net).await?;
    let mut running = Client::connect(world.net).await?;
    running.send(3, b"400").await?;
    // Behind the running one, and not read by the old process any more.
    running.send(1, b"1").await?;
    let master = world.master.clone();
    let all = || master.sessions("net");
    wait::until("all clients are there", async || if all() == 5 { Ok(()) } else { Err(all()) }).await?;

    world.replace("net").await?;

    ensure!(running.receive().await? == (3, "400".into()), "the old process answers what it had begun");
    ensure!(running.receive().await?.1.ends_with(b" 1"), "and the new one what came after");
    half.send_bytes(&frame[frame.len() - 1..]).await?;
    ensure!(half.receive().await?.1.ends_with(b" 1"), "the frame is whole");
    text.send_json(&serde_json::json!({"command": 1, "body": "2"})).await?;
    let answer = text.receive_message().await?.into_text()?;
    ensure!(answer.contains("2 ") && answer.contains("body"), "still JSON: {answer}");
    binary.send(1, b"2").await?;
    ensure!(binary.receive().await?.1.ends_with(b" 2"), "still binary");
    silent.send(1, b"1").await?;
    ensure!(silent.receive().await?.1.ends_with(b" 1"), "one that had said nothing yet");
    // Its status comes at most ten times a second.
    wait::until("all clients are here", async || if all() == 5 { Ok(()) } else { Err(all()) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handler_holds_up_its_own_session_only_while_its_gate_is_replaced() -> Result<()> {
    let mut world = World::new().await?;
    let mut slow = Client::connect(world.net).await?;
    slow.send(4, b"1000").await?;
    slow.send(1, b"1").await?;
    let over = Arc::new(AtomicBool::new(false));
    let other = play(world.net, 1, 1, over.clone());
    let old = world.current("gate");
    let new = world.begin_replacement("gate", old).await?;
    world.master.until("gate", new, |said| matches!(said, ToMaster::Ready { .. })).await?;
    // The new gate serves the others while the old one still has the slow one's answer.
    over.store(true, Ordering::Relaxed);
    ensure!(other.await?? > 0);
    ensure!(
        !world.master.heard("gate", old).is_empty() && !world.processes[&("gate", old)].thread.is_finished()
    );
    ensure!(slow.receive().await? == (4, "1000".into()));
    ensure!(slow.receive().await?.1.ends_with(b" 1"), "in order");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_come_to_rest_keeps_its_old_process() -> Result<()> {
    let mut world = World::new().await?;
    let mut slow = Client::connect(world.net).await?;
    // Longer than half of limits.park_ms, and the game node freezes its state.
    slow.send(4, b"1800").await?;
    let old = world.current("game");
    world.begin_replacement("game", old).await?;
    let said = world.master.until("game", old, |said| matches!(said, ToMaster::TookBack { .. })).await?;
    ensure!(
        matches!(&said, ToMaster::TookBack { reason } if reason.contains("handlers still ran")),
        "{said:?}"
    );
    ensure!(slow.receive().await? == (4, "1800".into()), "nothing is lost");
    slow.send(1, b"1").await?;
    ensure!(slow.receive().await?.1.ends_with(b" 1"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_whose_thaw_fails_leaves_and_the_old_process_goes_on() -> Result<()> {
    let mut world = World::new().await?;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..10).map(|n| play(world.net, 1 + n % 2, n.into(), over.clone())).collect();
    world.faults.thaw_fails.store(true, Ordering::SeqCst);
    let old = world.current("game");
    let new = world.begin_replacement("game", old).await?;
    let said = world.master.until("game", old, |said| matches!(said, ToMaster::TookBack { .. })).await?;
    ensure!(matches!(&said, ToMaster::TookBack { reason } if reason.contains("asked to fail")), "{said:?}");
    let said = world.master.until("game", new, |said| matches!(said, ToMaster::CannotStart { .. })).await?;
    ensure!(
        matches!(&said, ToMaster::CannotStart { reason } if reason.contains("asked to fail")),
        "{said:?}"
    );
    ensure!(world.faults.thawed.load(Ordering::SeqCst) == 2, "the old process thaws its own state");
    // And it can be replaced after all.
    world.processes.remove(&("game", new)).unwrap().thread.join().unwrap().unwrap_err();
    world.replace("game").await?;
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_dies_soon_after_is_taken_back_from() -> Result<()> {
    let mut world = World::new().await?;
    let mut client = Client::connect(world.net).await?;
    for node in ["gate", "game"] {
        client.send(1, b"1").await?;
        ensure!(client.receive().await?.0 == 1);
        let old = world.current(node);
        let new = world.begin_replacement(node, old).await?;
        world.master.until(node, new, |said| matches!(said, ToMaster::Ready { .. })).await?;
        world.processes.remove(&(node, new)).unwrap().kill();
        world.master.until(node, old, |said| matches!(said, ToMaster::TookBack { .. })).await?;
        for command in [1, 2] {
            // A request may have been on its way to the process that died.
            wait::until(&format!("an answer after {node}'s successor died"), async || {
                client.send(command, b"2").await.map_err(|e| e.to_string())?;
                let (answered, body) = client.receive().await.map_err(|e| e.to_string())?;
                let text = String::from_utf8_lossy(&body).into_owned();
                assert!(answered == command || text.contains("link_lost"), "{text}");
                if answered == command { Ok(()) } else { Err(text) }
            })
            .await?;
        }
    }
    // Clients that a net node's successor had taken are lost with it; the port is not.
    let old = world.current("net");
    let new = world.begin_replacement("net", old).await?;
    world.master.until("net", new, |said| matches!(said, ToMaster::Ready { .. })).await?;
    world.processes.remove(&("net", new)).unwrap().kill();
    world.master.until("net", old, |said| matches!(said, ToMaster::TookBack { .. })).await?;
    let mut client = Client::connect(world.net).await?;
    client.send(1, b"1").await?;
    ensure!(client.receive().await?.0 == 1);
    world.replace("net").await?;
    client.send(1, b"2").await?;
    let (answered, body) = client.receive().await?;
    ensure!(answered == 1, "it can be replaced after all: {body:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_that_are_replaced_at_once_do_not_wait_for_each_other() -> Result<()> {
    let mut world = World::new().await?;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..10).map(|n| play(world.net, 1 + n % 2, 2, over.clone())).collect();
    for _ in 0..3 {
        let (old_gate, old_net) = (world.current("gate"), world.current("net"));
        let (_, gate_door) = world.prepare("gate").await?;
        let (_, net_door) = world.prepare("net").await?;
        world.master.tell("gate", old_gate, ToNode::HandOver { door: gate_door });
        world.master.tell("net", old_net, ToNode::HandOver { door: net_door });
        // drain_s is 10, and they would end by that.
        let begun = std::time::Instant::now();
        world.until_left("gate", old_gate).await?;
        world.until_left("net", old_net).await?;
        ensure!(begun.elapsed() < Duration::from_secs(8), "only after {:?}", begun.elapsed());
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_where_nobody_waits_keeps_the_old_process() -> Result<()> {
    let world = World::new().await?;
    let over = Arc::new(AtomicBool::new(false));
    let client = play(world.net, 1, 3, over.clone());
    for node in ["gate", "game", "net"] {
        let old = world.current(node);
        world.master.tell(node, old, ToNode::HandOver { door: Door("ff-nobody".into()) });
        world.master.until(node, old, |said| matches!(said, ToMaster::TookBack { .. })).await?;
    }
    over.store(true, Ordering::Relaxed);
    client.await??;
    Ok(())
}
