//! The process of several nodes: put together with links in memory between them, and run until the last of them has ended.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ffambient::Ambient;
use ffconfig::{Cluster, Log, Node};
use ffnet::launch::{INCARNATION_ENV, MalformedSucceeds, SUCCEEDS_ENV, Succeeds, allow_descriptors};
use ffnet::listen::Inherited;
use ffnet::notify;
use ffproto::NodeName;
use fftelemetry::tagged_as;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::app::app::App;
use crate::identity::keys::Startup;
use crate::identity::stop::Stop;
use crate::identity::watchdog::{BEAT_EVERY, Watchdog};
use crate::runtime::in_process::InProcessNet;
use crate::runtime::process::{OwnError, told_by_dev, watch_loop};
use crate::runtime::server::{FFServer, RunError};

/// What a process has once, and its nodes agree in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSettings {
    /// `threads`: threads of the runtime.
    pub threads: usize,
    /// `cpu`: the processors that the process may run on.
    pub cpu: Option<Vec<usize>>,
    /// `log`: the files, besides the terminal, and what they have.
    pub log: Log,
}

/// Why nodes cannot share a process.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// A name stands twice in the list.
    #[error("`{0}` is given twice: a process runs a node once")]
    Twice(String),
    /// Two nodes want their process differently.
    #[error(
        "servers.{node}.{key} is {value}, servers.{first}.{key} is {of_first}: the nodes of a process share it"
    )]
    Differ {
        /// The first node.
        first: NodeName,
        /// One that differs from it.
        node: NodeName,
        /// The key.
        key: &'static str,
        /// What the first one's config says.
        of_first: String,
        /// What the other one's config says.
        value: String,
    },
    /// One of them cannot be put together, or the system refuses.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// The master's word of predecessors cannot be read.
    #[error(transparent)]
    Succeeds(#[from] MalformedSucceeds),
}

/// The first name that stands in the list once more.
fn named_twice(names: &[String]) -> Option<&String> {
    names
        .iter()
        .enumerate()
        .find(|(at, name)| names.iter().take(*at).any(|before| before == *name))
        .map(|(_, name)| name)
}

/// What the process of these nodes, which are named so, has once.
///
/// # Errors
/// The nodes cannot share a process.
pub(crate) fn settings(names: &[String], servers: &[FFServer]) -> Result<ProcessSettings, ShareError> {
    match named_twice(names) {
        Some(name) => Err(ShareError::Twice(name.clone())),
        None => settings_of(&servers.iter().map(FFServer::config).collect::<Vec<_>>()),
    }
}

fn settings_of(nodes: &[&Node]) -> Result<ProcessSettings, ShareError> {
    let of = |node: &Node| {
        let absent = || "absent".to_owned();
        [
            ("threads", node.threads.to_string()),
            ("cpu", node.cpu.as_ref().map_or_else(absent, |cpus| format!("{cpus:?}"))),
            ("log", node.log.to_string()),
        ]
    };
    let Some((first, others)) = nodes.split_first() else {
        return Ok(ProcessSettings { threads: 1, cpu: None, log: Log::default() });
    };
    for node in others {
        let pairs = of(node).into_iter().zip(of(first));
        if let Some(((key, value), (_, of_first))) = pairs.into_iter().find(|(own, other)| own != other) {
            let (first, node) = (first.name.clone(), node.name.clone());
            return Err(ShareError::Differ { first, node, key, of_first, value });
        }
    }
    Ok(ProcessSettings { threads: first.threads, cpu: first.cpu.clone(), log: first.log.clone() })
}

/// Puts the nodes of this process together, each with its own keys and registries, and what the process has once. They link in
/// memory to each other and over TCP to all others. Which of them take over is in the environment (`env`), their loop is watched,
/// and the process may have as many descriptors as the system gives. `startups` are in the order of the names. The example is at
/// [`run_nodes`].
///
/// # Errors
/// The nodes cannot share a process, or one of them cannot be put together.
pub fn own_nodes(
    cluster: &Cluster,
    names: &[String],
    apps: &dyn Fn() -> Vec<App>,
    startups: Vec<Startup>,
    env: &dyn Fn(&str) -> Option<String>,
    ambient: &Ambient,
) -> Result<(Vec<FFServer>, ProcessSettings), ShareError> {
    allow_descriptors().map_err(OwnError::from)?;
    let succeeds: Succeeds = env(SUCCEEDS_ENV).unwrap_or_default().parse()?;
    let (net, members) = (InProcessNet::default(), u32::try_from(names.len()).unwrap_or(u32::MAX));
    let mut servers = Vec::with_capacity(names.len());
    for (name, startup) in names.iter().zip(startups) {
        let server =
            FFServer::with_startup(cluster, name, apps(), startup, ambient).map_err(OwnError::from)?;
        let server = server.own_process(succeeds.of(name).is_some()).shares_process(net.clone(), members);
        let server = told_by_dev(server, env);
        let launched = env(INCARNATION_ENV).is_some();
        servers.push(if launched { server.launched_by_master() } else { server });
    }
    let settings = settings(names, &servers)?;
    let watched = servers.iter().map(|server| (server.identity().clone(), server.watchdog().clone()));
    watch_loop(watched.collect(), env(notify::ENV)).map_err(OwnError::from)?;
    Ok((servers, settings))
}

