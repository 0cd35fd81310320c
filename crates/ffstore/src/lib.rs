//! Rows that survive: databases, the cache, and records that are read from memory and written so that no update is
//! lost. It knows no handler and no link: a node opens its [`Stores`] and hands them to its app.

pub mod rows;
pub mod db;
pub mod cache;
pub mod record;
mod stores;

#[cfg(test)]
extern crate self as ffserver;

pub use cache::Cache;
pub use db::{Db, NamedDb};
pub use record::records::Registered;
pub use record::schema::check as check_table;
pub use record::{Record, Save, Table};
pub use stores::{Drivers, OpenError, Stores};

#[cfg(test)]
use ffmacros::Record;
