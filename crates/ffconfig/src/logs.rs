//! `log`: which files a process writes, when they are begun anew, and what they have.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::fields::Fields;
use crate::model::Log;
use crate::nodes::Draft;
use crate::report::{Place, Report, quoted};
use crate::routes::commands;

const MIB: u64 = 1 << 20;

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
