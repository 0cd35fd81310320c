//! What the compiler says of an app's mistakes: each file of `tests/ui` is compiled, and says itself which errors it has
//! where. `//~ TEXT` stands for an error of its line that begins so, `//~^ TEXT` for one of the line above (`^^`: of the
//! second above), and `//~| TEXT` below it for a part of that error's labels and notes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::bins;

/// An error where it is, or where it should be.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    line: u64,
    text: String,
    /// The error's labels and notes, or parts of them.
    more: Vec<String>,
}

impl Fault {
    fn is_expected_as(&self, expected: &Self) -> bool {
        self.line == expected.line
            && self.text.starts_with(&expected.text)
            && expected.more.iter().all(|part| self.more.iter().any(|text| text.contains(part)))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)?;
        self.more.iter().try_for_each(|text| write!(f, "\n    {text}"))
    }
}

/// The faults that a case expects, by its comments.
fn expected(source: &str) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    for (line, text) in (1..).zip(source.lines()) {
        let Some((_, text)) = text.split_once("//~") else { continue };
        let part = text.strip_prefix('|').map(|part| part.trim().to_owned());
        match (part, faults.last_mut()) {
            (Some(part), Some(fault)) => fault.more.push(part),
            _ => {
                let above = text.bytes().take_while(|byte| *byte == b'^').count();
                let line = line - u64::try_from(above).unwrap_or(0);
                let text = text.trim_start_matches('^').trim().to_owned();
                faults.push(Fault { line, text, more: Vec::new() });
            }
        }
    }
    faults
}

/// An error as the compiler's JSON has it; none for what is no error of a line.
fn fault(said: &Value) -> Option<Fault> {
    let spans = said["spans"].as_array().filter(|_| said["level"] == "error")?;
    let primary = spans.iter().find(|span| span["is_primary"] == true)?;
    let labels = spans.iter().filter_map(|span| span["label"].as_str());
    let notes =
        said["children"].as_array().into_iter().flatten().filter_map(|child| child["message"].as_str());
    Some(Fault {
        line: line_in_case(primary)?,
        text: said["message"].as_str()?.to_owned(),
        more: labels.chain(notes).map(str::to_owned).collect(),
    })
}

/// Where a span begins in the case itself: what a macro has made is where the macro is called.
fn line_in_case(span: &Value) -> Option<u64> {
    let mut span = span;
    while !span["expansion"].is_null() {
        span = &span["expansion"]["span"];
    }
    span["line_start"].as_u64()
}

/// The library that this test was built with: of those in its folder the newest.
fn newest(folder: &Path, name: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name();
        let Some(file) = file.to_str() else { continue };
        if file.starts_with(&format!("lib{name}-")) && file.ends_with(".rlib") {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    let newest = found.into_iter().max().with_context(|| format!("no lib{name} in {}", folder.display()))?;
    Ok(newest.1)
}

/// The errors of a case, with the very library that this test was built with: no second build of anything.
fn compile(case: &Path, output: &Path) -> Result<Vec<Fault>> {
    let me = std::env::current_exe()?;
    let folder = me.parent().context("no folder")?;
    let ffserver = newest(folder, "ffserver")?;
    let compiled = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .current_dir(bins::root())
        .args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "--error-format", "json"])
        .arg("--out-dir")
        .arg(output)
        .arg("--extern")
        .arg(format!("ffserver={}", ffserver.display()))
        .arg("-L")
        .arg(format!("dependency={}", folder.display()))
        .arg(case)
        .output()
        .context("rustc")?;
    let said = String::from_utf8(compiled.stderr)?;
    let said = said.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>();
    let mut faults: Vec<Fault> =
        said.with_context(|| format!("{}", case.display()))?.iter().filter_map(fault).collect();
    ensure!(compiled.status.success() == faults.is_empty(), "{}: {}", case.display(), compiled.status);
    faults.sort();
    Ok(faults)
}

/// What a case says otherwise than it should; none when it says all of it and nothing else.
fn difference(case: &Path, output: &Path) -> Result<Option<String>> {
    let mut expected = expected(&std::fs::read_to_string(case)?);
    let mut unexpected = String::new();
    for said in compile(case, output)? {
        match expected.iter().position(|expected| said.is_expected_as(expected)) {
            Some(at) => drop(expected.remove(at)),
            None => unexpected.push_str(&format!("\n  not expected: {said}")),
        }
    }
    let missing: String = expected.iter().map(|expected| format!("\n  not said: {expected}")).collect();
    let all = missing + &unexpected;
    Ok((!all.is_empty()).then(|| format!("{}:{all}", case.display())))
}

#[test]
fn every_mistake_in_an_app_is_said_where_it_is_and_with_what_is_valid() -> Result<()> {
    let output = tempfile::tempdir()?;
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(bins::root().join("tests/ui"))? {
        cases.push(entry?.path());
    }
    cases.sort();
    ensure!(!cases.is_empty(), "no cases");
    let mut differences = Vec::new();
    for case in &cases {
        differences.extend(difference(case, output.path())?);
    }
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}
