//! The documents for developers name files and types that exist: the glossary, ARCHITECTURE.md and CONTRIBUTING.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Where a path of a document may begin.
const ROOTS: &[&str] =
    &["", "ffserver/src", "crates", "crates/ffproto/src", "crates/ffnet/src", "crates/ffconfig/src"];

/// Everything in backticks, without the blocks of commands and pictures.
fn quoted(page: &str) -> Vec<&str> {
    let texts = page.split("```").step_by(2);
    texts.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

/// Whether a quoted text is a path of a file or folder; `NAME` in one stands for a file to come.
fn is_path(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    (text.ends_with(".rs") || text.ends_with(".md")) && text.chars().all(plain) && !text.contains("NAME")
}

/// Whether there is a file of that path, from one of the roots or below any folder.
fn is_there(files: &BTreeSet<PathBuf>, path: &str) -> bool {
    let whole = ROOTS.iter().any(|root| files.contains(&Path::new(root).join(path)));
    whole || files.iter().any(|file| file.ends_with(path))
}

/// The types that a quoted text names by a path of modules: `a::b::C` and `a::{B, C}`.
fn types(text: &str) -> Vec<&str> {
    let Some((_, last)) = text.rsplit_once("::").filter(|(path, _)| !path.contains(' ')) else {
        return vec![];
    };
    let names = last.trim_matches(['{', '}']).split(", ");
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase())).collect()
}

/// Whether some source defines a type of that name.
fn is_defined(sources: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let defined = |kind: &str| {
        let start = format!("{kind} {name}");
        sources.match_indices(&start).any(|(at, _)| ends(&sources[at + start.len()..]))
    };
    // A variant of an enum, or a name that a macro defines, stands alone on its line.
    let variant = || sources.lines().any(|line| line.trim().strip_prefix(name).is_some_and(ends));
    ["struct", "enum", "trait", "type"].iter().any(|kind| defined(kind)) || variant()
}

fn faults(page: &str, files: &BTreeSet<PathBuf>, sources: &str) -> Vec<String> {
    // What is not used any more stands behind this, and names nothing.
    let page = page.split("## Words that are not used").next().unwrap_or_default();
    let quoted = quoted(page);
    let paths = quoted.iter().filter(|text| is_path(text) && !is_there(files, text));
    let unknown = |name: &&str| !is_defined(sources, name);
    let types = quoted.iter().flat_map(|text| types(text)).filter(unknown);
    let paths = paths.map(|path| format!("no file `{path}`"));
    paths.chain(types.map(|name| format!("no type `{name}`"))).collect()
}

/// The files of the workspace that are no products of a build.
fn collect(folder: &Path, root: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" {
                collect(&path, root, files)?;
            }
        } else {
            files.insert(path.strip_prefix(root)?.to_owned());
        }
    }
    Ok(())
}

#[test]
fn the_documents_for_developers_name_files_and_types_that_exist() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let mut files = BTreeSet::new();
    collect(&root, &root, &mut files)?;
    let mut sources = String::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        sources += &fs::read_to_string(root.join(file))?;
    }
    for page in ["docs/glossary.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let faults = faults(&fs::read_to_string(root.join(page))?, &files, &sources);
        assert!(faults.is_empty(), "{page}:\n{}", faults.join("\n"));
    }
    Ok(())
}

#[test]
fn a_file_and_a_type_that_are_gone_are_found() {
    let files = BTreeSet::from([PathBuf::from("ffserver/src/node/mod.rs")]);
    let page = "`node/mod.rs`, `node/gone.rs`, `node::Node`, `node::{Gone, Node}`, `run::it` and `a/NAME.rs`";
    let found = faults(page, &files, "pub struct Node(Arc<Parts>);\npub struct GoneBefore;");
    assert_eq!(found, ["no file `node/gone.rs`", "no type `Gone`"]);
}