/// Why a node has ended by itself, and its process with it.
#[derive(Debug, thiserror::Error)]
#[error("{node} has ended by itself, and the nodes of its process were stopped")]
pub struct NodeFailed {
    /// The node.
    pub node: NodeName,
    /// Why.
    #[source]
    pub why: NodeFailure,
}

/// Why a node has ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeFailure {
    /// It could not start, or its predecessor serves on.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Its task ended by a fault of the framework.
    #[error("its task ended")]
    Task(#[from] JoinError),
}

/// Runs the nodes of [`own_nodes`], each with the sockets that it has inherited, until the last of them has ended. One that is told
/// to stop, or has handed over, ends alone. At `stop` all do, in the order of a cluster: those with clients first, and a node
/// before its parents.
///
/// ```no_run
/// use ffserver::{Ambient, App, Stop, process};
///
/// type Apps<'a> = &'a dyn Fn() -> Vec<App>;
///
/// /// As `PROGRAM A B C config.json` by hand: each opens its own sockets.
/// fn run(
///     names: &[String],
///     config: &std::path::Path,
///     apps: Apps<'_>,
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let (env, ambient) = (|name: &str| std::env::var(name).ok(), Ambient::system());
///     let startups = process::startups(names.len(), config, &env, &ambient)?;
///     let cluster = ffconfig::load(config, &env)?.cluster;
///     let (servers, settings) = process::own_nodes(&cluster, names, apps, startups, &env, &ambient)?;
///     let nodes = servers.into_iter().map(|server| (server, Default::default())).collect();
///     let stop = Stop::new(Default::default());
///     process::runtime(settings.threads)?.block_on(process::run_nodes(nodes, stop))?;
///     Ok(())
/// }
/// ```
///
/// # Errors
/// The first node that has ended by itself; the others were stopped in good order.
pub async fn run_nodes(nodes: Vec<(FFServer, Inherited)>, stop: Stop) -> Result<(), NodeFailed> {
    let _beating =
        nodes.first().map(|(first, _)| AbortOnDropHandle::new(tokio::spawn(beat(first.watchdog().clone()))));
    let mut members = Members::of(nodes.iter().map(|(server, _)| (server.config(), server.stop_handle())));
    let (mut running, mut names) = (JoinSet::new(), HashMap::new());
    for (server, inherited) in nodes {
        let name = server.config().name.clone();
        let run = tagged_as(name.as_str(), server.run(inherited));
        names.insert(running.spawn(run).id(), name);
    }
    let (mut failed, mut stopping) = (None, false);
    loop {
        let ended = tokio::select! {
            () = stop.begun(), if !stopping => None,
            ended = running.join_next_with_id() => match ended {
                Some(ended) => Some(ended),
                None => return failed.map_or(Ok(()), Err),
            },
        };
        if let Some((node, outcome)) = ended.and_then(|ended| of_node(ended, &mut names)) {
            members.ended(&node);
            if let (Err(NodeFailure::Run(RunError::TakeOver(why))), false) = (&outcome, running.is_empty()) {
                // Its predecessor serves on, in another process: the others have no part in that.
                warn!("{node} leaves this process: {}", fftelemetry::chain(why));
            } else if let Err(why) = outcome {
                let because = fftelemetry::chain(&why);
                match &failed {
                    None => error!("{node} has ended by itself: {because}"),
                    Some(NodeFailed { node: first, .. }) => {
                        warn!("{node} has ended after {first}: {because}")
                    }
                }
                failed.get_or_insert(NodeFailed { node, why });
            } else if !running.is_empty() && !stopping {
                info!("{node} has left this process, in which others go on");
            }
        }
        stopping |= stop.is_stopping() || failed.is_some();
        if stopping {
            members.stop_next();
        }
    }
}

type Ended = Result<(Id, Result<(), RunError>), JoinError>;

/// The node that has ended, and how.
fn of_node(ended: Ended, names: &mut HashMap<Id, NodeName>) -> Option<(NodeName, Result<(), NodeFailure>)> {
    let (id, outcome) = match ended {
        Ok((id, outcome)) => (id, outcome.map_err(NodeFailure::from)),
        Err(error) => (error.id(), Err(error.into())),
    };
    Some((names.remove(&id)?, outcome))
}

/// Shows the watch that the loop turns, also between the start of one node and the end of another.
async fn beat(watchdog: Arc<Watchdog>) {
    loop {
        tokio::time::sleep(BEAT_EVERY).await;
        watchdog.beat();
    }
}

/// The nodes of a process that have not ended, and the waves in which they stop.
struct Members(BTreeMap<NodeName, Member>);

