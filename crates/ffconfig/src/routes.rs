//! `route`: which kind of node a command is for, and whether a node of that kind can be reached.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use ffproto::CommandId;

use crate::fields::Fields;
use crate::model::{Route, RouteRule};
use crate::nearest::nearest;
use crate::nodes::Draft;
use crate::parents::Link;
use crate::report::{Place, Report, quoted};
use crate::span::{Span, union};
use crate::value::{Placed, Value};

/// The keys of a route that have kinds under them.
const BY_KIND: [&str; 2] = ["range", "special"];

/// The rules of a route without faults.
pub(crate) fn route(fields: &Fields) -> Route {
    let special = union(spans(fields, "special").map(|(_, span, _)| span).collect());
    let outside = |(kind, span, _): (_, Span, _)| {
        let pieces = span.cut(&special).into_iter().filter(|(_, inside)| !inside);
        pieces.map(move |(piece, _)| (kind, piece))
    };
    let mut pieces: Vec<(&str, Span)> = spans(fields, "range").flat_map(outside).collect();
    pieces.extend(spans(fields, "special").map(|(kind, span, _)| (kind, span)));
    pieces.sort_unstable_by_key(|(_, piece)| piece.first);

    let stateless = union(stateless(fields).map(|(span, _)| span).collect());
    let mut rules: Vec<RouteRule> = Vec::new();
    for (kind, piece) in pieces {
        for (Span { first, last }, stateless) in piece.cut(&stateless) {
            match rules.last_mut() {
                Some(RouteRule { last: before, kind: as_before, stateless: alike, .. })
                    if before.0.checked_add(1) == Some(first)
                        && **as_before == *kind
                        && *alike == stateless =>
                {
                    *before = CommandId(last);
                }
                _ => rules.push(RouteRule {
                    first: CommandId(first),
                    last: CommandId(last),
                    kind: kind.into(),
                    stateless,
                }),
            }
        }
    }
    Route::of(rules)
}

/// What stands under `range` or `special`: the kind, the commands, and their place.
fn spans<'f>(fields: &'f Fields, key: &str) -> impl Iterator<Item = (&'f str, Span, &'f Place)> {
    fields.map(key).iter().flat_map(|entry| {
        let spans = entry.item.list().iter().filter_map(placed_span);
        spans.map(|(span, place)| (entry.key.as_str(), span, place))
    })
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
            for key in BY_KIND {
                check_taken(route, key, report);
            }
            check_stateless(route, report);
        }
    }
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
        if !ways.kinds.contains(kind) {
            // What a faulty entry is may be what was meant here.
            if ways.all_kinds_known {
                let message = format!("no node is of the kind {}", quoted(kind));
                report.fault_near(&entry.key_place, message, ways.nearest(kind));
            }
        } else if ways.all_links_known
            && let Some(from) = ways.cut_off(draft, kind)
        {
            let message = format!(
                "no way from `{from}` to a node of the kind `{kind}`: it must be a parent, another child of a parent, or a child"
            );
            report.fault(&entry.key_place, message);
        }
    }
}

/// Who reaches whom.
struct Ways<'d> {
    drafts: &'d [Draft<'d>],
    links: &'d [Vec<Link<'d>>],
    kinds: HashSet<&'d str>,
    /// By parent entry: its children's entries, and to which of the parent's nodes they link.
    children: HashMap<usize, Vec<(usize, &'d Range<usize>)>>,
    /// Whether no entry's kind is lost to a fault.
    all_kinds_known: bool,
    /// Whether, beyond that, no link is.
    all_links_known: bool,
}

impl<'d> Ways<'d> {
    fn of(drafts: &'d [Draft<'d>], links: &'d [Vec<Link<'d>>]) -> Self {
        let mut children: HashMap<usize, Vec<(usize, &Range<usize>)>> = HashMap::new();
        for (child, links) in links.iter().enumerate() {
            for link in links {
                children.entry(link.draft).or_default().push((child, &link.nodes));
            }
        }
        let all_kinds_known = drafts.iter().all(|draft| draft.kind().is_some());
        let no_link_lost =
            drafts.iter().zip(links).all(|(draft, links)| draft.remotes() == Some(links.len()));
        Self {
            drafts,
            links,
            kinds: drafts.iter().filter_map(Draft::kind).collect(),
            children,
            all_kinds_known,
            all_links_known: all_kinds_known && no_link_lost,
        }
    }

    fn nearest(&self, kind: &str) -> Option<String> {
        let mut known: Vec<&str> = self.kinds.iter().copied().collect();
        known.sort_unstable();
        nearest(kind, known)
    }

    /// The first node of the entry that reaches no node of that kind.
    fn cut_off(&self, draft: usize, kind: &str) -> Option<&'d str> {
        let is_kind = |d: usize| self.drafts[d].kind() == Some(kind);
        // The parents of all nodes of an entry are the same.
        let above = self.links[draft]
            .iter()
            .any(|link| is_kind(link.draft) || self.children_of(link.draft, &link.nodes).any(is_kind));
        let mut names = self.drafts[draft].names.iter().enumerate();
        let cut_off = names.find(|(n, _)| !above && !self.children_of(draft, &(*n..n + 1)).any(is_kind));
        cut_off.map(|(_, name)| name.as_str())
    }

    /// The entries with a link to one of those nodes of the entry.
    fn children_of(&self, draft: usize, nodes: &Range<usize>) -> impl Iterator<Item = usize> {
        let children = self.children.get(&draft).map(Vec::as_slice).unwrap_or_default();
        let linked = |(_, to): &&(usize, &Range<usize>)| to.start < nodes.end && nodes.start < to.end;
        children.iter().filter(linked).map(|(child, _)| *child)
    }
}
