//! SQLite: its arguments and its columns.

use sqlx::Row as _;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use super::{Driver, arguments, read, type_name, unreadable};
use crate::db::value::{Cell, Value};

impl Driver for sqlx::Sqlite {
    // Its thread sees by itself that nobody waits; and an in-memory database lives in its connection.
    const CLOSE_WHEN_LATE: bool = false;

    fn arguments(args: &[Value]) -> Result<SqliteArguments, BoxDynError> {
        arguments!(SqliteArguments, args, None::<i64>)
    }

    fn cell(row: &SqliteRow, place: usize) -> Cell {
        match type_name(row.try_get_raw(place)) {
            None => Cell::Value(Value::Null),
            Some(name) => match name.as_str() {
                "INTEGER" | "BOOLEAN" => read!(row, place, i64 => Value::Int),
                "REAL" => read!(row, place, f64 => Value::Float),
                "TEXT" => read!(row, place, String => Value::Text),
                "BLOB" => read!(row, place, Vec<u8> => Value::Bytes),
                _ => unreadable(&name),
            },
        }
    }

    fn affected(result: &Self::QueryResult) -> u64 {
        result.rows_affected()
    }

    fn last_key(result: &Self::QueryResult) -> Option<i64> {
        Some(result.last_insert_rowid())
    }
}
