//! Keeps the first invariants of ARCHITECTURE.md: who may import whom, packages, and the rooms of `ffserver` and of `ffstore`
//! (by the crate `layering`, which has a test with a planted fault of each kind).

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result};
use layering::{Source, Still, sift};

/// Every package of the workspace, and which others of it it may depend on.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("ffalloc", &[]),
    ("ffambient", &[]),
    ("ffproto", &[]),
    ("ffconfig", &["ffproto"]),
    ("ffkeys", &["ffambient", "ffproto"]),
    ("ffnet", &["ffambient", "ffkeys", "ffproto"]),
    ("fftelemetry", &["ffambient"]),
    ("ffstore", &["ffambient", "ffproto", "ffconfig", "fftelemetry"]),
    ("ffmacros", &[]),
    ("ffhttp", &["ffnet"]),
    ("ffclient", &["ffproto"]),
    (
        "ffserver",
        &[
            "ffalloc",
            "ffhttp",
            "ffstore",
            "ffmacros",
            "ffnet",
            "ffambient",
            "ffkeys",
            "ffproto",
            "ffconfig",
            "fftelemetry",
        ],
    ),
    ("apps", &["ffserver"]),
    ("appmain", &["apps", "ffserver"]),
    ("testapps", &["apps", "ffserver"]),
    ("authors", &["testapps", "ffserver"]),
    ("benchapps", &["ffserver"]),
    ("master", &["ffambient", "ffconfig", "ffhttp", "ffkeys", "ffnet", "ffproto", "fftelemetry"]),
    ("bench", &["ffproto"]),
    ("fuzzchecks", &["ffambient", "ffkeys", "ffnet", "ffstore", "ffproto", "ffconfig", "fftelemetry"]),
    (
        "tests",
        &[
            "ffambient",
            "ffclient",
            "ffkeys",
            "ffproto",
            "ffconfig",
            "ffnet",
            "fftelemetry",
            "ffstore",
            "ffserver",
            "apps",
            "testapps",
            "master",
        ],
    ),
    ("layering", &[]),
];

/// What a package must never depend on, not even through others.
const NEVER: &[(&str, &[&str])] = &[
    ("ffproto", &["tokio", "rocket", "sqlx", "nix"]),
    ("ffkeys", &["rocket", "sqlx", "nix", "hyper"]),
    ("ffconfig", &["tokio", "rocket", "sqlx"]),
    ("ffstore", &["rocket", "hyper", "ffnet", "ffserver"]),
    ("ffhttp", &["sqlx", "ffserver"]),
    ("ffclient", &["rocket", "sqlx", "nix", "ffserver"]),
    ("master", &["sqlx", "sqlx-core", "memcache", "ffstore", "ffserver", "apps"]),
    // What users run has no handlers of tests and benchmarks in it, and the load generator none at all.
    ("appmain", &["testapps", "authors", "benchapps"]),
    ("bench", &["ffserver", "sqlx", "rocket"]),
];

struct Graph {
    members: BTreeSet<String>,
    /// Package → what it depends on directly, without dev-dependencies.
    direct: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Result<Self> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--offline"])
            // What other platforms would need is not downloaded.
            .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
            .current_dir(tests::bins::root())
            .output()?;
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let names: BTreeMap<String, String> =
            list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
        let mut direct = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let shipped =
                |dep: &&serde_json::Value| list(&dep["dep_kinds"]).iter().any(|k| k["kind"] != "dev");
            let deps = list(&node["deps"]);
            let deps = deps.iter().filter(shipped).map(|dep| names[&text(&dep["pkg"])].clone()).collect();
            direct.insert(names[&text(&node["id"])].clone(), deps);
        }
        let members =
            list(&metadata["workspace_members"]).iter().map(|id| names[&text(id)].clone()).collect();
        Ok(Self { members, direct })
    }

    fn reaches(&self, from: &str) -> BTreeSet<String> {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(package) = todo.pop() {
            for next in self.direct.get(&package).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    todo.push(next.clone());
                }
            }
        }
        seen
    }
}

#[test]
fn every_package_imports_only_what_the_architecture_allows() -> Result<()> {
    let graph = Graph::read()?;
    let rules: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    for member in &graph.members {
        let allowed = rules.get(member.as_str()).with_context(|| format!("{member} has no rule here"))?;
        let ours: Vec<_> = graph.direct[member].iter().filter(|dep| graph.members.contains(*dep)).collect();
        for dep in ours {
            assert!(allowed.contains(&dep.as_str()), "{member} imports {dep}, which ARCHITECTURE.md forbids");
        }
    }
    Ok(())
}

#[test]
fn the_wire_does_no_io_and_the_master_knows_no_handler_and_no_database() -> Result<()> {
    let graph = Graph::read()?;
    for (package, forbidden) in NEVER {
        let reached = graph.reaches(package);
        assert!(!reached.is_empty() || *package == "ffproto", "{package} is not in the graph");
        for never in *forbidden {
            assert!(!reached.contains(*never), "{package} reaches {never}");
        }
    }
    Ok(())
}

