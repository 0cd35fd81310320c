//! What authors bring to the seams of the framework, from a crate of their own: a protocol and transports for clients, an argument
//! and a reply of handlers.

pub mod lines;
pub mod players;
pub mod sealed;

use ffserver::App;

/// The apps of the tests; those of net nodes are `changed`.
fn with_net_apps(changed: impl Fn(App) -> App) -> Vec<App> {
    let is_net = |app: &App| matches!(app.name(), "trialnet" | "hallnet");
    testapps::all().into_iter().map(|app| if is_net(&app) { changed(app) } else { app }).collect()
}

/// The apps of the tests, whose clients may speak lines.
pub fn speaking_lines() -> Vec<App> {
    with_net_apps(|app| app.protocol(lines::Lines))
}

/// The apps of the tests, whose clients come over a transport that seals, and travels.
pub fn sealed() -> Vec<App> {
    with_net_apps(|app| app.transport(sealed::Sealed::travelling()))
}

/// The apps of the tests, whose clients come over a transport that seals, and does not travel.
pub fn staying() -> Vec<App> {
    with_net_apps(|app| app.transport(sealed::Sealed::staying()))
}
