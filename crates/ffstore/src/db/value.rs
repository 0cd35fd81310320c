//! Values: arguments of a statement and columns of a row, the same on every database.

use std::sync::Arc;

pub use crate::rows::Value;

use super::DbError;

/// The arguments of a statement: `args![name, 7, None::<String>]`, one for each `?`.
#[doc(hidden)]
#[macro_export]
macro_rules! __db_args {
    ($($value:expr),* $(,)?) => {
        [$($crate::db::Value::from($value)),*] as [$crate::db::Value; _]
    };
}

/// One column as the driver gave it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Value(Value),
    /// Exact decimals (MariaDB's `SUM` is one): read as a number when it fits, or as text.
    #[cfg_attr(not(feature = "mysql"), allow(dead_code, reason = "no other driver gives one"))]
    Decimal(String),
    /// A value that was not understood, and why; an error only for who asks for it.
    Unreadable(String),
}

/// A row of a result. Columns are read by name with [`get`](Row::get), or by place with [`at`](Row::at).
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    names: Arc<[String]>,
    cells: Vec<Cell>,
}

impl Row {
    pub(super) fn new(names: Arc<[String]>, cells: Vec<Cell>) -> Self {
        Self { names, cells }
    }

    /// The value of a column by its name: `i64`, `f64`, `bool`, `String`, `Vec<u8>`, [`Value`], or an
    /// `Option` of one for a column that may be NULL. Integers read as `f64` and as `bool` too, text as bytes,
    /// and bytes that are UTF-8 as text.
    ///
    /// # Errors
    /// [`DbError::Column`] when there is no such column, it is NULL without `Option`, or of another type.
    pub fn get<T: FromColumn>(&self, column: &str) -> Result<T, DbError> {
        let Some(place) = self.names.iter().position(|name| name == column) else {
            let reason = format!("there is none of that name; there are {}", self.names.join(", "));
            return Err(DbError::Column { column: column.to_owned(), reason });
        };
        self.at(place)
    }

    /// The value of a column by its place, the first is 0.
    ///
    /// # Errors
    /// As [`get`](Row::get).
    pub fn at<T: FromColumn>(&self, place: usize) -> Result<T, DbError> {
        let Some(cell) = self.cells.get(place) else {
            let reason = format!("the row has {} columns", self.cells.len());
            return Err(DbError::Column { column: format!("#{place}"), reason });
        };
        let column = || self.names.get(place).cloned().unwrap_or_default();
        T::from_cell(CellRef(cell)).map_err(|reason| DbError::Column { column: column(), reason })
    }

    /// The names of the columns, in order.
    pub fn columns(&self) -> &[String] {
        &self.names
    }
}

/// A type that [`Row::get`] can give. Closed: the list is in [`Row::get`].
pub trait FromColumn: Sized + sealed::FromCell {}
impl<T: sealed::FromCell> FromColumn for T {}

/// A borrowed cell, so that the sealed trait can name it without making `Cell` public.
#[derive(Clone, Copy)]
pub struct CellRef<'a>(&'a Cell);

mod sealed {
    use super::CellRef;