/// What is known of `ffserver` and to be mended: not to become more, and listed no longer than it stays.
const STILL: &[Still] = &[];

/// Checks the rooms of a crate by ARCHITECTURE.md and its `lib.rs`, which must list the same.
fn check(name: &str, src: &str, still: &[Still]) -> Result<()> {
    let root = tests::bins::root();
    let src = root.join(src);
    let lib = std::fs::read_to_string(src.join("lib.rs"))?;
    let house = layering::house(&root, name)?;
    assert_eq!(house.rooms, layering::modules(&lib), "ARCHITECTURE.md and lib.rs");

    let (faults, unneeded) = sift(layering::check(&house, &layering::read(&src)?)?, still);
    let faults: Vec<_> = faults.iter().map(|fault| format!("{}/{fault}", src.display())).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(unneeded.is_empty(), "mended, and still listed as known: {unneeded:?}");
    Ok(())
}

#[test]
fn a_module_of_the_runtime_imports_only_those_before_it_as_the_architecture_lists_them() -> Result<()> {
    check("ffserver", "ffserver/src", STILL)
}

#[test]
fn a_planted_edge_of_each_kind_is_found_in_the_real_store() -> Result<()> {
    let root = tests::bins::root();
    let house = layering::house(&root, "ffstore")?;
    let sources = layering::read(&root.join("crates/ffstore/src"))?;
    let plants = [
        ("rows/planted.rs", "use crate::record::Table;", Still::Later("rows", "record")),
        ("rows/planted.rs", "fn f<X>(x: X) { x.lease_when_asked() }", Still::Later("rows", "record")),
        // A method of that name is also in `ffnet`, which the store cannot import.
        ("rows/planted.rs", "fn f<X>(x: X) { x.let_go() }", Still::Later("rows", "record")),
        ("record/planted.rs", "impl crate::Db { fn f(&self) {} }", Still::Stray("Db", "record/planted.rs")),
    ];
    for (path, text, fault) in plants {
        let planted = Source { path: path.into(), text: text.into() };
        let sources: Vec<_> = sources.iter().cloned().chain([planted]).collect();
        let faults = layering::check(&house, &sources)?;
        assert!(!faults.is_empty(), "{text}");
        assert_eq!(sift(faults, &[fault]), (vec![], vec![]), "{text}");
    }
    let tests = "#[cfg(test)]\nmod tests { use memcache::Client; }\n";
    let plants = [
        ("rows/planted.rs", "use std as all; fn f() { all::fs::read() }", "std::fs, and is to be pure"),
        ("cache/planted.rs", "use sqlx as driver;", "sqlx, which is db's"),
        ("planted.rs", "use {memcache as driver};", "memcache, which is cache's"),
    ];
    for (path, text, fault) in plants {
        let planted = Source { path: path.into(), text: format!("{tests}{text}") };
        let sources: Vec<_> = sources.iter().cloned().chain([planted]).collect();
        assert_eq!(strangers(&sources)?, [format!("{path} names {fault}")], "{text}");
    }
    Ok(())
}

/// Drivers that one room of `ffstore` alone names, and that no other package depends on.
const DRIVERS: &[(&str, &str)] = &[("sqlx", "db"), ("memcache", "cache")];

/// What the pure room of `ffstore` does not name: I/O and clocks. Of other rooms it names none, for it is the first.
const IMPURE: &[&str] =
    &["tokio", "sqlx", "memcache", "std::fs", "std::io", "std::net", "std::thread", "std::time"];

/// Files of `ffstore` that name a driver which is another room's, and files of its pure room that name what is not pure.
fn strangers(sources: &[Source]) -> Result<Vec<String>> {
    let mut faults = vec![];
    for (file, named) in layering::named(sources)? {
        let room = file.split(['/', '.']).next().unwrap_or_default();
        let names = |path: &str| layering::names(&named, path);
        let driver = DRIVERS.iter().filter(|(driver, owner)| *owner != room && names(driver));
        faults.extend(driver.map(|(driver, owner)| format!("{file} names {driver}, which is {owner}'s")));
        let impure = IMPURE.iter().filter(|path| room == "rows" && names(path));
        faults.extend(impure.map(|path| format!("{file} names {path}, and is to be pure")));
    }
    Ok(faults)
}

#[test]
fn a_room_of_the_store_imports_only_those_before_it_and_the_pure_one_nothing() -> Result<()> {
    check("ffstore", "crates/ffstore/src", &[])?;
    let faults = strangers(&layering::read(&tests::bins::root().join("crates/ffstore/src"))?)?;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// A crate of the core: nothing of it fetches a clock or a chance.
struct Core {
    src: &'static str,
    /// But for these files.
    may_fetch: &'static [&'static str],
    /// The files that make the real clock and chance: at the edge of a program.
    may_make: &'static [&'static str],
    /// The files that make those of tests: the test kit's.
    for_tests: &'static [&'static str],
}

