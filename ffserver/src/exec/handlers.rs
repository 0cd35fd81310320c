//! The door to a node's handlers while the node runs: authors replace them by it.

use std::any::TypeId;
use std::fmt;
use std::sync::Arc;

use crate::app::handler::{FromRequest, Request};
use crate::app::route::Route;
use crate::error::HandlerError;
use crate::exec::current_tables::CurrentTables;
use crate::exec::tables::{CheckedRoutes, HandlerContext};
use crate::node::Node;

/// The handlers of a node, which may be replaced while the node runs: an argument of a handler, and
/// [`Handlers::of`] elsewhere.
///
/// The handlers change as a whole, between two messages. A message that the node takes up after [`replace`](Self::replace) has
/// returned is handled by the new ones; one that was taken up before is handled by the old ones to its end, also when it
/// waits for its turn. A call of a method that is gone ends with `NoMethod`, a command with `no_route`; neither ever runs
/// another handler. Neighbours learn of new methods at once, and of one that they do not know yet they say `NoMethod`
/// themselves.
///
/// What is replaced lasts as long as the process: a `/reload` starts with the handlers of the new program's
/// [`App`](crate::App).
///
/// ```
/// use ffserver::handler::{Key, Route};
/// use ffserver::prelude::*;
///
/// /// Handlers as a script says them: here each line is a command and what it answers.
/// fn read(script: &str) -> Vec<Route> {
///     let line = |line: &str| {
///         let (command, answer) = line.split_once(' ')?;
///         let (key, answer) = (Key::Net(command.parse().ok()?), Bytes::from(answer.to_owned()));
///         Some(Route::new(key, "script", move |_| {
///             let answer = answer.clone();
///             Box::pin(async move { Ok(Some(answer)) })
///         }))
///     };
///     script.lines().filter_map(line).collect()
/// }
///
/// #[net_handle(1)]
/// async fn load(handlers: Handlers, Body(script): Body<String>) -> Result<&'static str, HandlerError> {
///     let mut routes = handlers![load];
///     routes.extend(read(&script));
///     handlers.replace(routes)?; // What does not fit is said, and nothing has changed.
///     Ok("loaded")
/// }
///
/// let app = App::new("scripted").handlers(handlers![load]);
/// # let _ = app;
/// ```
#[derive(Clone)]
pub struct Handlers {
    node: Node,
    tables: Arc<CurrentTables>,
}

/// Why the handlers of a node were not replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// The handlers do not fit the node or each other, as at a start: every fault, one sentence each.
    #[error("the handlers do not fit: {}", .faults.join("; "))]
    Faults {
        /// The faults.
        faults: Vec<String>,
    },
    /// Too many names of methods have been used since the process was started. A `/reload` begins anew.
    #[error("{reason}")]
    TooManyNames {
        /// Which neighbours the methods are for.
        reason: String,
    },
}

impl Handlers {
    /// The handlers of a node, for hooks, timers and web routes. `None` while the node is still being put together.
    pub fn of(node: &Node) -> Option<Self> {
        Some(Self { tables: node.state()?, node: node.clone() })
    }

    /// The handlers that the node has now, in the order of the list that they were given in.
    pub fn list(&self) -> Vec<Route> {
        self.tables.get().all().iter().map(|route| (**route).clone()).collect()
    }

    /// Replaces all handlers of the node, in one step: what is not among `routes` is gone.
    ///
    /// # Errors
    /// [`ReplaceError`]; nothing has changed then.
    pub fn replace(&self, routes: Vec<Route>) -> Result<(), ReplaceError> {
        let has_state = |id: TypeId| self.node.has_state(id);
        let context = HandlerContext {
            config: self.node.config(),
            targets: self.node.transit().routes(),
            has_state: &has_state,
            hooks_need_sessions: self.tables.hooks_need_sessions,
            watchdog: &self.tables.watchdog,
            metrics: self.node.identity().metrics(),
        };
        let routes = CheckedRoutes::of(routes, &context).map_err(|faults| ReplaceError::Faults { faults })?;
        let replaced = self.tables.replace(routes, &context, self.node.transit());
        replaced.map_err(|too_many| ReplaceError::TooManyNames { reason: too_many.to_string() })
    }
}

impl FromRequest for Handlers {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        Self::of(&request.node).ok_or_else(|| HandlerError::internal("no handlers to replace"))
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "handlers of {:?}: {:?}", self.node, self.list())
    }
}
