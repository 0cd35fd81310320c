//! `rights`: what a node may do to clients and to other nodes, beyond or below what the tree and the routes say.

use std::collections::{BTreeMap, BTreeSet};

use ffproto::CommandId;

use crate::fields::Fields;
use crate::nearest::nearest;
use crate::nodes::Draft;
use crate::report::{Place, Report, quoted};
use crate::routes;
use crate::span::{Span, union};
use crate::value::{Entry, Placed, Value};

/// `rights`: `None` is what the tree and the routes say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    /// `push`: send messages to clients of other nodes.
    pub push: Option<Nets>,
    /// `set`: change the user, the attributes and the groups of their sessions.
    pub set: Option<Nets>,
    /// `close`: end their sessions.
    pub close: Option<Nets>,
    /// `move`: have their sessions go on at another node.
    pub moves: Option<Nets>,
    /// `broadcast`: send messages to many of them.
    pub broadcast: Option<Nets>,
    /// `claim`: end sessions of other nodes because their users have logged in here.
    pub claim: Option<bool>,
    /// `call`: the methods that the node may call, under the name, the key or the kind of who has them; `*` is all of either.
    pub call: Option<BTreeMap<String, Vec<String>>>,
    /// `commands`: what other nodes take from the node's clients: disjoint, sorted, bounds included.
    pub commands: Option<Vec<(CommandId, CommandId)>>,
}

/// The net nodes whose clients a right is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nets {
    /// All net nodes.
    All,
    /// None of them.
    None,
    /// Those of these kinds.
    Kinds(Vec<String>),
}

impl Nets {
    /// Whether a net node of that kind is meant.
    pub fn has(&self, kind: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Kinds(kinds) => kinds.iter().any(|known| known == kind),
        }
    }
}

/// Stands for every node, or every method.
const ALL: &str = "*";
/// The keys about clients of other nodes.
const ABOUT_CLIENTS: [&str; 5] = ["push", "set", "close", "move", "broadcast"];
/// The keys that only a node with clients can have.
const OF_NETS: [&str; 2] = ["claim", "commands"];

/// The rights of a node whose keys have no fault.
pub(crate) fn rights(fields: &Fields) -> Rights {
    let methods = |entry: &Entry| (entry.key.clone(), texts(&entry.item).map(str::to_owned).collect());
    let call = || fields.map("call").iter().map(methods).collect();
    let ids = |Span { first, last }| (CommandId(first), CommandId(last));
    Rights {
        push: nets(fields, "push"),
        set: nets(fields, "set"),
        close: nets(fields, "close"),
        moves: nets(fields, "move"),
        broadcast: nets(fields, "broadcast"),
        claim: fields.bool("claim"),
        call: fields.given("call").then(call),
        commands: fields.given("commands").then(|| commands(fields).into_iter().map(ids).collect()),
    }
}

fn nets(fields: &Fields, key: &str) -> Option<Nets> {
    match &fields.get(key)?.value {
        Value::Bool(true) => Some(Nets::All),
        Value::Bool(false) => Some(Nets::None),
        Value::List(_) => Some(Nets::Kinds(texts(fields.get(key)?).map(str::to_owned).collect())),
        _ => None,
    }
}

fn texts(list: &Placed) -> impl Iterator<Item = &str> {
    list.list().iter().filter_map(|item| match &item.value {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    })
}

fn commands(fields: &Fields) -> Vec<Span> {
    let spans = fields.list("commands").iter().filter_map(|item| match item.value {
        Value::Commands(span) => Some(span),
        _ => None,
    });
    union(spans.collect())
}

/// Checks the rights of every node.
pub(crate) fn check(drafts: &[Draft<'_>], report: &mut Report<'_>) {
    for fields in drafts.iter().filter_map(|draft| draft.fields) {
        if let Some(rights) = fields.section("rights") {
            check_kinds(rights, drafts, report);
            check_callees(rights, drafts, report);
            check_of_nets(fields, rights, report);
            check_commands(fields, rights, report);
        }
    }
}

/// A kind of net nodes that there is not would be a right that never holds.
fn check_kinds(rights: &Fields, drafts: &[Draft<'_>], report: &mut Report<'_>) {
    let with_clients = |draft: &&Draft<'_>| draft.fields.is_some_and(|fields| fields.given("netport"));
    let kinds: BTreeSet<&str> = drafts.iter().filter(with_clients).filter_map(Draft::kind).collect();
    for item in ABOUT_CLIENTS.into_iter().flat_map(|key| rights.list(key)) {
        if let Value::Text(kind) = &item.value
            && !kinds.contains(kind.as_str())
            && are_known(drafts)
        {
            let message = format!("no node with a `netport` is of the kind {}", quoted(kind));
            report.fault_near(&item.place, message, nearest(kind, kinds.iter().copied()));
        }
    }
}

/// Whether no kind is lost to a fault: what a faulty entry is may be what was meant.
fn are_known(drafts: &[Draft<'_>]) -> bool {
    drafts.iter().all(|draft| draft.kind().is_some() && !draft.names.is_empty())
}

fn check_callees(rights: &Fields, drafts: &[Draft<'_>], report: &mut Report<'_>) {
    let names = drafts.iter().flat_map(|draft| draft.names.iter().map(|name| name.as_str()));
    let of_entries = drafts.iter().flat_map(|draft| [Some(draft.key), draft.kind()]).flatten();
    let known: BTreeSet<&str> = names.chain(of_entries).chain([ALL]).collect();
    for entry in rights.map("call") {
        if !known.contains(entry.key.as_str()) && are_known(drafts) {
            let message = format!("{} is no node, no key under `servers` and no kind", quoted(&entry.key));
            report.fault_near(&entry.key_place, message, nearest(&entry.key, known.iter().copied()));
        }
    }
}

fn check_of_nets(fields: &Fields, rights: &Fields, report: &mut Report<'_>) {
    for key in OF_NETS.into_iter().filter(|key| rights.given(key) && !fields.given("netport")) {
        report.fault(rights.place_of(key), "it needs a `netport`: this node has no clients");
    }
}

/// What the node's own route sends on, and others refuse, would be an error for every client.
fn check_commands(fields: &Fields, rights: &Fields, report: &mut Report<'_>) {
    let Some(route) = fields.section("route").filter(|_| rights.given("commands")) else { return };
    let taken = commands(rights);
    let refused = |span: Span| span.cut(&taken).into_iter().find(|(_, inside)| !inside).map(|(span, _)| span);
    let first: Option<(Span, &Place)> =
        routes::pieces(route).iter().find_map(|piece| Some((refused(piece.span)?, piece.place)));
    if let Some((Span { first, .. }, place)) = first {
        let line = report.line(rights.place_of("commands"));
        report.fault(place, format!("command {first} is not among `rights.commands` on line {line}"));
    }
}
