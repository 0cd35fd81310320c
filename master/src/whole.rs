//! A whole cluster in this process: real supervisor, real control port, real administration, and nodes
//! that are tasks which register, say that they are ready, and stop when told.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ffconfig::Loaded;
use ffnet::control::NodeSide;
use ffnet::handshake::{HandshakeError, Local, dial};
use ffproto::control::{ToMaster, ToNode};
use ffproto::handshake::{Purpose, Refusal};
use ffproto::{Incarnation, NodeName};
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::console::Console;
use crate::fixture::name;
use crate::start::{Running, Setup, StartError, start};
use crate::supervisor::machine::{End, Exit, NodeState, Outcome, Refused};
use crate::supervisor::process::{AppsError, LaunchSpec, Launched, Launcher, Signals};
use crate::supervisor::{Handle, Order};

const TOKEN: &str = "a-secret-of-sixteen";

/// Runs nodes as tasks.
#[derive(Clone, Default)]
struct Tasks {
    /// What nodes heard, in order.
    heard: Arc<Mutex<Vec<String>>>,
    /// A node that says that it cannot start.
    broken: Option<&'static str>,
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
        let broken = self.broken == Some(spec.node.name.as_str());
        let node = node(spec, Arc::clone(&self.heard), broken);
        let (terminated, killed) = (term.clone(), kill.clone());
        let exit = async move {
            tokio::select! {
                code = node => Exit::Code(code),
                () = terminated.cancelled() => Exit::Signal(15),
                () = killed.cancelled() => Exit::Signal(9),
            }
        };
        let exit = tokio::spawn(exit);
        let exit = async { exit.await.unwrap_or(Exit::Code(101)) };
        Ok(Launched { pid: 1, exit: Box::pin(exit), signals: Box::new(TaskSignals { term, kill }) })
    }

    fn apps(&self) -> BoxFuture<'static, Result<Vec<String>, AppsError>> {
        Box::pin(async { Ok(vec!["x".to_owned()]) })
    }
}

fn local(spec_name: &NodeName, incarnation: Incarnation) -> Local {
    Local {
        cluster: "cluster".try_into().unwrap(),
        name: spec_name.clone(),
        kind: "x".into(),
        incarnation,
        methods: vec![],
        token: TOKEN.into(),
    }
}

async fn register(at: SocketAddr, local: Local) -> Result<TcpStream, HandshakeError> {
    let mut stream = TcpStream::connect(at).await?;
    dial(&mut stream, Purpose::Control, &local, &NodeName::master()).await?;
    Ok(stream)
}

/// The life of a node; its exit code.
async fn node(spec: LaunchSpec, heard: Arc<Mutex<Vec<String>>>, broken: bool) -> i32 {
    let name = spec.node.name.clone();
    let stream = register(spec.cluster.master.rootport, local(&name, spec.incarnation)).await.unwrap();
    let mut control = NodeSide::new(stream);
    if broken {
        let reason = format!("servers.{name}.db: no such server");
        control.send(ToMaster::CannotStart { reason }).await.unwrap();
        return 1;
    }
    let root = spec.node.rootport;
    control.send(ToMaster::Ready { root, net: spec.node.netport, web: None }).await.unwrap();
    while let Some(Ok(message)) = control.next().await {
        match message {
            ToNode::Registered { number } => heard.lock().push(format!("{name} is {}", number.0)),
            ToNode::ParentUp { name: parent, .. } => heard.lock().push(format!("{name}: {parent} is up")),
            ToNode::ParentGone { name: parent, .. } => heard.lock().push(format!("{name}: {parent} is gone")),
            ToNode::HandOver { .. } | ToNode::HandBack { .. } => {}
            ToNode::Stop { .. } => {
                heard.lock().push(format!("{name}: stop"));
                return 0;
            }
        }
    }
    2
}

/// Free ports: master's two, then the nodes'.
fn ports() -> [u16; 4] {
    let held: [TcpListener; 4] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
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

fn load(text: &str, apps: &[String]) -> Result<Loaded, ffconfig::LoadError> {
    let loaded = ffconfig::parse(text, std::path::Path::new("/test/config.json"), &|_| None)?;
    let unknown = loaded.check_apps(apps);
    if unknown.is_empty() { Ok(loaded) } else { Err(ffconfig::LoadError::Faults(unknown)) }
}

/// A running cluster and the text that its next reload reads.
struct World {
    running: Running,
    handle: Handle,
    config: Arc<Mutex<String>>,
    tasks: Tasks,
}

async fn try_world(ports: [u16; 4], tasks: Tasks) -> Result<World, StartError> {
    let config = Arc::new(Mutex::new(text(ports, "")));
    let read = Arc::clone(&config);
    let setup = Setup {
        cluster: load(&config.lock(), &["x".to_owned()]).unwrap().cluster,
        source: Arc::new(move |apps: &[String]| load(&read.lock(), apps)),
        launcher: Box::new(tasks.clone()),
        console: Console::none(),
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
    assert_eq!(words(&outcome), ["gate ready", "game ready", "net ready"]);
    *world.config.lock() = text(ports, "");
    let outcome = within(world.handle.order(Order::Reload(None))).await.unwrap();
    assert_eq!(words(&outcome), ["gate ready", "net ready", "game stopped"]);
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
    let refused = within(world.handle.order(Order::Reload(None))).await.unwrap_err();
    assert!(refused.to_string().contains("master.token"), "{refused}");
    assert_eq!(*world.handle.view(), *before);
    let unknown = world.handle.order(Order::Stop("nett".into())).await.unwrap_err();
    assert_eq!(unknown.to_string(), "there is no node `nett`; did you mean `net`?");
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_cannot_start_ends_the_whole_start_with_its_own_words() {
    let tasks = Tasks { broken: Some("net"), ..Tasks::default() };
    let world = try_world(ports(), tasks).await.unwrap();
    assert!(!within(world.handle.up()).await);
    let End::Failed(why) = within(world.running.ended()).await else { panic!() };
    assert_eq!(why, "net does not start: servers.net.db: no such server (exit code 1)");
}

#[tokio::test]
async fn strangers_older_starts_and_wrong_tokens_are_refused_with_a_reason() {
    let ports = ports();
    let world = World::up(ports).await;
    let at: SocketAddr = ([127, 0, 0, 1], ports[0]).into();
    let refused = |local| async move {
        match register(at, local).await {
            Err(HandshakeError::RefusedByPeer(why) | HandshakeError::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let stranger = refused(local(&name("nobody"), Incarnation(1))).await;
    assert_eq!(stranger, Refusal::Unknown(name("nobody")));
    let older = refused(local(&name("net"), Incarnation(1))).await;
    assert!(matches!(older, Refusal::Older { .. }));
    let wrong = Local { token: "guess".into(), ..local(&name("net"), Incarnation(u64::MAX)) };
    assert_eq!(refused(wrong).await, Refusal::Token);
    world.state("net", NodeState::Ready).await;
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
