//! The model of `config.json`: a text becomes a checked [`Cluster`], or all of its faults at once.
//!
//! Read at the edge (`master`, `appmain`) and handed down as small structs; nothing below reads files or
//! the environment. An invalid config cannot become a [`Cluster`].
//!
//! The way of a text: `tree` (JSON with places) → `vars` (variables written out) → `shape` (keys and types,
//! by the table in [`mod@schema`]) → `nodes`, `checks`, `routes` and `rights` (what keys say about each other) →
//! `build` (the [`model`]). Every step adds to one report, so one run shows every fault.

mod app_finding;
mod build;
mod checks;
mod circles;
mod conf;
mod cycle;
mod database;
pub mod diff;
mod fields;
mod finding;
mod limits;
mod listen;
mod load;
mod logs;
pub mod model;
mod nearest;
mod nodes;
mod operators;
mod parents;
mod ports;
mod processes;
mod report;
mod rights;
mod routes;
pub mod schema;
mod shape;
mod span;
mod tree;
mod value;
mod vars;
mod ways;

pub use app_finding::{AppFinding, AppFindingPlace, UnknownAppFinding};
pub use conf::Conf;
pub use diff::{Diff, diff};
pub use finding::{Finding, LoadError};
pub use load::{
    FILE_BYTES_MAX, Loaded, MasterWebport, load, load_appmain, load_webport, load_with_apps, parse,
};
pub use logs::fault_of_levels;
pub use model::{
    Backoff, ClientFraming, Cluster, Database, Limits, Listen, Log, Login, Master, Memcached, Node, Operator,
    OperatorRole, Parent, Restart, Route, RouteRule, SecondLogin, SlowClient, Target, Tls, Token,
};
pub use nearest::nearest;
pub use rights::{Nets, Rights};
pub use schema::schema;
