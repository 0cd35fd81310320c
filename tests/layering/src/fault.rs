//! Faults of a house, and those that are known for now.

use std::fmt;

/// A line of a source file, its path relative to the crate's `src`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Path with `/`.
    pub file: String,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// How one file needs another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// A path, as it is written.
    Path(String),
    /// A method, by its name or `Type::name`.
    Call(String),
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Path(path) => write!(f, "names `{path}`"),
            How::Call(method) => write!(f, "calls `{method}(…)`"),
        }
    }
}

/// One thing that does not hold. What its fields are is in the sentence that [`fmt::Display`] makes of them.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A top module without a place in the order.
    Unlisted { at: Place, room: String },
    /// A room that needs a later one.
    Later { at: Place, from: String, to: String, how: How },
    /// An `impl` away from its type, and from its trait.
    Stray { at: Place, ty: String, home: String },
    /// Files of one room that all need each other.
    Circle { at: Place, room: String, files: Vec<String>, why: Vec<String> },
    /// A room above [`crate::MAX_LINES`] without a reason.
    Large { at: Place, room: String, lines: usize },
    /// A reason for a room's size that it no longer needs.
    NotLarge { at: Place, room: String, lines: usize },
    /// A struct, or a variant, of more than [`crate::MAX_FIELDS`] fields without a reason.
    Wide { at: Place, ty: String, fields: usize },
    /// A field of a cell that is set later.
    Late { at: Place, ty: String, field: String },
    /// A permission for such a field that does not exist.
    NotLate { at: Place, ty: String, field: String },
}

impl Fault {
    /// The line to look at.
    pub fn at(&self) -> &Place {
        match self {
            Fault::Unlisted { at, .. }
            | Fault::Later { at, .. }
            | Fault::Stray { at, .. }
            | Fault::Circle { at, .. }
            | Fault::Large { at, .. }
            | Fault::NotLarge { at, .. }
            | Fault::Wide { at, .. }
            | Fault::Late { at, .. }
            | Fault::NotLate { at, .. } => at,
        }
    }

    /// The exception that would cover this fault, as an entry of a Rust list.
    pub fn as_still(&self) -> Option<String> {
        Some(match self {
            Fault::Later { from, to, .. } => format!("Still::Later({from:?}, {to:?}),"),
            Fault::Stray { at, ty, .. } => format!("Still::Stray({ty:?}, {:?}),", at.file),
            Fault::Circle { room, .. } => format!("Still::Circle({room:?}),"),
            Fault::Large { room, .. } => format!("Still::Large({room:?}),"),
            Fault::Wide { at, ty, .. } => format!("Still::Wide({ty:?}, {:?}),", at.file),
            Fault::Late { ty, field, .. } => format!("Still::Late({ty:?}, {field:?}),"),
            Fault::Unlisted { .. } | Fault::NotLarge { .. } | Fault::NotLate { .. } => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at())?;
        match self {
            Fault::Unlisted { room, .. } => write!(f, "room {room} has no place in the list of rooms."),
            Fault::Later { from, to, how, .. } => write!(f, "room {from} {how} of {to}, which comes later."),
            Fault::Stray { ty, home, .. } => {
                write!(f, "`impl {ty}` stands away from {home}, which defines it.")
            }
            Fault::Circle { room, files, why, .. } => {
                write!(f, "{} files of {room} need each other: {}.", files.len(), files.join(", "))?;
                why.iter().try_for_each(|edge| write!(f, "\n    {edge}"))
            }
            Fault::Large { room, lines, .. } => {
                write!(f, "room {room} has {lines} lines without its tests, and no reason for it is given.")
            }
            Fault::NotLarge { room, lines, .. } => {
                write!(f, "room {room} has {lines} lines: its reason for being large is no longer needed.")
            }
            Fault::Wide { ty, fields, .. } => {
                write!(f, "`{ty}` has {fields} fields, and no comment `// Fields: …` beside it says why.")
            }
            Fault::Late { ty, field, .. } => write!(f, "`{ty}::{field}` is a cell that is set later."),
            Fault::NotLate { ty, field, .. } => {
                write!(f, "`{ty}::{field}` may be set later by a list of exceptions, but is no such cell.")
            }
        }
    }
}

/// A fault that is known and to be mended: it may stay for now, and must not be listed any longer than it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Still<'a> {
    /// From which room to which later one.
    Later(&'a str, &'a str),
    /// Which type, in which file.
    Stray(&'a str, &'a str),
    /// In which room.
    Circle(&'a str),
    /// Which room.
    Large(&'a str),
    /// Which type, in which file.
    Wide(&'a str, &'a str),
    /// Which type and field.
    Late(&'a str, &'a str),
}

impl Still<'_> {
    fn covers(&self, fault: &Fault) -> bool {
        match (self, fault) {
            (Still::Later(a, b), Fault::Later { from, to, .. }) => a == from && b == to,
            (Still::Stray(a, b), Fault::Stray { ty, at, .. })
            | (Still::Wide(a, b), Fault::Wide { ty, at, .. }) => a == ty && *b == at.file,
            (Still::Circle(a), Fault::Circle { room, .. }) | (Still::Large(a), Fault::Large { room, .. }) => {
                a == room
            }
            (Still::Late(a, b), Fault::Late { ty, field, .. }) => a == ty && b == field,
            _ => false,
        }
    }
}

/// The faults that no exception covers, and the exceptions that cover none.
pub fn sift<'a>(faults: Vec<Fault>, still: &'a [Still<'a>]) -> (Vec<Fault>, Vec<Still<'a>>) {
    let unneeded = still.iter().filter(|still| !faults.iter().any(|fault| still.covers(fault)));
    let unneeded = unneeded.copied().collect();
    (faults.into_iter().filter(|fault| !still.iter().any(|still| still.covers(fault))).collect(), unneeded)
}
