//! The entries of `servers`, named: which nodes there are, `count` written out.

use std::collections::HashMap;
use std::net::SocketAddr;

use ffproto::NodeName;

use crate::fields::Fields;
use crate::report::{Place, Report, quoted};
use crate::schema::NODES_MAX;
use crate::value::{Entry, Value};

/// One key under `servers`.
#[derive(Debug)]
pub(crate) struct Draft<'f> {
    pub(crate) key: &'f str,
    pub(crate) key_place: &'f Place,
    /// `None` when what stands there is no object; its fault has been reported.
    pub(crate) fields: Option<&'f Fields>,
    /// Its nodes, in order; empty when the name is bad.
    pub(crate) names: Vec<NodeName>,
    /// Whether `count` is given: then even a single node is `KEY.1`.
    pub(crate) counted: bool,
}

impl<'f> Draft<'f> {
    /// `type`, or the app; `None` when that is faulty.
    pub(crate) fn kind(&self) -> Option<&'f str> {
        let fields = self.fields?;
        fields.text(if fields.given("type") { "type" } else { "app" })
    }

    /// How many entries its `remoteport` has; `None` when that is faulty.
    pub(crate) fn remotes(&self) -> Option<usize> {
        match self.fields?.get("remoteport").map(|remotes| &remotes.value) {
            None => Some(0),
            Some(Value::List(remotes)) => Some(remotes.len()),
            Some(_) => None,
        }
    }

    /// Where the node `index` of this entry listens, for one of the listening keys.
    pub(crate) fn listen(&self, key: &str, index: usize) -> Option<SocketAddr> {
        let mut listen = self.fields?.listen(key)?;
        let port = usize::from(listen.port()).checked_add(index)?;
        listen.set_port(u16::try_from(port).ok()?);
        Some(listen)
    }

    /// ` (of game.2)`, when the entry's own name does not say which node it is.
    pub(crate) fn of_node(&self, index: usize) -> String {
        match self.names.get(index) {
            Some(name) if self.counted => format!(" (of {name})"),
            _ => String::new(),
        }
    }
}

/// The entries with their names checked; none when there are too many nodes.
pub(crate) fn drafts<'f>(servers: &'f [Entry], place: &Place, report: &mut Report<'_>) -> Vec<Draft<'f>> {
    let nodes: usize = servers.iter().map(|entry| count(entry).unwrap_or(1)).sum();
    if nodes > NODES_MAX {
        report.fault(place, format!("{nodes} nodes: a cluster has at most {NODES_MAX}"));
        return Vec::new();
    }
    let drafts: Vec<Draft<'_>> = servers.iter().map(|entry| draft(entry, report)).collect();
    check_unique(&drafts, report);
    drafts
}

fn count(entry: &Entry) -> Option<usize> {
    entry.item.fields()?.number("count")
}

fn draft<'f>(entry: &'f Entry, report: &mut Report<'_>) -> Draft<'f> {
    let fields = entry.item.fields();
    let names = names(&entry.key, count(entry)).unwrap_or_else(|message| {
        report.fault(&entry.key_place, message);
        Vec::new()
    });
    if let Some(name) = fields.and_then(|fields| fields.text("name")).filter(|name| *name != entry.key) {
        let place = fields.map_or(&entry.key_place, |fields| fields.place_of("name"));
        report.warn(place, format!("{} has no effect: the key `{}` is the name", quoted(name), entry.key));
    }
    let counted = fields.is_some_and(|fields| fields.given("count"));
    Draft { key: &entry.key, key_place: &entry.key_place, fields, names, counted }
}

fn names(key: &str, count: Option<usize>) -> Result<Vec<NodeName>, String> {
    let name = NodeName::try_from(key).map_err(|bad| bad.to_string())?;
    if name == NodeName::master() {
        return Err("a node cannot be named as the master".to_owned());
    }
    let Some(count) = count else { return Ok(vec![name]) };
    let numbered = |number| {
        let text = format!("{key}.{number}");
        NodeName::try_from(text.as_str()).map_err(|bad| format!("`count` makes `{text}` of it: {bad}"))
    };
    (1..=count).map(numbered).collect()
}

/// `game` with a `count` and a key `"game.1"` would be two nodes of one name.
fn check_unique(drafts: &[Draft<'_>], report: &mut Report<'_>) {
    let mut owners: HashMap<&NodeName, &Draft<'_>> = HashMap::new();
    for draft in drafts {
        for name in &draft.names {
            if let Some(other) = owners.insert(name, draft) {
                let line = report.line(other.key_place);
                let message = format!("`{name}` is also a node of `{}` on line {line}", other.key_place.path);
                report.fault(draft.key_place, message);
            }
        }
    }
}
