//! Rows as values: what a column holds, its bytes, and the journal of writes that are not yet in the
//! database. No I/O and no clock: the journal's file is a byte slice here.

pub mod codec;
pub mod journal;
mod live;
mod value;

pub use live::{Live, LiveRow, RowId};
pub use value::Value;
