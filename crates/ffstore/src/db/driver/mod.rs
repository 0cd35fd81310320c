//! The differences between SQLite, MariaDB/MySQL and PostgreSQL: binding arguments and reading columns.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
mod sqlite;

use std::sync::Arc;

use sqlx::error::BoxDynError;
use sqlx::{Column as _, Row as _, SqlStr, TypeInfo as _};

use super::value::{Cell, Row, Value};
use super::{Sql, sqlx_str};

/// A driver: what each database does in its own way.
pub(super) trait Driver: sqlx::Database {
    /// A connection that is late goes on with its statement: it is closed, and the pool opens another one.
    const CLOSE_WHEN_LATE: bool;

    /// The statement in the database's own notation.
    fn statement(sql: Sql) -> SqlStr {
        sqlx_str(sql)
    }

    /// Whether the connection may keep the prepared statement for the next time, with any arguments.
    fn may_be_remembered(_sql: &Sql, _args: &[Value]) -> bool {
        true
    }

    fn arguments(args: &[Value]) -> Result<Self::Arguments, BoxDynError>;

    fn cell(row: &Self::Row, place: usize) -> Cell;

    fn affected(result: &Self::QueryResult) -> u64;

    /// The key that an INSERT has made; `None` when the driver does not tell.
    fn last_key(result: &Self::QueryResult) -> Option<i64>;
}

macro_rules! arguments {
    ($Arguments:ty, $args:expr, $null:expr) => {{
        use sqlx::Arguments as _;
        let mut bound = <$Arguments>::default();
        for value in $args {
            match value {
                Value::Null => bound.add($null)?,
                Value::Bool(b) => bound.add(*b)?,
                Value::Int(n) => bound.add(*n)?,
                Value::Float(n) => bound.add(*n)?,
                Value::Text(text) => bound.add(text.as_str())?,
                Value::Bytes(bytes) => bound.add(bytes.as_slice())?,
            }
        }
        Ok(bound)
    }};
}

/// The column as one type of sqlx, then as one of ours. Unchecked: the type's name was looked at.
macro_rules! read {
    ($row:expr, $place:expr, $T:ty => $to:expr) => {
        match $row.try_get_unchecked::<$T, _>($place) {
            Ok(value) => Cell::Value($to(value)),
            Err(e) => Cell::Unreadable(e.to_string()),
        }
    };
}

use {arguments, read};

/// The name of the value's type; `None` for NULL.
fn type_name<'r, V: sqlx::ValueRef<'r>>(value: Result<V, sqlx::Error>) -> Option<String> {
    let value = value.ok().filter(|value| !value.is_null())?;
    Some(value.type_info().name().to_owned())
}

fn unreadable(name: &str) -> Cell {
    Cell::Unreadable(format!(
        "it is a {name}; write CAST(… AS …) in the statement to make it text or a number"
    ))
}

/// The rows in our form; the names of the columns are shared by all of them.
pub(super) fn rows<D: Driver>(rows: &[D::Row]) -> Vec<Row> {
    let Some(first) = rows.first() else { return Vec::new() };
    let names: Arc<[String]> = first.columns().iter().map(|column| column.name().to_owned()).collect();
    rows.iter()
        .map(|row| Row::new(names.clone(), (0..names.len()).map(|place| D::cell(row, place)).collect()))
        .collect()
}
