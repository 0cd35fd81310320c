//! The nodes that share a process: what a process has once, they must agree in.

use std::collections::BTreeMap;
use std::path::Path;

use ffproto::NodeName;

use crate::fields::Fields;
use crate::logs::log;
use crate::nodes::Draft;
use crate::ports::own_host;
use crate::report::Report;

/// The value of a key, or what its absence means, as a person reads it.
type Shown = fn(&Fields) -> String;

/// The keys of a node that its whole process has.
const SHARED: [(&str, Shown); 4] = [
    ("threads", |fields| fields.number("threads").unwrap_or(1_usize).to_string()),
    ("cpu", |fields| fields.cpus("cpu").map_or("absent".to_owned(), |cpus| format!("{cpus:?}"))),
    ("log", |fields| log(fields, Path::new("")).to_string()),
    ("host", |fields| own_host(fields).map_or("the master's".to_owned(), |host| format!("`{host}`"))),
];

/// Reports every node that differs from the first one of its process, and every process whose name is that of a node
/// elsewhere: what the log and `/status` say of the one would be read as the other's.
pub(crate) fn check(drafts: &[Draft<'_>], report: &mut Report<'_>) {
    let mut firsts: BTreeMap<&str, &Draft<'_>> = BTreeMap::new();
    for draft in drafts {
        let Some((fields, process)) = draft.fields.and_then(|fields| Some((fields, fields.text("process")?)))
        else {
            continue;
        };
        check_name(process, fields, drafts, report);
        let first = *firsts.entry(process).or_insert(draft);
        let Some(of_first) = first.fields else { continue };
        for (key, value) in SHARED {
            let (own, other) = (value(fields), value(of_first));
            let faulty = |fields: &Fields| fields.given(key) && !is_sound(fields, key);
            if own == other || faulty(fields) || faulty(of_first) {
                continue;
            }
            let line = report.line(first.key_place);
            let message = format!(
                "`{key}` is {own} here and {other} at `{}` on line {line}: the nodes of a process (`{process}`) share it",
                first.key_place.path,
            );
            report.fault(fields.place_of(key), message);
        }
    }
}

/// Whether the key has a value that its kind allows; the fault of another one has been reported.
fn is_sound(fields: &Fields, key: &str) -> bool {
    let is_one = fields.text(key).is_some() || fields.section(key).is_some();
    is_one || fields.number::<usize>(key).is_some() || fields.cpus(key).is_some()
}

fn check_name(process: &str, fields: &Fields, drafts: &[Draft<'_>], report: &mut Report<'_>) {
    if *process == *NodeName::master().as_str() {
        report.fault(fields.place_of("process"), "a process cannot be named as the master");
    }
    let outside =
        |draft: &&Draft<'_>| draft.fields.and_then(|fields| fields.text("process")) != Some(process);
    let named = |draft: &&Draft<'_>| draft.names.iter().any(|name| *name == *process);
    if let Some(other) = drafts.iter().filter(outside).find(named) {
        let line = report.line(other.key_place);
        let message = format!(
            "`{process}` is the name of a node in another process, `{}` on line {line}",
            other.key_place.path
        );
        report.fault(fields.place_of("process"), message);
    }
}
