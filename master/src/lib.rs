//! The master: supervises the nodes of a cluster, tells them of each other, and answers operators.
//!
//! It knows no handler and no database: nothing that an app does can take it down. What reads top-down:
//!
//! * [`start()`] — every check and every socket first, then the supervisor and the administration.
//! * [`supervisor`] — one task that does what a pure machine decides; processes; the control port.
//! * `metrics` — what `/metrics` shows of every node, and the master's own.
//! * `asker` — asks nodes and gathers their answers; `inquiry` — for an operator: sessions, and commands of the app.
//! * [`descriptors`] — the limit of open files, and which share of it connections may take.
//! * `admin` — the pages and commands on `webport`, and who may; `audit` — who has commanded what.
//! * [`single`] — one node by itself, for other hosts.
//! * [`source`] — the config with the apps that there are, for a start, a check and a reload.
//! * [`check`] — `--check`: what a sound config would start.
//! * [`keys`] — who the nodes of the cluster are, proven.
//! * [`new_project`] — `master new`: a game of one's own; [`dev`] — `master dev`: while it is written, with its toolchain.
//! * [`operator`] — `master status`, `reload` and the like: the other side of `admin`.
//! * [`RunFolder`] — one master a config, and what the next one finds.
//! * [`cli`], [`signals`], [`console`], [`output`] — the edges towards people.
//!
//! A whole cluster runs in one process with another [`supervisor::process::Launcher`]; see [`start()`].

mod admin;
mod audit;
mod asker;
pub mod check;
pub mod cli;
pub mod console;
pub mod descriptors;
pub mod dev;
#[cfg(test)]
mod fixture;
mod inquiry;
pub mod keys;
mod metrics;
pub mod new_project;
pub mod operator;
pub mod output;
mod place;
mod run;
pub mod signals;
pub mod single;
mod sockets;
pub mod source;
mod start;
pub mod supervisor;
#[cfg(test)]
mod tests;
mod utc;

pub use run::{RunError, RunFolder};
pub use sockets::PortFault;
pub use start::{RunningMaster, Setup, StartError, start};
