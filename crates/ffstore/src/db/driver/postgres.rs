//! PostgreSQL: its placeholders, its arguments and its columns.

use sqlx::Row as _;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo};
use sqlx::{SqlSafeStr as _, SqlStr};

use super::{Driver, arguments, read, type_name, unreadable};
use crate::db::placeholder::numbered;
use crate::db::value::{Cell, Value};
use crate::db::{Sql, sqlx_str};

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
