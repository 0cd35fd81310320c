//! What a value turned out to be, once its shape was checked.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::conf::Item;
use crate::fields::Fields;
use crate::report::Place;
use crate::span::Span;

/// A checked value and where it stands.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A checked value.
#[derive(Debug)]
pub(crate) enum Value {
    /// Its fault has been reported; it counts as given.
    Faulty,
    Bool(bool),
    Whole(u64),
    Text(String),
    Listen(SocketAddr),
    Cpus(Vec<usize>),
    Commands(Span),
    Section(Fields),
    List(Vec<Placed>),
    Map(Vec<Entry>),
    Free(Arc<Item>),
}

/// One of the author's names and what stands under it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) key_place: Place,
    pub(crate) item: Placed,
}
