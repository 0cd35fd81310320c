//! The journal's file: which rows a node holds, and what it has written to them and the database has not.
//!
//! The file is a head and frames. The head is a magic of eight bytes, the journal's id and the boot of the host as
//! texts behind their lengths, and a salt u64. A frame is `length u32, crc32 u32, entry`; the sum is over the salt and
//! the entry; numbers are little-endian. Version 1 has a head without boot and salt, and is still read.
//!
//! A crash may cut the last frame, which was then answered to nobody. A disk may damage one in the middle: what
//! follows it is found by its sums, which nobody can make who does not know the salt. So what a player has written
//! into a text is never taken for an entry.

use super::codec::{self, Malformed, Reader};
use super::{Live, RowId, Value};

/// The first bytes of a file: the format and its version.
pub const MAGIC: &[u8; 8] = b"ffjrnl2\n";
const MAGIC_1: &[u8; 8] = b"ffjrnl1\n";

/// The largest entry. Above it a length is nonsense, and nothing is asked for.
pub const ENTRY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The bytes of a frame besides its entry.
pub const FRAME_HEAD: usize = 8;

/// The smallest entry: its kind and what is shortest of all, a list of no rows.
const ENTRY_BYTES_MIN: usize = 5;
/// The bound on bytes that are summed to find what follows damage. A writer that can choose what is in a file could
/// otherwise make its reading take hours.
const SEARCH_BYTES_MAX: usize = 256 * 1024 * 1024;

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// The table that a number stands for, before it is used.
    Table {
        /// The table's number in this file.
        number: u32,
        /// The table.
        table: Table,
    },
    /// This journal is about to become the holder of a row, or is it.
    Lease {
        /// The row.
        row: RowId,
        /// The lease of this journal: the row says `ID#NUMBER`, so that nothing of an earlier lease, late on its way to
        /// the database, can touch a later one.
        number: u64,
    },
    /// Held rows as they are now, all of them or none.
    Rows {
        /// Each row, its version, and its columns in the order of the table's.
        rows: Vec<(RowId, i64, Vec<Value>)>,
    },
}

/// The table where rows belong.
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
    /// Appends the frame of this entry to a file with that head.
    pub fn write(&self, head: &Head, out: &mut Vec<u8>) {
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
            Self::Lease { row, number } => {
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
        let (length, crc) = ((out.len() - start - FRAME_HEAD) as u32, head.sum(&out[start + FRAME_HEAD..]));
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..start + FRAME_HEAD].copy_from_slice(&crc.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let entry = match reader.u8()? {
            1 => Self::Table { number: reader.u32()?, table: read_table(&mut reader)? },
            2 => Self::Lease { row: read_row(&mut reader)?, number: reader.u64()? },
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

/// The head of a journal's file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// The journal's id, as it stands in the rows that it holds.
    pub id: String,
    /// The boot of the host in which the file was written; empty when that is not known.
    pub boot: String,
    /// A random number that stands nowhere else; `None` in version 1.
    pub salt: Option<u64>,
}

impl Head {
    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(if self.salt.is_some() { MAGIC } else { MAGIC_1 });
        codec::write_bytes(self.id.as_bytes(), out);
        if let Some(salt) = self.salt {
            codec::write_bytes(self.boot.as_bytes(), out);
            out.extend(salt.to_le_bytes());
        }
    }

    /// Gives its length, too.
    fn read(bytes: &[u8]) -> Result<(Self, usize), Malformed> {
        let mut reader = Reader::new(bytes);
        let magic = reader.take(MAGIC.len())?;
        let id = reader.text()?.to_owned();
        if magic == MAGIC_1 {
            return Ok((Self { id, ..Self::default() }, bytes.len() - reader.left()));
        }
        if magic != MAGIC {
            return Err(Malformed);
        }
        let boot = reader.text()?.to_owned();
        let salt = Some(reader.u64()?);
        Ok((Self { id, boot, salt }, bytes.len() - reader.left()))
    }

    fn sum(&self, entry: &[u8]) -> u32 {
        let mut digest = CRC.digest();
        if let Some(salt) = self.salt {
            digest.update(&salt.to_le_bytes());
        }
        digest.update(entry);
        digest.finalize()
    }
}

/// The contents of a journal's file.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// The file's head.
    pub head: Head,
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// The number of bytes of the entries, with what is damaged between them.
    pub whole: usize,
    /// The number of bytes between entries that are none.
    pub damaged: usize,
    /// Whether a cut or damaged frame follows.
    pub torn: bool,
}

/// Reads a file: every frame that is whole. Behind damage it goes on with the next one, but not in version 1, and not
/// when that takes too long: there it ends.
///
/// # Errors
/// The file does not begin as a journal does.
pub fn read(bytes: &[u8]) -> Result<File, Malformed> {
    let (head, mut whole) = Head::read(bytes)?;
    let (mut entries, mut damaged, mut budget) = (Vec::new(), 0, SEARCH_BYTES_MAX);
    loop {
        let found = match read_frame(&head, &bytes[whole..]) {
            Some((entry, len)) => Some((0, entry, len)),
            None if head.salt.is_some() => search(&head, &bytes[whole..], &mut budget),
            None => None,
        };
        let Some((skipped, entry, len)) = found else { break };
        entries.push(entry);
        damaged += skipped;
        whole += skipped + len;
    }
    Ok(File { head, entries, whole, damaged, torn: whole < bytes.len() })
}

impl File {
    /// The rows that the entries lead to. Behind damage the entry that begins a row's lease may be missing: there a row
    /// that was written was held all the same, and its lease has the number 0.
    pub fn live(&self) -> Live {
        let mut live = Live::default();
        for entry in &self.entries {
            if self.damaged > 0
                && let Entry::Rows { rows } = entry
            {
                for (row, ..) in rows {
                    if live.row(row).is_none() {
                        live.apply(&Entry::Lease { row: row.clone(), number: 0 });
                    }
                }
            }
            live.apply(entry);
        }
        live
    }
}

fn read_frame(head: &Head, bytes: &[u8]) -> Option<(Entry, usize)> {
    let entry = frame(bytes)?;
    let is_whole = head.sum(entry) == sum_of(bytes)?;
    Some((Entry::read(entry).ok().filter(|_| is_whole)?, FRAME_HEAD + entry.len()))
}

/// The first frame behind the start, and how far that is.
fn search(head: &Head, bytes: &[u8], budget: &mut usize) -> Option<(usize, Entry, usize)> {
    for at in 1..bytes.len() {
        let here = &bytes[at..];
        // What cannot be one is told without summing it.
        let Some(entry) = frame(here).filter(|entry| matches!(entry, [1..=3, ..])) else { continue };
        *budget = budget.checked_sub(entry.len())?;
        if let Some((entry, len)) = read_frame(head, here) {
            return Some((at, entry, len));
        }
    }
    None
}

/// The entry of a frame, whatever its sum.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let length = Reader::new(bytes).u32().ok()? as usize;
    if !(ENTRY_BYTES_MIN..=ENTRY_BYTES_MAX).contains(&length) {
        return None;
    }
    bytes.get(FRAME_HEAD..)?.get(..length)
}

fn sum_of(bytes: &[u8]) -> Option<u32> {
    Reader::new(bytes.get(4..)?).u32().ok()
}
