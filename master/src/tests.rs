//! A whole cluster in this process: real supervisor, real control port, real administration, and nodes
//! that are tasks which register, say that they are ready, and stop when told.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use ffambient::{Ambient, Chance, Clock};
use ffconfig::{Cluster, Loaded, Node};
use ffkeys::{ClusterKeys, NodeKeys};
use ffnet::control::NodeSide;
use ffnet::door::{Passage, enter};
use ffnet::handshake::{HandshakeError, Local, dial};
use ffnet::listen::Port;
use ffproto::control::{Door, NodeStatus, ToMaster, ToNode};
use ffproto::credential::Claims;
use ffproto::handover::{Listeners, Output};
use ffproto::handshake::{Purpose, Refusal};
use ffproto::{Incarnation, NodeName, Versions};
use futures_util::future::{BoxFuture, Shared, ready};
use futures_util::{FutureExt, SinkExt, StreamExt};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::console::Console;
use crate::descriptors::Shares;
use crate::fixture::{self, name};
use crate::keys::MasterKeys;
use crate::run::RunFolder;
use crate::start::{RunningMaster, Setup, StartError, start};
use crate::supervisor::machine::{End, Exit, NodeState, Outcome, Refused};
use crate::supervisor::process::{LaunchNode, LaunchSpec, Launched, Launcher, Signals};
use crate::supervisor::{Adopted, Handle, Order};

/// As `limits.prove_ms`, shorter.
const PROVE: Duration = Duration::from_millis(100);
const DESCRIPTORS: usize = 1_024;
const TOKEN: &str = "a-secret-of-sixteen";

