//! The harness: starts whole clusters, talks to them as clients and operators do, and waits for states.
//!
//! * [`cluster`] — a cluster behind one handle: real processes, or all of it in this process.
//! * [`client`] — a game client.
//! * [`browser`] — a headless Chromium, for pages.
//! * [`http`] — an operator's `curl`.
//! * [`fixtures`] — configs on free ports.
//! * [`host`] — another host, which is a network namespace.
//! * [`ledger`] — a load, and what became of each of its requests.
//! * [`counted`] — a load whose requests the nodes count, over replacements.
//! * [`process`] — one process as the kernel tells of it.
//! * [`rogue`] — a link with a stolen key.
//! * [`servers`] — memcached, MariaDB and PostgreSQL of a test's own, and those of `tests/run`.
//! * [`single`] — a node under a `master single` of its own.
//! * [`skip`] — saying that a test does not run here.
//! * [`stranger`] — somebody without a key, and what his attacks come to.
//! * [`terminal`] — a program in a terminal, as a person starts it.
//! * [`tmux`] — a real terminal that tests type into.
//! * [`trials`] — the promises under load and faults, small for CI and at full size for `trial`.
//! * [`websocket`] — a game client in a browser.
//! * [`wait`] — waiting for a state, failing with the last one.

pub mod bins;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod counted;
pub mod fixtures;
pub mod host;
pub mod http;
pub mod ledger;
pub mod logs;
pub mod operators;
pub mod process;
mod random;
pub mod rogue;
pub mod servers;
pub mod single;
pub mod skip;
pub mod stranger;
pub mod terminal;
pub mod tmux;
pub mod trials;
pub mod wait;
pub mod websocket;
