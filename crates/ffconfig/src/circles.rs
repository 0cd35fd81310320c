//! Routes that send a command round in a circle: it would never arrive.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::cycle::cycles;
use crate::model::Target;
use crate::nodes::Draft;
use crate::report::Report;
use crate::routes::{Piece, pieces};

/// An entry with a route.
struct Routed<'d> {
    draft: &'d Draft<'d>,
    pieces: Vec<Piece<'d>>,
}

impl Routed<'_> {
    fn piece(&self, command: u32) -> Option<&Piece<'_>> {
        let at = self.pieces.partition_point(|piece| piece.span.last < command);
        self.pieces.get(at).filter(|piece| piece.span.first <= command)
    }

    fn is_meant(&self, target: &Target) -> bool {
        let kind = self.draft.kind().unwrap_or_default();
        let mut names = self.draft.names.iter();
        names.any(|name| target.means(name.as_str(), kind))
    }
}

/// Reports every circle once, for the first of its commands. Either nobody in it has a handler of the command,
/// or the rule of who has one says nothing.
pub(crate) fn check(drafts: &[Draft<'_>], report: &mut Report<'_>) {
    let routed = drafts.iter().filter_map(|draft| {
        let pieces = pieces(draft.fields?.section("route")?);
        (!pieces.is_empty()).then_some(Routed { draft, pieces })
    });
    let routed: Vec<Routed<'_>> = routed.collect();
    // A circle closes where one of its pieces begins.
    let commands: BTreeSet<u32> =
        routed.iter().flat_map(|routed| &routed.pieces).map(|piece| piece.span.first).collect();
    let mut reported = HashSet::new();
    for command in commands {
        for circle in circles(&routed, command) {
            let keys: Vec<&str> = circle.iter().map(|n| routed[*n].draft.key).collect();
            if let Some(piece) = circle.first().and_then(|n| routed[*n].piece(command))
                && reported.insert(keys.clone())
            {
                let round = keys.iter().chain(keys.first()).copied().collect::<Vec<_>>().join(" -> ");
                let message = format!(
                    "command {command} would go in a circle: {round}; a node's own handlers come before its route, so one of these rules is not needed"
                );
                report.fault(piece.place, message);
            }
        }
    }
}

/// The circles of one command, as places in `routed`.
fn circles(routed: &[Routed<'_>], command: u32) -> Vec<Vec<usize>> {
    let active: Vec<(usize, &Target)> =
        routed.iter().enumerate().filter_map(|(n, of)| Some((n, &of.piece(command)?.to))).collect();
    // An entry leads to its target, and a target to the entries that it means: few arrows, however many
    // entries are of one kind.
    let mut targets: HashMap<&Target, usize> = HashMap::new();
    let mut arrows: Vec<Vec<usize>> = vec![Vec::new(); active.len()];
    for (at, (_, target)) in active.iter().enumerate() {
        let place = *targets.entry(target).or_insert_with(|| {
            let meant = |(_, (n, _)): &(usize, &(usize, &Target))| routed[*n].is_meant(target);
            arrows.push(active.iter().enumerate().filter(meant).map(|(at, _)| at).collect());
            arrows.len() - 1
        });
        arrows[at].push(place);
    }
    let entries = |circle: Vec<usize>| {
        circle.into_iter().filter_map(|at| Some(active.get(at)?.0)).collect::<Vec<usize>>()
    };
    cycles(&arrows).into_iter().map(entries).collect()
}
