//! The supervisor's loop: waits for the next fact, gives it to the machine, does what the machine says.

mod launch;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ffambient::Ambient;
use ffconfig::Cluster;
use ffnet::door::DoorListener;
use ffproto::control::ToNode;
use ffproto::credential::PublicKey;
use ffproto::{Incarnation, NodeName, NodeNumber};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::adopted::{self, Adopted};
use super::event::{Event, Order};
use super::feed::{Feed, FeedEvent};
use super::keeper::Keeper;
use super::machine::{
    Answer, Ask, ClusterView, Command, Do, End, Exit, Found, Machine, Moment, Refused, Report, Seen, Tell,
};
use super::operators::Operators;
use super::prepare::{self, Prepared, Wanted};
use super::proc;
use super::process::{Launcher, Signals};
use super::rotation::Keyring;
use crate::keys::Next;
use crate::metrics::Meter;
use crate::output::Logs;
use crate::place;
use crate::run::RunFolder;
use crate::sockets::Sockets;
use crate::source::Source;

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
    /// The key of the cluster that the node's credential is of.
    root: PublicKey,
    outbox: mpsc::Sender<Tell>,
}

/// A process that is supervised, for one of the nodes that it runs.
struct Process {
    /// All nodes that it was started with.
    nodes: Arc<[NodeName]>,
    pid: u32,
    /// The key of the cluster that its credential is of; `None` of one that is adopted and has not registered yet.
    root: Option<PublicKey>,
    /// In clock ticks since the boot.
    started: u64,
    signals: Arc<dyn Signals>,
}

/// What a supervisor is made of.
pub(crate) struct Parts {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) sockets: Sockets,
    pub(crate) launcher: Box<dyn Launcher>,
    pub(crate) source: Source,
    pub(crate) logs: Logs,
    pub(crate) run: Option<RunFolder>,
    pub(crate) keys: Keyring,
    pub(crate) meter: Meter,
    /// Who the webport lets in, as the config that was taken last says.
    pub(crate) operators: Operators,
    pub(crate) ambient: Ambient,
}

/// A process of an earlier master that lives.
pub(crate) struct TakenOver {
    /// Once for each node that it runs; one at least.
    pub(crate) found: Vec<Found>,
    pub(crate) started: u64,
    pub(crate) adopted: Adopted,
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
    operators: Operators,
    keys: Keyring,
    ambient: Ambient,
    keeper: Keeper,
    /// Whether something runs, or does not run any more, that is not written down yet.
    unlisted: bool,
    feed: Feed,
    meter: Meter,
    /// By each node that they run. In order: what is done to all of them, is done in the same order each time.
    processes: BTreeMap<(NodeName, Incarnation), Process>,
    links: HashMap<(NodeName, Incarnation), Link>,
    /// Ends of whose nodes one is still linked: its last words are on the way.
    late: VecDeque<(Instant, Arc<[NodeName]>, Incarnation, Exit)>,
    asks: HashMap<Ask, oneshot::Sender<Answer>>,
    last_ask: Ask,
    preparing: bool,
    /// Reloads that wait for the command that runs.
    waiting: VecDeque<oneshot::Sender<Answer>>,
    ended: Option<End>,
}

