//! Records as a trait: structs whose fields are the columns of a table. `#[derive(Record)]` writes it.

use std::fmt::Debug;
use std::hash::Hash;

use crate::db::Value;

/// A row of a table as a plain struct: `#[derive(Record, Clone, PartialEq)]`.
pub trait Record: Clone + PartialEq + Send + Sync + 'static {
    /// The type of the key.
    type Key: Key;

    /// The record's table.
    const SHAPE: Shape;

    /// The record's key.
    fn key(&self) -> &Self::Key;

    /// Takes the key that the database has made.
    fn set_key(&mut self, key: Self::Key);

    /// The record's columns, in the order of the shape.
    fn values(&self) -> Vec<Value>;

    /// The record of these columns.
    ///
    /// # Errors
    /// The column that does not fit, and why.
    fn from_values(values: Vec<Value>) -> Result<Self, Misfit>;

    /// About how many bytes it takes in memory.
    fn bytes(&self) -> usize;
}

/// The shape of a record type: where its records are kept.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The name of the database in the config; empty is `db`.
    pub database: &'static str,
    /// The name of the table.
    pub table: &'static str,
    /// The table's columns, without `version` and `holder`, which belong to the framework.
    pub columns: &'static [Column],
    /// The place of the key among the columns.
    pub key: usize,
    /// The place of the column that names the owner.
    pub owner: Option<usize>,
    /// Whether the database makes the key.
    pub auto: bool,
}

impl Shape {
    /// The column of the key.
    pub(crate) fn key_column(&self) -> &'static Column {
        &self.columns[self.key]
    }
}

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The column's name.
    pub name: &'static str,
    /// The kind of its values.
    pub kind: Kind,
    /// Whether the column may be NULL: the field is an `Option`.
    pub nullable: bool,
}

/// The kind of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `bool`.
    Bool,
    /// `i32`.
    Int,
    /// `i64`.
    Long,
    /// `u32`; as wide as `i64` in the database.
    Unsigned,
    /// `f64`.
    Float,
    /// `String`.
    Text,
    /// `Vec<u8>`.
    Bytes,
}

/// A column that does not fit its field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}`: {reason}")]
pub struct Misfit {
    /// The column.
    pub column: &'static str,
    /// Why.
    pub reason: String,
}

/// The type of a record's field: `bool`, `i32`, `i64`, `u32`, `f64`, `String`, `Vec<u8>`, or an `Option`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no field of a record",
    note = "fields are: bool, i32, i64, u32, f64, String, Vec<u8>, and Option of one of these"
)]
pub trait Field: Sized {
    /// The kind of the field's column.
    const KIND: Kind;
    /// Whether its column may be NULL.
    const NULLABLE: bool = false;

    /// The column's value.
    fn to_value(&self) -> Value;

    /// The field of a column's value.
    ///
    /// # Errors
    /// Why it does not fit.
    fn from_value(value: Value) -> Result<Self, String>;

    /// Bytes besides the struct's own.
    fn heap(&self) -> usize {
        0
    }
}

/// The type of a record's key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no key of a record",
    note = "keys are: i64, i32, u32, String, Vec<u8>"
)]
pub trait Key: Field + Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static {
    /// The key of a number that the database has made; `None` when it does not fit.
    fn from_made(number: i64) -> Option<Self>;
}

fn misfit<T>(value: &Value, wanted: &str) -> Result<T, String> {
    let found = match value {
        Value::Null => "NULL",
        Value::Bool(_) => "true or false",
        Value::Int(_) => "an integer",
        Value::Float(_) => "a number with a fraction",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytes",
    };
    Err(format!("it holds {found} where {wanted} was expected"))
}

macro_rules! whole_field {
    ($($T:ty => $kind:expr, $name:literal;)*) => {$(
        impl Field for $T {
            const KIND: Kind = $kind;

            fn to_value(&self) -> Value {
                Value::from(*self)
            }

            fn from_value(value: Value) -> Result<Self, String> {
                match &value {
                    Value::Int(n) => {
                        <$T>::try_from(*n).map_err(|_| format!("{n} does not fit into {}", $name))
                    }
                    // MariaDB's exact decimals come as text.
                    Value::Text(text) if text.parse::<$T>().is_ok() => {
                        text.parse().map_err(|_| String::new())
                    }
                    other => misfit(other, "an integer"),
                }
            }
        }

        impl Key for $T {
            fn from_made(number: i64) -> Option<Self> {
                <$T>::try_from(number).ok()
            }
        }
    )*};
}
whole_field! {
    i64 => Kind::Long, "i64";
    i32 => Kind::Int, "i32";
    u32 => Kind::Unsigned, "u32";
}

impl Field for bool {
    const KIND: Kind = Kind::Bool;

    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }

    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Bool(b) => Ok(b),
            Value::Int(n) => Ok(n != 0),
            other => misfit(&other, "true or false"),
        }
    }
}

impl Field for f64 {
    const KIND: Kind = Kind::Float;

    fn to_value(&self) -> Value {
        Value::Float(*self)
    }

    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Float(n) => Ok(n),
            Value::Int(n) => Ok(n as f64),
            other => misfit(&other, "a number"),
        }
    }
}

impl Field for String {
    const KIND: Kind = Kind::Text;

    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }

    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => Ok(text),
            // So comes text from MariaDB whose collation compares bytes.
            Value::Bytes(bytes) => String::from_utf8(bytes).map_err(|_| "it holds no UTF-8 text".to_owned()),
            other => misfit(&other, "text"),
        }
    }

    fn heap(&self) -> usize {
        self.len()
    }
}

impl Field for Vec<u8> {
    const KIND: Kind = Kind::Bytes;

    fn to_value(&self) -> Value {
        Value::Bytes(self.clone())
    }

    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Text(text) => Ok(text.into_bytes()),
            other => misfit(&other, "bytes"),
        }
    }

    fn heap(&self) -> usize {
        self.len()
    }
}

impl<T: Field> Field for Option<T> {
    const KIND: Kind = T::KIND;
    const NULLABLE: bool = true;

    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, Field::to_value)
    }

    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(None),
            other => T::from_value(other).map(Some),
        }
    }

    fn heap(&self) -> usize {
        self.as_ref().map_or(0, Field::heap)
    }
}

macro_rules! text_key {
    ($($T:ty),*) => {$(
        impl Key for $T {
            fn from_made(_number: i64) -> Option<Self> {
                None
            }
        }
    )*};
}
text_key!(String, Vec<u8>);