/// Runs nodes as tasks. They outlive the master that has launched them, as processes do.
#[derive(Clone, Default)]
struct Tasks {
    /// What nodes heard, in order.
    heard: Arc<Mutex<Vec<String>>>,
    /// A node that says that it cannot start: its first process, or its successors.
    broken: Option<(&'static str, Broken)>,
    /// Old processes that have come to a door.
    doors: Arc<Mutex<HashMap<Door, oneshot::Sender<()>>>>,
    /// Every task by its "process number".
    running: Arc<Mutex<HashMap<u32, Task>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Broken {
    First,
    Successor,
}

/// A node that runs.
#[derive(Clone)]
struct Task {
    exit: Shared<BoxFuture<'static, Exit>>,
    term: CancellationToken,
    kill: CancellationToken,
}

impl Task {
    fn signals(&self) -> Arc<dyn Signals> {
        Arc::new(TaskSignals { term: self.term.clone(), kill: self.kill.clone() })
    }
}

/// Ends a task, with the exit that a process would have had.
struct TaskSignals {
    term: CancellationToken,
    kill: CancellationToken,
}

impl Signals for TaskSignals {
    fn terminate(&self) {
        self.term.cancel();
    }
    fn kill(&self) {
        self.kill.cancel();
    }
}

impl Launcher for Tasks {
    fn launch(&mut self, spec: LaunchSpec) -> io::Result<Launched> {
        let (term, kill) = (CancellationToken::new(), CancellationToken::new());
        let (cluster, incarnation) = (spec.cluster, spec.incarnation);
        let mut nodes = JoinSet::new();
        for LaunchNode { node: config, keys, succeeds, listeners } in spec.nodes {
            let life = if succeeds.is_some() { Broken::Successor } else { Broken::First };
            let broken = self.broken.is_some_and(|(node, at)| config.name == *node && at == life);
            let cluster = Arc::clone(&cluster);
            let spec = NodeSpec { node: config, keys, succeeds, listeners, cluster, incarnation };
            nodes.spawn(node(spec, self.clone(), broken));
        }
        let (terminated, killed) = (term.clone(), kill.clone());
        let exit = async move {
            // The process ends with its last node, or with the first one that fails.
            let ended = async {
                while let Some(code) = nodes.join_next().await {
                    match code {
                        Ok(0) => {}
                        failed => return failed.unwrap_or(101),
                    }
                }
                0
            };
            tokio::select! {
                code = ended => Exit::Code(code),
                () = terminated.cancelled() => Exit::Signal(15),
                () = killed.cancelled() => Exit::Signal(9),
            }
        };
        let exit = tokio::spawn(exit);
        let exit = async { exit.await.unwrap_or(Exit::Code(101)) };
        let task = Task { exit: exit.boxed().shared(), term, kill };
        let mut running = self.running.lock();
        let pid = 1 + u32::try_from(running.len()).unwrap();
        running.insert(pid, task.clone());
        Ok(Launched { pid, exit: Box::pin(task.exit.clone()), signals: task.signals() })
    }

    fn adopt(&mut self, pid: u32, _started: u64) -> io::Result<Option<Adopted>> {
        let task = self.running.lock().get(&pid).cloned();
        let alive = task.filter(|task| task.exit.clone().now_or_never().is_none());
        Ok(alive.map(|task| Adopted { exit: Box::pin(task.exit.clone()), signals: task.signals() }))
    }

    fn started(&self, _pid: u32) -> Option<u64> {
        Some(1)
    }
}

/// One node of a process.
struct NodeSpec {
    node: Arc<Node>,
    keys: Arc<NodeKeys>,
    succeeds: Option<Incarnation>,
    listeners: Vec<(Port, TcpListener)>,
    cluster: Arc<Cluster>,
    incarnation: Incarnation,
}

fn local(keys: Arc<NodeKeys>) -> Local {
    let (chance, clock, versions) = (Chance::system(), Clock::system(), Versions::OURS);
    Local { keys, versions, methods: vec![], chance, clock, binding: vec![] }
}

async fn register(at: SocketAddr, local: Local) -> Result<NodeSide<TcpStream>, HandshakeError> {
    let mut stream = TcpStream::connect(at).await?;
    let master = dial(&mut stream, Purpose::Control, &local, &NodeName::master()).await?;
    Ok(NodeSide::new(stream, master.version))
}

/// The life of a node; its exit code. It registers again and again, as a node does.
async fn node(spec: NodeSpec, tasks: Tasks, broken: bool) -> i32 {
    let mut served = spec.succeeds.is_none();
    loop {
        let local = local(Arc::clone(&spec.keys));
        if let Ok(stream) = register(spec.cluster.master.rootport, local).await
            && let Some(code) = converse(&spec, &tasks, stream, broken, &mut served).await
        {
            return code;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Gives the sockets back; how many pipes have come for them.
async fn hand_back(spec: &NodeSpec, door: &Door) -> Option<usize> {
    let mut passage: Passage<Output, Listeners> = enter(door).ok()?;
    let has = |port| spec.listeners.iter().any(|(has, _)| *has == port);
    let which = Listeners {
        versions: Versions::OURS,
        net: has(Port::Net),
        root: has(Port::Root),
        web: has(Port::Web),
    };
    let mut listeners: Vec<_> = spec.listeners.iter().collect();
    listeners.sort_by_key(|(port, _)| *port);
    let descriptors: Vec<_> = listeners.iter().map(|(_, socket)| socket.as_fd()).collect();
    passage.send(&which, &descriptors).await.ok()?;
    let (Output, pipes) = passage.receive().await.ok()??;
    Some(pipes.len())
}

/// One connection to the master; the exit code when it was the last.
async fn converse(
    spec: &NodeSpec,
    tasks: &Tasks,
    mut control: NodeSide<TcpStream>,
    broken: bool,
    served: &mut bool,
) -> Option<i32> {
    let name = &spec.node.name;
    if broken {
        let reason = format!("servers.{name}.db: no such server");
        control.send(ToMaster::CannotStart { reason }).await.ok()?;
        return Some(1);
    }
    let ready = ToMaster::Ready { root: spec.node.rootport, net: spec.node.netport, web: None };
    if !*served {
        let door = Door(format!("{name}-{}", spec.incarnation));
        let (come, comes) = oneshot::channel();
        tasks.doors.lock().insert(door.clone(), come);
        control.send(ToMaster::Prepared { door }).await.ok()?;
        comes.await.ok()?;
        *served = true;
    }
    control.send(ready).await.ok()?;
    let mut every = tokio::time::interval(Duration::from_millis(500));
    loop {
        let message = tokio::select! {
            message = control.next() => message?.ok()?,
            _ = every.tick() => {
                control.send(ToMaster::Status(NodeStatus::default())).await.ok()?;
                continue;
            }
        };
        let hear = |what: String| tasks.heard.lock().push(format!("{name}{what}"));
        match message {
            ToNode::Registered { number, .. } => hear(format!(" is {}", number.0)),
            // These nodes do not say that they know the question.
            ToNode::Metrics { .. } => hear(": asked for metrics".into()),
            ToNode::Ask { .. } => hear(": asked for an operator".into()),
            ToNode::Log(order) => hear(format!(": {order:?}")),
            ToNode::ParentUp { name: parent, .. } => hear(format!(": {parent} is up")),
            ToNode::ParentGone { name: parent, .. } => hear(format!(": {parent} is gone")),
            ToNode::Roots { previous: None, .. } => {}
            ToNode::Roots { current, .. } => {
                let new = spec.keys.credential().root == current;
                hear(format!(
                    ": other keys, {}",
                    if new { "of which this is one" } else { "its own stays valid" }
                ));
            }
            ToNode::HandOver { door } => {
                tasks.doors.lock().remove(&door).map(|come| come.send(()));
                control.send(ToMaster::HandedOver).await.ok()?;
                // It stands by for as long as its successor is on trial.
                tokio::time::sleep(PROVE).await;
                return Some(0);
            }
            ToNode::HandBack { door } => {
                let pipes = hand_back(spec, &door).await?;
                hear(format!(": {pipes} new pipes"));
            }
            ToNode::Stop { .. } => {
                hear(": stop".into());
                return Some(0);
            }
        }
    }
}

/// Free ports: master's two, then the nodes'. They are below those that the system gives to whoever asks for any, so that no other
/// test gets one before it is listened on.
fn ports() -> [u16; 4] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % 27) as u16 * 100;
    let free = || loop {
        let port = 30_000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 2_700;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    };
    std::array::from_fn(|_| free())
}

fn text([root, web, gate, net]: [u16; 4], more: &str) -> String {
    format!(
        r#"{{
        "master": {{"rootport": {root}, "webport": {web}, "token": "{TOKEN}"}},
        "servers": {{
            "gate": {{"app": "x", "rootport": {gate}}},
            "net": {{"app": "x", "netport": {net}, "remoteport": [{{"rootname": "gate", "rootport": {gate}}}]}},
            {more}
        }} }}"#
    )
}

fn load(text: &str) -> Result<Loaded, ffconfig::LoadError> {
    let loaded = ffconfig::parse(text, std::path::Path::new("/test/config.json"), &|_| None)?;
    let unknown = loaded.check_apps(&["x".to_owned()]);
    if unknown.is_empty() { Ok(loaded) } else { Err(ffconfig::LoadError::Faults(unknown)) }
}

/// A running cluster and the text that its next reload reads.
struct World {
    running: RunningMaster,
    handle: Handle,
    config: Arc<Mutex<String>>,
    tasks: Tasks,
}

async fn try_world(ports: [u16; 4], tasks: Tasks) -> Result<World, StartError> {
    world_in(ports, tasks, None).await
}

async fn world_in(ports: [u16; 4], tasks: Tasks, run: Option<&Path>) -> Result<World, StartError> {
    let run = run.map(|base| RunFolder::open(base, Path::new("/test/config.json"), Clock::system()).unwrap());
    let config = Arc::new(Mutex::new(text(ports, "")));
    let read = Arc::clone(&config);
    let (cluster, ambient) = (load(&config.lock()).unwrap().cluster, Ambient::system());
    let keys = MasterKeys::load(&cluster, None, &|_| None, &ambient).unwrap();
    let setup = Setup {
        cluster,
        audit: None,
        keys,
        versions: Versions::OURS,
        descriptors: Shares::of(DESCRIPTORS),
        source: Arc::new(move || Box::pin(ready(load(&read.lock()).map_err(Into::into)))),
        launcher: Box::new(tasks.clone()),
        console: Console::none(),
        run,
        ambient,
    };
    let running = start(setup).await?;
    Ok(World { handle: running.handle(), running, config, tasks })
}

impl World {
    async fn up(ports: [u16; 4]) -> Self {
        let world = try_world(ports, Tasks::default()).await.unwrap();
        assert!(within(world.handle.up()).await);
        world
    }

