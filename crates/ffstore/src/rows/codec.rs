//! Values as bytes: in the journal, and in memcached. One encoding for each value.
//!
//! A value is a tag and what it says: 0 NULL · 1 false · 2 true · 3 integer i64 · 4 float f64 · 5 text ·
//! 6 bytes; texts and bytes begin with their length u32. Numbers are little-endian.

use super::Value;

/// Bytes that are no encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed values")]
pub struct Malformed;

/// The reader of an encoding: what is left to be read. Every read checks that it is there first.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    /// One byte.
    ///
    /// # Errors
    /// There is none.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// A u32.
    ///
    /// # Errors
    /// There are fewer than four bytes.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// A u64.
    ///
    /// # Errors
    /// There are fewer than eight bytes.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// An i64.
    ///
    /// # Errors
    /// There are fewer than eight bytes.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    /// Bytes behind their length.
    ///
    /// # Errors
    /// There are fewer than it says.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(usize::try_from(len).map_err(|_| Malformed)?)
    }

    /// Text behind its length.
    ///
    /// # Errors
    /// The text is cut, or no UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// One value.
    ///
    /// # Errors
    /// The value is cut, has an unknown tag, or its text is no UTF-8.
    pub fn value(&mut self) -> Result<Value, Malformed> {
        Ok(match self.u8()? {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => Value::Int(self.i64()?),
            4 => Value::Float(f64::from_le_bytes(self.array()?)),
            5 => Value::Text(self.text()?.to_owned()),
            6 => Value::Bytes(self.bytes()?.to_vec()),
            _ => return Err(Malformed),
        })
    }

    /// A list of values behind its count.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn values(&mut self) -> Result<Vec<Value>, Malformed> {
        let count = self.u32()? as usize;
        // A value is a byte at least: a count beyond what has arrived asks for no memory.
        if count > self.0.len() {
            return Err(Malformed);
        }
        (0..count).map(|_| self.value()).collect()
    }

    /// The number of bytes that are left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// There is.
    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Appends bytes behind their length. What is beyond 4 GiB is cut: no column holds it.
pub fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend(len.to_le_bytes());
    out.extend(&bytes[..len as usize]);
}

/// Appends one value.
pub fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0),
        Value::Bool(false) => out.push(1),
        Value::Bool(true) => out.push(2),
        Value::Int(n) => {
            out.push(3);
            out.extend(n.to_le_bytes());
        }
        Value::Float(n) => {
            out.push(4);
            out.extend(n.to_le_bytes());
        }
        Value::Text(text) => {
            out.push(5);
            write_bytes(text.as_bytes(), out);
        }
        Value::Bytes(bytes) => {
            out.push(6);
            write_bytes(bytes, out);
        }
    }
}

/// Appends a list of values behind its count.
pub fn write_values(values: &[Value], out: &mut Vec<u8>) {
    out.extend((values.len() as u32).to_le_bytes());
    values.iter().for_each(|value| write_value(value, out));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_reads_as_it_was_written() {
        let values = vec![
            Value::Null,
            Value::Bool(true),
            Value::Bool(false),
            Value::Int(i64::MIN),
            Value::Float(-0.1),
            Value::Text("it's \\ \0 🎲".into()),
            Value::Bytes(vec![0, 255]),
        ];
        let mut bytes = Vec::new();
        write_values(&values, &mut bytes);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.values(), Ok(values));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn a_count_that_is_not_there_is_malformed() {
        assert_eq!(Reader::new(&[255, 255, 255, 255, 0]).values(), Err(Malformed));
        assert_eq!(Reader::new(&[1, 0, 0, 0, 5, 255, 255, 255, 255]).values(), Err(Malformed));
        assert_eq!(Reader::new(&[1, 0, 0, 0, 7]).values(), Err(Malformed));
    }
}
