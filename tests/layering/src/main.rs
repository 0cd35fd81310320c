//! `layering SRC…`: the faults of crates' sources by the list of rooms in ARCHITECTURE.md, in seconds and without building them.
//!
//! `--still` prints them as a list of exceptions for the test instead.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use layering::{Fault, House, check, large_rooms, read, rooms};

fn main() -> Result<ExitCode> {
    let (flags, crates): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    let still = flags.iter().any(|flag| flag == "--still");
    let (mut out, mut clean) = (std::io::stdout().lock(), true);
    for src in &crates {
        let (house, name) = house(Path::new(src))?;
        let sources = read(Path::new(src)).with_context(|| src.clone())?;
        let faults = check(&house, &sources)?;
        clean &= faults.is_empty();
        if still {
            let entries: BTreeSet<_> = faults.iter().filter_map(Fault::as_still).collect();
            entries.iter().try_for_each(|entry| writeln!(out, "    {entry}"))?;
        } else {
            faults.iter().try_for_each(|fault| writeln!(out, "{src}/{fault}"))?;
            for (pair, count) in later(&faults) {
                writeln!(out, "{name}: {pair}: {count} places")?;
            }
            writeln!(out, "{name}: {} files, {} faults", sources.len(), faults.len())?;
        }
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many places need a later room, for each pair of rooms.
fn later(faults: &[Fault]) -> BTreeMap<String, usize> {
    let mut pairs = BTreeMap::new();
    for fault in faults {
        if let Fault::Later { from, to, .. } = fault {
            *pairs.entry(format!("{from} ─▶ {to}")).or_default() += 1;
        }
    }
    pairs
}

/// The house of a crate, by the nearest ARCHITECTURE.md above it, and its name.
fn house(src: &Path) -> Result<(House<'static>, String)> {
    let src = src.canonicalize().with_context(|| src.display().to_string())?;
    let name =
        src.parent().and_then(Path::file_name).context("a crate's src")?.to_string_lossy().into_owned();
    let map = src.ancestors().map(|folder| folder.join("ARCHITECTURE.md")).find(|map| map.is_file());
    let map = std::fs::read_to_string(map.context("no ARCHITECTURE.md above")?)?;
    let rooms = rooms(&map, &name).with_context(|| format!("ARCHITECTURE.md lists no rooms of {name}"))?;
    Ok((House { rooms, large: large_rooms(&map, &name), late: &[] }, name))
}
