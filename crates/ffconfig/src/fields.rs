//! The checked keys of one object, by name.

use std::net::SocketAddr;

use crate::report::Place;
use crate::schema::Section;
use crate::value::{Entry, Placed, Value};

/// The keys of an object of that section which were given.
#[derive(Debug)]
pub(crate) struct Fields {
    pub(crate) section: &'static Section,
    pub(crate) place: Place,
    pub(crate) values: Vec<(&'static str, Placed)>,
}

impl Fields {
    /// Whether the key is there, faulty or not.
    pub(crate) fn given(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Placed> {
        debug_assert!(
            self.section.key(key).is_some(),
            "{key} is not in the schema of {}",
            self.section.place
        );
        self.values.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Where the key's value stands; where the object stands when there is none.
    pub(crate) fn place_of(&self, key: &str) -> &Place {
        self.get(key).map_or(&self.place, |placed| &placed.place)
    }

    pub(crate) fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key)?.value {
            Value::Bool(bool) => Some(bool),
            _ => None,
        }
    }

    /// The number of a key whose range in the schema fits into `N`.
    pub(crate) fn number<N: TryFrom<u64>>(&self, key: &str) -> Option<N> {
        match self.get(key)?.value {
            Value::Whole(number) => N::try_from(number).ok(),
            _ => None,
        }
    }

    pub(crate) fn command(&self, key: &str) -> Option<u32> {
        match self.get(key)?.value {
            Value::Commands(span) => Some(span.first),
            _ => None,
        }
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn listen(&self, key: &str) -> Option<SocketAddr> {
        match self.get(key)?.value {
            Value::Listen(listen) => Some(listen),
            _ => None,
        }
    }

    pub(crate) fn cpus(&self, key: &str) -> Option<&[usize]> {
        match &self.get(key)?.value {
            Value::Cpus(cpus) => Some(cpus),
            _ => None,
        }
    }

    pub(crate) fn section(&self, key: &str) -> Option<&Fields> {
        self.get(key)?.fields()
    }

    pub(crate) fn list(&self, key: &str) -> &[Placed] {
        self.get(key).map(Placed::list).unwrap_or_default()
    }

    pub(crate) fn map(&self, key: &str) -> &[Entry] {
        match self.get(key).map(|placed| &placed.value) {
            Some(Value::Map(entries)) => entries,
            _ => &[],
        }
    }
}

impl Placed {
    /// The keys of this object; `None` when it is none.
    pub(crate) fn fields(&self) -> Option<&Fields> {
        match &self.value {
            Value::Section(fields) => Some(fields),
            _ => None,
        }
    }

    /// The elements of this list; none when it is none.
    pub(crate) fn list(&self) -> &[Placed] {
        match &self.value {
            Value::List(list) => list,
            _ => &[],
        }
    }
}
