//! Who is whose parent: every `remoteport` resolved to nodes.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use ffproto::credential::BELOW_MAX;

use crate::cycle::cycles;
use crate::fields::Fields;
use crate::nearest::nearest;
use crate::nodes::Draft;
use crate::report::{Place, Report, quoted};

/// One entry of a `remoteport`, resolved.
#[derive(Debug)]
pub(crate) struct Link<'f> {
    /// The parent's entry under `servers`.
    pub(crate) draft: usize,
    /// Which of that entry's nodes.
    pub(crate) nodes: Range<usize>,
    pub(crate) host: Option<&'f str>,
    place: &'f Place,
}

/// The links of every draft, with their faults reported.
pub(crate) fn links<'f>(drafts: &[Draft<'f>], report: &mut Report<'_>) -> Vec<Vec<Link<'f>>> {
    let names = Names::of(drafts);
    let links: Vec<Vec<Link<'f>>> =
        drafts.iter().map(|draft| links_of(draft, drafts, &names, report)).collect();
    check_cycles(drafts, &links, report);
    for (draft, links) in drafts.iter().zip(&links) {
        check_kinds(draft, drafts, links, report);
    }
    links
}

/// What a `rootname` can say: keys, and the nodes of a `count`.
struct Names<'d>(HashMap<&'d str, (usize, Range<usize>)>);

impl<'d> Names<'d> {
    fn of(drafts: &'d [Draft<'_>]) -> Self {
        let mut names = HashMap::new();
        for (d, draft) in drafts.iter().enumerate() {
            for (n, name) in draft.names.iter().enumerate() {
                names.insert(name.as_str(), (d, n..n + 1));
            }
        }
        for (d, draft) in drafts.iter().enumerate() {
            names.insert(draft.key, (d, 0..draft.names.len()));
        }
        Self(names)
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let mut known: Vec<&str> = self.0.keys().copied().collect();
        known.sort_unstable();
        nearest(name, known)
    }
}

fn links_of<'f>(
    draft: &Draft<'f>,
    drafts: &[Draft<'f>],
    names: &Names<'_>,
    report: &mut Report<'_>,
) -> Vec<Link<'f>> {
    let mut links: Vec<Link<'f>> = Vec::new();
    let remotes = draft.fields.map(|fields| fields.list("remoteport")).unwrap_or_default();
    for remote in remotes.iter().filter_map(|remote| remote.fields()) {
        let Some(name) = remote.text("rootname") else { continue };
        let place = remote.place_of("rootname");
        let Some((d, nodes)) = names.0.get(name).cloned() else {
            let message = format!("{} is not among `servers`", quoted(name));
            report.fault_near(place, message, names.nearest(name));
            continue;
        };
        let overlaps = |link: &&Link<'_>| {
            link.draft == d && link.nodes.start < nodes.end && nodes.start < link.nodes.end
        };
        if let Some(earlier) = links.iter().find(overlaps) {
            let line = report.line(earlier.place);
            report.fault(place, format!("`{name}` is a parent already, on line {line}"));
            continue;
        }
        check_port(name, &drafts[d], nodes.start, remote, report);
        links.push(Link { draft: d, nodes, host: remote.text("roothost"), place });
    }
    links
}

/// A child that dials another port than the parent's would wait for ever.
fn check_port(name: &str, parent: &Draft<'_>, first: usize, remote: &Fields, report: &mut Report<'_>) {
    let Some(fields) = parent.fields else { return };
    if !fields.given("rootport") {
        let line = report.line(parent.key_place);
        let message = format!("`{name}` (line {line}) has no `rootport`, so it cannot be a parent");
        return report.fault(remote.place_of("rootname"), message);
    }
    let (Some(listen), Some(port)) = (parent.listen("rootport", first), remote.number::<u16>("rootport"))
    else {
        return;
    };
    if listen.port() != port {
        let line = report.line(fields.place_of("rootport"));
        let message =
            format!("`{name}` takes its children on {}, not on {port} (line {line})", listen.port());
        report.fault(remote.place_of("rootport"), message);
    }
}

/// What a node may be a child of is in its credential, and strangers' credentials are taken up to a size only.
fn check_kinds(draft: &Draft<'_>, drafts: &[Draft<'_>], links: &[Link<'_>], report: &mut Report<'_>) {
    let kinds: BTreeSet<&str> = links.iter().filter_map(|link| drafts[link.draft].kind()).collect();
    let Some(fields) = draft.fields.filter(|_| kinds.len() > BELOW_MAX) else { return };
    let message = format!("parents of {} kinds: a node has those of at most {BELOW_MAX}", kinds.len());
    report.fault(fields.place_of("remoteport"), message);
}

fn check_cycles(drafts: &[Draft<'_>], links: &[Vec<Link<'_>>], report: &mut Report<'_>) {
    let parents: Vec<Vec<usize>> =
        links.iter().map(|links| links.iter().map(|link| link.draft).collect()).collect();
    for cycle in cycles(&parents) {
        let keys = cycle.iter().chain(cycle.first()).map(|d| drafts[*d].key);
        let message = format!("a circle of parents: {}", keys.collect::<Vec<_>>().join(" -> "));
        let next = cycle.get(1).or(cycle.first());
        let first = cycle.first().and_then(|d| links[*d].iter().find(|link| Some(&link.draft) == next));
        if let Some(link) = first {
            report.fault(link.place, message);
        }
    }
}
