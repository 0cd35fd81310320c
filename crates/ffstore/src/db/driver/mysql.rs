//! MariaDB and MySQL: their arguments and their columns.

use sqlx::Row as _;
use sqlx::error::BoxDynError;
use sqlx::mysql::{MySqlArguments, MySqlRow};

use super::{Driver, arguments, read, type_name, unreadable};
use crate::db::value::{Cell, Value};

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
