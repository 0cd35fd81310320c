//! The live part of a journal: the rows that are held, and their newest unwritten state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Value;
use super::journal::{Entry, Head, Table};

/// A row in a journal: the number of its table, and its key, encoded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// The number of its table in this journal.
    pub table: u32,
    /// The key as [`super::codec::write_value`] writes it.
    pub key: Arc<[u8]>,
}

/// The state of one row, by a journal.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LiveRow {
    /// The number of the newest lease.
    pub lease: u64,
    /// Something was written since that lease was asked for, so the database has it; else it may have it, or come to
    /// have it late.
    pub begun: bool,
    /// The newest version and columns that the database may not have; `None` when it is only held.
    pub unwritten: Option<(i64, Vec<Value>)>,
}

/// The state that a journal's entries lead to. The same code replays a file and decides what a shorter file
/// must keep.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Live {
    tables: BTreeMap<u32, Table>,
    rows: HashMap<RowId, LiveRow>,
    bytes: usize,
}

impl Live {
    /// Takes an entry in. Rows of a table that was never named, or that are not held, are left out.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Table { number, table } => {
                self.tables.insert(*number, table.clone());
            }
            Entry::Lease { row, number } if self.tables.contains_key(&row.table) => {
                let bytes = &mut self.bytes;
                let live = self.rows.entry(row.clone()).or_insert_with(|| {
                    *bytes += size(row, None);
                    LiveRow::default()
                });
                (live.lease, live.begun) = (*number, false);
            }
            Entry::Lease { .. } => {}
            Entry::Rows { rows } => {
                for (row, version, columns) in rows {
                    self.write(row, *version, columns);
                }
            }
        }
    }

    fn write(&mut self, row: &RowId, version: i64, columns: &[Value]) {
        let fits = self.tables.get(&row.table).is_some_and(|table| table.columns.len() == columns.len());
        if !fits {
            return;
        }
        // Rows are held before they are written.
        let Some(live) = self.rows.get_mut(row) else { return };
        // The last entry counts, whatever its version: one that was broken off may have the same.
        live.begun = true;
        let old = live.unwritten.replace((version, columns.to_vec()));
        self.bytes += size(row, live.unwritten.as_ref());
        self.bytes -= size(row, old.as_ref());
    }

    /// The database has this version of a row.
    pub fn written(&mut self, row: &RowId, version: i64) {
        let Some(live) = self.rows.get_mut(row) else { return };
        if live.unwritten.as_ref().is_some_and(|(unwritten, _)| *unwritten <= version) {
            let old = live.unwritten.take();
            self.bytes += size(row, None);
            self.bytes -= size(row, old.as_ref());
        }
    }

    /// The lease of that number has ended; a newer one has not.
    pub fn released(&mut self, row: &RowId, number: u64) {
        if self.rows.get(row).is_some_and(|live| live.lease <= number)
            && let Some(live) = self.rows.remove(row)
        {
            self.bytes -= size(row, live.unwritten.as_ref());
        }
    }

    /// The rows, by table and key: what is written of them comes in the same order each time.
    pub fn rows(&self) -> impl Iterator<Item = (&RowId, &LiveRow)> {
        let mut rows: Vec<_> = self.rows.iter().collect();
        // Sorted where they are asked for, which is rare; each write looks one up.
        rows.sort_unstable_by_key(|(row, _)| *row);
        rows.into_iter()
    }

    /// The state of one row.
    pub fn row(&self, row: &RowId) -> Option<&LiveRow> {
        self.rows.get(row)
    }

    /// The tables, by their numbers.
    pub fn tables(&self) -> impl Iterator<Item = (u32, &Table)> {
        self.tables.iter().map(|(number, table)| (*number, table))
    }

    /// The table that a number stands for.
    pub fn table(&self, number: u32) -> Option<&Table> {
        self.tables.get(&number)
    }

    /// Whether no row matters.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// About the size of the file that [`snapshot`](Self::snapshot) makes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A file with that head that leads to this state.
    pub fn snapshot(&self, head: &Head) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes + 1024);
        head.write(&mut out);
        for (number, table) in &self.tables {
            Entry::Table { number: *number, table: table.clone() }.write(head, &mut out);
        }
        for (row, live) in self.rows() {
            let lease = Entry::Lease { row: row.clone(), number: live.lease };
            lease.write(head, &mut out);
            if let Some((version, columns)) = &live.unwritten {
                Entry::Rows { rows: vec![(row.clone(), *version, columns.clone())] }.write(head, &mut out);
                if !live.begun {
                    lease.write(head, &mut out);
                }
            }
        }
        out
    }
}

fn size(row: &RowId, unwritten: Option<&(i64, Vec<Value>)>) -> usize {
    const HEAD: usize = 64;
    let columns = unwritten.map_or(0, |(_, columns)| 8 + columns.iter().map(Value::size).sum::<usize>());
    HEAD + row.key.len() + columns
}
