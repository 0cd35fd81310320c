//! Puts a node together, and runs it as a part of a process, or as a process of its own.

pub(crate) mod child_listener;
pub(crate) mod control;
pub mod discovery;
pub(crate) mod in_process;
pub(crate) mod metrics;
pub(crate) mod parent_dialer;
pub(crate) mod preflight;
pub mod process;
mod questions;
pub(crate) mod server;
pub(crate) mod shared_process;
#[cfg(feature = "web")]
pub(crate) mod web;
#[cfg(not(feature = "web"))]
#[path = "without_web.rs"]
pub(crate) mod web;
pub(crate) mod wires;