    pub trait FromCell: Sized {
        fn from_cell(cell: CellRef<'_>) -> Result<Self, String>;
    }
}

use sealed::FromCell;

impl FromCell for Value {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, String> {
        match cell.0 {
            Cell::Value(value) => Ok(value.clone()),
            Cell::Decimal(text) => Ok(Value::Text(text.clone())),
            Cell::Unreadable(reason) => Err(reason.clone()),
        }
    }
}

impl<T: FromCell> FromCell for Option<T> {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, String> {
        match cell.0 {
            Cell::Value(Value::Null) => Ok(None),
            _ => T::from_cell(cell).map(Some),
        }
    }
}

impl FromCell for i64 {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, String> {
        match cell.0 {
            Cell::Value(Value::Int(n)) => Ok(*n),
            Cell::Value(Value::Bool(b)) => Ok(i64::from(*b)),
            Cell::Decimal(text) => text.parse().map_err(|_| format!("{text} is not a 64-bit integer")),
            other => Err(mismatch(other, "an integer")),
        }
    }
}

impl FromCell for f64 {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, String> {
        match cell.0 {
            Cell::Value(Value::Float(n)) => Ok(*n),
            // SQLite gives 3.0 in a column without a type as the integer that it is.
            Cell::Value(Value::Int(n)) => Ok(*n as f64),
            Cell::Decimal(text) => text.parse().map_err(|_| format!("{text} is not a number")),
            other => Err(mismatch(other, "a number")),
        }
    }
}

impl FromCell for bool {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, String> {
        match cell.0 {
            Cell::Value(Value::Bool(b)) => Ok(*b),
            Cell::Value(Value::Int(n)) => Ok(*n != 0),
            other => Err(mismatch(other, "true or false")),
        }
    }
}

impl FromCell for String {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, String> {
        match cell.0 {
            Cell::Value(Value::Text(text)) | Cell::Decimal(text) => Ok(text.clone()),
            // So comes text from MariaDB whose collation compares bytes.
            Cell::Value(Value::Bytes(bytes)) if std::str::from_utf8(bytes).is_ok() => {
                Ok(String::from_utf8_lossy(bytes).into_owned())
            }
            other => Err(mismatch(other, "text")),
        }
    }
}

impl FromCell for Vec<u8> {
    fn from_cell(cell: CellRef<'_>) -> Result<Self, String> {
        match cell.0 {
            Cell::Value(Value::Bytes(bytes)) => Ok(bytes.clone()),
            Cell::Value(Value::Text(text)) => Ok(text.clone().into_bytes()),
            other => Err(mismatch(other, "bytes")),
        }
    }
}

fn mismatch(cell: &Cell, wanted: &str) -> String {
    let found = match cell {
        Cell::Value(Value::Null) => return format!("it is NULL where {wanted} was asked for"),
        Cell::Value(Value::Bool(_)) => "true or false",
        Cell::Value(Value::Int(_)) => "an integer",
        Cell::Value(Value::Float(_)) => "a number with a fraction",
        Cell::Value(Value::Text(_)) => "text",
        Cell::Value(Value::Bytes(_)) => "bytes",
        Cell::Decimal(_) => "a decimal number",
        Cell::Unreadable(reason) => return reason.clone(),
    };
    format!("it holds {found} where {wanted} was asked for")
}

#[cfg(test)]
mod tests {
    use super::super::args;
    use super::*;

    fn row(cell: Cell) -> Row {
        Row::new(Arc::from(["a".to_owned()]), vec![cell])
    }

    fn check<T: FromColumn + PartialEq + std::fmt::Debug>(cell: Cell, wanted: Result<T, &str>) {
        let got = row(cell).get::<T>("a").map_err(|e| e.to_string());
        assert_eq!(got, wanted.map_err(|reason| format!("column `a`: {reason}")));
    }

    #[test]
    fn arguments_are_made_of_ordinary_values() {
        assert_eq!(
            args!["x", 7, 7_i64, 1.5, true, None::<i64>, Some("y"), vec![1_u8]],
            [
                Value::Text("x".into()),
                Value::Int(7),
                Value::Int(7),
                Value::Float(1.5),
                Value::Bool(true),
                Value::Null,
                Value::Text("y".into()),
                Value::Bytes(vec![1]),
            ]
        );
        assert_eq!(args![], []);
    }

    #[test]
    fn a_column_reads_as_what_it_is() {
        check(Cell::Value(Value::Int(7)), Ok(7_i64));
        check(Cell::Value(Value::Int(7)), Ok(7.0_f64));
        check(Cell::Value(Value::Int(1)), Ok(true));
        check(Cell::Value(Value::Bool(true)), Ok(1_i64));
        check(Cell::Value(Value::Text("x".into())), Ok("x".to_owned()));
        check(Cell::Value(Value::Text("x".into())), Ok(b"x".to_vec()));
        check(Cell::Value(Value::Null), Ok(None::<String>));
        check(Cell::Value(Value::Int(7)), Ok(Some(7_i64)));
        check(Cell::Decimal("12".into()), Ok(12_i64));
        check(Cell::Decimal("12.5".into()), Ok(12.5_f64));
        check(Cell::Value(Value::Null), Ok(Value::Null));
    }

    #[test]
    fn a_wrong_type_is_an_error_that_says_both() {
        check::<i64>(
            Cell::Value(Value::Text("7".into())),
            Err("it holds text where an integer was asked for"),
        );
        check::<String>(Cell::Value(Value::Null), Err("it is NULL where text was asked for"));
        check::<i64>(Cell::Decimal("1.5".into()), Err("1.5 is not a 64-bit integer"));
        check::<bool>(
            Cell::Value(Value::Float(0.5)),
            Err("it holds a number with a fraction where true or false was asked for"),
        );
        check::<Vec<u8>>(Cell::Unreadable("why".into()), Err("why"));
    }

    #[test]
    fn an_unknown_column_names_the_known_ones() {
        let error = row(Cell::Value(Value::Null)).get::<i64>("b").unwrap_err();
        assert_eq!(error.to_string(), "column `b`: there is none of that name; there are a");
        let error = row(Cell::Value(Value::Null)).at::<i64>(1).unwrap_err();
        assert_eq!(error.to_string(), "column `#1`: the row has 1 columns");
    }
}
