//! The apps of own-game: a node of config.json runs one of them.

mod net;
mod room;

use ffserver::App;

/// Every app that a config can name.
pub fn apps() -> Vec<App> {
    vec![net::app(), room::app()]
}
