//! What is said about a crate, read from the workspace that it is in.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{House, Library, api, dependencies, large_rooms, methods, read, rooms};

/// The house of a crate, by the ARCHITECTURE.md of its workspace, its own manifest, and the crates of the workspace that this
/// lets it import.
pub fn house(root: &Path, name: &str) -> Result<House<'static>> {
    let map = std::fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    let rooms = rooms(&map, name).with_context(|| format!("ARCHITECTURE.md lists no rooms of {name}"))?;
    let crates = root.join("crates");
    let manifest = [&crates, root].map(|folder| folder.join(name).join("Cargo.toml"));
    let manifest = manifest.iter().find(|path| path.is_file());
    let manifest = manifest.with_context(|| format!("no Cargo.toml of {name}"))?;
    let mut others = BTreeSet::new();
    for dependency in dependencies(&std::fs::read_to_string(manifest)?) {
        let src = crates.join(dependency).join("src");
        if src.is_dir() {
            others.extend(methods(&read(&src)?)?);
        }
    }
    Ok(House { rooms, large: large_rooms(&map, name), late: &[], others })
}

/// The libraries of the workspace that `ffserver` may give authors items of, with itself.
pub fn libraries(root: &Path) -> Result<Vec<Library>> {
    let mut folders = vec![root.join("ffserver")];
    for entry in std::fs::read_dir(root.join("crates"))? {
        folders.push(entry?.path());
    }
    folders.sort();
    let library = |folder: &Path| {
        let name = folder.file_name().context("a crate's folder")?.to_string_lossy().into_owned();
        Ok(Library { name, sources: read(&folder.join("src"))? })
    };
    folders.iter().map(|folder| library(folder)).collect()
}

/// The first lines of `ffserver/public-api.txt`.
const API_HEADER: [&str; 4] = [
    "# The public API of ffserver: what a crate of an author's can name, in `use` and in the documentation. A change of it is a change",
    "# of this file, for whoever reads the change. One line for each item, member and further name; [feature = \"…\"]: only with it.",
    "#     cargo run -p layering -- --api >public-api.new && mv public-api.new ffserver/public-api.txt",
    "",
];

/// The public API of `ffserver`, as `ffserver/public-api.txt` has it.
pub fn public_api(libraries: &[Library]) -> Result<Vec<String>> {
    Ok(API_HEADER.map(str::to_owned).into_iter().chain(api("ffserver", libraries)?).collect())
}
