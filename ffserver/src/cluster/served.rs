//! Served targets: what a node takes clients' messages for, as the handshake says it by reserved method names.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::configured_routes::ConfiguredRoutes;
use crate::cluster::side::Side;

/// The mark of served targets in a handshake: `@KIND` among the methods says that this end takes clients' messages for
/// nodes of KIND, itself or for others; `@=NODE` says so of one node. No handler's name has an `@`.
const MARK: char = '@';
/// The method of a notify that says that the session in its header has ended.
pub(crate) const SESSION_ENDED: &str = "@";

/// The method under which messages for a target are taken.
pub(crate) fn method_of(target: &str) -> String {
    format!("{MARK}{target}")
}

/// Whether a method's name is reserved: no handler may have it.
pub(crate) fn is_reserved(method: &str) -> bool {
    method.contains(MARK)
}

/// A target that a node takes clients' messages for, beside its handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Served {
    /// This node's own handlers, and its own route.
    Here,
    /// A target on the far side of this node.
    Beyond(Arc<str>),
}

/// The served targets that a node tells its neighbours on that side.
pub(crate) fn served(places: &ConfiguredRoutes, side: Side, has_handlers: bool) -> Vec<(String, Served)> {
    let own: BTreeSet<Arc<str>> = places.own().filter(|_| has_handlers).cloned().collect();
    let here = own.iter().map(|key| (key.to_string(), Served::Here)).collect::<Vec<_>>();
    let beyond = places.passed_on_for(side).into_iter().filter(|key| !own.contains(key));
    here.into_iter().chain(beyond.map(|key| (key.to_string(), Served::Beyond(key)))).collect()
}
