//! The values that a node's config has for its app, as the app's type.

use std::any::{Any, TypeId};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use ffconfig::Finding;
use serde::de::DeserializeOwned;

/// The node's `conf` as the app's type ([`App::conf`](crate::App::conf)): an argument of handlers; hooks ask for it by
/// [`Node::conf`](crate::Node::conf). Cheap to clone.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[derive(serde::Deserialize)]
/// struct Rules {
///     rounds: u32,
/// }
///
/// #[net_handle(100)]
/// async fn rounds(rules: Conf<Rules>) -> String {
///     rules.rounds.to_string()
/// }
///
/// fn app() -> App {
///     App::new("hall").conf::<Rules>().handlers(handlers![rounds])
/// }
/// # app();
/// ```
pub struct Conf<T>(Arc<T>);

impl<T> Conf<T> {
    /// Values for calling a handler in a unit test.
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Clone for Conf<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Conf<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Conf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The type that an app reads its node's `conf` as.
#[derive(Clone, Copy)]
pub(crate) struct ConfType {
    id: fn() -> TypeId,
    read: fn(&ffconfig::Conf) -> Result<Arc<dyn Any + Send + Sync>, Finding>,
}

impl ConfType {
    pub(crate) fn of<T: DeserializeOwned + Send + Sync + 'static>() -> Self {
        let read = |conf: &ffconfig::Conf| Ok(Arc::new(Conf::new(conf.read::<T>()?)) as Arc<_>);
        Self { id: TypeId::of::<Conf<T>>, read }
    }

    /// Under which type the values are among the states of the app.
    pub(crate) fn id(&self) -> TypeId {
        (self.id)()
    }

    /// The values of a node.
    pub(crate) fn read(&self, conf: &ffconfig::Conf) -> Result<Arc<dyn Any + Send + Sync>, Finding> {
        (self.read)(conf)
    }
}
