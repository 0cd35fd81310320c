//! The apps that the tests and trials run: handlers that fail, wait, count and complain. They are the user's interface and
//! nothing else, in a program of their own, `testnode`, which has these beside the sample's.

mod coins;
mod hall;
mod hooks;
mod maze;
mod rules;
mod trial;
pub mod turnover;

use std::sync::Arc;

use ffserver::App;

pub use rules::without_conf as rules_without_conf;

/// Every app that a config of a test can name: these and the sample's.
pub fn all() -> Vec<App> {
    let mut all = own();
    all.extend(apps::all());
    all
}

/// Those that only tests run.
pub fn own() -> Vec<App> {
    let mut own = vec![
        coins::game(),
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
        rules::app(),
    ];
    own.extend(turnover::apps(&Arc::default()));
    own
}
