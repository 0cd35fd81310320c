//! `layering SRC…`: the faults of crates' sources by the list of rooms in ARCHITECTURE.md, in seconds and without building them.
//!
//! `--still` prints them as a list of exceptions for the test instead. `layering --api`: the public API of `ffserver`, as
//! `ffserver/public-api.txt` has it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use layering::{Fault, check, house, libraries, public_api, read};

fn main() -> Result<ExitCode> {
    let (flags, crates): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    if flags.iter().any(|flag| flag == "--api") {
        // A reader that has seen enough may leave.
        let _ = writeln!(std::io::stdout().lock(), "{}", public_api(&libraries(Path::new("."))?)?.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let still = flags.iter().any(|flag| flag == "--still");
    let mut clean = true;
    for src in &crates {
        let faults = faults(Path::new(src))?;
        clean &= faults.is_empty();
        let lines = if still { exceptions(&faults) } else { report(src, &faults) };
        // A reader that has seen enough may leave.
        if writeln!(std::io::stdout().lock(), "{}", lines.join("\n")).is_err() {
            break;
        }
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn faults(src: &Path) -> Result<Vec<Fault>> {
    let src = src.canonicalize().with_context(|| src.display().to_string())?;
    let name = src.parent().and_then(Path::file_name).context("a crate's src")?.to_string_lossy();
    let root = src.ancestors().find(|folder| folder.join("ARCHITECTURE.md").is_file());
    let house = house(root.context("no ARCHITECTURE.md above")?, &name)?;
    Ok(check(&house, &read(&src)?)?)
}

fn exceptions(faults: &[Fault]) -> Vec<String> {
    let entries: BTreeSet<_> = faults.iter().filter_map(Fault::as_still).collect();
    entries.iter().map(|entry| format!("    {entry}")).collect()
}

fn report(src: &str, faults: &[Fault]) -> Vec<String> {
    let lines = faults.iter().map(|fault| format!("{src}/{fault}"));
    let pairs = later(faults).into_iter().map(|(pair, count)| format!("{src}: {pair}: {count} places"));
    lines.chain(pairs).chain([format!("{src}: {} faults", faults.len())]).collect()
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