impl Shell {
    /// A supervisor for a config whose sockets are open.
    pub(crate) fn new(parts: Parts) -> (Self, mpsc::Receiver<Event>) {
        let Parts { cluster, sockets, launcher, source, logs, run, keys, meter, operators, ambient } = parts;
        let machine = Machine::new(&cluster, &place::elsewhere(&cluster), moment(&ambient));
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
            keys,
            operators,
            ambient,
            keeper: Keeper::new(run),
            unlisted: true,
            feed: Feed::new(),
            meter,
            processes: BTreeMap::new(),
            links: HashMap::new(),
            late: VecDeque::new(),
            asks: HashMap::new(),
            last_ask: 0,
            preparing: false,
            waiting: VecDeque::new(),
            ended: None,
        };
        (shell, events)
    }

    /// Takes in what an earlier master has left. Before the start.
    pub(crate) fn take_over(&mut self, numbers: &[(NodeName, NodeNumber)], processes: Vec<TakenOver>) {
        let mut found = Vec::new();
        for TakenOver { found: of_one, started, adopted: Adopted { exit, signals } } in processes {
            let Some(&Found { incarnation, pid, .. }) = of_one.first() else { continue };
            let nodes: Arc<[NodeName]> = of_one.iter().map(|found| found.node.clone()).collect();
            info!("{} (pid {pid}) was started by a master before this one, and lives", listed(&nodes));
            self.supervise(&nodes, incarnation, (pid, started), None, (exit, signals));
            found.extend(of_one);
        }
        self.machine.adopt(numbers, found, moment(&self.ambient));
    }

    /// What happens, for readers.
    pub(crate) fn events(&self) -> broadcast::Sender<Arc<FeedEvent>> {
        self.feed.readers()
    }

    /// Supervises until everything has ended.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>) -> End {
        self.feed(Seen::Begin);
        loop {
            self.publish();
            self.list();
            if let Some(end) = self.ended.take() {
                if end != End::Detached {
                    self.wait_for_the_killed(&mut events).await;
                }
                self.keeper.close(&end);
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
            self.begin_waiting();
        }
    }

    fn publish(&mut self) {
        self.keeper.touch();
        let (view, ambient) = (Arc::new(self.machine.view()), &self.ambient);
        let (feed, meter) = (&mut self.feed, &mut self.meter);
        self.view.send_if_modified(|shown| {
            let changed = *shown != view;
            if changed {
                let now = moment(ambient);
                feed.changed(shown, &view, now.unix_ms);
                meter.changed(shown, &view, now.at);
            }
            *shown = view;
            changed
        });
    }

    /// Writes down what runs, for a master after this one, when that has changed.
    fn list(&mut self) {
        if !std::mem::take(&mut self.unlisted) {
            return;
        }
        let processes: Vec<_> = self
            .processes
            .iter()
            .map(|((node, incarnation), process)| (node, *incarnation, process.pid, process.started))
            .collect();
        self.keeper.list(self.machine.numbers(), &processes);
    }

    fn wake_at(&self) -> Instant {
        let late = self.late.front().map(|(until, ..)| *until);
        let far = Instant::now() + Duration::from_secs(3_600);
        self.machine.wake_at().into_iter().chain(late).min().unwrap_or(far)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        while self.late.front().is_some_and(|(until, ..)| *until <= now) {
            if let Some((_, nodes, incarnation, exit)) = self.late.pop_front() {
                self.ended(&nodes, incarnation, exit);
            }
        }
        self.feed(Seen::Tick);
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Linked { node, incarnation, pid, wire, conn, root, outbox } => {
                self.linked(Link { conn, root, outbox }, Seen::Registered { node, incarnation, pid, wire });
            }
            Event::Said { node, incarnation, conn, message } => {
                if self.is_current(&node, incarnation, conn) {
                    self.feed(Seen::Said { node, incarnation, message });
                }
            }
            Event::Unlinked { node, incarnation, conn } => {
                if self.is_current(&node, incarnation, conn) {
                    self.links.remove(&(node.clone(), incarnation));
                    self.feed(Seen::Unlinked { node: node.clone(), incarnation });
                    self.no_more_words(&node, incarnation);
                }
            }
            Event::Exited { nodes, incarnation, exit } => self.exited(nodes, incarnation, exit),
            Event::HandedBack { node, incarnation, sockets } => {
                let sockets = sockets.map(|sockets| {
                    sockets.into_iter().for_each(|(port, socket)| self.sockets.put(&node, port, socket));
                });
                self.feed(Seen::HandedBack { node, incarnation, sockets });
            }
            Event::Ordered { order, reply } => self.ordered(order, reply),
            // Who asked may have gone away.
            Event::KeyAsked { node, incarnation, reply } => drop(reply.send(self.key_of(&node, incarnation))),
            Event::Prepared { wanted, prepared, reply } => self.prepared(wanted, prepared, reply),
        }
    }

    fn is_current(&self, node: &NodeName, incarnation: Incarnation, conn: u64) -> bool {
        self.links.get(&(node.clone(), incarnation)).is_some_and(|link| link.conn == conn)
    }

    /// The machine decides on a registration before the connection takes the place of an older one.
    fn linked(&mut self, link: Link, seen: Seen) {
        let Seen::Registered { node, incarnation, .. } = &seen else { return };
        let key = (node.clone(), *incarnation);
        let refused = Do::Hangup { node: node.clone(), incarnation: *incarnation };
        let (node, incarnation) = key.clone();
        let todo = self.machine.step(moment(&self.ambient), seen);
        if !todo.contains(&refused) {
            self.processes.entry(key.clone()).and_modify(|process| process.root = Some(link.root));
            self.links.insert(key, link);
        }
        // It may have been away when they changed, and needs them for the neighbours that it is told of next. Nobody is told who is
        // not linked.
        self.tell(node, incarnation, Tell::Message(self.keys.roots()));
        self.act(todo.into_iter().filter(|todo| *todo != refused).collect());
    }

    fn exited(&mut self, nodes: Arc<[NodeName]>, incarnation: Incarnation, exit: Exit) {
        self.forget(&nodes, incarnation);
        if self.is_any_linked(&nodes, incarnation) {
            self.late.push_back((Instant::now() + LAST_WORDS_MAX, nodes, incarnation, exit));
        } else {
            self.ended(&nodes, incarnation, exit);
        }
    }

    fn forget(&mut self, nodes: &[NodeName], incarnation: Incarnation) {
        nodes.iter().for_each(|node| drop(self.processes.remove(&(node.clone(), incarnation))));
        self.unlisted = true;
    }

    fn is_any_linked(&self, nodes: &[NodeName], incarnation: Incarnation) -> bool {
        nodes.iter().any(|node| self.links.contains_key(&(node.clone(), incarnation)))
    }

    /// The end of a process, which is said once for all of its nodes.
    fn ended(&mut self, nodes: &[NodeName], incarnation: Incarnation, exit: Exit) {
        let Some(node) = nodes.first().cloned() else { return };
        let lines = self.logs.of_life(&node, incarnation);
        self.feed(Seen::Exited { node, incarnation, exit, lines });
    }

    fn no_more_words(&mut self, name: &NodeName, of: Incarnation) {
        let is_it = |nodes: &[NodeName], incarnation| incarnation == of && nodes.contains(name);
        let at = self.late.iter().position(|(_, nodes, incarnation, _)| {
            is_it(nodes, *incarnation) && !self.is_any_linked(nodes, of)
        });
        if let Some((_, nodes, incarnation, exit)) = at.and_then(|at| self.late.remove(at)) {
            self.ended(&nodes, incarnation, exit);
        }
    }

    fn feed(&mut self, seen: Seen) {
        let todo = self.machine.step(moment(&self.ambient), seen);
        self.act(todo);
    }

    fn act(&mut self, todo: Vec<Do>) {
        let mut todo = VecDeque::from(todo);
        while let Some(next) = todo.pop_front() {
            match next {
                Do::Launch { nodes, incarnation } => {
                    let seen = self.launch(&nodes, incarnation);
                    todo.extend(self.machine.step(moment(&self.ambient), seen));
                }
                Do::Terminate { node, incarnation } => {
                    self.processes.get(&(node, incarnation)).inspect(|process| process.signals.terminate());
                }
                Do::Kill { node, incarnation } => {
                    self.processes.get(&(node, incarnation)).inspect(|process| process.signals.kill());
                }
                Do::Tell { node, incarnation, tell } => self.tell(node, incarnation, tell),
                Do::Hangup { node, incarnation } => drop(self.links.remove(&(node, incarnation))),
                Do::TakeBack { node, incarnation } => {
                    if let Some(failed) = self.take_back(node, incarnation) {
                        todo.extend(self.machine.step(moment(&self.ambient), failed));
                    }
                }
                Do::Look { node, incarnation, pid } => {
                    let seen = Seen::Looked { node, incarnation, process: proc::describe(pid) };
                    todo.extend(self.machine.step(moment(&self.ambient), seen));
                }
                // Whoever hears of it may look at the view at once.
                Do::Answer { ask, answer } => {
                    self.publish();
                    self.answer(ask, answer);
                }
                Do::Report(report) => {
                    self.publish();
                    self.feed.report(&report, self.ambient.clock.now_ms());
                    log(&report);
                    if let Report::Crashed(crash) = &report {
                        self.keeper.crash(crash);
                    }
                }
                Do::End(end) => self.ended = Some(end),
            }
        }
    }

    /// The keys of a start that a person makes.
    fn key_of(&self, name: &NodeName, incarnation: Incarnation) -> Result<Zeroizing<Vec<u8>>, String> {
        let may = self.machine.may_start_by_hand(name, incarnation, self.ambient.clock.now_ms());
        may.map_err(|why| why.to_string())?;
        let unknown = || format!("`{name}` is not in the config any more");
        let node = self.cluster.node(name.as_str()).ok_or_else(unknown)?;
        let keys = self.keys.cluster().start(self.cluster.claims(node), incarnation, &self.ambient.chance);
        info!("{name} is started by hand: its start {incarnation} has got a key");
        keys.and_then(|keys| keys.to_bytes()).map_err(|error| error.to_string())
    }

    /// Waits on the side for an adopted node to bring its sockets.
    fn take_back(&mut self, node: NodeName, incarnation: Incarnation) -> Option<Seen> {
        let listener = match DoorListener::open(&self.ambient.chance) {
            Ok(listener) => listener,
            Err(error) => {
                return Some(Seen::HandedBack { node, incarnation, sockets: Err(error.to_string()) });
            }
        };
        let process = self.processes.get(&(node.clone(), incarnation));
        let nodes = process.map_or_else(|| [node.clone()].into(), |process| Arc::clone(&process.nodes));
        let output = self.output_of(&nodes, incarnation);
        let message = ToNode::HandBack { door: listener.door() };
        self.tell(node.clone(), incarnation, Tell::Message(message));
        let (events, versions) = (self.to_self.clone(), self.keys.versions());
        tokio::spawn(async move {
            let sockets = adopted::take_back(listener, output, versions).await;
            let sockets = sockets.map_err(|error| error.to_string());
            let _ = events.send(Event::HandedBack { node, incarnation, sockets }).await;
        });
        None
    }

    fn tell(&mut self, node: NodeName, incarnation: Incarnation, tell: Tell) {
        let key = (node, incarnation);
        let Some(link) = self.links.get(&key) else { return };
        if link.outbox.try_send(tell).is_err() {
            warn!(node = %key.0, "it does not take its control messages: its control connection is closed");
            self.links.remove(&key);
        }
    }

    fn ordered(&mut self, order: Order, reply: oneshot::Sender<Answer>) {
        let command = match order {
            Order::StopAll => Ok(Command::StopAll),
            Order::KillAll => Ok(Command::KillAll),
            Order::Detach => Ok(Command::Detach),
            Order::Stop(node) => self.known(&node).map(Command::Stop),
            Order::Start(node) => self.known(&node).map(Command::Start),
            Order::Restart(node) => self.known(&node).map(Command::Restart),
            Order::Reload(only) => {
                let only = only.map(|node| self.known(&node)).transpose();
                return match only.and_then(|only| self.may_change().map(|()| only)) {
                    Ok(only) => self.prepare(Wanted { only, rotate: false }, reply),
                    Err(refused) => drop(reply.send(Err(refused))),
                };
            }
            Order::ReloadWhenFree => {
                if let Err(Refused::Busy(what)) = self.may_change() {
                    info!("a reload waits: {what}");
                }
                return self.waiting.push_back(reply);
            }
            Order::Rotate => {
                return match self.may_change() {
                    Ok(()) => self.prepare(Wanted { only: None, rotate: true }, reply),
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

    /// Begins the next reload that waits, when no command runs any more.
    fn begin_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        match self.may_change() {
            Ok(()) => {
                if let Some(reply) = self.waiting.pop_front() {
                    self.prepare(Wanted { only: None, rotate: false }, reply);
                }
            }
            Err(Refused::Busy(_)) => {}
            // Who asked may have gone away.
            Err(refused) => {
                self.waiting.drain(..).for_each(|reply| drop(reply.send(Err(refused.clone()))));
            }
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
        if self.machine.busy().is_none() {
            self.sockets.keep(self.machine.nodes());
        }
        self.unlisted = true;
    }

    /// Reads the config on the side: the supervisor goes on meanwhile.
    fn prepare(&mut self, wanted: Wanted, reply: oneshot::Sender<Answer>) {
        self.preparing = true;
        let source = Arc::clone(&self.source);
        let (old, events) = (Arc::clone(&self.cluster), self.to_self.clone());
        let (keys, chance) = (self.keys.keys(), self.ambient.chance.clone());
        tokio::spawn(async move {
            let prepared = prepare::prepare(source, old, keys, chance, &wanted).await;
            let _ = events.send(Event::Prepared { wanted, prepared, reply }).await;
        });
    }

    fn prepared(
        &mut self,
        wanted: Wanted,
        prepared: Result<Box<Prepared>, Refused>,
        reply: oneshot::Sender<Answer>,
    ) {
        self.preparing = false;
        let opened = prepared.and_then(|mut prepared| {
            self.may_change()?;
            let faults = self.sockets.open(&prepared.cluster, &prepared.elsewhere);
            faults.map_err(|faults| {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                Refused::Conflict(faults.join("\n"))
            })?;
            prepared.next.take().map_or(Ok(()), |next| self.rotate(next))?;
            Ok(prepared)
        });
        match opened {
            Ok(prepared) => {
                let Prepared { cluster, elsewhere, next: _ } = *prepared;
                self.cluster = Arc::new(cluster.clone());
                self.operators.follow(&cluster.master.operators);
                let only = wanted.only;
                self.ask(Command::Reload { cluster: cluster.into(), elsewhere, only }, reply);
            }
            Err(refused) => {
                warn!("nothing is reloaded: {refused}");
                let _ = reply.send(Err(refused));
            }
        }
    }

    /// Signs with other keys from now on, and tells every node before its neighbours have any of them. Not as long as that would
    /// lock a process of this master out.
    fn rotate(&mut self, next: Next) -> Result<(), Refused> {
        self.nobody_is_locked_out(&next)?;
        self.keys.rotate(next).map_err(|error| Refused::Conflict(fftelemetry::chain(&error)))?;
        let text = "the keys of the cluster have changed; those of before are valid until the next change";
        let mut reports = vec![Do::Report(Report::Info(text.into()))];
        let mut strangers = Vec::new();
        let told: Vec<_> = self.links.iter().map(|(process, link)| (process.clone(), link.root)).collect();
        for ((node, incarnation), root) in told {
            // Those that this master has started get another one by the reload that follows.
            if !self.keys.has(root) && !self.processes.contains_key(&(node.clone(), incarnation)) {
                let text = format!(
                    "{node} has a key of before the last change, which nobody takes any more: SIGHUP to its `master single`, or start it again"
                );
                reports.push(Do::Report(Report::Warn(text)));
                strangers.push((node.clone(), incarnation));
            }
            self.tell(node, incarnation, Tell::Message(self.keys.roots()));
        }
        self.act(reports);
        // What is told already is still written.
        for (node, incarnation) in strangers {
            self.links.remove(&(node.clone(), incarnation));
            self.feed(Seen::Unlinked { node, incarnation });
        }
        Ok(())
    }

    /// After a reload that was rolled back, processes have keys of before the last change: the next one ends those.
    fn nobody_is_locked_out(&self, next: &Next) -> Result<(), Refused> {
        let conflict = |error| Refused::Conflict(fftelemetry::chain(&error));
        let after = self.keys.roots_after(next).map_err(conflict)?;
        let lost = |process: &Process| process.root.is_some_and(|root| !after.has(root));
        let lost =
            self.processes.iter().filter(|(_, process)| lost(process)).map(|((node, _), _)| node.as_str());
        let lost: Vec<&str> = lost.collect();
        if lost.is_empty() {
            return Ok(());
        }
        Err(Refused::Conflict(format!(
            "the keys cannot change again yet: {} still run with keys of before the last change; reload first, with the token as it is now",
            lost.join(", ")
        )))
    }

    /// Ends what may be left (a fenced process, or all of them after a second signal) and reaps it.
    async fn wait_for_the_killed(&mut self, events: &mut mpsc::Receiver<Event>) {
        self.processes.values().for_each(|process| process.signals.kill());
        let gone = async {
            while !self.processes.is_empty() {
                match events.recv().await {
                    Some(Event::Exited { nodes, incarnation, .. }) => self.forget(&nodes, incarnation),
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

/// Names, for the log.
fn listed(names: &[NodeName]) -> String {
    names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

/// Everything impure that the machine is given.
pub(crate) fn moment(ambient: &Ambient) -> Moment {
    Moment { at: Instant::now(), unix_ms: ambient.clock.now_ms(), chance: ambient.chance.share() }
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
        Report::Crashed(crash) => {
            let lived = crash.lived_ms;
            warn!("{} has ended: {}; it lived {lived} ms; {}", crash.node, crash.exit, crash.during);
        }
        Report::Info(text) => info!("{text}"),
        Report::Warn(text) => warn!("{text}"),
    }
}
