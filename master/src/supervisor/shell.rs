//! The supervisor's loop: waits for the next fact, gives it to the machine, does what the machine says.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ffconfig::Cluster;
use ffproto::{Incarnation, NodeName};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::event::{Event, Order};
use super::machine::{
    Answer, Ask, ClusterView, Command, Do, End, Exit, Machine, Moment, Refused, Report, Seen, Tell,
};
use super::prepare::{self, Prepared, Source};
use super::process::{LaunchSpec, Launched, Launcher, Signals};
use crate::output::Logs;
use crate::place;
use crate::sockets::Sockets;

/// Facts that may wait for the supervisor; who brings more waits.
const EVENTS_MAX: usize = 4 * 1024;
/// Facts that are taken in before the view is renewed.
const BATCH_MAX: usize = 256;
/// A process that has ended may have said why on its control connection: its last words are waited for.
const LAST_WORDS_MAX: Duration = Duration::from_millis(250);
/// After the end, how long killed processes may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(2);

/// A control connection, seen from the supervisor.
struct Link {
    conn: u64,
    incarnation: Incarnation,
    outbox: mpsc::Sender<Tell>,
}

/// The supervisor.
pub(crate) struct Shell {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) machine: Machine,
    pub(crate) sockets: Sockets,
    pub(crate) launcher: Box<dyn Launcher>,
    pub(crate) source: Source,
    pub(crate) logs: Logs,
    pub(crate) view: watch::Sender<Arc<ClusterView>>,
    pub(crate) to_self: mpsc::Sender<Event>,
    processes: HashMap<(NodeName, Incarnation), Box<dyn Signals>>,
    links: HashMap<NodeName, Link>,
    /// Ends whose node is still linked: its last words are on the way.
    late: VecDeque<(Instant, NodeName, Incarnation, Exit)>,
    asks: HashMap<Ask, oneshot::Sender<Answer>>,
    last_ask: Ask,
    preparing: bool,
    ended: Option<End>,
}

