//! `log`: which files a process writes, when they are begun anew, and what they have.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ffproto::CommandId;

use crate::fields::Fields;
use crate::nodes::Draft;
use crate::report::{Place, Report, quoted};
use crate::routes::commands;

const MIB: u64 = 1 << 20;

/// `log`: what a process writes of what happens, besides the terminal. A bare text is its `file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `file`: the file that lines are appended to; in the config's folder.
    pub file: Option<PathBuf>,
    /// `errors`: the file that lines from WARN up are appended to, too.
    pub errors: Option<PathBuf>,
    /// `json`: whether a line is a JSON object. Default false.
    pub json: bool,
    /// `level`: what is shown, by level and target, unless `FF_LOG` is set.
    pub level: Option<String>,
    /// `rotate_mb`: the largest size of a file, in bytes. Default 64 MiB; `None` (0 in the config): no limit.
    pub rotate_bytes: Option<u64>,
    /// `rotate_daily`: whether a file has lines of one day, by UTC. Default false.
    pub rotate_daily: bool,
    /// `keep`: older files that are kept. Default 7.
    pub keep: u32,
    /// `quiet_commands`: commands whose calls are not logged, as runs (first and last) that are disjoint and sorted.
    pub quiet_commands: Vec<(CommandId, CommandId)>,
}

/// As a person reads it: `absent`, the file alone, or what is not as it is without being said.
impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Self::default();
        let quoted = |path: &PathBuf| format!("`{}`", path.display());
        if *self == default {
            return f.write_str("absent");
        }
        if let Some(file) = &self.file
            && *self == (Self { file: Some(file.clone()), ..default.clone() })
        {
            return f.write_str(&quoted(file));
        }
        let differs =
            |differs: bool, key: &'static str, value: String| differs.then(|| format!("{key} {value}"));
        let mb = self.rotate_bytes.unwrap_or(0) >> 20;
        let shown = [
            self.file.as_ref().map(|file| format!("file {}", quoted(file))),
            self.errors.as_ref().map(|errors| format!("errors {}", quoted(errors))),
            differs(self.json, "json", self.json.to_string()),
            self.level.as_ref().map(|level| format!("level `{level}`")),
            differs(self.rotate_bytes != default.rotate_bytes, "rotate_mb", mb.to_string()),
            differs(self.rotate_daily, "rotate_daily", self.rotate_daily.to_string()),
            differs(self.keep != default.keep, "keep", self.keep.to_string()),
            differs(!self.quiet_commands.is_empty(), "quiet_commands", runs(&self.quiet_commands)),
        ];
        write!(f, "{{{}}}", shown.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

fn runs(commands: &[(CommandId, CommandId)]) -> String {
    let runs = commands.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("[{first}, {last}]"),
    });
    format!("[{}]", runs.collect::<Vec<_>>().join(", "))
}

impl Default for Log {
    fn default() -> Self {
        let (file, errors, level, quiet_commands) = (None, None, None, Vec::new());
        Self {
            file,
            errors,
            json: false,
            level,
            rotate_bytes: Some(64 << 20),
            rotate_daily: false,
            keep: 7,
            quiet_commands,
        }
    }
}

/// The `log` of the master or a node.
pub(crate) fn log(fields: &Fields, folder: &Path) -> Log {
    let Some(log) = fields.section("log") else { return Log::default() };
    let path = |key| log.text(key).map(|path| folder.join(path));
    let default = Log::default();
    let has_quiet = log.section.key("quiet_commands").is_some();
    Log {
        file: path("file"),
        errors: path("errors"),
        json: log.bool("json").unwrap_or(false),
        level: log.text("level").map(str::to_owned),
        rotate_bytes: log
            .number::<u64>("rotate_mb")
            .map_or(default.rotate_bytes, |mb| (mb > 0).then_some(mb * MIB)),
        rotate_daily: log.bool("rotate_daily").unwrap_or(false),
        keep: log.number("keep").unwrap_or(default.keep),
        quiet_commands: if has_quiet { commands(log, "quiet_commands") } else { Vec::new() },
    }
}

/// What a file has, and when it is begun anew: several processes may share it where they agree.
#[derive(PartialEq)]
struct Use<'f> {
    is_errors: bool,
    json: bool,
    rotation: (Option<u64>, bool, u32),
    place: &'f Place,
}

/// Checks the levels, and that processes which share a file agree about it.
pub(crate) fn check(master: Option<&Fields>, drafts: &[Draft<'_>], report: &mut Report<'_>) {
    let mut files: HashMap<PathBuf, Use<'_>> = HashMap::new();
    for fields in master.into_iter().chain(drafts.iter().filter_map(|draft| draft.fields)) {
        let Some(given) = fields.section("log") else { continue };
        if let Some(fault) = given.text("level").and_then(fault_of_levels) {
            report.fault(given.place_of("level"), fault);
        }
        let log = log(fields, Path::new(""));
        for (key, path) in [("file", &log.file), ("errors", &log.errors)] {
            let Some(path) = path else { continue };
            let rotation = (log.rotate_bytes, log.rotate_daily, log.keep);
            let used =
                Use { is_errors: key == "errors", json: log.json, rotation, place: given.place_of(key) };
            if let Some(other) = files.get(path) {
                if let Some(fault) = used.fault_beside(other, report) {
                    report.fault(used.place, fault);
                }
            } else {
                files.insert(path.clone(), used);
            }
        }
    }
}

impl Use<'_> {
    fn fault_beside(&self, other: &Self, report: &Report<'_>) -> Option<String> {
        let line = report.line(other.place);
        let also = format!("this file is also `{}` on line {line}", other.place.path);
        if self.is_errors != other.is_errors {
            return Some(format!("{also}: one has all lines, the other those from WARN up"));
        }
        let agree = self.json == other.json && self.rotation == other.rotation;
        (!agree).then(|| {
            format!("{also}: who shares a file has the same `json`, `rotate_mb`, `rotate_daily` and `keep`")
        })
    }
}

/// What is wrong with levels such as `info,ffserver::gateway=debug`: each part is a level, or a target and its level.
pub fn fault_of_levels(text: &str) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |text: &str| LEVELS.contains(&text);
    let is_target = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte))
    };
    let is_right = |part: &str| match part.split_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_level(part),
    };
    let wrong = text.split(',').map(str::trim).find(|part| !is_right(part))?;
    Some(format!(
        "{} is neither a level (`off`, `error`, `warn`, `info`, `debug`, `trace`) nor `TARGET=LEVEL`",
        quoted(wrong)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_levels_or_targets_with_one() {
        for right in ["info", "debug", "info,ffserver::gateway=debug", "warn, my-app=trace", "off"] {
            assert_eq!(fault_of_levels(right), None, "{right}");
        }
        for (wrong, part) in [
            ("loud", "loud"),
            ("info,", ""),
            ("=debug", "=debug"),
            ("a=loud", "a=loud"),
            ("a=b=info", "a=b=info"),
        ] {
            let fault = fault_of_levels(wrong).unwrap();
            assert!(fault.starts_with(&format!("{part:?} is neither")), "{fault}");
        }
    }
}
