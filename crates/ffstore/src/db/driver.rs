//! The differences between SQLite, MariaDB/MySQL and PostgreSQL: binding arguments and reading columns.

use std::sync::Arc;

use sqlx::error::BoxDynError;
use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, Column as _, Row as _, SqlSafeStr as _, SqlStr, TypeInfo as _};

use super::placeholder::numbered;
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

impl Driver for sqlx::MySql {
    const CLOSE_WHEN_LATE: bool = true;

    fn arguments(args: &[Value]) -> Result<MySqlArguments, BoxDynError> {
        arguments!(MySqlArguments, args, None::<i64>)
    }

    fn cell(row: &MySqlRow, place: usize) -> Cell {
        match type_name(row.try_get_raw(place)) {
            None => Cell::Value(Value::Null),
            Some(name) => match name.as_str() {
                // TINYINT(1) too: what was stored there as 5 is 5, and reads as true.
                "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => {
                    read!(row, place, i64 => Value::Int)
                }
                "TINYINT UNSIGNED" | "SMALLINT UNSIGNED" | "MEDIUMINT UNSIGNED" | "INT UNSIGNED"
                | "BIGINT UNSIGNED" | "YEAR" => unsigned(row, place),
                "FLOAT" | "DOUBLE" => read!(row, place, f64 => Value::Float),
                "DECIMAL" => match row.try_get_unchecked::<String, _>(place) {
                    Ok(text) => Cell::Decimal(text),
                    Err(e) => Cell::Unreadable(e.to_string()),
                },
                "CHAR" | "VARCHAR" | "TINYTEXT" | "TEXT" | "MEDIUMTEXT" | "LONGTEXT" | "ENUM" | "SET"
                | "JSON" => read!(row, place, String => Value::Text),
                "BINARY" | "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" => {
                    read!(row, place, Vec<u8> => Value::Bytes)
                }
                _ => unreadable(&name),
            },
        }
    }

    fn affected(result: &Self::QueryResult) -> u64 {
        result.rows_affected()
    }

    fn last_key(result: &Self::QueryResult) -> Option<i64> {
        i64::try_from(result.last_insert_id()).ok()
    }
}

fn unsigned(row: &MySqlRow, place: usize) -> Cell {
    match row.try_get_unchecked::<u64, _>(place).map(|n| (n, i64::try_from(n))) {
        Ok((_, Ok(n))) => Cell::Value(Value::Int(n)),
        Ok((n, Err(_))) => Cell::Unreadable(format!("{n} does not fit into 64 bits with a sign")),
        Err(e) => Cell::Unreadable(e.to_string()),
    }
}

impl Driver for sqlx::Postgres {
    const CLOSE_WHEN_LATE: bool = true;

    fn statement(sql: Sql) -> SqlStr {
        match numbered(&sql.text) {
            std::borrow::Cow::Borrowed(_) => sqlx_str(sql),
            std::borrow::Cow::Owned(text) => sqlx::AssertSqlSafe(text).into_sql_str(),
        }
    }

    fn may_be_remembered(sql: &Sql, args: &[Value]) -> bool {
        // The server takes the type of a NULL from its column: INTEGER, say. A number that comes later is a BIGINT,
        // which the statement that was prepared for NULL does not take.
        sql.typed || !args.contains(&Value::Null)
    }

    fn arguments(args: &[Value]) -> Result<PgArguments, BoxDynError> {
        arguments!(PgArguments, args, UntypedNull)
    }

    fn cell(row: &PgRow, place: usize) -> Cell {
        match type_name(row.try_get_raw(place)) {
            None => Cell::Value(Value::Null),
            Some(name) => match name.as_str() {
                "BOOL" => read!(row, place, bool => Value::Bool),
                "INT8" => read!(row, place, i64 => Value::Int),
                "INT4" => read!(row, place, i32 => Value::from),
                "INT2" => read!(row, place, i16 => Value::from),
                "FLOAT8" => read!(row, place, f64 => Value::Float),
                "FLOAT4" => read!(row, place, f32 => Value::from),
                "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" | "CITEXT" | "JSON" => {
                    read!(row, place, String => Value::Text)
                }
                "BYTEA" => read!(row, place, Vec<u8> => Value::Bytes),
                _ => unreadable(&name),
            },
        }
    }

    fn affected(result: &Self::QueryResult) -> u64 {
        result.rows_affected()
    }

    fn last_key(_result: &Self::QueryResult) -> Option<i64> {
        None
    }
}

/// A NULL whose type the server infers: NULL as text is refused for a column of integers.
struct UntypedNull;

impl sqlx::Type<sqlx::Postgres> for UntypedNull {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl sqlx::Encode<'_, sqlx::Postgres> for UntypedNull {
    fn encode_by_ref(&self, _buffer: &mut PgArgumentBuffer) -> Result<sqlx::encode::IsNull, BoxDynError> {
        Ok(sqlx::encode::IsNull::Yes)
    }
}

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
