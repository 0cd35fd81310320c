//! The journal as bytes, and what of it still matters.

#![allow(clippy::unwrap_used, reason = "that is how tests fail, in their helpers, too")]

use ffstore::rows::journal::{Entry, FRAME_HEAD, Head, Table, read};
use ffstore::rows::{Live, RowId, Value};

fn table() -> Entry {
    let columns = vec!["name".to_owned(), "coins".to_owned()];
    let table = Table { database: String::new(), name: "account".into(), key: "name".into(), columns };
    Entry::Table { number: 1, table }
}

fn row(key: &str) -> RowId {
    RowId { table: 1, key: key.as_bytes().into() }
}

fn lease(key: &str, number: u64) -> Entry {
    Entry::Lease { row: row(key), number }
}

fn rows(key: &str, version: i64, coins: i64) -> Entry {
    Entry::Rows { rows: vec![(row(key), version, vec![Value::Text(key.into()), Value::Int(coins)])] }
}

fn head() -> Head {
    Head { id: "game.1:7".into(), boot: "1f3c".into(), salt: Some(0x1234_5678_9abc_def0) }
}

fn file(entries: &[Entry]) -> Vec<u8> {
    file_with(&head(), entries)
}

fn file_with(head: &Head, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    head.write(&mut bytes);
    entries.iter().for_each(|entry| entry.write(head, &mut bytes));
    bytes
}

fn live(entries: &[Entry]) -> Live {
    let mut live = Live::default();
    entries.iter().for_each(|entry| live.apply(entry));
    live
}

#[test]
fn a_file_reads_as_it_was_written() {
    let entries = vec![table(), lease("ann", 3), rows("ann", 5, 10)];
    let read = read(&file(&entries)).unwrap();
    assert_eq!((&read.head, read.damaged, read.torn), (&head(), 0, false));
    assert_eq!(read.entries, entries);
}

