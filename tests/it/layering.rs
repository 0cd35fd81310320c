//! Keeps the first invariants of ARCHITECTURE.md: who may import whom, packages, the modules of `ffserver` and the rooms
//! of `ffstore`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Every package of the workspace, and which others of it it may depend on.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("ffproto", &[]),
    ("ffconfig", &["ffproto"]),
    ("ffnet", &["ffproto"]),
    ("fftelemetry", &[]),
    ("ffstore", &["ffproto", "ffconfig", "fftelemetry"]),
    ("ffmacros", &[]),
    ("ffhttp", &[]),
    ("ffclient", &["ffproto"]),
    ("ffserver", &["ffhttp", "ffstore", "ffmacros", "ffnet", "ffproto", "ffconfig", "fftelemetry"]),
    ("apps", &["ffserver"]),
    ("appmain", &["apps", "ffserver", "ffconfig", "ffnet", "fftelemetry"]),
    ("master", &["ffconfig", "ffnet", "ffproto", "fftelemetry"]),
    ("bench", &["ffproto"]),
    ("fuzzchecks", &["ffstore", "ffproto", "ffconfig"]),
    ("tests", &["ffclient", "ffproto", "ffconfig", "ffnet", "fftelemetry", "ffserver", "apps", "master"]),
];

/// What a package must never depend on, not even through others.
const NEVER: &[(&str, &[&str])] = &[
    ("ffproto", &["tokio", "rocket", "sqlx", "nix"]),
    ("ffconfig", &["tokio", "rocket", "sqlx"]),
    ("ffstore", &["rocket", "hyper", "ffnet", "ffserver"]),
    ("ffhttp", &["sqlx", "ffserver"]),
    ("ffclient", &["rocket", "sqlx", "nix", "ffserver"]),
    ("master", &["sqlx", "sqlx-core", "memcache", "ffstore", "ffserver", "apps"]),
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

/// Rooms of `ffserver` that import a later one all the same: to be mended, and not to become more.
const STILL_LATER: &[(&str, &str)] = &[
    ("cluster", "transit"),
    ("cluster", "session"),
    ("transit", "node"),
    ("transit", "exec"),
    ("calls", "node"),
    ("session", "node"),
    ("session", "app"),
    ("session", "exec"),
    ("session", "ops"),
    ("exec", "ops"),
    ("handover", "runtime"),
];

/// The sources of a module: `NAME.rs`, and what is in `NAME`; files of tests are none.
fn sources(src: &Path, module: &str) -> Result<Vec<PathBuf>> {
    let (mut found, mut todo) = (vec![], vec![src.join(module).with_extension("rs"), src.join(module)]);
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path)?.map(|entry| Ok(entry?.path()));
            todo.extend(entries.collect::<Result<Vec<_>>>()?);
        } else if path.is_file() && path.file_name().is_some_and(|name| name != "tests.rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The modules of its package that a source names after `crate::`, also in braces. What its tests name is left out.
fn imports(text: &str) -> BTreeSet<&str> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].rsplit('\n').next().unwrap_or_default();
        if line.trim_start().starts_with("//") {
            continue;
        }
        let after = &code[at + "crate::".len()..];
        // A list of rooms has none within.
        let list = after.strip_prefix('{').and_then(|list| list.split('}').next());
        let names = list.map_or(vec![after], |list| list.split(',').collect());
        let is_end = |c: char| !c.is_alphanumeric() && c != '_';
        found.extend(names.into_iter().filter_map(|path| path.trim_start().split(is_end).next()));
    }
    found
}

#[test]
fn a_module_of_the_runtime_imports_only_those_before_it_as_the_architecture_lists_them() -> Result<()> {
    let root = tests::bins::root();
    let src = root.join("ffserver/src");
    let lib = std::fs::read_to_string(src.join("lib.rs"))?;
    let module = |line: &str| {
        let line = line.trim_start_matches("pub ").strip_prefix("mod ")?;
        line.strip_suffix(';').map(str::to_owned)
    };
    let modules: Vec<String> = lib.lines().filter_map(module).collect();
    let map = std::fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    let listed = map.split_once("a room imports only those before it:").context("no list of rooms")?.1;
    let listed = listed.split('.').next().unwrap_or_default().split(',').map(str::trim);
    assert_eq!(listed.collect::<Vec<_>>(), modules, "ARCHITECTURE.md and lib.rs");

    let mut faults = vec![];
    for (at, module) in modules.iter().enumerate() {
        let later = |name: &&&str| modules[at + 1..].iter().any(|later| later == **name);
        for file in sources(&src, module)? {
            let text = std::fs::read_to_string(&file)?;
            for import in imports(&text).iter().filter(later) {
                if !STILL_LATER.contains(&(module, import)) {
                    faults.push(format!("{} imports {import}, which comes later", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn imports_are_found_in_paths_and_in_lists() {
    let text = "use crate::a::B;\n// crate::no\nuse crate::{b, c::D};\nlet x = crate::e::f();\n#[cfg(test)]\nuse crate::g;";
    assert_eq!(imports(text), BTreeSet::from(["a", "b", "c", "e"]));
}

/// Drivers that one room of `ffstore` alone names, and that no other package depends on.
const DRIVERS: &[(&str, &str)] = &[("sqlx", "db"), ("memcache", "cache")];

/// What the pure room of `ffstore` does not name: I/O, clocks, and any other room.
const IMPURE: &[&str] =
    &["tokio", "sqlx", "memcache", "std::fs", "std::io", "std::net", "std::thread", "std::time", "crate::"];

/// Whether a source names a path, in code that is not its tests'.
fn names(text: &str, path: &str) -> bool {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    lines.any(|line| {
        line.match_indices(path).any(|(at, _)| {
            let after = line[at + path.len()..].chars().next();
            !is_part(line[..at].chars().next_back()) && (path.ends_with(':') || !is_part(after))
        })
    })
}

/// The rooms of `ffstore` in the order of its `lib.rs`.
const STORE: &[&str] = &["rows", "db", "cache", "record", "stores"];

#[test]
fn a_room_of_the_store_imports_only_those_before_it_and_the_pure_one_nothing() -> Result<()> {
    let src = tests::bins::root().join("crates/ffstore/src");
    let lib = std::fs::read_to_string(src.join("lib.rs"))?;
    let rooms = lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    assert_eq!(rooms.map(|room| room.trim_end_matches(';')).collect::<Vec<_>>(), STORE);
    let mut faults = vec![];
    for (at, room) in STORE.iter().enumerate() {
        for file in sources(&src, room)? {
            let (text, shown) = (std::fs::read_to_string(&file)?, file.display());
            let later = STORE[at + 1..].iter().filter(|later| imports(&text).contains(**later));
            faults.extend(later.map(|later| format!("{shown} imports {later}, which comes later")));
            let driver = DRIVERS.iter().filter(|(driver, owner)| owner != room && names(&text, driver));
            faults
                .extend(driver.map(|(driver, owner)| format!("{shown} names {driver}, which is {owner}'s")));
            let impure = IMPURE.iter().filter(|path| *room == "rows" && names(&text, path));
            faults.extend(impure.map(|path| format!("{shown} names {path}, and is to be pure")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
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

#[test]
fn a_named_path_is_found_in_code_and_nowhere_else() {
    let text =
        "//! tokio\nuse std::fs::File;\nlet x = crate::y();\nlet mytokio = 1;\n#[cfg(test)]\nuse sqlx::Row;";
    let found: Vec<_> = IMPURE.iter().copied().filter(|path| names(text, path)).collect();
    assert_eq!(found, ["std::fs", "crate::"]);
}