struct Member {
    wave: Wave,
    stop: Stop,
}

/// Nodes with clients stop first, then each before those that it has for parents.
type Wave = (bool, Reverse<usize>);

impl Members {
    fn of<'a>(nodes: impl Iterator<Item = (&'a Node, Stop)>) -> Self {
        let nodes: Vec<_> = nodes.collect();
        let configs: BTreeMap<&NodeName, &Node> = nodes.iter().map(|(node, _)| (&node.name, *node)).collect();
        let member = |(node, stop): &(&Node, Stop)| {
            let wave = match node.netport {
                Some(_) => (false, Reverse(0)),
                None => (true, Reverse(depth(node, &configs))),
            };
            (node.name.clone(), Member { wave, stop: stop.clone() })
        };
        Self(nodes.iter().map(member).collect())
    }

    fn ended(&mut self, node: &NodeName) {
        self.0.remove(node);
    }

    /// Stops the first wave of those that are left.
    fn stop_next(&self) {
        let first = self.0.values().map(|member| member.wave).min();
        for member in self.0.values().filter(|member| Some(member.wave) == first) {
            member.stop.begin(None);
        }
    }
}

/// The longest way from a node up through parents in its process. The config has no circles.
fn depth(node: &Node, configs: &BTreeMap<&NodeName, &Node>) -> usize {
    let parents = node.parents.iter().filter_map(|parent| configs.get(&parent.name));
    parents.map(|parent| depth(parent, configs) + 1).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn cluster(servers: &str) -> Cluster {
        let config =
            format!(r#"{{ "master": {{ "rootport": 1, "webport": 2 }}, "servers": {{ {servers} }} }}"#);
        ffconfig::parse(&config, Path::new("config.json"), &|_| None).unwrap().cluster
    }

    #[test]
    fn the_nodes_of_a_process_stop_those_with_clients_first_and_children_before_parents() {
        let cluster = cluster(
            r#""hub": { "rootport": 3, "app": "a" },
            "gate": { "rootport": 4, "app": "a", "remoteport": [{ "rootport": 3, "rootname": "hub" }] },
            "game": { "app": "a", "count": 2, "remoteport": [{ "rootport": 4, "rootname": "gate" }] },
            "net": { "netport": 5, "app": "a", "remoteport": [{ "rootport": 4, "rootname": "gate" }] }"#,
        );
        let stops: Vec<_> = cluster.nodes.iter().map(|node| (node, Stop::new(node.drain))).collect();
        let mut members = Members::of(stops.iter().map(|(node, stop)| (*node, stop.clone())));
        let told = || -> Vec<&str> {
            let told = stops.iter().filter(|(_, stop)| stop.is_stopping());
            told.map(|(node, _)| node.name.as_str()).collect()
        };
        let ended = |members: &mut Members, name: &str| members.ended(&NodeName::try_from(name).unwrap());
        members.stop_next();
        assert_eq!(told(), ["net"]);
        ended(&mut members, "net");
        members.stop_next();
        assert_eq!(told(), ["game.1", "game.2", "net"]);
        ended(&mut members, "game.2");
        members.stop_next();
        assert_eq!(told().len(), 3, "the gate stays until its last child has ended");
        ended(&mut members, "game.1");
        members.stop_next();
        assert_eq!(told(), ["gate", "game.1", "game.2", "net"]);
        ended(&mut members, "gate");
        members.stop_next();
        assert_eq!(told().len(), 5);
    }

    #[test]
    fn nodes_that_want_their_process_differently_do_not_share_one() {
        let cluster = cluster(
            r#""one": { "app": "a", "log": "a.log", "cpu": [0] }, "same": { "app": "a", "log": "a.log", "cpu": [0] },
            "two": { "app": "a", "log": "a.log", "cpu": [0], "threads": 2 }, "other": { "app": "a", "cpu": [0] }"#,
        );
        let of = |names: &[&str]| {
            let nodes: Vec<&Node> = names.iter().map(|name| cluster.node(name).unwrap()).collect();
            settings_of(&nodes).map_err(|error| error.to_string())
        };
        let log = cluster.nodes[0].log.clone();
        assert_eq!(of(&["one", "same"]), Ok(ProcessSettings { threads: 1, cpu: Some(vec![0]), log }));
        let share = ": the nodes of a process share it";
        let threads = format!("servers.two.threads is 2, servers.one.threads is 1{share}");
        assert_eq!(of(&["one", "same", "two"]), Err(threads));
        let log = of(&["one", "other"]).unwrap_err();
        assert!(
            log.starts_with("servers.other.log is absent, servers.one.log is `") && log.ends_with(share),
            "{log}"
        );
    }

    #[test]
    fn a_name_that_stands_twice_is_found() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(named_twice(&names(&["a", "b", "c"])), None);
        assert_eq!(named_twice(&names(&["a", "b", "a", "b"])).unwrap(), "a");
    }
}
