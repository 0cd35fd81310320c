//! The journal's file: which rows a node holds, and what it has written to them and the database has not.
//!
//! The file is a magic of eight bytes, the journal's id as text behind its length, and frames. A frame is
//! `length u32, crc32 u32, entry`; numbers are little-endian. A crash may cut the last frame, which was then
//! answered to nobody; everything before it counts.

use crate::codec::{self, Malformed, Reader};
use crate::{RowId, Value};

/// The first bytes of a file: the format and its version.
pub const MAGIC: &[u8; 8] = b"ffjrnl1\n";

/// The largest entry. Above it a length is nonsense, and nothing is asked for.
pub const ENTRY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The bytes of a frame besides its entry.
pub const FRAME_HEAD: usize = 8;

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// One thing that the journal says.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// What a table's number stands for, before it is used.
    Table {
        /// Its number in this file.
        number: u32,
        /// The table.
        table: Table,
    },
    /// This journal is about to become the holder of a row, or is it.
    Hold {
        /// The row.
        row: RowId,
        /// Which hold of this journal's: the row says `ID#NUMBER`, so that nothing of an earlier hold, late
        /// on its way to the database, can touch a later one.
        number: u64,
    },
    /// Held rows as they are now, all of them or none.
    Rows {
        /// Each row, its version, and its columns in the order of the table's.
        rows: Vec<(RowId, i64, Vec<Value>)>,
    },
}

/// Where rows belong.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Table {
    /// The database's name in the config; empty is `db`.
    pub database: String,
    /// The table's name.
    pub name: String,
    /// The column of the key.
    pub key: String,
    /// The columns of a row.
    pub columns: Vec<String>,
}

impl Entry {
    /// Appends the frame of this entry.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0; FRAME_HEAD]);
        match self {
            Self::Table { number, table } => {
                out.push(1);
                out.extend(number.to_le_bytes());
                for text in [&table.database, &table.name, &table.key] {
                    codec::write_bytes(text.as_bytes(), out);
                }
                out.extend((table.columns.len() as u32).to_le_bytes());
                table.columns.iter().for_each(|column| codec::write_bytes(column.as_bytes(), out));
            }
            Self::Hold { row, number } => {
                out.push(2);
                write_row(row, out);
                out.extend(number.to_le_bytes());
            }
            Self::Rows { rows } => {
                out.push(3);
                out.extend((rows.len() as u32).to_le_bytes());
                for (row, version, columns) in rows {
                    write_row(row, out);
                    out.extend(version.to_le_bytes());
                    codec::write_values(columns, out);
                }
            }
        }
        let (length, crc) =
            ((out.len() - start - FRAME_HEAD) as u32, CRC.checksum(&out[start + FRAME_HEAD..]));
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..start + FRAME_HEAD].copy_from_slice(&crc.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let entry = match reader.u8()? {
            1 => Self::Table { number: reader.u32()?, table: read_table(&mut reader)? },
            2 => Self::Hold { row: read_row(&mut reader)?, number: reader.u64()? },
            3 => {
                let count = reader.u32()?;
                // Grows as rows arrive: the count alone asks for no memory.
                let mut rows = Vec::new();
                for _ in 0..count {
                    rows.push((read_row(&mut reader)?, reader.i64()?, reader.values()?));
                }
                Self::Rows { rows }
            }
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(entry)
    }
}

fn write_row(row: &RowId, out: &mut Vec<u8>) {
    out.extend(row.table.to_le_bytes());
    codec::write_bytes(&row.key, out);
}

fn read_row(reader: &mut Reader<'_>) -> Result<RowId, Malformed> {
    Ok(RowId { table: reader.u32()?, key: reader.bytes()?.into() })
}

fn read_table(reader: &mut Reader<'_>) -> Result<Table, Malformed> {
    let mut text = || reader.text().map(str::to_owned);
    let (database, name, key) = (text()?, text()?, text()?);
    let count = reader.u32()?;
    let mut columns = Vec::new();
    for _ in 0..count {
        columns.push(reader.text()?.to_owned());
    }
    Ok(Table { database, name, key, columns })
}

/// Appends the head of a file.
pub fn write_head(id: &str, out: &mut Vec<u8>) {
    out.extend(MAGIC);
    codec::write_bytes(id.as_bytes(), out);
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// The journal's id, as it stands in the rows that it holds.
    pub id: String,
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// How many bytes of the file they are.
    pub whole: usize,
    /// Whether a cut or damaged frame follows.
    pub torn: bool,
}

/// Reads a file; ends at the first frame that is cut or damaged.
///
/// # Errors
/// It does not begin as a journal does.
pub fn read(bytes: &[u8]) -> Result<File, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(Malformed);
    }
    let id = reader.text()?.to_owned();
    let mut at = MAGIC.len() + 4 + id.len();
    let mut entries = Vec::new();
    while let Some((entry, len)) = read_frame(&bytes[at..]) {
        entries.push(entry);
        at += len;
    }
    Ok(File { id, entries, whole: at, torn: at < bytes.len() })
}

fn read_frame(bytes: &[u8]) -> Option<(Entry, usize)> {
    let mut reader = Reader::new(bytes);
    let (length, crc) = (reader.u32().ok()? as usize, reader.u32().ok()?);
    if length > ENTRY_BYTES_MAX {
        return None;
    }
    let entry = reader.take(length).ok()?;
    if CRC.checksum(entry) != crc {
        return None;
    }
    Some((Entry::read(entry).ok()?, FRAME_HEAD + length))
}
