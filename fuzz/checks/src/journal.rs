//! The file of a journal.

use ffstore::rows::Live;
use ffstore::rows::journal::{File, read};

fn write(file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.head.write(&mut bytes);
    file.entries.iter().for_each(|entry| entry.write(&file.head, &mut bytes));
    bytes
}

/// The same with NaN, which is unlike itself.
fn same(one: &impl std::fmt::Debug, other: &impl std::fmt::Debug) -> bool {
    format!("{one:?}") == format!("{other:?}")
}

/// A journal's file, as after a crash: what is read has one encoding, which is the start of the file but for what
/// is damaged; cut at its end, all but the last entry are read; and a snapshot of the state leads to that state.
///
/// # Panics
/// One of these does not hold.
pub fn journal(data: &[u8]) {
    let Ok(file) = read(data) else { return };
    let again = write(&file);
    assert_eq!(again.len() + file.damaged, file.whole, "bytes are missing");
    if file.damaged == 0 {
        assert_eq!(again, data[..file.whole], "another encoding");
    }
    assert_eq!(file.torn, file.whole < data.len());

    let cut = file.whole - file.whole.min(1);
    if let Ok(shorter) = read(&data[..cut]) {
        // Without the last one; what is found in its bytes then may be anything.
        let before = file.entries.len() - file.entries.len().min(1);
        assert!(same(&shorter.entries.get(..before), &file.entries.get(..before)));
    }

    let live = file.live();
    let snapshot = live.snapshot(&file.head);
    let Ok(replayed) = read(&snapshot) else { panic!("a snapshot is no journal") };
    assert!(!replayed.torn);
    let mut leads_to = Live::default();
    replayed.entries.iter().for_each(|entry| leads_to.apply(entry));
    assert_eq!(leads_to.bytes(), live.bytes());
    assert_eq!(leads_to.rows().count(), live.rows().count());
    for ((row, state), (other, leads_to)) in live.rows().zip(leads_to.rows()) {
        assert!(row == other && same(state, leads_to), "a row of the snapshot is another");
    }
}
