//! One planted fault of each kind is found, at its line; a house that is in order has none.

use layering::{
    FETCHES, Fault, House, How, MAX_LINES, Source, Still, check, dependencies, fetched, large_rooms, modules,
    named, rooms, sift,
};

/// Faults as lines, of a house with the rooms `low` and `high`.
fn faults(sources: &[(&str, &str)]) -> Vec<String> {
    found(&house(), sources).iter().map(ToString::to_string).collect()
}

fn house() -> House<'static> {
    House { rooms: vec!["low".into(), "high".into()], ..House::default() }
}

fn found(house: &House<'_>, sources: &[(&str, &str)]) -> Vec<Fault> {
    let source = |(path, text): &(&str, &str)| Source { path: (*path).into(), text: (*text).into() };
    let sources: Vec<_> =
        [("lib.rs", "mod low;\nmod high;\npub use high::High;")].iter().chain(sources).map(source).collect();
    check(house, &sources).unwrap_or_else(|error| panic!("{error}"))
}

/// What `high` is in most houses here.
const HIGH: &str = "
    pub struct High { n: u8 }
    impl High {
        pub fn new() -> Self { High { n: 0 } }
        pub fn soar(&self) -> u8 { self.n }
        pub fn get(&self) -> u8 { self.n }
    }
    pub fn free() {}";

/// The lines of `low/a.rs` with an edge to `high`.
fn lines(low: &str) -> Vec<usize> {
    let found = found(&house(), &[("low/mod.rs", "mod a;"), ("low/a.rs", low), ("high.rs", HIGH)]);
    let line = |fault: &Fault| match fault {
        Fault::Later { at, from, to, .. } => {
            assert_eq!(
                (at.file.as_str(), from.as_str(), to.as_str()),
                ("low/a.rs", "low", "high"),
                "{fault}"
            );
            at.line
        }
        other => panic!("{other}"),
    };
    found.iter().map(line).collect()
}

#[test]
fn a_house_in_order_has_no_fault() {
    let low = "
        use std::sync::{Arc, OnceLock};
        static ONCE: OnceLock<u8> = OnceLock::new();
        /// Not [`crate::high::High`].
        pub struct Low { pub a: Arc<u8> }
        impl Low { pub fn rest(&self) -> u8 { *self.a } }
        // crate::high::High
        #[cfg(test)]
        mod tests { use crate::high::High; fn f(high: &High) { high.soar(); } }";
    let high = "
        use crate::low::Low;
        pub struct High { low: Low }
        impl High { pub fn soar(&self) -> u8 { self.low.rest() } }";
    assert_eq!(
        faults(&[("low/mod.rs", low), ("low/tests.rs", "use crate::high::High;"), ("high.rs", high)]),
        [""; 0]
    );
}

#[test]
fn a_path_to_a_later_room_is_found_wherever_it_stands() {
    assert_eq!(lines("use crate::high::High;"), [1]);
    assert_eq!(lines("use crate::{self as all,\n high::{self as h, High as H}};"), [2, 2]);
    assert_eq!(lines("use crate::high::*;"), [1]);
    assert_eq!(lines("use super::super::high;"), [1]);
    assert_eq!(lines("fn f() {\n super::super::high::free() }"), [2]);
    assert_eq!(lines("fn f(x: &dyn Fn(crate::high::High)) {}"), [1]);
    assert_eq!(lines("fn f() { println!(\"{}\",\n crate::high::free()) }"), [2]);
    assert_eq!(lines("fn f() { select! { x = a => {\n crate::high::free() } } }"), [2]);
    assert_eq!(lines("macro_rules! m { ($x:expr) => {\n $crate::high::free($x) } }"), [2]);
    assert_eq!(
        lines("pub(in crate::low) struct A;\n#[cfg(all(test, unix))]\nuse crate::high::High;"),
        [0; 0]
    );
}

#[test]
fn imports_are_found_in_paths_and_in_lists() {
    let text = "use crate::a::B;\n// crate::no\nuse crate::{b, c::D};\nfn f() { let x = crate::e::f(); }\n#[cfg(test)]\nuse crate::g;";
    let rooms: Vec<String> = ["low", "a", "b", "c", "e", "g", "no"].map(String::from).to_vec();
    let later: Vec<_> = rooms[1..]
        .iter()
        .map(|room| (format!("{room}.rs"), "pub struct B; pub struct D; pub fn f() {}"))
        .collect();
    let mut sources: Vec<_> = later.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    sources.push(("low.rs", text));
    let found = found(&House { rooms, ..House::default() }, &sources);
    let to = found.iter().filter_map(|fault| match fault {
        Fault::Later { to, .. } => Some(to.as_str()),
        _ => None,
    });
    assert_eq!(to.collect::<Vec<_>>(), ["a", "b", "c", "e"]);
}