const CORE: &[Core] = &[
    Core { src: "crates/ffambient/src", may_fetch: &["system.rs"], may_make: &[], for_tests: &[] },
    Core { src: "crates/ffproto/src", may_fetch: &[], may_make: &[], for_tests: &[] },
    Core { src: "crates/ffconfig/src", may_fetch: &[], may_make: &[], for_tests: &[] },
    Core { src: "crates/fftelemetry/src", may_fetch: &[], may_make: &[], for_tests: &[] },
    Core { src: "crates/ffnet/src", may_fetch: &[], may_make: &[], for_tests: &[] },
    Core { src: "crates/ffhttp/src", may_fetch: &[], may_make: &[], for_tests: &[] },
    Core { src: "crates/ffstore/src", may_fetch: &[], may_make: &[], for_tests: &[] },
    // `ffserver::main`; `FFServer::new`, for who writes a `main` of their own; and the test kit.
    Core {
        src: "ffserver/src",
        may_fetch: &[],
        may_make: &["program.rs", "runtime/server/mod.rs", "testing/folder.rs", "testing/seed.rs"],
        for_tests: &["testing/clock.rs", "testing/seed.rs"],
    },
    Core { src: "apps/src", may_fetch: &[], may_make: &[], for_tests: &[] },
    Core { src: "appmain/src", may_fetch: &[], may_make: &[], for_tests: &[] },
    Core { src: "master/src", may_fetch: &[], may_make: &["main.rs"], for_tests: &[] },
];

/// What makes a clock or a chance, by the names under which crates know it.
const MAKES: &[&str] = &[
    "ffambient::Ambient::system",
    "ffambient::Clock::system",
    "ffambient::Chance::system",
    "ffserver::Ambient::system",
    "ffserver::Clock::system",
    "ffserver::Chance::system",
];

/// What only tests have: a chance that can be guessed, and a clock that stands.
const MADE_FOR_TESTS: &[&str] = &[
    "ffambient::Clock::starting_at",
    "ffambient::Chance::seeded",
    "ffserver::Clock::starting_at",
    "ffserver::Chance::seeded",
];

#[test]
fn the_core_fetches_no_clock_and_no_chance_and_the_real_ones_are_made_at_the_edge() -> Result<()> {
    let mut faults = vec![];
    for Core { src, may_fetch, may_make, for_tests } in CORE {
        let named = layering::named(&layering::read(&tests::bins::root().join(src))?)?;
        for (paths, but) in
            [(layering::FETCHES, *may_fetch), (MAKES, *may_make), (MADE_FOR_TESTS, *for_tests)]
        {
            let found = layering::fetched(&named, paths, but);
            faults.extend(found.into_iter().map(|fault| format!("{src}/{fault}")));
            // A list of exceptions that is longer than the truth hides what comes next.
            let all = layering::fetched(&named, paths, &[]);
            let unneeded = but.iter().filter(|file| !all.iter().any(|fault| fault.starts_with(*file)));
            faults.extend(unneeded.map(|file| format!("{src}/{file} may, and does not")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn a_planted_clock_or_chance_is_found_in_the_real_node_and_the_real_store() -> Result<()> {
    let plants = [
        ("a.rs", "fn f() { let _ = std::time::SystemTime::now(); }", "std::time::SystemTime::now"),
        ("b.rs", "use std::time::{Duration, Instant}; fn f() { Instant::now(); }", "std::time::Instant"),
        ("c.rs", "fn f() -> Option<u32> { getrandom::u32().ok() }", "getrandom"),
        ("d.rs", "use std::hash::RandomState; fn f() { RandomState::new(); }", "std::hash::RandomState"),
    ];
    for src in ["ffserver/src", "crates/ffstore/src", "master/src"] {
        let mut sources = layering::read(&tests::bins::root().join(src))?;
        sources.extend(plants.map(|(path, text, _)| Source { path: path.into(), text: text.into() }));
        let found = layering::fetched(&layering::named(&sources)?, layering::FETCHES, &[]);
        assert_eq!(found, plants.map(|(path, _, fetched)| format!("{path} names {fetched}")), "{src}");
    }
    Ok(())
}

#[test]
fn only_the_ambient_crate_depends_on_a_source_of_randomness() -> Result<()> {
    let graph = Graph::read()?;
    let with = |member: &&String| graph.direct[*member].contains("getrandom");
    let users: Vec<&String> = graph.members.iter().filter(with).collect();
    assert_eq!(users, ["ffambient"]);
    Ok(())
}

#[test]
fn only_the_store_depends_on_the_drivers_of_databases_and_memcached() -> Result<()> {
    let graph = Graph::read()?;
    for (driver, _) in DRIVERS {
        let with = |member: &&String| graph.direct[*member].contains(*driver);
        let users: Vec<&String> = graph.members.iter().filter(with).collect();
        assert_eq!(users, ["ffstore"], "{driver}");
    }
    Ok(())
}
