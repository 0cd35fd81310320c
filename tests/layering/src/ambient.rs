//! The ambient of a program: which files fetch a clock or a chance of their own, where one is to be handed down.

use std::collections::{BTreeMap, BTreeSet};

/// Paths that fetch the time of day, or a clock that no test can pause, or randomness. The types that their values have
/// (`std::time::SystemTime`) may be named: files have them.
pub const FETCHES: &[&str] = &[
    "std::time::SystemTime::now",
    // From it `elapsed()` is but one call away.
    "std::time::SystemTime::UNIX_EPOCH",
    "std::time::UNIX_EPOCH",
    "std::time::Instant",
    "std::hash::RandomState",
    "std::collections::hash_map::RandomState",
    "getrandom",
    "rand",
    "fastrand",
    "chrono",
];

/// The places that name one of `paths` or what is below it, as `file names path`, of what [`named`](crate::named) has found in a
/// crate. Files of `but` may.
pub fn fetched(named: &BTreeMap<String, BTreeSet<String>>, paths: &[&str], but: &[&str]) -> Vec<String> {
    let judged = named.iter().filter(|(file, _)| !but.contains(&file.as_str()));
    let found = judged.flat_map(|(file, named)| {
        let found = paths.iter().filter(|path| names(named, path));
        found.map(move |path| format!("{file} names {path}"))
    });
    found.collect()
}

/// Whether one of the named paths is `path`, is below it, or is a glob that brings it in.
pub fn names(named: &BTreeSet<String>, path: &str) -> bool {
    named.iter().any(|name| {
        let below = name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        below
            || name
                .strip_suffix("::*")
                .is_some_and(|above| path.strip_prefix(above).is_some_and(|rest| rest.starts_with("::")))
    })
}
