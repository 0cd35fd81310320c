//! The journal as bytes, and what of it still matters.

#![allow(clippy::unwrap_used, reason = "that is how tests fail, in their helpers, too")]

use ffdata::journal::{Entry, FRAME_HEAD, Table, read, write_head};
use ffdata::{Live, RowId, Value};

fn table() -> Entry {
    let columns = vec!["name".to_owned(), "coins".to_owned()];
    let table = Table { database: String::new(), name: "account".into(), key: "name".into(), columns };
    Entry::Table { number: 1, table }
}

fn row(key: &str) -> RowId {
    RowId { table: 1, key: key.as_bytes().into() }
}

fn hold(key: &str, number: u64) -> Entry {
    Entry::Hold { row: row(key), number }
}

fn rows(key: &str, version: i64, coins: i64) -> Entry {
    Entry::Rows { rows: vec![(row(key), version, vec![Value::Text(key.into()), Value::Int(coins)])] }
}

fn file(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_head("game.1:7", &mut bytes);
    entries.iter().for_each(|entry| entry.write(&mut bytes));
    bytes
}

fn live(entries: &[Entry]) -> Live {
    let mut live = Live::default();
    entries.iter().for_each(|entry| live.apply(entry));
    live
}

#[test]
fn a_file_reads_as_it_was_written() {
    let entries = vec![table(), hold("ann", 3), rows("ann", 5, 10)];
    let read = read(&file(&entries)).unwrap();
    assert_eq!((read.id.as_str(), read.torn), ("game.1:7", false));
    assert_eq!(read.entries, entries);
}

#[test]
fn wherever_a_file_is_cut_the_whole_frames_before_it_count() {
    let entries = vec![table(), rows("ann", 5, 10), rows("bob", 6, 20)];
    let bytes = file(&entries);
    let head = file(&[]).len();
    let ends: Vec<usize> = (0..=entries.len()).map(|n| file(&entries[..n]).len()).collect();
    for cut in head..=bytes.len() {
        let read = read(&bytes[..cut]).unwrap();
        let whole = ends.iter().rposition(|end| *end <= cut).unwrap();
        assert_eq!(read.entries, entries[..whole], "cut at {cut}");
        assert_eq!((read.whole, read.torn), (ends[whole], ends[whole] < cut));
    }
    for cut in 0..head {
        assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_ends_the_file_there() {
    let entries = vec![table(), rows("ann", 5, 10), rows("bob", 6, 20)];
    let mut bytes = file(&entries);
    let at = file(&entries[..1]).len() + FRAME_HEAD + 3;
    bytes[at] ^= 1;
    let read = read(&bytes).unwrap();
    assert_eq!((read.entries.len(), read.torn), (1, true));
}

#[test]
fn the_last_write_of_a_row_counts_until_the_database_has_it() {
    let mut state =
        live(&[table(), hold("ann", 1), rows("ann", 5, 10), rows("ann", 6, 20), rows("ann", 6, 30)]);
    let unwritten = |state: &Live| state.rows().next().unwrap().1.unwritten.clone();
    assert_eq!(unwritten(&state).unwrap(), (6, vec![Value::Text("ann".into()), Value::Int(30)]));
    state.written(&row("ann"), 5);
    assert!(unwritten(&state).is_some());
    state.written(&row("ann"), 6);
    assert_eq!(unwritten(&state), None);
    assert!(!state.is_empty(), "it is still held");
    state.apply(&hold("ann", 2));
    state.released(&row("ann"), 1);
    assert!(!state.is_empty(), "it is held anew");
    state.released(&row("ann"), 2);
    assert!(state.is_empty());
    assert_eq!(state.bytes(), 0);
}

#[test]
fn a_snapshot_leads_to_the_same_state_and_is_as_small_as_it_is() {
    let mut entries = vec![table(), hold("cid", 1), hold("ann", 2)];
    (0..1000).for_each(|n| entries.push(rows("ann", n, n)));
    let state = live(&entries);
    let bytes = state.snapshot("x");
    assert_eq!(live(&read(&bytes).unwrap().entries), state);
    assert!(bytes.len() < 500 && state.bytes() < 500, "{} {}", bytes.len(), state.bytes());
}

#[test]
fn rows_of_an_unnamed_table_or_of_another_width_or_not_held_are_left_out() {
    assert!(live(&[hold("ann", 1), rows("ann", 5, 10)]).is_empty());
    assert!(live(&[table(), rows("ann", 5, 10)]).is_empty());
    let narrow = Entry::Rows { rows: vec![(row("ann"), 5, vec![Value::Null])] };
    let state = live(&[table(), hold("ann", 1), narrow]);
    assert_eq!(state.rows().next().unwrap().1.unwritten, None);
}
