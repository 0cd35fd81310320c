//! The layering of a crate, as a pure function: sources and the order of the rooms in, faults out.
//!
//! A room is a top module of a crate. What holds of a house of rooms:
//!
//! 1. a room names, and calls methods of, only itself and the rooms before it;
//! 2. an inherent `impl` stands in the file that defines its type, or in that file's folder, and an `impl` of a trait in a room
//!    that defines one of the two;
//! 3. no circle of more than [`MAX_CIRCLE`] files inside a room, and no room above [`MAX_LINES`] lines without a reason;
//! 4. no field of a cell that is set later, and no struct of more than [`MAX_FIELDS`] fields without a reason beside it.
//!
//! Beside that, of any crate: no file fetches a clock or a chance of its own ([`fetched`]); and what another crate can name of it is
//! a list that a change of it is seen in ([`api`]).
//!
//! Methods are found without a compiler: by the receiver's type where fields, parameters, `let` and signatures tell it, else
//! by the method's name, if only one room has a method of that name and no type of the standard library, of tokio or of a
//! crate of the workspace that this one depends on does.
//! What only the compiler can know (a type that a generic stands for) escapes.

use std::collections::{BTreeMap, BTreeSet};

mod ambient;
mod api;
mod fault;
mod index;
mod map;
mod rules;
mod shell;
mod source;
mod std_names;
mod tokens;
mod types;
mod walk;

pub use ambient::{FETCHES, fetched, names};
pub use api::{Library, api, changes};
pub use fault::{Fault, How, Place, Still, sift};
pub use map::{dependencies, large_rooms, modules, rooms};
pub use shell::{house, libraries, public_api};
pub use source::{ParseError, Source, read};

/// Files in one circle inside a room: more cannot be read one by one.
pub const MAX_CIRCLE: usize = 3;
/// Lines of a room without its tests.
pub const MAX_LINES: usize = 3_500;
/// Fields of a struct, or of a variant, without a reason beside it.
pub const MAX_FIELDS: usize = 12;

/// What is said about a crate beside its sources.
#[derive(Debug, Clone, Default)]
pub struct House<'a> {
    /// Top modules, each of which names only those before it.
    pub rooms: Vec<String>,
    /// Rooms above [`MAX_LINES`] lines, and the reason for each.
    pub large: Vec<(String, String)>,
    /// Fields that may be cells set later: type, field, reason.
    pub late: &'a [(&'a str, &'a str, &'a str)],
    /// Methods of the crates that this one depends on: on a value of which nothing is known, such a name is nobody's.
    pub others: BTreeSet<String>,
}

/// All faults of a crate, in the order of their kinds and places.
pub fn check(house: &House<'_>, sources: &[Source]) -> Result<Vec<Fault>, ParseError> {
    let files = source::parse(sources)?;
    let index = index::Index::build(&files);
    let edges = walk::edges(&index, &files, &house.others);
    let mut faults = rules::order::check(house, &files, &edges);
    faults.extend(rules::home::check(&index, &files));
    faults.extend(rules::circle::check(&files, &edges));
    faults.extend(rules::size::check(house, &files));
    faults.extend(rules::shape::check(house, &index, &files));
    Ok(faults)
}

/// The names of a crate's methods.
pub fn methods(sources: &[Source]) -> Result<BTreeSet<String>, ParseError> {
    Ok(index::Index::build(&source::parse(sources)?).methods.into_keys().collect())
}

/// The paths into other crates that each file of a crate names outside of its tests, by its path. What an import calls otherwise
/// has its whole path here, and a glob ends with `::*`.
pub fn named(sources: &[Source]) -> Result<BTreeMap<String, BTreeSet<String>>, ParseError> {
    let files = source::parse(sources)?;
    Ok(walk::named(&index::Index::build(&files), &files))
}
