//! The handler tables of a node: which function runs for a command or a method. A value that is checked when it is made,
//! and never changes: the next one takes its place as a whole.

use std::any::TypeId;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ffconfig::RouteRule;
use ffproto::CommandId;
use rustc_hash::FxHashMap;

use crate::app::handler::{CheckContext, has_parent};
use crate::app::route::{Key, Route};
use crate::cluster::configured_routes::ConfiguredRoutes;
use crate::cluster::served::{is_reserved, method_of, served};
use crate::cluster::side::Side;
use crate::exec::methods::{Method, Methods, Reserved, TooManyNames};
use crate::identity::metrics::NodeMetrics;
use crate::identity::watchdog::Watchdog;

/// The facts of a node that its handlers are checked against, and told to neighbours by.
pub(crate) struct HandlerContext<'a> {
    pub(crate) config: &'a ffconfig::Node,
    /// What the node takes clients' messages for, by the config.
    pub(crate) targets: &'a ConfiguredRoutes,
    pub(crate) has_state: &'a dyn Fn(TypeId) -> bool,
    /// Whether a hook of the app is about sessions.
    pub(crate) hooks_need_sessions: bool,
    /// Notes each handler while it runs.
    pub(crate) watchdog: &'a Watchdog,
    /// Counts what each handler does.
    pub(crate) metrics: &'a NodeMetrics,
}

/// The neighbours that may call the same methods: all children, one parent, or the parents of one key that the config does not
/// name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Audience(usize);

impl Audience {
    pub(crate) const CHILDREN: Self = Self(0);

    /// The parent of that name, or one of that key that the config does not name; `None` when the config has neither.
    pub(crate) fn parent(config: &ffconfig::Node, name: &str, key: &str) -> Option<Self> {
        let parents = &config.parents;
        let named = parents.iter().position(|parent| parent.name == *name);
        let at = named.or_else(|| {
            let at = parents.iter().position(|parent| parent.key == *key)?;
            Some(parents.len() + at)
        })?;
        Some(Self(at + 1))
    }
}

