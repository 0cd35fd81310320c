//! The model of `config.json`: a text becomes a checked [`Cluster`], or all of its faults at once.
//!
//! Read at the edge (`master`, `appmain`) and handed down as small structs; nothing below reads files or
//! the environment. An invalid config cannot become a [`Cluster`].

pub mod model;

pub use model::{
    Backoff, ClientFraming, Cluster, Database, Limits, Listen, Master, Memcached, Node, Parent, Restart,
};