impl Shell {
    /// A supervisor for a config whose sockets are open.
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        sockets: Sockets,
        launcher: Box<dyn Launcher>,
        source: Source,
        logs: Logs,
    ) -> (Self, mpsc::Receiver<Event>) {
        let machine = Machine::new(&cluster, &place::elsewhere(&cluster), moment());
        let (view, _) = watch::channel(Arc::new(machine.view()));
        let (to_self, events) = mpsc::channel(EVENTS_MAX);
        let shell = Self {
            cluster,
            machine,
            sockets,
            launcher,
            source,
            logs,
            view,
            to_self,
            processes: HashMap::new(),
            links: HashMap::new(),
            late: VecDeque::new(),
            asks: HashMap::new(),
            last_ask: 0,
            preparing: false,
            ended: None,
        };
        (shell, events)
    }

    /// Supervises until everything has ended.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>) -> End {
        self.feed(Seen::Begin);
        loop {
            self.publish();
            if let Some(end) = self.ended.take() {
                self.wait_for_the_killed(&mut events).await;
                return end;
            }
            tokio::select! {
                event = events.recv() => event.into_iter().for_each(|event| self.take_in(event)),
                () = sleep_until(self.wake_at()) => self.tick(),
            }
            for _ in 1..BATCH_MAX {
                match events.try_recv() {
                    Ok(event) => self.take_in(event),
                    Err(_) => break,
                }
            }
        }
    }

    fn publish(&self) {
        let view = Arc::new(self.machine.view());
        self.view.send_if_modified(|shown| {
            let changed = *shown != view;
            *shown = view;
            changed
        });
    }

    fn wake_at(&self) -> Instant {
        let late = self.late.front().map(|(until, ..)| *until);
        let far = Instant::now() + Duration::from_secs(3_600);
        self.machine.wake_at().into_iter().chain(late).min().unwrap_or(far)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        while self.late.front().is_some_and(|(until, ..)| *until <= now) {
            if let Some((_, node, incarnation, exit)) = self.late.pop_front() {
                self.ended(node, incarnation, exit);
            }
        }
        self.feed(Seen::Tick);
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Linked { node, incarnation, pid, wire, conn, outbox } => {
                let link = Link { conn, incarnation, outbox };
                self.linked(link, Seen::Registered { node, incarnation, pid, wire });
            }
            Event::Said { node, incarnation, conn, message } => {
                if self.is_current(&node, conn) {
                    self.feed(Seen::Said { node, incarnation, message });
                }
            }
            Event::Unlinked { node, incarnation, conn } => {
                if self.is_current(&node, conn) {
                    self.links.remove(&node);
                    self.feed(Seen::Unlinked { node: node.clone(), incarnation });
                    self.no_more_words(&node, incarnation);
                }
            }
            Event::Exited { node, incarnation, exit } => self.exited(node, incarnation, exit),
            Event::Ordered { order, reply } => self.ordered(order, reply),
            Event::Prepared { only, prepared, reply } => self.prepared(only, prepared, reply),
        }
    }

    fn is_current(&self, node: &NodeName, conn: u64) -> bool {
        self.links.get(node).is_some_and(|link| link.conn == conn)
    }

    /// The machine decides on a registration before the connection takes the place of an older one.
    fn linked(&mut self, link: Link, seen: Seen) {
        let Seen::Registered { node, incarnation, .. } = &seen else { return };
        let (name, refused) = (node.clone(), Do::Hangup { node: node.clone(), incarnation: *incarnation });
        let todo = self.machine.step(moment(), seen);
        if !todo.contains(&refused) {
            self.links.insert(name, link);
        }
        self.act(todo.into_iter().filter(|todo| *todo != refused).collect());
    }

    fn exited(&mut self, node: NodeName, incarnation: Incarnation, exit: Exit) {
        self.processes.remove(&(node.clone(), incarnation));
        if self.links.get(&node).is_some_and(|link| link.incarnation == incarnation) {
            self.late.push_back((Instant::now() + LAST_WORDS_MAX, node, incarnation, exit));
        } else {
            self.ended(node, incarnation, exit);
        }
    }

    fn ended(&mut self, node: NodeName, incarnation: Incarnation, exit: Exit) {
        let last_line = self.logs.last_of_life(node.as_str());
        self.feed(Seen::Exited { node, incarnation, exit, last_line });
    }

    fn no_more_words(&mut self, name: &NodeName, of: Incarnation) {
        let at = self.late.iter().position(|(_, node, incarnation, _)| node == name && *incarnation == of);
        if let Some((_, node, incarnation, exit)) = at.and_then(|at| self.late.remove(at)) {
            self.ended(node, incarnation, exit);
        }
    }

    fn feed(&mut self, seen: Seen) {
        let todo = self.machine.step(moment(), seen);
        self.act(todo);
    }

    fn act(&mut self, todo: Vec<Do>) {
        let mut todo = VecDeque::from(todo);
        while let Some(next) = todo.pop_front() {
            match next {
                Do::Launch { node, incarnation } => {
                    let seen = self.launch(node, incarnation);
                    todo.extend(self.machine.step(moment(), seen));
                }
                Do::Terminate { node, incarnation } => {
                    self.processes.get(&(node, incarnation)).inspect(|process| process.terminate());
                }
                Do::Kill { node, incarnation } => {
                    self.processes.get(&(node, incarnation)).inspect(|process| process.kill());
                }
                Do::Tell { node, tell } => self.tell(&node, tell),
                Do::Hangup { node, incarnation } => {
                    if self.links.get(&node).is_some_and(|link| link.incarnation == incarnation) {
                        self.links.remove(&node);
                    }
                }
                // Whoever hears of it may look at the view at once.
                Do::Answer { ask, answer } => {
                    self.publish();
                    self.answer(ask, answer);
                }
                Do::Report(report) => {
                    self.publish();
                    log(&report);
                }
                Do::End(end) => self.ended = Some(end),
            }
        }
    }

    fn launch(&mut self, name: NodeName, incarnation: Incarnation) -> Seen {
        match self.try_launch(&name, incarnation) {
            Ok(pid) => Seen::Launched { node: name, incarnation, pid },
            Err(error) => Seen::LaunchFailed { node: name, incarnation, reason: error.to_string() },
        }
    }

    fn try_launch(&mut self, name: &NodeName, incarnation: Incarnation) -> std::io::Result<u32> {
        let node = self.machine.node(name).ok_or_else(|| std::io::Error::other("it is not configured"))?;
        let width = self.machine.nodes().map(|node| node.name.as_str().len()).max().unwrap_or(0);
        let spec = LaunchSpec {
            listeners: self.sockets.of(&node)?,
            node,
            cluster: Arc::clone(&self.cluster),
            incarnation,
            output: self.logs.of(name, width),
        };
        let Launched { pid, exit, signals } = self.launcher.launch(spec)?;
        self.processes.insert((name.clone(), incarnation), signals);
        let (events, node) = (self.to_self.clone(), name.clone());
        tokio::spawn(async move {
            let exit = exit.await;
            // When the supervisor is gone, nobody wants to know.
            let _ = events.send(Event::Exited { node, incarnation, exit }).await;
        });
        Ok(pid)
    }

    fn tell(&mut self, node: &NodeName, tell: Tell) {
        let Some(link) = self.links.get(node) else { return };
        if link.outbox.try_send(tell).is_err() {
            warn!(%node, "it does not take its control messages: its control connection is closed");
            self.links.remove(node);
        }
    }

    fn ordered(&mut self, order: Order, reply: oneshot::Sender<Answer>) {
        let command = match order {
            Order::StopAll => Ok(Command::StopAll),
            Order::KillAll => Ok(Command::KillAll),
            Order::Stop(node) => self.known(&node).map(Command::Stop),
            Order::Start(node) => self.known(&node).map(Command::Start),
            Order::Restart(node) => self.known(&node).map(Command::Restart),
            Order::Reload(only) => {
                let only = only.map(|node| self.known(&node)).transpose();
                return match only.and_then(|only| self.may_change().map(|()| only)) {
                    Ok(only) => self.prepare(only, reply),
                    Err(refused) => drop(reply.send(Err(refused))),
                };
            }
        };
        let stops = matches!(command, Ok(Command::StopAll | Command::KillAll));
        match command
            .and_then(|command| if stops { Ok(command) } else { self.may_change().map(|()| command) })
        {
            Ok(command) => self.ask(command, reply),
            Err(refused) => drop(reply.send(Err(refused))),
        }
    }

    fn may_change(&self) -> Result<(), Refused> {
        match self.machine.busy() {
            Some(refused) => Err(refused),
            None if self.preparing => Err(Refused::Busy("a reload is reading the config".into())),
            None => Ok(()),
        }
    }

    fn known(&self, name: &str) -> Result<NodeName, Refused> {
        let names = || self.machine.nodes().map(|node| &node.name);
        names().find(|known| known.as_str() == name).cloned().ok_or_else(|| {
            let near = names().map(|known| (strsim::damerau_levenshtein(known.as_str(), name), known));
            let nearest = near.min().filter(|(edits, _)| *edits <= 3).map(|(_, known)| known.to_string());
            Refused::Unknown { name: name.chars().take(100).collect(), nearest }
        })
    }

    fn ask(&mut self, command: Command, reply: oneshot::Sender<Answer>) {
        self.last_ask += 1;
        self.asks.insert(self.last_ask, reply);
        self.feed(Seen::Asked { ask: self.last_ask, command });
    }

    fn answer(&mut self, ask: Ask, answer: Answer) {
        for outcome in answer.iter().flatten() {
            info!("{}: {}", outcome.node, outcome.outcome);
        }
        // Whoever asked may have gone away; what was asked for has been done.
        self.asks.remove(&ask).map(|reply| reply.send(answer));
        let nodes = self.machine.nodes();
        if self.machine.busy().is_none() {
            self.sockets.keep(nodes);
        }
    }

    /// Reads the config on the side: the supervisor goes on meanwhile.
    fn prepare(&mut self, only: Option<NodeName>, reply: oneshot::Sender<Answer>) {
        self.preparing = true;
        let (source, apps) = (Arc::clone(&self.source), self.launcher.apps());
        let (old, events) = (Arc::clone(&self.cluster), self.to_self.clone());
        tokio::spawn(async move {
            let prepared = prepare::prepare(source, apps, old).await;
            let _ = events.send(Event::Prepared { only, prepared, reply }).await;
        });
    }

    fn prepared(
        &mut self,
        only: Option<NodeName>,
        prepared: Result<Box<Prepared>, Refused>,
        reply: oneshot::Sender<Answer>,
    ) {
        self.preparing = false;
        let opened = prepared.and_then(|prepared| {
            self.may_change()?;
            let faults = self.sockets.open(&prepared.cluster, &prepared.elsewhere);
            faults.map(|()| prepared).map_err(|faults| {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                Refused::Conflict(faults.join("\n"))
            })
        });
        match opened {
            Ok(prepared) => {
                let Prepared { cluster, elsewhere } = *prepared;
                self.cluster = Arc::new(cluster.clone());
                self.ask(Command::Reload { cluster: cluster.into(), elsewhere, only }, reply);
            }
            Err(refused) => {
                warn!("nothing is reloaded: {refused}");
                let _ = reply.send(Err(refused));
            }
        }
    }

    /// Ends what may be left (a fenced process, or all of them after a second signal) and reaps it.
    async fn wait_for_the_killed(&mut self, events: &mut mpsc::Receiver<Event>) {
        self.processes.values().for_each(|process| process.kill());
        let gone = async {
            while !self.processes.is_empty() {
                match events.recv().await {
                    Some(Event::Exited { node, incarnation, .. }) => {
                        self.processes.remove(&(node, incarnation));
                    }
                    Some(Event::Ordered { reply, .. } | Event::Prepared { reply, .. }) => {
                        let _ = reply.send(Err(Refused::Stopping));
                    }
                    Some(_) => {}
                    None => return,
                }
            }
        };
        let _ = timeout(GONE_MAX, gone).await;
    }
}

/// Everything impure that the machine is given.
pub(crate) fn moment() -> Moment {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The keys of a new `RandomState` are random; hashing nothing gives 64 random bits without a crate.
    let random = RandomState::new().hash_one(());
    Moment {
        at: Instant::now(),
        unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
        chance: random as f64 / u64::MAX as f64,
    }
}

fn log(report: &Report) {
    match report {
        Report::Ready { node, kind, pid, listens, took_ms } => {
            let port = |name, at: Option<std::net::SocketAddr>| at.map(|at| format!(", {name} {at}"));
            let ports = [port("root", listens.root), port("net", listens.net), port("web", listens.web)];
            let ports: String = ports.into_iter().flatten().collect();
            info!("{node} is ready: kind {kind}, pid {}{ports}, {took_ms} ms", pid.unwrap_or_default());
        }
        Report::Up { nodes, missing, took_ms } => {
            info!("the cluster is up: {nodes} nodes in {took_ms} ms");
            if !missing.is_empty() {
                let names = missing.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
                info!("to be started on their hosts by `master single NODE CONFIG`: {names}");
            }
        }
        Report::Info(text) => info!("{text}"),
        Report::Warn(text) => warn!("{text}"),
    }
}
