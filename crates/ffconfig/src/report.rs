//! The one place that collects everything that is wrong with a text.

use std::path::PathBuf;

use crate::finding::Finding;

/// Where a value stands: in the text, and in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// Byte offset in the text.
    pub(crate) at: usize,
    /// `servers.net1.remoteport[0].rootname`.
    pub(crate) path: String,
}

impl Place {
    /// The place of what stands under `key` here, at offset `at`.
    pub(crate) fn under(&self, key: &str, at: usize) -> Self {
        let plain = !key.is_empty()
            && key.len() <= QUOTED_CHARS_MAX
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-$".contains(&b));
        let path = match (plain, self.path.is_empty()) {
            (true, true) => key.to_owned(),
            (true, false) => format!("{}.{key}", self.path),
            (false, _) => format!("{}[{}]", self.path, quoted(key)),
        };
        Self { at, path }
    }

    /// The place of the list's element `index`, at offset `at`.
    pub(crate) fn element(&self, index: usize, at: usize) -> Self {
        Self { at, path: format!("{}[{index}]", self.path) }
    }
}

const QUOTED_CHARS_MAX: usize = 64;

/// A text of the author's in a message: in quotes, on one line, not too long.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// The text with control characters written as escapes: a finding is one line, whatever a key is named.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Everything found so far.
#[derive(Debug)]
pub(crate) struct Report<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
    file: PathBuf,
    faults: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(text: &'t str, file: PathBuf) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(breaks).collect();
        Self { text, line_starts, file, faults: Vec::new(), warnings: Vec::new() }
    }

    /// The line of a place, from 1.
    pub(crate) fn line(&self, place: &Place) -> usize {
        self.line_starts.partition_point(|start| *start <= place.at)
    }

    /// A finding at that place that has not been added to anything.
    pub(crate) fn finding(&self, place: &Place, message: String, nearest: Option<String>) -> Finding {
        let line = self.line(place);
        let start = self.line_starts.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..place.at).unwrap_or_default();
        Finding {
            file: self.file.clone(),
            line,
            column: before.chars().count() + 1,
            path: place.path.clone(),
            message: one_line(message),
            nearest: nearest.map(one_line),
        }
    }

    pub(crate) fn fault(&mut self, place: &Place, message: impl Into<String>) {
        self.fault_near(place, message, None);
    }

    pub(crate) fn fault_near(&mut self, place: &Place, message: impl Into<String>, nearest: Option<String>) {
        let finding = self.finding(place, message.into(), nearest);
        self.faults.push(finding);
    }

    /// A fault that was found before it was known to be one.
    pub(crate) fn add_fault(&mut self, finding: Finding) {
        self.faults.push(finding);
    }

    pub(crate) fn warn(&mut self, place: &Place, message: impl Into<String>) {
        let finding = self.finding(place, message.into(), None);
        self.warnings.push(finding);
    }

    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// The faults and the warnings, each in the order of the text.
    pub(crate) fn into_sorted(self) -> (Vec<Finding>, Vec<Finding>) {
        (sorted(self.faults), sorted(self.warnings))
    }
}

/// Stable, so that what is found at one place stays in the order in which it was found.
pub(crate) fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|f| (f.line, f.column));
    findings
}
