//! `route`: which nodes a command is for, whether they can be reached, and whether it would ever arrive.

use std::collections::BTreeMap;

use ffproto::CommandId;

use crate::circles;
use crate::fields::Fields;
use crate::model::{Route, RouteRule, Target};
use crate::nodes::Draft;
use crate::parents::Link;
use crate::report::{Place, Report, quoted};
use crate::span::{Span, union};
use crate::value::{Placed, Value};
use crate::ways::Ways;

/// The keys of a route that have kinds under them; the latter wins.
const BY_KIND: [&str; 2] = ["range", "special"];
/// The key that has nodes under it: it wins over those.
const BY_NODE: &str = "to";

/// Commands with one target, and where the config says so.
pub(crate) struct Piece<'f> {
    pub(crate) span: Span,
    pub(crate) to: Target,
    pub(crate) place: &'f Place,
}

/// What a route says, with every command in one piece at most; sorted by the first.
pub(crate) fn pieces(fields: &Fields) -> Vec<Piece<'_>> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let mut taken: Vec<Span> = Vec::new();
    for key in [BY_NODE, BY_KIND[1], BY_KIND[0]] {
        let target = |name: &str| if key == BY_NODE { Target::node(name) } else { Target::kind(name) };
        for (name, span, place) in spans(fields, key) {
            let free = span.cut(&taken).into_iter().filter(|(_, inside)| !inside);
            pieces.extend(free.map(|(span, _)| Piece { span, to: target(name), place }));
        }
        taken.extend(spans(fields, key).map(|(_, span, _)| span));
        taken = union(taken);
    }
    pieces.sort_by_key(|piece| piece.span.first);
    pieces
}

/// The rules of a route without faults.
pub(crate) fn route(fields: &Fields) -> Route {
    let stateless = union(stateless(fields).map(|(span, _)| span).collect());
    let mut rules: Vec<RouteRule> = Vec::new();
    for Piece { span, to, .. } in pieces(fields) {
        // A session's messages to one node keep their order: there is nothing to choose.
        let cuts = if to.as_node().is_some() { &[][..] } else { &stateless };
        for (Span { first, last }, stateless) in span.cut(cuts) {
            match rules.last_mut() {
                Some(RouteRule { last: before, to: as_before, stateless: alike, .. })
                    if before.0.checked_add(1) == Some(first) && *as_before == to && *alike == stateless =>
                {
                    *before = CommandId(last);
                }
                _ => {
                    let (first, last) = (CommandId(first), CommandId(last));
                    rules.push(RouteRule { first, last, to: to.clone(), stateless });
                }
            }
        }
    }
    Route::of(rules)
}

/// What stands under a key of a route: the kind or the node, the commands, and their place.
fn spans<'f>(fields: &'f Fields, key: &str) -> impl Iterator<Item = (&'f str, Span, &'f Place)> {
    fields.map(key).iter().flat_map(|entry| {
        let spans = entry.item.list().iter().filter_map(placed_span);
        spans.map(|(span, place)| (entry.key.as_str(), span, place))
    })
}

/// The commands of a list, as runs that are disjoint and sorted.
pub(crate) fn commands(fields: &Fields, key: &str) -> Vec<(CommandId, CommandId)> {
    let spans = fields.list(key).iter().filter_map(placed_span).map(|(span, _)| span);
    union(spans.collect())
        .into_iter()
        .map(|Span { first, last }| (CommandId(first), CommandId(last)))
        .collect()
}

fn stateless(fields: &Fields) -> impl Iterator<Item = (Span, &Place)> {
    fields.list("stateless").iter().filter_map(placed_span)
}

fn placed_span(placed: &Placed) -> Option<(Span, &Place)> {
    match placed.value {
        Value::Commands(span) => Some((span, &placed.place)),
        _ => None,
    }
}

/// Checks the route of every node.
pub(crate) fn check(drafts: &[Draft<'_>], links: &[Vec<Link<'_>>], report: &mut Report<'_>) {
    let ways = Ways::of(drafts, links);
    for (d, draft) in drafts.iter().enumerate() {
        if let Some(route) = draft.fields.and_then(|fields| fields.section("route")) {
            check_kinds(route, &ways, d, report);
            check_nodes(route, &ways, d, report);
            for key in BY_KIND.into_iter().chain([BY_NODE]) {
                check_taken(route, key, report);
            }
            check_stateless(route, report);
        }
    }
    circles::check(drafts, report);
}

/// A command cannot be for two kinds, and written twice it is a slip. What is faulty takes nothing.
fn check_taken(route: &Fields, key: &str, report: &mut Report<'_>) {
    // By the first command; disjoint.
    let mut taken: BTreeMap<u32, (Span, &Place)> = BTreeMap::new();
    for (_, span, place) in spans(route, key) {
        let nearest = taken.range(..=span.last).next_back().map(|(_, taken)| *taken);
        let meeting = nearest.and_then(|(other, owner)| Some((span.common(other)?, owner)));
        let Some((common, owner)) = meeting else {
            taken.insert(span.first, (span, place));
            continue;
        };
        let what = match common {
            Span { first, last } if first == last => format!("command {first} is"),
            Span { first, last } => format!("commands {first} to {last} are"),
        };
        let line = report.line(owner);
        report.fault(place, format!("{what} taken by `{}` on line {line}", owner.path));
    }
}

fn check_stateless(route: &Fields, report: &mut Report<'_>) {
    let routed =
        union(BY_KIND.into_iter().flat_map(|key| spans(route, key)).map(|(_, span, _)| span).collect());
    for (span, place) in stateless(route) {
        if !span.cut(&routed).iter().any(|(_, inside)| *inside) {
            report.warn(place, "no effect: neither `range` nor `special` has a command of it");
        }
    }
}

fn check_kinds(route: &Fields, ways: &Ways<'_>, draft: usize, report: &mut Report<'_>) {
    for entry in BY_KIND.into_iter().flat_map(|key| route.map(key)) {
        let kind = entry.key.as_str();
        if !ways.has_kind(kind) {
            // What a faulty entry is may be what was meant here.
            if ways.all_kinds_known {
                let message = format!("no node is of the kind {}", quoted(kind));
                report.fault_near(&entry.key_place, message, ways.nearest_kind(kind));
            }
        } else if let Some(from) = ways.cut_off(draft, &Target::kind(kind)) {
            let message = format!("no way from `{from}` to a node of the kind `{kind}`: {NO_WAY}");
            report.fault(&entry.key_place, message);
        }
    }
}

fn check_nodes(route: &Fields, ways: &Ways<'_>, draft: usize, report: &mut Report<'_>) {
    for entry in route.map(BY_NODE) {
        let node = entry.key.as_str();
        match ways.named(node) {
            Some(1) => {}
            Some(count) => {
                let message = format!(
                    "`{node}` is {count} nodes: name one of them, as `{node}.1`, or route to their kind"
                );
                report.fault(&entry.key_place, message);
                continue;
            }
            None => {
                let message = format!("{} is not among `servers`", quoted(node));
                report.fault_near(&entry.key_place, message, ways.nearest_name(node));
                continue;
            }
        }
        if let Some(from) = ways.cut_off(draft, &Target::node(node)) {
            report.fault(&entry.key_place, format!("no way from `{from}` to `{node}`: {NO_WAY}"));
        }
    }
}

const NO_WAY: &str = "it must be above, below, or below a node above";
