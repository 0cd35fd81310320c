//! The node runtime: what an app author imports, and what `appmain` runs.
//!
//! The way of a client's message: `net` reads the frame and finds the handler in `dispatch`; the
//! handler calls a parent through [`rpc`], the frame crosses an [`ffnet::link`], and the parent's
//! dispatch runs its handler; the answer comes back the same way.
//!
//! A module imports only those before it in this list.

extern crate self as ffserver;

pub mod error;
mod counters;
mod doing;
mod unwritten;
mod session;
mod reach;
mod queue;
mod known;
mod held;
mod passing;
mod groups;
mod users;
mod cluster;
pub mod db;
pub mod cache;
pub mod record;
mod neighbours;
mod park;
mod places;
mod routing;
pub mod node;
pub mod sessions;
mod forward;
pub mod rpc;
pub mod targets;
pub mod handler;
mod app;
mod guarded;
mod dispatch;
pub mod login;
mod verified;
mod asked;
mod relay;
mod remote;
mod fence;
mod lost;
mod called;
mod claims;
mod moves;
mod broadcast;
mod latest;
mod linger;
mod net;
mod hub;
mod root;
mod parent;
mod web;
mod stop;
mod control;
pub mod succession;
pub mod inherit;
mod server;
mod check;
pub mod process;

pub use app::{App, Entered, Frozen, NotMoved};
pub use broadcast::Broadcasts;
pub use cache::Cache;
pub use check::Finding;
pub use db::{Db, Named};
pub use error::{CallError, HandlerError};
pub use ffmacros::{Record, net_handle, node_handle, remote_handle, root_handle};
pub use ffproto::{Code, CommandId, Executed, Fault, NodeName, SessionId};
pub use handler::{Bincode, Body, Caller, Json, Route, State};
pub use hub::Hub;
pub use latest::Latest;
pub use login::Verdict;
pub use node::{Node, Phase};
pub use record::{Record, Save, Table, within};
pub use rpc::{Children, Parent, ParentName, Parents};
pub use server::{BuildError, FFServer, RunError};
pub use session::PushError;
pub use sessions::{MoveError, Session, SessionError};
pub use stop::Stop;
pub use targets::Nodes;
pub use {bytes, rocket, tracing};

/// What a module of handlers needs: `use ffserver::prelude::*;`
pub mod prelude {
    pub use crate::{
        App, Bincode, Body, Cache, CallError, Caller, Children, CommandId, Db, Entered, Frozen, HandlerError,
        Json, Named, Node, NodeName, Nodes, NotMoved, Parent, Parents, Record, Save, Session, State, Table,
        Verdict, databases, handlers, net_handle, node_handle, parents, remote_handle, root_handle, within,
    };
    pub use bytes::Bytes;
}
