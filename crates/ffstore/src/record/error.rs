//! The errors of records, by what a caller can do about them.

use std::sync::Arc;

use crate::db::DbError;

/// An error of an operation on records. [`RecordError::is_unsent`] tells those after which nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// There is no record of that key.
    #[error("{table} has no {key}")]
    Missing {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
    },
    /// There is a record of that key already.
    #[error("{table} has a {key} already")]
    Exists {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
    },
    /// Another node writes that record behind, and did not release it in time. Send the request to that node,
    /// or try again.
    #[error("{key} of {table} is held by {by}")]
    Held {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
        /// The node, its incarnation and a random part.
        by: String,
    },
    /// Other writers of the same record were faster every time. Nothing was changed.
    #[error("other writers of {table} were faster {tries} times")]
    Contended {
        /// The table.
        table: &'static str,
        /// How often the write was tried.
        tries: u32,
    },
    /// Too much waits to be written: `limits.dirty_records_max` or `limits.dirty_bytes_max`. The database is
    /// lost or too slow. Nothing was changed.
    #[error("{records} records ({bytes} bytes) wait to be written to the database")]
    Backlog {
        /// So many records.
        records: usize,
        /// So many bytes of them.
        bytes: usize,
    },
    /// The journal cannot be written: the disk is full or broken. Nothing was changed.
    #[error("the journal of written records")]
    Journal {
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The change of an update wrote to the key, or the same key was given twice. A fault in the program.
    #[error("{table}: {reason}")]
    Misuse {
        /// The table.
        table: &'static str,
        /// The mistake.
        reason: &'static str,
    },
    /// A row does not fit the struct. A fault in the program or in the table.
    #[error("{table}")]
    Misfit {
        /// The table.
        table: &'static str,
        /// The column.
        #[source]
        source: super::Misfit,
    },
    /// The node is stopping, and everything has been written.
    #[error("the node is stopping")]
    Closed,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl RecordError {
    /// Nothing was changed for sure, so trying again cannot change it twice.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Db(error) => {
                error.is_unsent() || !matches!(error, DbError::Timeout { .. } | DbError::Lost { .. })
            }
            _ => true,
        }
    }
}

/// Whether the database refuses the record itself, and is not lost.
pub(crate) fn is_of_one_record(error: &DbError) -> bool {
    matches!(error, DbError::Statement { .. } | DbError::Duplicate { .. } | DbError::Column { .. })
}