    async fn stop(self) {
        self.handle.order(Order::StopAll).await.unwrap();
        assert_eq!(within(self.running.ended()).await, End::Stopped);
    }

    async fn state(&self, node: &str, state: NodeState) {
        within(self.handle.until(|view| view.node(node).is_some_and(|node| node.state == state))).await;
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.unwrap()
}

fn words(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(|o| format!("{} {}", o.node, o.outcome.split(':').next().unwrap())).collect()
}

#[tokio::test]
async fn a_cluster_comes_up_in_order_and_stops_in_waves() {
    let world = World::up(ports()).await;
    let heard = Arc::clone(&world.tasks.heard);
    within(async {
        while heard.lock().len() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(*heard.lock(), ["gate is 1", "net is 2", "net: gate is up"]);
    world.stop().await;
    assert_eq!(heard.lock()[3..4], ["net: stop"]);
    assert_eq!(heard.lock().last().unwrap(), "gate: stop");
}

#[tokio::test]
async fn one_node_is_restarted_and_a_reload_takes_over_a_new_config() {
    let ports = ports();
    let world = World::up(ports).await;
    let before = world.handle.view().node("net").unwrap().incarnation;
    let outcome = within(world.handle.order(Order::Restart("net".into()))).await.unwrap();
    assert_eq!(words(&outcome), ["net ready"]);
    assert!(world.handle.view().node("net").unwrap().incarnation > before);

    *world.config.lock() = text(ports, r#""game": {"app": "x"}"#);
    let outcome = within(world.handle.order(Order::Reload(None))).await.unwrap();
    assert_eq!(words(&outcome), ["gate replaced", "game ready", "net replaced"]);
    *world.config.lock() = text(ports, "");
    let outcome = within(world.handle.order(Order::Reload(None))).await.unwrap();
    assert_eq!(words(&outcome), ["gate replaced", "net replaced", "game stopped"]);
    world.stop().await;
}

#[tokio::test]
async fn a_reload_of_a_faulty_config_is_answered_as_such_and_changes_nothing() {
    let ports = ports();
    let world = World::up(ports).await;
    let before = world.handle.view();
    *world.config.lock() = text(ports, r#""game": {"ap": "x"}"#);
    let refused = within(world.handle.order(Order::Reload(None))).await.unwrap_err();
    assert!(matches!(&refused, Refused::Config(text) if text.contains("servers.game")), "{refused}");
    *world.config.lock() = text(ports, r#""game": {"app": "y"}"#);
    let refused = within(world.handle.order(Order::Reload(None))).await.unwrap_err();
    assert!(matches!(&refused, Refused::Config(text) if text.contains("there is no app")), "{refused}");
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port();
    *world.config.lock() = text(ports, &format!(r#""game": {{"app": "x", "netport": {port}}}"#));
    let refused = within(world.handle.order(Order::Reload(None))).await.unwrap_err();
    assert!(refused.to_string().starts_with("servers.game.netport: cannot listen on"), "{refused}");
    *world.config.lock() = text(ports, "").replace(TOKEN, "another-secret-of-16");
    let one = Order::Reload(Some("net".into()));
    let refused = within(world.handle.order(one)).await.unwrap_err();
    assert_eq!(refused.to_string(), "master.token has changed: that takes a reload of all nodes");
    let refused = within(world.handle.order(Order::Rotate)).await.unwrap_err();
    assert_eq!(refused.to_string(), "the keys are made of master.token: change that, and reload");
    assert_eq!(*world.handle.view(), *before);
    let unknown = world.handle.order(Order::Stop("nett".into())).await.unwrap_err();
    assert_eq!(unknown.to_string(), "there is no node `nett`; did you mean `net`?");
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_cannot_start_ends_the_whole_start_with_its_own_words() {
    let tasks = Tasks { broken: Some(("net", Broken::First)), ..Tasks::default() };
    let world = try_world(ports(), tasks).await.unwrap();
    assert!(!within(world.handle.up()).await);
    let End::Failed(why) = within(world.running.ended()).await else { panic!() };
    assert_eq!(why, "net does not start: servers.net.db: no such server (exit code 1)");
}

#[tokio::test]
async fn the_keys_do_not_change_again_while_a_process_has_those_of_before() {
    let ports = ports();
    let tasks = Tasks { broken: Some(("net", Broken::Successor)), ..Tasks::default() };
    let world = try_world(ports, tasks).await.unwrap();
    assert!(within(world.handle.up()).await);
    let reload = async |token| {
        *world.config.lock() = text(ports, "").replace(TOKEN, token);
        within(world.handle.order(Order::Reload(None))).await
    };
    let outcome = reload("another-secret-of-16").await.unwrap();
    assert!(outcome[0].ok && outcome[1].outcome.starts_with("rolled back"), "{outcome:?}");
    let Err(Refused::Conflict(why)) = reload("a-third-secret-of-16").await else { panic!() };
    assert!(why.contains("again yet: net still run with keys of before the last change"), "{why}");
    // Back to the one of before locks nobody out.
    let outcome = reload(TOKEN).await.unwrap();
    assert!(outcome[0].ok, "{outcome:?}");
    world.stop().await;
}

#[tokio::test]
async fn another_token_is_taken_by_a_reload_and_the_one_before_is_valid_until_the_next() {
    let ports = ports();
    let world = World::up(ports).await;
    let tokens = [TOKEN, "another-secret-of-16", "a-third-secret-of-16"];
    let of = |token: &str| {
        let config = load(&text(ports, "").replace(TOKEN, token)).unwrap().cluster;
        let keys = MasterKeys::load(&config, None, &|_| None, &Ambient::system()).unwrap();
        let claims = Claims { name: name("nobody"), ..config.claims(&config.nodes[0]) };
        local(Arc::new(keys.cluster.start(claims, Incarnation(1), &Chance::system()).unwrap()))
    };
    let at: SocketAddr = ([127, 0, 0, 1], ports[0]).into();
    // Whose key is valid is told why it may not stay; anybody else is told nothing.
    let valid = async || {
        let mut valid = Vec::new();
        for token in tokens {
            valid.push(match register(at, of(token)).await {
                Err(HandshakeError::RefusedByPeer(Refusal::Unknown(_))) => true,
                // Its own roots are those of one token: it does not know a master of another one.
                Err(HandshakeError::Silent) => false,
                other => panic!("{token}: {other:?}"),
            });
        }
        valid
    };
    assert_eq!(valid().await, [true, false, false]);
    for (token, expected) in [(tokens[1], [true, true, false]), (tokens[2], [false, true, true])] {
        *world.config.lock() = text(ports, "").replace(TOKEN, token);
        let outcome = within(world.handle.order(Order::Reload(None))).await.unwrap();
        assert_eq!(words(&outcome), ["gate replaced", "net replaced"]);
        assert_eq!(valid().await, expected);
    }
    let heard = world.tasks.heard.lock().clone();
    for node in ["gate", "net"] {
        let told =
            |what| heard.iter().filter(|heard| **heard == format!("{node}: other keys, {what}")).count();
        // Twice as what runs when they change, and twice as what is started with one of them.
        assert_eq!((told("its own stays valid"), told("of which this is one")), (2, 2), "{heard:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn nodes_that_have_no_business_here_are_told_why_and_strangers_nothing() {
    let ports = ports();
    let config = load(&text(ports, "")).unwrap().cluster;
    let keys = MasterKeys::load(&config, None, &|_| None, &Ambient::system()).unwrap();
    let of = |keys: &ClusterKeys, node: &str, incarnation| {
        let claims = Claims { name: name(node), ..config.claims(&config.nodes[0]) };
        local(Arc::new(keys.start(claims, Incarnation(incarnation), &Chance::system()).unwrap()))
    };
    let (own, other) = (Arc::clone(&keys.cluster), fixture::keys());
    let world = World::up(ports).await;
    let at: SocketAddr = ([127, 0, 0, 1], ports[0]).into();
    let refused = |local| async move {
        match register(at, local).await {
            Err(HandshakeError::RefusedByPeer(why) | HandshakeError::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let unknown = refused(of(&own, "nobody", 1)).await;
    assert_eq!(unknown, Refusal::Unknown(name("nobody")));
    let older = refused(of(&own, "net", 1)).await;
    assert!(matches!(older, Refusal::Older { .. }));
    let future = refused(of(&own, "net", u64::MAX)).await;
    assert_eq!(future, Refusal::Future(Incarnation(u64::MAX)));
    let stranger = register(at, of(&other, "net", 4_000_000_000_000)).await;
    assert!(matches!(stranger, Err(HandshakeError::Silent)), "{stranger:?}");
    world.state("net", NodeState::Ready).await;
    world.stop().await;
}

#[tokio::test]
async fn silent_connections_at_the_control_port_make_room_for_a_node_the_oldest_first() {
    let ports = ports();
    let world = World::up(ports).await;
    let mut silent = Vec::new();
    // More than may wait there to prove who they are.
    for _ in 0..2 * Shares::of(DESCRIPTORS).unproven {
        silent.push(TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap());
    }
    within(silent[0].read_to_end(&mut Vec::new())).await.unwrap();
    let outcome = within(world.handle.order(Order::Restart("net".into()))).await.unwrap();
    assert_eq!(words(&outcome), ["net ready"]);
    let mut greeting = Vec::new();
    let rest = silent.last_mut().unwrap().read_to_end(&mut greeting);
    let closed = tokio::time::timeout(Duration::from_millis(100), rest).await;
    assert!(closed.is_err(), "the oldest is closed by now, and the youngest is not: it is no time-out");
    world.stop().await;
}

#[tokio::test]
async fn busy_ports_are_all_reported_and_nothing_is_started() {
    let taken: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let port = |n: usize| taken[n].local_addr().unwrap().port();
    let free = ports()[3];
    let tasks = Tasks::default();
    let Err(error) = try_world([port(0), port(1), free, port(2)], tasks.clone()).await else { panic!() };
    let text = error.to_string();
    let keys: Vec<&str> = text.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(keys, ["servers.net.netport", "master.webport", "master.rootport"], "{text}");
    assert!(
        text.lines().all(|line| line.ends_with(&format!("(pid {}) is there already", std::process::id())))
    );
    assert!(tasks.heard.lock().is_empty());
}

#[tokio::test]
async fn a_second_signal_ends_everything_at_once() {
    let world = World::up(ports()).await;
    assert_eq!(world.handle.order(Order::KillAll).await, Ok(vec![]));
    assert_eq!(within(world.running.ended()).await, End::Forced);
}

#[tokio::test]
async fn a_reload_replaces_every_process_beside_the_old_one_and_tells_how_far_it_is() {
    let world = World::up(ports()).await;
    let before = world.handle.view();
    let mut events = world.handle.events();
    let outcome = within(world.handle.order(Order::Reload(None))).await.unwrap();
    assert_eq!(words(&outcome), ["gate replaced", "net replaced"]);
    let after = world.handle.view();
    for (old, new) in before.nodes.iter().zip(&after.nodes) {
        assert!(new.incarnation > old.incarnation && new.pid != old.pid, "{new:?}");
        assert_eq!((new.state, new.restarts, &new.last_exit), (NodeState::Ready, 0, &None));
    }
    assert!(!world.tasks.heard.lock().contains(&"net: gate is gone".to_owned()));
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        let json: serde_json::Value = serde_json::from_str(&event.json).unwrap();
        if event.kind == "step" {
            told.push(format!("{} {}", json["node"].as_str().unwrap(), json["stage"].as_str().unwrap()));
        }
    }
    let of = |node: &str| told.iter().filter(|told| told.starts_with(node)).cloned().collect::<Vec<_>>();
    let gate = ["planned", "preparing", "handing_over", "proving", "done"].map(|s| format!("gate {s}"));
    // Steps that follow each other at once are one change.
    let (mut expected, seen) = (gate.iter(), of("gate"));
    assert!(seen.iter().all(|seen| expected.any(|stage| stage == seen)), "{told:?}");
    assert_eq!(seen.last(), Some(&gate[4]), "{told:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_reload_that_waits_for_another_command_is_done_after_it_and_one_that_does_not_is_refused() {
    let ports = ports();
    let tasks = Tasks::default();
    let world = try_world(ports, tasks).await.unwrap();
    let order = |order: Order| world.handle.order(order);
    // Also for the start.
    let (at_start, by_hand) =
        within(async { tokio::join!(order(Order::ReloadWhenFree), order(Order::Reload(None))) }).await;
    assert_eq!(words(&at_start.unwrap()), ["gate replaced", "net replaced"]);
    assert!(matches!(by_hand, Err(Refused::Busy(_))), "{by_hand:?}");
    *world.config.lock() = text(ports, r#""game": {"app": "x"}"#);
    let (restarted, reloaded, refused) = within(async {
        let restart = order(Order::Restart("net".into()));
        tokio::join!(restart, order(Order::ReloadWhenFree), order(Order::Reload(None)))
    })
    .await;
    assert_eq!(words(&restarted.unwrap()), ["net ready"]);
    assert_eq!(words(&reloaded.unwrap()), ["gate replaced", "game ready", "net replaced"]);
    assert!(matches!(refused, Err(Refused::Busy(_))), "{refused:?}");
    // An end does not wait for it, and answers it.
    let (stopped, refused) =
        within(async { tokio::join!(order(Order::StopAll), order(Order::ReloadWhenFree)) }).await;
    assert!(stopped.is_ok() && refused == Err(Refused::Stopping), "{stopped:?} {refused:?}");
    assert_eq!(within(world.running.ended()).await, End::Stopped);
}

#[tokio::test]
async fn a_successor_that_cannot_start_leaves_the_old_process_where_it_was() {
    let tasks = Tasks { broken: Some(("net", Broken::Successor)), ..Tasks::default() };
    let world = try_world(ports(), tasks).await.unwrap();
    assert!(within(world.handle.up()).await);
    let before = world.handle.view().node("net").unwrap().incarnation;
    let outcome = within(world.handle.order(Order::Reload(None))).await.unwrap();
    let why = "rolled back: the new process ended: servers.net.db: no such server (exit code 1); the old \
               process goes on";
    assert_eq!((outcome[0].ok, outcome[1].ok, outcome[1].outcome.as_str()), (true, false, why));
    assert_eq!(world.handle.view().node("net").unwrap().incarnation, before);
    world.state("net", NodeState::Ready).await;
    world.stop().await;
}

#[tokio::test]
async fn a_new_master_adopts_the_nodes_of_the_one_before_it_and_starts_what_is_missing() {
    let (ports, run) = (ports(), tempfile::tempdir().unwrap());
    let tasks = Tasks::default();
    let world = world_in(ports, tasks.clone(), Some(run.path())).await.unwrap();
    assert!(within(world.handle.up()).await);
    let before = world.handle.view();
    world.handle.order(Order::Detach).await.unwrap();
    assert_eq!(within(world.running.ended()).await, End::Detached);
    // One of them ends while there is no master.
    let dead = before.node("net").unwrap().pid.unwrap();
    let net = tasks.running.lock()[&dead].clone();
    net.kill.cancel();
    net.exit.await;

    let world = world_in(ports, tasks.clone(), Some(run.path())).await.unwrap();
    assert!(within(world.handle.up()).await);
    let after = world.handle.view();
    let (gate, net) = (after.node("gate").unwrap(), after.node("net").unwrap());
    assert_eq!((gate.pid, gate.incarnation), (before.nodes[0].pid, before.nodes[0].incarnation));
    assert!(net.pid > Some(dead) && net.state == NodeState::Ready, "{net:?}");
    let heard = tasks.heard.lock().clone();
    assert!(heard.contains(&"gate: 2 new pipes".to_owned()), "{heard:?}");
    // What was adopted is replaced, with the sockets that it gave, and stopped.
    let outcome = within(world.handle.order(Order::Reload(None))).await.unwrap();
    assert_eq!(words(&outcome), ["gate replaced", "net replaced"]);
    world.stop().await;
    let alive =
        tasks.running.lock().values().filter(|task| task.exit.clone().now_or_never().is_none()).count();
    assert_eq!(alive, 0);
    assert_eq!(std::fs::read_dir(run.path()).unwrap().count(), 0, "an orderly end leaves nothing");
}
