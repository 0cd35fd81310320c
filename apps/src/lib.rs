//! The handlers of the sample cluster: ordinary modules, one app each. Apps never import each other.

mod game1server;
mod gateserver;
mod netserver;

use ffserver::App;

/// Every app that a config can name. A node runs one of them.
pub fn all() -> Vec<App> {
    vec![netserver::app(), gateserver::app(), game1server::app()]
}
