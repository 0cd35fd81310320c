//! What is said about a crate, read from the workspace that it is in.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{House, dependencies, large_rooms, methods, read, rooms};

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
