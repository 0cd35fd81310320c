//! The order of the rooms: each needs only those before it. The crate's root comes last.

use std::collections::BTreeSet;

use crate::source::File;
use crate::walk::Edge;
use crate::{Fault, House, How};

pub(crate) fn check(house: &House<'_>, files: &[File], edges: &BTreeSet<Edge>) -> Vec<Fault> {
    let place = |room: &str| house.rooms.iter().position(|listed| listed == room);
    let mut seen = BTreeSet::new();
    let mut faults = vec![];
    for file in files {
        if let Some(room) = file.room().filter(|room| place(room).is_none() && seen.insert(room.to_owned())) {
            faults.push(Fault::Unlisted { at: file.place(1), room: room.to_owned() });
        }
    }
    let mut reported = BTreeSet::new();
    let mut edges: Vec<&Edge> = edges.iter().collect();
    edges.sort_by_key(|edge| (edge.from, edge.line));
    for edge in edges {
        let (from, to) = (&files[edge.from], &files[edge.to]);
        // The root is where all rooms meet; it may name any.
        let Some(room) = from.room() else { continue };
        let later = match (place(room), to.room().map(place)) {
            (Some(from), Some(Some(to))) => to > from,
            (Some(_), None) => true,
            _ => false,
        };
        // A name that is imported is not told again where it is used.
        let once = match &edge.how {
            How::Path(path) => (0, path.rsplit("::").next().unwrap_or_default()),
            How::Call(method) => (edge.line, method.as_str()),
        };
        if later && reported.insert((edge.from, to.room(), once)) {
            let to = to.room().unwrap_or("the crate's root").to_owned();
            let at = from.place(edge.line);
            faults.push(Fault::Later { at, from: room.to_owned(), to, how: edge.how.clone() });
        }
    }
    faults
}
