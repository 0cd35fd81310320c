//! Routes: handlers as values, each with who may call it and under which name. The attributes write them, and so may a script.

use std::sync::Arc;

use crate::app::handler::{CheckContext, HandlerFuture, Request};
use crate::identity::watchdog::WatchedHandler;

/// The key of a handler: who may call it, and under which name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// Clients, by command.
    Net(u32),
    /// Clients, for every command that has neither a handler nor a route on the node.
    Default,
    /// Children of the node, by method.
    Root(Arc<str>),
    /// One parent of the node, by method.
    Remote {
        /// The parent's name or key.
        parent: Arc<str>,
        /// The method.
        method: Arc<str>,
    },
    /// Every node of the cluster, by method.
    Node(Arc<str>),
    /// Operators, by the name of a command of the app.
    Admin(Arc<str>),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::Net(command) => write!(f, "command {command}"),
            Key::Default => f.write_str("commands without a handler"),
            Key::Root(method) => write!(f, "method `{method}` for children"),
            Key::Node(method) => write!(f, "method `{method}` for every node"),
            Key::Admin(command) => write!(f, "command `{command}` for operators"),
            Key::Remote { parent, method } => write!(f, "method `{method}` for the parent `{parent}`"),
        }
    }
}

impl Key {
    /// The method's name; `None` for what clients send and operators run.
    pub fn method(&self) -> Option<&Arc<str>> {
        match self {
            Key::Net(_) | Key::Default | Key::Admin(_) => None,
            Key::Root(method) | Key::Remote { method, .. } | Key::Node(method) => Some(method),
        }
    }
}

type Run = dyn Fn(Request) -> HandlerFuture + Send + Sync;
type Check = dyn Fn(&CheckContext<'_>) -> Result<(), String> + Send + Sync;

/// A handler as a value: what the attributes write, and what tests, tools and scripts may write by hand.
///
/// ```
/// use ffserver::handler::{FromRequest, IntoReply, Key, Route};
/// use ffserver::prelude::*;
///
/// /// A handler that is made while the program runs: its command and its text come from anywhere.
/// fn greeting(command: u32, text: String) -> Route {
///     Route::new(Key::Net(command), format!("greeting {command}"), move |mut request| {
///         let text = text.clone();
///         Box::pin(async move {
///             let Body(name) = Body::<String>::from_request(&mut request)?;
///             format!("{text}, {name}").into_reply()
///         })
///     })
///     .checked_by(Body::<String>::check)
/// }
///
/// let app = App::new("greeter").handlers(vec![greeting(100, "hello".into()), greeting(101, "good night".into())]);
/// # let _ = app;
/// ```
#[derive(Clone)]
pub struct Route {
    pub(crate) key: Key,
    pub(crate) name: Arc<str>,
    pub(crate) run: Arc<Run>,
    pub(crate) check: Arc<Check>,
    pub(crate) place: (Arc<str>, u32),
    pub(crate) concurrent: bool,
    /// What operators read of a command of the app.
    pub(crate) help: Arc<str>,
    /// The names of what a command of the app takes.
    pub(crate) fields: Vec<&'static str>,
    /// How the handler is noted and counted while it runs; given when the route is checked.
    pub(crate) watched: Option<Arc<WatchedHandler>>,
    /// Whether the handler takes a [`Session`](crate::Session); known when the route is checked.
    pub(crate) takes_session: bool,
}

impl Route {
    /// A route to `run`, under `key`; `name` is for logs and error messages.
    pub fn new(
        key: Key,
        name: impl Into<Arc<str>>,
        run: impl Fn(Request) -> HandlerFuture + Send + Sync + 'static,
    ) -> Self {
        Self {
            key,
            name: name.into(),
            run: Arc::new(run),
            check: Arc::new(|_| Ok(())),
            place: ("".into(), 0),
            concurrent: false,
            help: "".into(),
            fields: Vec::new(),
            watched: None,
            takes_session: false,
        }
    }

    /// Sets the check of what must hold for the node that runs the handler: the checks of the handler's arguments, one
    /// after the other.
    #[must_use]
    pub fn checked_by(
        mut self,
        check: impl Fn(&CheckContext<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.check = Arc::new(check);
        self
    }

    /// Sets where the handler is written, for faults.
    #[must_use]
    pub fn at(mut self, file: impl Into<Arc<str>>, line: u32) -> Self {
        self.place = (file.into(), line);
        self
    }

    /// Sets whether the handler opts out of the session's order: it starts in order, and the next message does not wait
    /// for its end.
    #[must_use]
    pub fn concurrent(mut self, concurrent: bool) -> Self {
        self.concurrent = concurrent;
        self
    }

    /// Says what operators read of a command of the app: what it does, and the names of its arguments.
    #[must_use]
    pub fn described(mut self, help: impl Into<Arc<str>>, arguments: Vec<&'static str>) -> Self {
        (self.help, self.fields) = (help.into(), arguments);
        self
    }

    /// What calls the handler: who may, and under which name.
    pub fn called_by(&self) -> &Key {
        &self.key
    }

    /// The name of the handler in logs and error messages.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ({})", self.name, self.key)
    }
}

/// A handler by its type: what the attributes implement for the type of the handler's name.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler",
    note = "a handler is an async fn under #[net_handle(…)], #[root_handle], #[node_handle], #[remote_handle(…)] or #[admin_handle(…)]"
)]
pub trait Listed {
    /// The handler's route.
    fn route() -> Route;
}

/// Lists handlers: existence is stated here, facts are stated at the handler. Gives a `Vec` of [`Route`](crate::Route), for
/// [`App::handlers`](crate::App::handlers); [`App`](crate::App) has an example.
#[macro_export]
macro_rules! handlers {
    ($($handler:path),* $(,)?) => {
        ::std::vec![$(<$handler as $crate::handler::Listed>::route()),*]
    };
    ($($other:tt)*) => {
        ::core::compile_error!("handlers are listed by their names: handlers![login, enter]")
    };
}