#[test]
fn a_path_through_a_re_export_of_the_root_leads_to_the_room_behind_it() {
    assert_eq!(lines("use crate::High;"), [1]);
}

#[test]
fn a_path_through_an_earlier_rooms_re_export_is_an_edge_to_the_later_one() {
    let sources =
        [("low.rs", "pub use crate::high::High;"), ("mid.rs", "use crate::low::High;"), ("high.rs", HIGH)];
    let house = House { rooms: ["low", "mid", "high"].map(String::from).to_vec(), ..House::default() };
    let found: Vec<_> = found(&house, &sources).iter().map(ToString::to_string).collect();
    let expected = [
        "low.rs:1: room low names `crate::high::High` of high, which comes later.",
        "mid.rs:1: room mid names `crate::low::High` of high, which comes later.",
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_inherent_impl_away_from_its_type_is_found() {
    let low = "pub struct Low<'a, T>(&'a T);";
    let high = "use crate::low::Low;\nimpl<'a, T> Low<'a, T>\nwhere T: Copy { fn stray(&self) {} }";
    let found = faults(&[("low.rs", low), ("high.rs", high)]);
    assert_eq!(found, ["high.rs:2: `impl Low` stands away from low.rs, which defines it."]);
}

#[test]
fn an_inherent_impl_may_stand_in_its_types_folder_and_not_beside_it() {
    let low = "pub mod a; pub mod b; pub struct Low;";
    let a = "pub mod deep; pub struct A;";
    let deep = "impl super::super::Low { fn x(&self) {} } impl super::A { fn y(&self) {} }";
    let b = "impl super::a::A {}";
    let found = faults(&[("low/mod.rs", low), ("low/a.rs", a), ("low/a/deep.rs", deep), ("low/b.rs", b)]);
    assert_eq!(found, ["low/b.rs:1: `impl A` stands away from low/a.rs, which defines it."]);
}

#[test]
fn a_trait_of_a_later_room_may_be_implemented_there_for_an_earlier_type() {
    let high =
        "use crate::low::Low; pub trait Extra { fn more(&self); } impl Extra for Low { fn more(&self) {} }";
    assert_eq!(faults(&[("low.rs", "pub struct Low;"), ("high.rs", high)]), [""; 0]);
}

#[test]
fn an_impl_of_an_earlier_trait_for_an_earlier_type_is_an_inherent_one_in_disguise() {
    let low = "pub struct Low; pub trait LowExt { fn more(&self); }";
    let high = "
        use crate::low::{Low, LowExt};
        pub struct High;
        impl LowExt for High { fn more(&self) {} }
        impl From<High> for Low { fn from(_: High) -> Low { Low } }
        impl LowExt for Vec<High> { fn more(&self) {} }
        impl LowExt for Low { fn more(&self) {} }
        impl Drop for Low { fn drop(&mut self) {} }
        impl LowExt for u8 { fn more(&self) {} }";
    let expected = [
        "high.rs:7: `impl LowExt for Low` stands away from low.rs, which defines it.",
        "high.rs:8: `impl Drop for Low` stands away from low.rs, which defines it.",
        "high.rs:9: `impl LowExt for u8` stands away from low.rs, which defines it.",
    ];
    assert_eq!(faults(&[("low.rs", low), ("high.rs", high)]), expected);
}

#[test]
fn a_call_of_a_method_that_only_a_later_room_has_is_found_by_its_name() {
    let low = "fn f<X>(x: X, y: u8) {\n x.soar();\n y.soar();\n tokio::select! { z = g(x).soar() => {} } }";
    assert_eq!(lines(low), [2, 4], "a number has no methods of this crate");
}

#[test]
fn a_call_is_found_by_its_receivers_type_whatever_its_name() {
    // `get` is everybody's; the alias is how a type comes without its room's name.
    let mid = "pub type Alias = crate::high::High;";
    let low = "
        use crate::mid::Alias;
        struct Has { high: Option<std::sync::Arc<Alias>>, list: Vec<Alias>, map: std::collections::HashMap<u8, Alias> }
        impl Has {
            fn f(&self) {
                if let Some(high) = &self.high {
                    high.get();
                }
                for high in &self.list {
                    high.get();
                }
                self.map.get(&1).unwrap().get();
                self.list.iter().map(|high| high.get());
                let (other, list) = (Alias::new(), vec![1]);
                other.get();
                list.get(0);
            }
        }";
    let house = House { rooms: ["mid", "low", "high"].map(String::from).to_vec(), ..House::default() };
    let found = found(&house, &[("mid.rs", mid), ("low.rs", low), ("high.rs", HIGH)]);
    let calls = found.iter().filter_map(|fault| match fault {
        Fault::Later { at, how: How::Call(method), .. } if method == "High::get" => Some(at.line),
        _ => None,
    });
    assert_eq!(calls.collect::<Vec<_>>(), [7, 10, 12, 13, 15]);
}

#[test]
fn a_method_that_another_crates_types_have_is_nobodys_by_its_name_and_its_types_by_their_name() {
    let others = layering::methods(&[Source { path: "lib.rs".into(), text: HIGH.into() }]);
    let house = House { others: others.unwrap(), ..house() };
    let low = "fn f<X>(x: X) { x.soar(); }\nfn g(x: &crate::high::High) {\n x.soar(); }";
    let found: Vec<_> =
        found(&house, &[("low.rs", low), ("high.rs", HIGH)]).iter().map(|f| f.at().line).collect();
    assert_eq!(found, [2, 3]);
}

#[test]
fn a_method_that_other_crates_traits_have_is_nobodys_by_its_name() {
    let high =
        "pub struct High; impl High { pub fn serve(&self) {} } impl Service for High { fn serve(&self) {} }";
    assert_eq!(faults(&[("low.rs", "fn f(x: impl Service) { x.serve(); }"), ("high.rs", high)]), [""; 0]);
}

#[test]
fn four_files_of_a_room_that_need_each_other_are_a_circle_and_three_are_not() {
    let around = |next: &str| {
        format!("use super::{next}::Of;\npub struct Of(Box<Of>);").replacen("Of;", "Of as Next;", 1)
    };
    let (a, b, c, d) = (around("b"), around("c"), around("d"), around("a"));
    let back = around("a");
    let door = "mod a; mod b; mod c; mod d; pub use a::Of;";
    let three =
        [("low/mod.rs", door), ("low/a.rs", &*a), ("low/b.rs", &*b), ("low/c.rs", &*back), ("low/d.rs", &*d)];
    assert_eq!(faults(&three), [""; 0]);
    let four =
        [("low/mod.rs", door), ("low/a.rs", &*a), ("low/b.rs", &*b), ("low/c.rs", &*c), ("low/d.rs", &*d)];
    let [only] = &faults(&four)[..] else { panic!("one circle") };
    let files = "low/a.rs:1: 4 files of low need each other: low/a.rs, low/b.rs, low/c.rs, low/d.rs.";
    assert_eq!(only.lines().next(), Some(files));
    assert!(only.contains("low/d.rs:1: needs low/a.rs, names `super::a::Of`"), "{only}");
}

#[test]
fn a_circle_is_closed_by_a_method_call_as_well() {
    let part = |next: &str, method: &str| {
        format!(
            "pub struct T{method}; impl T{method} {{ pub fn go_{method}<X>(&self, x: X) {{ x.go_{next}(1); }} }}"
        )
    };
    let (a, b, c, d) = (part("b", "a"), part("c", "b"), part("d", "c"), part("a", "d"));
    let four = [("low/a.rs", &*a), ("low/b.rs", &*b), ("low/c.rs", &*c), ("low/d.rs", &*d)];
    let all = found(&house(), &four);
    assert!(matches!(&all[..], [Fault::Circle { files, .. }] if files.len() == 4), "{all:?}");
}

#[test]
fn a_large_room_needs_a_reason_and_its_tests_do_not_count() {
    let long = "// A line.\n".repeat(MAX_LINES);
    let tests = format!("{long}#[cfg(test)]\nmod tests {{\n    fn f() {{}}\n}}\n");
    fn sources(text: &str) -> [(&str, &str); 1] {
        [("low.rs", text)]
    }
    assert_eq!(faults(&sources(&tests)), [""; 0]);
    let longer = format!("{long}fn f() {{}}\n");
    let fault = "low.rs:1: room low has 3501 lines without its tests, and no reason for it is given.";
    assert_eq!(faults(&sources(&longer)), [fault]);
    let large = House { large: vec![("low".into(), "It is one table.".into())], ..house() };
    assert_eq!(found(&large, &sources(&longer)), []);
    let found = found(&large, &sources("fn f() {}"));
    assert!(matches!(&found[..], [Fault::NotLarge { lines: 1, .. }]), "{found:?}");
}

#[test]
fn a_cell_that_is_set_later_is_found_in_fields_under_any_name() {
    let low = "
        use std::sync::{Arc, OnceLock as Slot};
        type Later<T> = Arc<tokio::sync::OnceCell<T>>;
        struct A { one: Slot<u8>, two: Later<u8> }
        enum B { C([std::cell::OnceCell<u8>; 3]) }
        static FINE: Slot<u8> = Slot::new();";
    let expected = [
        "low.rs:4: `A::one` is a cell that is set later.",
        "low.rs:4: `A::two` is a cell that is set later.",
        "low.rs:5: `C::0` is a cell that is set later.",
    ];
    assert_eq!(faults(&[("low.rs", low)]), expected);
    let late = [("A", "one", "why"), ("A", "two", "why"), ("C", "0", "why"), ("C", "1", "why")];
    let found = found(&House { late: &late, ..house() }, &[("low.rs", low)]);
    assert!(matches!(&found[..], [Fault::NotLate { field, .. }] if field == "1"), "{found:?}");
}

#[test]
fn a_wide_struct_needs_a_reason_beside_it() {
    let fields = |n: u8| (0..n).map(|i| format!("f{i}: u8, ")).collect::<String>();
    let (twelve, thirteen) = (fields(12), fields(13));
    let low = format!(
        "struct A {{ {twelve} }}\nstruct B {{ {thirteen} }}\n\n/// Doc.\n// Fields: one for each key.\n#[derive(Clone)]\nstruct C {{ {thirteen} }}\n\
         // Fields:\nstruct D {{ {thirteen} }}\nenum E {{\n    F {{ {thirteen} }},\n    // Fields: as C.\n    G {{ {thirteen} }},\n}}"
    );
    let found = found(&house(), &[("low.rs", &low)]);
    let wide = found.iter().map(|fault| match fault {
        Fault::Wide { at, ty, fields } => (at.line, ty.as_str(), *fields),
        other => panic!("{other}"),
    });
    assert_eq!(wide.collect::<Vec<_>>(), [(2, "B", 13), (9, "D", 13), (11, "F", 13)]);
}

#[test]
fn a_room_that_is_not_listed_is_found() {
    assert_eq!(
        faults(&[("attic/mod.rs", "")]),
        ["attic/mod.rs:1: room attic has no place in the list of rooms."]
    );
}

#[test]
fn an_exception_covers_its_fault_and_is_told_when_it_covers_none() {
    let sources = [("low.rs", "use crate::high::High;\nimpl High {}"), ("high.rs", HIGH)];
    let still = [Still::Later("low", "high"), Still::Circle("low"), Still::Stray("High", "low.rs")];
    let (left, unneeded) = sift(found(&house(), &sources), &still);
    assert_eq!((left, unneeded), (vec![], vec![Still::Circle("low")]));
}

#[test]
fn the_map_tells_rooms_and_the_large_ones() {
    let map = "Inside `a` a room imports only those before it: one,\ntwo.\n\nInside `b` a room imports only those before it, too: `x`, y. More.\n\
               - `a::two` is above 3,500 lines: it is a table.\n- `a::one` is above 3,500 lines:\n- `b::x` is above 3,500 lines: why.\n";
    assert_eq!(rooms(map, "a").unwrap(), ["one", "two"]);
    assert_eq!(rooms(map, "b").unwrap(), ["x", "y"]);
    assert_eq!(rooms(map, "c"), None);
    assert_eq!(large_rooms(map, "a"), [("two".to_owned(), "it is a table.".to_owned())]);
    assert_eq!(modules("pub mod a;\nmod b;\nmod inline {}\n#[cfg(test)]\nmod tests;"), ["a", "b"]);
}

#[test]
fn a_manifest_tells_what_its_crate_may_import_and_not_what_its_tests_may() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\n# c = \"1\"\n\nb-c = { path = \"b\" }\n\
        [dev-dependencies]\nd.workspace = true\n[dependencies.e]\npath = \"e\"\n\
        [target.'cfg(unix)'.dependencies]\nf= \"1\"\n[build-dependencies]\ng = \"1\"";
    assert_eq!(dependencies(manifest), ["a", "b-c", "e", "f"].map(str::to_owned).into());
}

#[test]
fn a_named_path_is_found_in_code_and_nowhere_else() {
    let low = "
        //! tokio
        #[cfg(test)]
        mod tests { use sqlx::Row; fn f() { memcache::get() } }
        use std::{self as all, fs::{self, File as Paper}, net::*};
        use crate::high::Query;
        use ::hyper as web;
        extern crate rocket as ship;
        // sqlx::query()
        #[derive(serde::Serialize)]
        struct A<'a> { b: log::Level, c: &'a dyn web::Body }
        impl A<'_> { #[test] fn t() { nix::f() } }
        fn f<T>(mytokio: T) { let tokio = mytokio; all::thread::spawn(tokio); info!(d = fs::read(\"sqlx::Row\")); Query::run() }";
    let high = "pub use sqlx::Query;\n#[cfg(test)]\nmod trials;";
    let sources = [("low.rs", low), ("high.rs", high), ("high/trials.rs", "use nix::a;")];
    let source = |(path, text): &(&str, &str)| Source { path: (*path).into(), text: (*text).into() };
    let named = named(&sources.iter().map(source).collect::<Vec<_>>()).unwrap_or_else(|e| panic!("{e}"));
    let whole =
        |file: &str| named[file].iter().map(String::as_str).filter(|path| path.contains("::")).collect();
    let found: Vec<&str> = whole("low.rs");
    let low = [
        "hyper::Body",
        "log::Level",
        "serde::Serialize",
        "sqlx::Query",
        "sqlx::Query::run",
        "std::fs",
        "std::fs::File",
        "std::fs::read",
        "std::net",
        "std::net::*",
        "std::thread::spawn",
    ];
    assert_eq!(found, low);
    assert_eq!(whole("high.rs"), ["sqlx::Query"]);
    assert_eq!(named.len(), 2, "{named:?}");
    assert!(["hyper", "rocket", "std"].iter().all(|alone| named["low.rs"].contains(*alone)), "{named:?}");
    assert!(!named["low.rs"].contains("tokio"), "{named:?}");
}

#[test]
fn a_clock_or_a_chance_that_is_fetched_is_found_however_it_is_named() {
    let found = |text: &str, but: &[&str]| {
        let sources = [Source { path: "low.rs".into(), text: text.into() }];
        fetched(&named(&sources).unwrap_or_else(|e| panic!("{e}")), FETCHES, but)
    };
    let plants = [
        ("fn f() { std::time::SystemTime::now(); }", "std::time::SystemTime::now"),
        ("use std::time::SystemTime as Wall; fn f() { Wall::now(); }", "std::time::SystemTime::now"),
        ("use std::time; fn f() { g(time::SystemTime::now) }", "std::time::SystemTime::now"),
        ("use std::time::UNIX_EPOCH; fn f() { UNIX_EPOCH.elapsed() }", "std::time::UNIX_EPOCH"),
        ("fn f() { std::time::SystemTime::UNIX_EPOCH.elapsed() }", "std::time::SystemTime::UNIX_EPOCH"),
        ("fn f() { a.get_or_insert_with(std::time::Instant::now) }", "std::time::Instant"),
        ("fn f() { info!(at = std::time::Instant::now()) }", "std::time::Instant"),
        ("use std::collections::hash_map::RandomState;", "std::collections::hash_map::RandomState"),
        ("fn f() { std::hash::RandomState::new() }", "std::hash::RandomState"),
        ("use getrandom as dice; fn f() { dice::u64() }", "getrandom"),
        ("use rand::Rng;", "rand"),
    ];
    for (text, path) in plants {
        assert_eq!(found(text, &[]), [format!("low.rs names {path}")], "{text}");
        assert_eq!(found(text, &["low.rs"]), [""; 0], "{text}");
    }
    let all = found("use std::time::*;", &[]);
    assert!(all.contains(&"low.rs names std::time::SystemTime::now".to_owned()), "{all:?}");
    let clean = "
        use std::time::{Duration, SystemTime};
        use tokio::time::Instant;
        // std::time::Instant::now()
        fn f(now: SystemTime, random: u64) -> Instant { Instant::now() }
        #[cfg(test)]
        mod tests { use std::time::Instant; fn f() { rand::random(); Instant::now(); } }";
    assert_eq!(found(clean, &[]), [""; 0]);
}