/// The callers of an [`Audience`].
#[derive(Clone, Copy)]
enum Callers<'a> {
    Children,
    Parent(&'a ffconfig::Parent),
    /// Parents of that key that the config does not name.
    Key(&'a str),
}

/// The handler tables of a node, by who may call.
#[derive(Default)]
pub(crate) struct HandlerTables {
    net: FxHashMap<u32, Arc<Route>>,
    /// The handler of clients' commands that have neither a handler of their own nor a route here.
    default: Option<Arc<Route>>,
    /// The routes of clients' commands that have no handler here.
    routes: ffconfig::Route,
    /// What neighbours may call, by [`Audience`].
    neighbours: Vec<Methods>,
    /// The handlers for every node, by method.
    nodes: FxHashMap<Arc<str>, Arc<Route>>,
    /// The commands of the app, by name.
    commands: FxHashMap<Arc<str>, Arc<Route>>,
    /// Whether a client's message is handled only when its session is known.
    needs_sessions: bool,
    /// Every handler, in the order of the app's list.
    all: Vec<Arc<Route>>,
    /// Whether other tables have taken the place of these.
    replaced: AtomicBool,
}

/// Methods have no numbers for these neighbours: too many names have had one.
#[derive(Debug, thiserror::Error)]
#[error("too many methods for {0} have had a name since this process was started")]
pub(crate) struct NoNumbers(String);

/// Handlers that fit their node: each with what is known of it once it is checked.
pub(crate) struct CheckedRoutes(Vec<Arc<Route>>);

impl CheckedRoutes {
    /// Checks handlers against their node and each other, and collects every fault: duplicates, and what handlers need
    /// and the node does not have.
    pub(crate) fn of(routes: Vec<Route>, context: &HandlerContext<'_>) -> Result<Self, Vec<String>> {
        let takes_session = check_all(&routes, context)?;
        let of = |(route, takes_session): (Route, bool)| {
            let metrics = || context.metrics.of_handler(&route.name, &route.key.to_string().replace('`', ""));
            let watched = context.watchdog.watch(format!("`{}` ({})", route.name, route.key), metrics);
            Arc::new(Route { watched: Some(watched), takes_session, ..route })
        };
        Ok(Self(routes.into_iter().zip(takes_session).map(of).collect()))
    }
}

impl HandlerTables {
    /// The first tables of a node.
    pub(crate) fn build(routes: Vec<Route>, context: &HandlerContext<'_>) -> Result<Self, Vec<String>> {
        let routes = CheckedRoutes::of(routes, context)?;
        Self::default().next(routes, context).map_err(|none| vec![none.to_string()])
    }

    /// The tables that follow these. The numbers of methods go on from here, see [`Methods::next`].
    pub(crate) fn next(
        &self,
        CheckedRoutes(all): CheckedRoutes,
        context: &HandlerContext<'_>,
    ) -> Result<Self, NoNumbers> {
        let (mut net, mut default) = (FxHashMap::default(), None);
        let (mut nodes, mut commands) = (FxHashMap::default(), FxHashMap::default());
        for route in &all {
            match &route.key {
                Key::Net(command) => drop(net.insert(*command, route.clone())),
                Key::Default => default = Some(route.clone()),
                Key::Node(method) => drop(nodes.insert(method.clone(), route.clone())),
                Key::Admin(name) => drop(commands.insert(name.clone(), route.clone())),
                Key::Root(_) | Key::Remote { .. } => {}
            }
        }
        let takes_session = net.values().chain(&default).any(|route: &Arc<Route>| route.takes_session);
        let next = Self {
            needs_sessions: context.hooks_need_sessions || takes_session,
            net,
            default,
            routes: context.config.route.clone(),
            neighbours: Vec::new(),
            nodes,
            commands,
            all,
            replaced: AtomicBool::new(false),
        };
        let neighbours = next.neighbours_after(self, context)?;
        Ok(Self { neighbours, ..next })
    }

    /// What neighbours may call, with the numbers that follow those of earlier tables.
    fn neighbours_after(
        &self,
        earlier: &Self,
        context: &HandlerContext<'_>,
    ) -> Result<Vec<Methods>, NoNumbers> {
        let none = Methods::default();
        // In the order of the audiences.
        let parents = &context.config.parents;
        let keys = parents.iter().map(|parent| Callers::Key(&parent.key));
        let who = [Callers::Children].into_iter().chain(parents.iter().map(Callers::Parent)).chain(keys);
        let methods = who.enumerate().map(|(at, callers)| {
            let earlier = earlier.neighbours.get(at).unwrap_or(&none);
            earlier.next(self.methods_for(callers, context.targets)).map_err(|TooManyNames| match callers {
                Callers::Children => NoNumbers("children".to_owned()),
                Callers::Parent(parent) => NoNumbers(format!("the parent `{}`", parent.name)),
                Callers::Key(key) => NoNumbers(format!("parents of the key `{key}`")),
            })
        });
        methods.collect()
    }

    /// What a parent may call, or children: handlers, then the targets whose clients' messages are taken, then the reserved
    /// methods.
    fn methods_for(
        &self,
        callers: Callers<'_>,
        targets: &ConfiguredRoutes,
    ) -> impl Iterator<Item = (Arc<str>, Method)> {
        let is_meant = move |route: &&Arc<Route>| match (&route.key, callers) {
            (Key::Root(_), Callers::Children) => true,
            (Key::Remote { parent: who, .. }, Callers::Parent(parent)) => {
                parent.name == **who || parent.key == **who
            }
            (Key::Remote { parent: who, .. }, Callers::Key(key)) => *key == **who,
            _ => false,
        };
        let handler =
            |route: &Arc<Route>| Some((route.key.method()?.clone(), Method::Handler(route.clone())));
        let side = match callers {
            Callers::Children => Side::Child,
            Callers::Parent(_) | Callers::Key(_) => Side::Parent,
        };
        let target = |(target, served): (String, _)| (method_of(&target).into(), Method::Target(served));
        let reserved = |reserved: Reserved| (reserved.name().into(), Method::Reserved(reserved));
        let handlers = self.all.iter().filter(is_meant).filter_map(handler);
        let targets = served(targets, side, self.handles_clients()).into_iter().map(target);
        handlers.chain(targets).chain(Reserved::ALL.map(reserved))
    }

    /// Every handler, in the order of the app's list.
    pub(crate) fn all(&self) -> &[Arc<Route>] {
        &self.all
    }

    /// Whether clients' messages are for this node: it handles them, or its route says who does.
    fn handles_clients(&self) -> bool {
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
    pub(crate) fn net(&self, command: CommandId) -> Option<&Arc<Route>> {
        let default = || self.default.as_ref().filter(|_| self.routes.find(command).is_none());
        self.net.get(&command.0).or_else(default)
    }

    /// The handler that every node may call by that name.
    pub(crate) fn for_nodes(&self, method: &str) -> Option<&Arc<Route>> {
        self.nodes.get(method)
    }

    /// The command of the app of that name.
    pub(crate) fn command(&self, name: &str) -> Option<&Arc<Route>> {
        self.commands.get(name)
    }

    /// The methods that some neighbours may call; `None` only of tables without a node.
    #[inline]
    pub(crate) fn methods(&self, audience: Audience) -> Option<&Methods> {
        self.neighbours.get(audience.0)
    }

    /// The names of those methods for a handshake, in the order of their numbers.
    pub(crate) fn names(&self, audience: Audience) -> Vec<String> {
        self.methods(audience).map(Methods::names).unwrap_or_default()
    }

    /// Whether other tables have taken the place of these.
    #[inline]
    pub(crate) fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Says that other tables have taken the place of these.
    pub(crate) fn set_replaced(&self) {
        self.replaced.store(true, Ordering::Release);
    }
}

/// Checks handlers against their node and each other. Returns of each whether it takes a session, or every fault.
fn check_all(routes: &[Route], context: &HandlerContext<'_>) -> Result<Vec<bool>, Vec<String>> {
    let (mut faults, mut takes_session) = (Vec::new(), Vec::new());
    let mut seen: HashMap<&Key, &Route> = HashMap::new();
    let config = context.config;
    for route in routes {
        if let Some(first) = seen.insert(&route.key, route) {
            let (key, a, b) = (&route.key, place(first), place(route));
            faults.push(format!("{key} is claimed by {a} and {b}"));
        }
        match check(route, context) {
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
    match &route.place {
        (file, line) if !file.is_empty() => format!("`{}` ({file}:{line})", route.name),
        _ => format!("`{}`", route.name),
    }
}

/// Checks a handler against its node. Returns whether the handler takes a session.
fn check(route: &Route, context: &HandlerContext<'_>) -> Result<bool, String> {
    let HandlerContext { config, has_state, .. } = *context;
    match route.key.method() {
        Some(method) if is_reserved(method) => {
            return Err("has an `@` in its method's name, which is reserved".into());
        }
        // In a handshake that is the number of a method that is gone.
        Some(method) if method.is_empty() => return Err("has no name for its method".into()),
        _ => {}
    }
    match &route.key {
        Key::Root(_) if config.rootport.is_none() => {
            return Err("is for children, but the node has no rootport".into());
        }
        Key::Remote { parent, .. } => has_parent(config, parent)?,
        Key::Admin(name) => check_name(name)?,
        _ => {}
    }
    let takes_session = Cell::new(false);
    (route.check)(&CheckContext { config, has_state, takes_session: &takes_session })?;
    if takes_session.get() && matches!(route.key, Key::Admin(_)) {
        return Err("takes a Session, but an operator's command has none: Node::session(id) finds one".into());
    }
    Ok(takes_session.get())
}

/// Checks the name of a command of the app, which stands in URLs and on command lines.
fn check_name(name: &str) -> Result<(), String> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if plain && (1..=64).contains(&name.len()) {
        return Ok(());
    }
    Err("has a command's name that is not of 1 to 64 letters, digits, `-`, `_` or `.`".into())
}
