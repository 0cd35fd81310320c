//! The methods that some neighbours may call on a node, by number: an immutable value, from which the next one is made. A
//! name has its number since it was first seen, for as long as the process lives.

use std::sync::Arc;

use ffproto::handshake::MESSAGE_BYTES_MAX;
use ffproto::relay::{AFFINITY, METHODS, MethodsChange, REACH, TO};
use rustc_hash::FxHashMap;

use crate::app::route::Route;
use crate::cluster::served::{SESSION_ENDED, Served};

/// The most bytes that the names may take in a handshake, beside what else is in it. A number without a name takes 8, so
/// this bounds the numbers as well.
const HANDSHAKE_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 4096;

/// A method, as a node takes it.
#[derive(Clone)]
pub(crate) enum Method {
    /// A handler of the app.
    Handler(Arc<Route>),
    /// Clients' messages for a target.
    Target(Served),
    /// What nodes use among themselves.
    Reserved(Reserved),
}

/// The reserved methods, which nodes use among themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserved {
    SessionEnded,
    Reach,
    To,
    Affinity,
    Methods,
}

impl Reserved {
    /// All of them, in the order of the numbers that they have behind the handlers and targets of a start.
    pub(crate) const ALL: [Self; 5] =
        [Self::SessionEnded, Self::Reach, Self::To, Self::Affinity, Self::Methods];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SessionEnded => SESSION_ENDED,
            Self::Reach => REACH,
            Self::To => TO,
            Self::Affinity => AFFINITY,
            Self::Methods => METHODS,
        }
    }
}

/// The methods that some neighbours may call: a method's place is its number.
#[derive(Default)]
pub(crate) struct Methods(Vec<Numbered>);

/// A number that has been given.
struct Numbered {
    /// The name that has the number, for ever.
    name: Arc<str>,
    /// The method; `None` while the node has none of that name.
    method: Option<Method>,
}

/// Why methods have no numbers: too many names have had one since the process was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyNames;

impl Methods {
    /// The methods that follow these: names that were seen before keep their numbers, others get the next ones, and the
    /// number of a name that is not there any more is kept for it. Of two methods of one name the last one counts.
    pub(crate) fn next(&self, now: impl Iterator<Item = (Arc<str>, Method)>) -> Result<Self, TooManyNames> {
        let free = |numbered: &Numbered| Numbered { name: numbered.name.clone(), method: None };
        let mut next = Self(self.0.iter().map(free).collect());
        let known = self.0.iter().zip(0..).map(|(numbered, number)| (numbered.name.clone(), number));
        let mut numbers: FxHashMap<Arc<str>, usize> = known.collect();
        for (name, method) in now {
            let number = *numbers.entry(name.clone()).or_insert(next.0.len());
            match next.0.get_mut(number) {
                Some(numbered) => numbered.method = Some(method),
                None => next.0.push(Numbered { name, method: Some(method) }),
            }
        }
        let bytes: usize = next.told().map(|name| size_of::<u64>() + name.len()).sum();
        if bytes > HANDSHAKE_BYTES_MAX { Err(TooManyNames) } else { Ok(next) }
    }

    /// The method of a number, if the node has it.
    #[inline]
    pub(crate) fn get(&self, number: u16) -> Option<&Method> {
        self.0.get(usize::from(number))?.method.as_ref()
    }

    /// The name that a number has been given to.
    pub(crate) fn name(&self, number: u16) -> Option<&str> {
        self.0.get(usize::from(number)).map(|numbered| &*numbered.name)
    }

    /// The names for a handshake, in the order of their numbers; no name for a number whose method is not there.
    pub(crate) fn names(&self) -> Vec<String> {
        self.told().map(str::to_owned).collect()
    }

    fn told(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|numbered| numbered.method.as_ref().map_or("", |_| &*numbered.name))
    }

    /// The change from earlier methods of this process to these.
    pub(crate) fn change_since(&self, told: &Self) -> MethodsChange {
        let mut change = MethodsChange::default();
        for (numbered, number) in self.0.iter().zip(0..) {
            let was = told.get(number).is_some();
            match (&numbered.method, was) {
                (Some(_), false) => change.add.push((number, numbered.name.to_string())),
                (None, true) => change.remove.push(number),
                (Some(_), true) | (None, false) => {}
            }
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::route::Key;

    /// The methods that follow, with handlers of these names.
    fn next(methods: &Methods, names: &[&str]) -> Methods {
        let handler = |name: &&str| {
            let route = Route::new(Key::Root((*name).into()), *name, |_| Box::pin(async { Ok(None) }));
            (Arc::from(*name), Method::Handler(Arc::new(route)))
        };
        methods.next(names.iter().map(handler)).unwrap()
    }

    /// Which handler each number runs.
    fn handlers(methods: &Methods) -> Vec<String> {
        let name = |number| match methods.get(number) {
            Some(Method::Handler(route)) => route.name().to_owned(),
            _ => String::new(),
        };
        (0..methods.0.len()).map(|number| name(number as u16)).collect()
    }

    #[test]
    fn a_name_keeps_its_number_and_a_number_its_name() {
        let first = next(&Methods::default(), &["a", "b", "c"]);
        assert_eq!(first.names(), ["a", "b", "c"]);
        let reordered = next(&first, &["c", "a", "b"]);
        assert_eq!(handlers(&reordered), ["a", "b", "c"]);
        let removed = next(&reordered, &["d", "c"]);
        assert_eq!(
            (removed.names(), handlers(&removed)[3].as_str()),
            (vec!["".into(), "".into(), "c".into(), "d".into()], "d")
        );
        assert_eq!((removed.get(0).is_none(), removed.name(0)), (true, Some("a")));
        let back = next(&removed, &["b", "e", "d"]);
        assert_eq!(handlers(&back), ["", "b", "", "d", "e"], "a name that comes back has its number");
    }

    #[test]
    fn of_two_methods_of_one_name_the_last_counts() {
        let handler = |name: &str| {
            let route = Route::new(Key::Root("a".into()), name, |_| Box::pin(async { Ok(None) }));
            (Arc::from("a"), Method::Handler(Arc::new(route)))
        };
        let methods = Methods::default().next([handler("first"), handler("last")].into_iter()).unwrap();
        assert_eq!((methods.names(), handlers(&methods)), (vec!["a".to_owned()], vec!["last".to_owned()]));
    }

    #[test]
    fn a_change_tells_what_came_and_went_since_whatever_was_told() {
        let told = next(&Methods::default(), &["a", "b"]);
        assert_eq!(told.change_since(&told), MethodsChange::default());
        let now = next(&next(&told, &["b", "c"]), &["d", "b"]);
        let change = now.change_since(&told);
        assert_eq!(change, MethodsChange { add: vec![(3, "d".into())], remove: vec![0] });
    }

    #[test]
    fn names_that_no_handshake_holds_have_no_numbers() {
        let mut methods = Methods::default();
        let handler = next(&methods, &["x"]).0.remove(0).method.unwrap();
        // Each step has other names than the one before, whose numbers stay.
        let steps = (0..10).take_while(|step| {
            let named = (0..4000).map(|n| (Arc::from(format!("{step} {n}")), handler.clone()));
            let next = methods.next(named);
            next.map(|next| methods = next).is_ok()
        });
        assert_eq!((steps.count(), methods.0.len()), (7, 28_000));
        assert_eq!(next(&methods, &["6 1"]).names().concat(), "6 1", "what was seen before goes on");
    }
}
