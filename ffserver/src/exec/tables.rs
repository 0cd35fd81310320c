//! The handler tables of a node: which function runs for a command or a method, built and checked once at start.

use std::any::TypeId;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use ffconfig::RouteRule;
use ffproto::CommandId;
use rustc_hash::FxHashMap;

use crate::app::app::App;
use crate::app::handler::{CheckContext, Key, Route, has_parent};
use crate::cluster::served::is_reserved;
use crate::identity::metrics::NodeMetrics;
use crate::identity::watchdog::WatchedHandler;
use crate::node::States;

/// The handler tables of a node, by who may call.
#[derive(Clone, Default)]
pub(crate) struct HandlerTables {
    net: Arc<FxHashMap<u32, Route>>,
    /// The handler of clients' commands that have neither a handler of their own nor a route here.
    default: Option<Arc<Route>>,
    /// The routes of clients' commands that have no handler here.
    routes: Arc<ffconfig::Route>,
    /// The handlers for children; the place is the method's number.
    root: Arc<[Route]>,
    /// The handlers for parents; the keys name the parent.
    remote: Arc<[Route]>,
    /// The handlers for every node, by method.
    nodes: Arc<FxHashMap<&'static str, Route>>,
    /// Whether a client's message is handled only when its session is known.
    needs_sessions: bool,
}

impl HandlerTables {
    /// Builds the tables and collects every fault: duplicates, and what handlers need and the node's
    /// config does not have.
    pub(crate) fn build(app: &App, config: &ffconfig::Node) -> Result<Self, Vec<String>> {
        let takes_session = checked(app, config)?;
        let of = |wanted: fn(&Key) -> bool| -> Vec<Route> {
            // A handler's place in the list, from 1, is its number: see `HandlerTables::names`.
            let numbered = (1..).zip(app.routes.iter().zip(&takes_session));
            let wanted = numbered.filter(|(_, (route, _))| wanted(&route.key));
            let with_facts = |(number, (route, takes)): (u32, (&Route, &bool))| Route {
                number,
                takes_session: *takes,
                ..route.clone()
            };
            wanted.map(with_facts).collect()
        };
        let net = of(|key| matches!(key, Key::Net(_)));
        let default = of(|key| matches!(key, Key::Default)).pop().map(Arc::new);
        let nodes = of(|key| matches!(key, Key::Node(_)));
        let hooks = app.hooks.need_sessions();
        Ok(Self {
            needs_sessions: hooks || net.iter().chain(default.as_deref()).any(|route| route.takes_session),
            default,
            routes: Arc::new(config.route.clone()),
            net: Arc::new(net.into_iter().filter_map(|route| Some((command(&route.key)?, route))).collect()),
            root: of(|key| matches!(key, Key::Root(_))).into(),
            remote: of(|key| matches!(key, Key::Remote { .. })).into(),
            nodes: Arc::new(
                nodes.into_iter().filter_map(|route| Some((method(&route.key)?, route))).collect(),
            ),
        })
    }

    /// The handlers by number: their names, with what calls them, and their metrics.
    pub(crate) fn watched(app: &App, metrics: &NodeMetrics) -> Vec<WatchedHandler> {
        let watched = |route: &Route| WatchedHandler {
            name: format!("`{}` ({})", route.name, route.key),
            metrics: metrics.of_handler(route.name, &route.key.to_string().replace('`', "")),
        };
        app.routes.iter().map(watched).collect()
    }

    /// Whether clients' messages are for this node: it handles them, or its route says who does.
    pub(crate) fn handles_clients(&self) -> bool {
        !self.net.is_empty() || self.default.is_some() || !self.routes.is_empty()
    }

    /// Whether a client's message of another net node is handled only when its session is known.
    pub(crate) fn needs_sessions(&self) -> bool {
        self.needs_sessions
    }

    /// The route of a command without a handler here.
    #[inline]
    pub(crate) fn route(&self, command: CommandId) -> Option<&RouteRule> {
        self.routes.find(command)
    }

    /// The handler of a client's command: the command's own, or the default one when no route takes the command.
    #[inline]
    pub(crate) fn net(&self, command: CommandId) -> Option<&Route> {
        let default = || self.default.as_deref().filter(|_| self.routes.find(command).is_none());
        self.net.get(&command.0).or_else(default)
    }

    /// The handler that every node may call by that name.
    pub(crate) fn for_nodes(&self, method: &str) -> Option<&Route> {
        self.nodes.get(method)
    }

    /// The handlers that children may call, in the order of the methods' numbers.
    pub(crate) fn for_children(&self) -> Arc<[Route]> {
        self.root.clone()
    }

    /// The handlers that a parent may call, in the order of the methods' numbers.
    pub(crate) fn for_parent(&self, parent: &ffconfig::Parent) -> Arc<[Route]> {
        let is_meant = |route: &&Route| match route.key {
            Key::Remote { parent: who, .. } => parent.name == *who || parent.key == who,
            _ => false,
        };
        self.remote.iter().filter(is_meant).cloned().collect()
    }
}

fn command(key: &Key) -> Option<u32> {
    if let Key::Net(command) = key { Some(*command) } else { None }
}

fn method(key: &Key) -> Option<&'static str> {
    if let Key::Node(method) = key { Some(method) } else { None }
}

/// Checks the handlers of an app against the node's config and each other. Returns of each whether it takes a session,
/// or every fault.
fn checked(app: &App, config: &ffconfig::Node) -> Result<Vec<bool>, Vec<String>> {
    let (mut faults, mut takes_session) = (Vec::new(), Vec::new());
    let mut seen: HashMap<Key, &Route> = HashMap::new();
    for route in &app.routes {
        if let Some(first) = seen.insert(route.key, route) {
            let (key, a, b) = (route.key, place(first), place(route));
            faults.push(format!("{key} is claimed by {a} and {b}"));
        }
        match check(route, config, &app.states) {
            Ok(takes) => takes_session.push(takes),
            Err(why) => faults.push(format!("{} {why}", place(route))),
        }
    }
    if let Some(ffconfig::Login { command, .. }) = config.login
        && !seen.contains_key(&Key::Net(command.0))
        && config.route.find(command).is_none()
    {
        faults.push(format!(
            "nobody decides over logins: command {command} (login.command) has neither a handler nor a route"
        ));
    }
    if faults.is_empty() { Ok(takes_session) } else { Err(faults) }
}

fn place(route: &Route) -> String {
    let (file, line) = route.place;
    format!("`{}` ({file}:{line})", route.name)
}

/// Checks a handler against the node's config and app. Returns whether the handler takes a session.
fn check(route: &Route, config: &ffconfig::Node, states: &States) -> Result<bool, String> {
    match route.key {
        Key::Root(method) | Key::Remote { method, .. } | Key::Node(method) if is_reserved(method) => {
            return Err("has an `@` in its method's name, which is reserved".into());
        }
        Key::Root(_) if config.rootport.is_none() => {
            return Err("is for children, but the node has no rootport".into());
        }
        Key::Remote { parent, .. } => has_parent(config, parent)?,
        _ => {}
    }
    let has_state = |id: TypeId| states.contains_key(&id);
    let takes_session = Cell::new(false);
    (route.check)(&CheckContext { config, has_state: &has_state, takes_session: &takes_session })?;
    Ok(takes_session.get())
}
