//! The handlers of the sample cluster: ordinary modules, one app each. Apps never import each other.
//!
//! `netserver`, `gateserver` and `game1server` are firefly's demo: start reading there. `accounts` keeps its
//! data in a database: docs/data.md. `espoir` is obEspoir's demo: docs/routing.md. `chat` is a chat room with a page:
//! docs/sessions.md. `bench`, `trial`, `hall`, `hooks`, `maze` and `coins` are what the benchmark and the tests run.

mod netserver;
mod gateserver;
mod game1server;
mod accounts;
mod bench;
mod chat;
mod coins;
mod espoir;
mod trial;
mod hall;
mod hooks;
mod maze;

use ffserver::App;

/// Every app that a config can name. A node runs one of them.
pub fn all() -> Vec<App> {
    vec![
        netserver::app(),
        gateserver::app(),
        game1server::app(),
        accounts::app(),
        coins::game(),
        chat::net(),
        chat::room(),
        espoir::proxy(),
        espoir::route(),
        espoir::service(),
        bench::net(),
        bench::gate(),
        bench::game(),
        trial::net(),
        trial::solo(),
        trial::greets(),
        trial::world_net(),
        trial::gate(),
        trial::world_gate(),
        trial::game(),
        hall::net(),
        hall::gate(),
        hall::hall(),
        hooks::net(),
        hooks::gate(),
        hooks::game(),
        hooks::frozen(),
        maze::net(),
        maze::gate(),
        maze::room(),
        maze::lobby(),
    ]
}
