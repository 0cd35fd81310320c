//! docs/semantics.md names the tests that prove what it promises: each of them is there, and is a test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tests::bins;

/// Packages whose own tests the page names, and where their sources are.
const PACKAGES: &[(&str, &str)] = &[
    ("ffserver", "ffserver/src"),
    ("ffhttp", "crates/ffhttp/src"),
    ("ffnet", "crates/ffnet/src"),
    ("ffproto", "crates/ffproto/src"),
    ("ffstore", "crates/ffstore/src"),
    ("ffconfig", "crates/ffconfig/src"),
    ("ffkeys", "crates/ffkeys/tests"),
    ("fftelemetry", "crates/fftelemetry/src"),
    ("master", "master/src"),
];

/// `a::b`, `a::…::b`: everything in backticks that is a path of modules or functions. Types are none of it, and
/// neither is the page's explanation of how it names tests.
fn named(page: &str) -> BTreeSet<&str> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter(|text| text.contains("::") && text.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

/// What reads as the name of a test and is no path, so that nobody would look for it.
fn without_a_path(page: &str) -> Vec<&str> {
    let quoted = page.split('`').skip(1).step_by(2);
    let is_word = |text: &str| text.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
    quoted.filter(|text| is_word(text) && text.matches('_').count() > 4).collect()
}

/// The sources of a module and of what is in it: `NAME.rs`, and the folder `NAME`.
fn sources(folder: &Path, modules: &[&str]) -> Vec<PathBuf> {
    let path = folder.join(modules.join("/"));
    let mut found = vec![path.with_extension("rs")];
    let mut folders = vec![path];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.retain(|path| path.extension().is_some_and(|e| e == "rs") && path.is_file());
    found
}

/// The names of the tests in a source: those with an attribute, and the facts of `everywhere!` in records.rs.
fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    let facts = text.split_once("\neverywhere! {").and_then(|(_, after)| after.split_once('}'));
    let facts = facts.into_iter().flat_map(|(facts, _)| facts.split(',').map(str::trim));
    let tests = text.split("#[").filter_map(|after| {
        let (attribute, rest) = after.split_once(']')?;
        let test = attribute == "test" || attribute.starts_with("tokio::test");
        let function = rest.trim_start().trim_start_matches("async ").strip_prefix("fn ")?;
        test.then(|| function.split('(').next())?
    });
    tests.chain(facts.filter(|fact| !fact.is_empty()))
}

/// What is wrong with a name of the page; none when it is a test, or a module with tests.
fn fault(name: &str, root: &Path) -> Option<String> {
    let mut parts: Vec<&str> = name.split("::").collect();
    let package = PACKAGES.iter().find(|(package, _)| *package == parts[0]);
    let folder = match package {
        Some((_, folder)) => {
            parts.remove(0);
            root.join(folder)
        }
        None => root.join("tests/it"),
    };
    // What comes first is a module; the last one may be, in a package. `…` and `tests` stand for what is inside.
    let inside = parts.iter().skip(1).position(|part| ["…", "tests"].contains(part)).map(|at| at + 1);
    let mut modules = parts[..inside.unwrap_or(parts.len())].to_vec();
    let mut function = inside.and_then(|at| parts[at + 1..].last()).copied();
    let mut files = sources(&folder, &modules);
    if files.is_empty() && function.is_none() {
        function = modules.pop();
        files = sources(&folder, &modules);
    }
    if files.is_empty() || modules.is_empty() {
        return Some(format!("{name}: there is no such module in {}", folder.display()));
    }
    let texts: Vec<String> = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    let mut tests = texts.iter().flat_map(|text| tests_in(text));
    let there = match function {
        Some(function) => tests.any(|test| test == function),
        None => tests.next().is_some(),
    };
    (!there).then(|| format!("{name}: no such test in {files:?}"))
}

#[test]
fn every_test_that_the_promises_name_is_there() -> Result<()> {
    let root = bins::root();
    let page = std::fs::read_to_string(root.join("docs/semantics.md")).context("docs/semantics.md")?;
    let names = named(&page);
    assert!(names.len() > 100, "only {} names were found: is the page written otherwise?", names.len());
    let faults: Vec<String> = names.iter().filter_map(|name| fault(name, &root)).collect();
    assert!(faults.is_empty(), "docs/semantics.md:\n{}", faults.join("\n"));
    assert_eq!(without_a_path(&page), [] as [&str; 0]);
    Ok(())
}

#[test]
fn a_name_that_is_wrong_is_found() {
    assert_eq!(
        without_a_path("`a_test_that_has_no_path` (x), `a::test_that_has_a_path`"),
        ["a_test_that_has_no_path"]
    );
    let root = bins::root();
    let here = "promises::every_test_that_the_promises_name_is_there";
    for right in
        [here, "promises::…::a_name_that_is_wrong_is_found", "ffserver::transit::park", "ffnet::link::calls"]
    {
        assert_eq!(fault(right, &root), None);
    }
    for wrong in [
        "promises::named",
        "promises::no_such_test",
        "nowhere::a_test",
        "ffserver::nowhere",
        "ffnet::link::x",
    ] {
        assert!(fault(wrong, &root).is_some(), "{wrong} was found");
    }
}
