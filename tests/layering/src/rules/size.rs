//! The size of a room: what is above the limit needs a reason in ARCHITECTURE.md.

use std::collections::BTreeMap;

use crate::source::{File, attrs, is_test, lines};
use crate::{Fault, House, MAX_LINES};

pub(crate) fn check(house: &House<'_>, files: &[File]) -> Vec<Fault> {
    let mut rooms: BTreeMap<&str, (usize, &File)> = BTreeMap::new();
    for file in files {
        if let Some(room) = file.room() {
            rooms.entry(room).or_insert((0, file)).0 += size(file);
        }
    }
    let mut faults = vec![];
    for (room, (lines, file)) in rooms {
        let (at, has_reason) = (file.place(1), house.large.iter().any(|(large, _)| large == room));
        let room = room.to_owned();
        match (lines > MAX_LINES, has_reason) {
            (true, false) => faults.push(Fault::Large { at, room, lines }),
            (false, true) => faults.push(Fault::NotLarge { at, room, lines }),
            _ => {}
        }
    }
    faults
}

/// The lines of a file without those of its tests.
fn size(file: &File) -> usize {
    let tests = file.ast.items.iter().filter(|item| is_test(attrs(item)));
    file.text.lines().count().saturating_sub(tests.map(lines).sum())
}
