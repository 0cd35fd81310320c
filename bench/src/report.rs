//! How results are shown: markdown tables for people, a JSON file for programs.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use serde::Serialize;
use serde_json::json;

use crate::proc;

/// A column's head, and how a row fills it.
pub(crate) type Column<R> = (&'static str, Box<dyn Fn(&R) -> String>);

/// A markdown table that is readable as text too.
pub(crate) fn table<R>(columns: &[Column<R>], rows: &[R]) -> String {
    let head = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut lines: Vec<Vec<String>> = vec![head];
    lines.extend(rows.iter().map(|row| columns.iter().map(|(_, cell)| cell(row)).collect()));
    let width = |at: usize| lines.iter().map(|cells| cells[at].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let rule = widths.iter().map(|&width| "-".repeat(width)).collect();
    lines.insert(1, rule);
    let line = |cells: &Vec<String>| {
        let padded: Vec<_> =
            cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        format!("| {} |\n", padded.join(" | "))
    };
    lines.iter().map(line).collect()
}

/// `12,345`.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `5`, or `5 (2 disturbed)`.
pub(crate) fn runs(runs: usize, disturbed: usize) -> String {
    if disturbed == 0 { runs.to_string() } else { format!("{runs} ({disturbed} disturbed)") }
}

/// `net 3.20, gate 1.10`: microseconds by process.
pub(crate) fn by_node(us: &[(String, f64)]) -> String {
    let parts: Vec<_> = us.iter().map(|(name, us)| format!("{name} {us:.2}")).collect();
    parts.join(", ")
}

/// The faults if there are any, for then the numbers do not count; else the verdicts.
pub(crate) fn verdict(verdicts: &[String], faults: &[String]) -> String {
    match faults {
        [] => verdicts.join("; "),
        [first, ..] => {
            let first: String = first.replace(['|', '\n'], " ");
            format!("FAULT in {} run{}: {first}", faults.len(), if faults.len() == 1 { "" } else { "s" })
        }
    }
}

/// How every measurement ends: prints its table, and writes rows, samples, and what they were measured on to a file
/// if one is named.
pub(crate) fn show(
    table: &str,
    rows: &impl Serialize,
    samples: &impl Serialize,
    json: Option<&Path>,
) -> anyhow::Result<()> {
    println!("{table}");
    json.map_or(Ok(()), |path| write_json(path, rows, samples))
}

fn write_json(path: &Path, rows: &impl Serialize, samples: &impl Serialize) -> anyhow::Result<()> {
    let unix_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let all = json!({
        "unix_s": unix_s,
        "machine": {
            "cpu": proc::cpu_model(),
            "cpus": std::thread::available_parallelism().map_or(0, usize::from),
            "kernel": proc::kernel(),
        },
        "arguments": std::env::args().skip(1).collect::<Vec<_>>(),
        "rows": rows,
        "samples": samples,
    });
    std::fs::write(path, serde_json::to_string_pretty(&all)?).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_with_even_columns() {
        let columns: [Column<(u32, &str)>; 2] =
            [("n", Box::new(|r| r.0.to_string())), ("name", Box::new(|r| r.1.to_owned()))];
        let text = table(&columns, &[(1, "one"), (1000, "a thousand")]);
        assert_eq!(
            text,
            "| n    | name       |\n| ---- | ---------- |\n| 1    | one        |\n| 1000 | a thousand |\n"
        );
    }

    #[test]
    fn thousands_have_commas() {
        let cases = [(0.0, "0"), (999.4, "999"), (1000.0, "1,000"), (1234567.0, "1,234,567")];
        for (number, want) in cases {
            assert_eq!(thousands(number), want);
        }
    }

    #[test]
    fn faults_hide_verdicts() {
        let verdicts = ["met".to_owned(), "MISSED".to_owned()];
        assert_eq!(verdict(&verdicts, &[]), "met; MISSED");
        assert_eq!(verdict(&verdicts, &["a|b".into(), "c".into()]), "FAULT in 2 runs: a b");
    }
}