#[test]
fn a_file_of_version_1_is_read_up_to_the_first_damage() {
    let entries = vec![table(), lease("ann", 3), rows("ann", 5, 10)];
    let head = Head { id: "game.1:7".into(), ..Head::default() };
    let mut bytes = file_with(&head, &entries);
    assert_eq!(bytes[..8], *b"ffjrnl1\n");
    let whole = read(&bytes).unwrap();
    assert_eq!((&whole.head, &whole.entries, whole.torn), (&head, &entries, false));
    let at = file_with(&head, &entries[..1]).len() + FRAME_HEAD;
    bytes[at] ^= 1;
    let read = read(&bytes).unwrap();
    assert_eq!((read.entries.len(), read.damaged, read.torn), (1, 0, true));
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
fn a_flipped_bit_takes_its_own_frame_and_no_other() {
    let entries = vec![table(), lease("ann", 1), rows("ann", 5, 10), lease("bob", 2), rows("bob", 6, 20)];
    let bytes = file(&entries);
    let ends: Vec<usize> = (0..=entries.len()).map(|n| file(&entries[..n]).len()).collect();
    for at in ends[0]..bytes.len() {
        let hit = ends.iter().rposition(|end| *end <= at).unwrap();
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let read = read(&damaged).unwrap();
        let left = [&entries[..hit], &entries[hit + 1..]].concat();
        assert_eq!(read.entries, left, "a bit of {at}");
        let last = hit + 1 == entries.len();
        assert_eq!((read.torn, read.damaged), (last, if last { 0 } else { ends[hit + 1] - ends[hit] }));
    }
}

#[test]
fn behind_damage_a_row_counts_whose_hold_is_missing() {
    let entries = [table(), lease("ann", 1), rows("ann", 5, 10)];
    let mut bytes = file(&entries);
    bytes[file(&entries[..1]).len() + FRAME_HEAD] ^= 1;
    let live = read(&bytes).unwrap().live();
    let found = live.row(&row("ann")).unwrap();
    assert_eq!((found.lease, found.unwritten.as_ref().unwrap().0), (0, 5));
}

/// A player who knows the format, but not the salt, and a disk that damages the very frame.
#[test]
fn what_a_player_has_written_is_never_taken_for_an_entry() {
    let forged = |head: &Head| {
        let mut frame = Vec::new();
        rows("ann", 9, 1_000_000).write(head, &mut frame);
        frame
    };
    let guesses =
        [Head::default(), Head { salt: Some(0), ..head() }, Head { salt: Some(u64::MAX), ..head() }];
    for guess in guesses {
        let text = Value::Bytes(forged(&guess));
        let told = Entry::Rows { rows: vec![(row("ann"), 5, vec![text, Value::Int(1)])] };
        let mut bytes = file(&[table(), lease("ann", 1), told]);
        let at = file(&[table(), lease("ann", 1)]).len();
        bytes[at] ^= 1;
        let read = read(&bytes).unwrap();
        assert_eq!((read.entries.len(), read.torn), (2, true));
    }
}

/// Lengths that make sense wherever one looks, in a frame that is cut.
#[test]
fn a_file_that_was_made_to_be_searched_for_ever_is_given_up() {
    let length = 0x0001_0101_u32.to_le_bytes();
    let text = Value::Bytes(length.iter().copied().cycle().take(8 * 1024 * 1024).collect());
    let told = Entry::Rows { rows: vec![(row("ann"), 5, vec![text, Value::Int(1)])] };
    let bytes = file(&[table(), lease("ann", 1), told]);
    let read = read(&bytes[..bytes.len() - 1]).unwrap();
    assert_eq!((read.entries.len(), read.torn), (2, true));
}

#[test]
fn rows_come_in_the_order_of_their_keys_and_so_does_a_snapshot_of_them() {
    let names = ["ira", "ann", "eve", "bob", "hal", "cid", "fay", "dan", "gus"];
    let leases = names.iter().map(|name| lease(name, 1));
    let state = live(&[table()].into_iter().chain(leases).collect::<Vec<_>>());
    let keys: Vec<&[u8]> = state.rows().map(|(row, _)| &*row.key).collect();
    assert!(keys.len() == names.len() && keys.is_sorted(), "{keys:?}");
    let mut sorted = names;
    sorted.sort_unstable();
    let expected = [table()].into_iter().chain(sorted.iter().map(|name| lease(name, 1)));
    assert_eq!(read(&state.snapshot(&head())).unwrap().entries, expected.collect::<Vec<_>>());
}

#[test]
fn the_last_write_of_a_row_counts_until_the_database_has_it() {
    let mut state =
        live(&[table(), lease("ann", 1), rows("ann", 5, 10), rows("ann", 6, 20), rows("ann", 6, 30)]);
    let unwritten = |state: &Live| state.rows().next().unwrap().1.unwritten.clone();
    assert_eq!(unwritten(&state).unwrap(), (6, vec![Value::Text("ann".into()), Value::Int(30)]));
    state.written(&row("ann"), 5);
    assert!(unwritten(&state).is_some());
    state.written(&row("ann"), 6);
    assert_eq!(unwritten(&state), None);
    assert!(!state.is_empty(), "it is still held");
    state.apply(&lease("ann", 2));
    state.released(&row("ann"), 1);
    assert!(!state.is_empty(), "it is held anew");
    state.released(&row("ann"), 2);
    assert!(state.is_empty());
    assert_eq!(state.bytes(), 0);
}

#[test]
fn a_snapshot_leads_to_the_same_state_and_is_as_small_as_it_is() {
    let mut entries = vec![table(), lease("cid", 1), lease("ann", 2)];
    (0..1000).for_each(|n| entries.push(rows("ann", n, n)));
    let state = live(&entries);
    let bytes = state.snapshot(&head());
    assert_eq!(live(&read(&bytes).unwrap().entries), state);
    assert!(bytes.len() < 500 && state.bytes() < 500, "{} {}", bytes.len(), state.bytes());
}

#[test]
fn a_hold_has_begun_when_something_was_written_since() {
    let begun = |state: &Live| state.row(&row("ann")).unwrap().begun;
    let mut entries = vec![table(), lease("ann", 1)];
    assert!(!begun(&live(&entries)));
    entries.push(rows("ann", 5, 10));
    assert!(begun(&live(&entries)));
    entries.push(lease("ann", 2));
    let again = live(&entries);
    assert!(!begun(&again) && again.row(&row("ann")).unwrap().unwritten.is_some());
    assert_eq!(live(&read(&again.snapshot(&head())).unwrap().entries), again);
}

#[test]
fn rows_of_an_unnamed_table_or_of_another_width_or_not_held_are_left_out() {
    assert!(live(&[lease("ann", 1), rows("ann", 5, 10)]).is_empty());
    assert!(live(&[table(), rows("ann", 5, 10)]).is_empty());
    let narrow = Entry::Rows { rows: vec![(row("ann"), 5, vec![Value::Null])] };
    let state = live(&[table(), lease("ann", 1), narrow]);
    assert_eq!(state.rows().next().unwrap().1.unwritten, None);
}
