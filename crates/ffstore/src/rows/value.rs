//! A value: an argument of a statement, or a column of a row, the same on every database.

/// An argument of a statement, or a column of a row.
///
/// Made with `From`: integers up to 64 bits (signed) and 32 bits (unsigned), floats, `bool`, text, bytes,
/// and `Option` of any of them (`None` is NULL). `ffserver::db::args!` makes a list of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// True or false; MariaDB and SQLite store it as 1 or 0.
    Bool(bool),
    /// Any integer.
    Int(i64),
    /// Any floating-point number.
    Float(f64),
    /// Text. Quotes, backslashes and emoji are stored as they are; PostgreSQL refuses NUL in text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Value {
    /// About how much memory it takes, and how many bytes in the journal.
    pub fn size(&self) -> usize {
        const SMALL: usize = 9;
        match self {
            Self::Text(text) => SMALL + text.len(),
            Self::Bytes(bytes) => SMALL + bytes.len(),
            _ => SMALL,
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $to:expr;)*) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                $to(value)
            }
        }
    )*};
}

value_from! {
    bool => Value::Bool;
    i64 => Value::Int;
    i32 => |n| Value::Int(i64::from(n));
    i16 => |n| Value::Int(i64::from(n));
    u32 => |n| Value::Int(i64::from(n));
    u16 => |n| Value::Int(i64::from(n));
    u8 => |n| Value::Int(i64::from(n));
    f64 => Value::Float;
    f32 => |n| Value::Float(f64::from(n));
    String => Value::Text;
    &str => |text: &str| Value::Text(text.to_owned());
    &String => |text: &String| Value::Text(text.clone());
    Vec<u8> => Value::Bytes;
    &[u8] => |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    bytes::Bytes => |bytes: bytes::Bytes| Value::Bytes(bytes.into());
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}
