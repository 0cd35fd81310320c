//! The handlers of the sample cluster: ordinary modules, one app each. Apps never import each other.
//!
//! `netserver`, `gateserver` and `game1server` are firefly's demo: start reading there. `accounts` keeps its
//! data in a database: docs/data.md. `espoir` is obEspoir's demo: docs/routing.md. `chat` is a chat room with a page:
//! docs/sessions.md. What the tests and the benchmark run is in `tests/apps` and `bench/apps`.

mod netserver;
mod gateserver;
mod game1server;
mod accounts;
mod chat;
mod espoir;

use ffserver::App;

/// Every app that a config can name. A node runs one of them.
pub fn all() -> Vec<App> {
    vec![
        netserver::app(),
        gateserver::app(),
        game1server::app(),
        accounts::app(),
        chat::net(),
        chat::room(),
        espoir::proxy(),
        espoir::route(),
        espoir::service(),
    ]
}
