//! Records: rows of tables as plain structs, read from memory, and written so that no update is lost.
//!
//! ```no_run,standalone_crate
//! # extern crate ffstore as ffserver;
//! # use ffmacros::Record;
//! # use ffstore::record::{Save, Table};
//! #[derive(Record, Clone, PartialEq)]
//! #[record(table = "account")]
//! struct Account {
//!     #[record(key)]
//!     name: String,
//!     coins: i64,
//! }
//!
//! # async fn example(accounts: Table<Account>) -> Result<(), ffstore::record::RecordError> {
//! let ann = "ann".to_owned();
//! let coins = accounts.get(&ann).await?.map(|account| account.coins);
//! accounts.update(&ann, Save::Durable, |account| account.coins += 5).await?; // in the database now
//! accounts.update(&ann, Save::within_ms(100), |account| account.coins += 5).await?; // soon
//! # Ok(())
//! # }
//! # fn main() {}
//! ```
//!
//! Every row has two columns of the framework's. Its `version` grows with each write; a durable write goes
//! over the version that it was made from, or begins again. Its `holder` names the journal of the node that
//! writes it behind; nobody else writes a row that is held. That is why what a node has promised can never
//! be overtaken: not by another node, and not by a late statement of a dead one. docs/data.md has the whole.

mod batch;
mod counters;
mod error;
mod journal;
mod leases;
mod locks;
pub(crate) mod records;
mod recover;
mod row_cache;
pub(crate) mod schema;
mod shape;
mod sql;
mod table;

pub use self::error::RecordError;
pub use self::records::{Records, Settings, TableStats};
pub use self::schema::{SchemaError, create, ddl};
pub use self::shape::{Column, Field, Key, Kind, Misfit, Record, Shape};
pub use self::table::{Save, Table};
