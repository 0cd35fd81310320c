//! What is said about a crate, read from the workspace that it is in.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{House, large_rooms, methods, read, rooms};

/// The house of a crate, by the ARCHITECTURE.md of its workspace and the crates beside it.
pub fn house(root: &Path, name: &str) -> Result<House<'static>> {
    let map = std::fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    let rooms = rooms(&map, name).with_context(|| format!("ARCHITECTURE.md lists no rooms of {name}"))?;
    let mut others = BTreeSet::new();
    for entry in std::fs::read_dir(root.join("crates"))? {
        let entry = entry?;
        if entry.file_name() != name {
            others.extend(methods(&read(&entry.path().join("src"))?)?);
        }
    }
    Ok(House { rooms, large: large_rooms(&map, name), late: &[], others })
}
