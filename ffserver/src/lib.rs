//! The node runtime: what an app author imports, and what `appmain` runs.
//!
//! The way of a client's message: [`net`] reads the frame and finds the handler in [`dispatch`]; the
//! handler calls a parent through [`rpc`], the frame crosses an [`ffnet::link`], and the parent's
//! dispatch runs its handler; the answer comes back the same way.
//!
//! A module imports only those before it in this list.

extern crate self as ffserver;

mod app;
pub mod cache;
mod control;
pub mod db;
mod dispatch;
pub mod error;
pub mod handler;
mod net;
pub mod node;
mod parent;
pub mod process;
mod root;
pub mod rpc;
mod server;
pub mod session;
mod stop;
mod web;

pub use app::App;
pub use cache::Cache;
pub use db::Db;
pub use error::{CallError, HandlerError};
pub use ffmacros::{net_handle, remote_handle, root_handle};
pub use ffproto::{Code, CommandId, Executed, Fault, NodeName, SessionId};
pub use handler::{Bincode, Body, Caller, Json, Route, State};
pub use node::{Node, Phase};
pub use rpc::{Children, Parent, ParentName, Parents};
pub use server::{BuildError, FFServer, RunError};
pub use session::{PushError, Session};
pub use stop::Stop;
pub use {bytes, rocket, tracing};

/// What a module of handlers needs: `use ffserver::prelude::*;`
pub mod prelude {
    pub use crate::{
        App, Bincode, Body, Cache, CallError, Caller, Children, CommandId, Db, HandlerError, Json, Node,
        NodeName, Parent, Parents, Session, State, handlers, net_handle, parents, remote_handle, root_handle,
    };
    pub use bytes::Bytes;
}
