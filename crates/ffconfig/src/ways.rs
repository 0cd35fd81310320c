//! Who reaches whom: a way goes from child to parent any number of times, and then only from parent to child.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::model::Target;
use crate::nearest::nearest;
use crate::nodes::Draft;
use crate::parents::Link;

/// The ways between the entries of a config.
pub(crate) struct Ways<'d> {
    drafts: &'d [Draft<'d>],
    links: &'d [Vec<Link<'d>>],
    kinds: HashSet<&'d str>,
    /// By parent entry: its children's entries, and to which of the parent's nodes they link.
    children: HashMap<usize, Vec<(usize, &'d Range<usize>)>>,
    /// Whether no entry's kind is lost to a fault.
    pub(crate) all_kinds_known: bool,
    /// Whether, beyond that, no link is.
    all_links_known: bool,
}

impl<'d> Ways<'d> {
    pub(crate) fn of(drafts: &'d [Draft<'d>], links: &'d [Vec<Link<'d>>]) -> Self {
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

    pub(crate) fn has_kind(&self, kind: &str) -> bool {
        self.kinds.contains(kind)
    }

    pub(crate) fn nearest_kind(&self, kind: &str) -> Option<String> {
        let mut known: Vec<&str> = self.kinds.iter().copied().collect();
        known.sort_unstable();
        nearest(kind, known)
    }

    /// How many nodes a name means: a node, or a key; `None` when there is no such name.
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        let is_node = |draft: &Draft<'_>| draft.names.iter().any(|node| *node == *name);
        if self.drafts.iter().any(is_node) {
            return Some(1);
        }
        self.drafts.iter().find(|draft| draft.key == name).map(|draft| draft.names.len())
    }

    pub(crate) fn nearest_name(&self, name: &str) -> Option<String> {
        let mut known: Vec<&str> =
            self.drafts.iter().flat_map(|draft| &draft.names).map(|name| name.as_str()).collect();
        known.sort_unstable();
        nearest(name, known)
    }

    /// The first node of the entry that does not reach the target; `None` also when a link is lost to a fault,
    /// and when the entry is the target: that is a circle.
    pub(crate) fn cut_off(&self, draft: usize, target: &Target) -> Option<&'d str> {
        let all = 0..self.drafts[draft].names.len();
        if !self.all_links_known || self.is_among(draft, &all, target) || self.above(draft, target) {
            return None;
        }
        let mut names = self.drafts[draft].names.iter().enumerate();
        let cut_off = names.find(|(n, _)| !self.below(vec![(draft, *n..n + 1)], target));
        cut_off.map(|(_, name)| name.as_str())
    }

    /// Whether the target is above the entry, or below what is above it. All nodes of an entry have the same
    /// parents.
    fn above(&self, draft: usize, target: &Target) -> bool {
        let mut seen = HashSet::new();
        let (mut open, mut above) = (vec![draft], Vec::new());
        while let Some(draft) = open.pop() {
            for link in &self.links[draft] {
                if self.is_among(link.draft, &link.nodes, target) {
                    return true;
                }
                above.push((link.draft, link.nodes.clone()));
                if seen.insert(link.draft) {
                    open.push(link.draft);
                }
            }
        }
        self.below(above, target)
    }

    /// Whether the target is below one of those nodes.
    fn below(&self, mut open: Vec<(usize, Range<usize>)>, target: &Target) -> bool {
        let mut seen = HashSet::new();
        while let Some((draft, nodes)) = open.pop() {
            for child in self.children_of(draft, &nodes) {
                let all = 0..self.drafts[child].names.len();
                if self.is_among(child, &all, target) {
                    return true;
                }
                if seen.insert(child) {
                    open.push((child, all));
                }
            }
        }
        false
    }

    /// Whether the target is one of those nodes of an entry.
    fn is_among(&self, draft: usize, nodes: &Range<usize>, target: &Target) -> bool {
        let draft = &self.drafts[draft];
        let kind = draft.kind().unwrap_or_default();
        draft
            .names
            .get(nodes.clone())
            .unwrap_or_default()
            .iter()
            .any(|name| target.means(name.as_str(), kind))
    }

    /// The entries with a link to one of those nodes of the entry.
    fn children_of(&self, draft: usize, nodes: &Range<usize>) -> impl Iterator<Item = usize> {
        let children = self.children.get(&draft).map(Vec::as_slice).unwrap_or_default();
        let linked = |(_, to): &&(usize, &Range<usize>)| to.start < nodes.end && nodes.start < to.end;
        children.iter().filter(linked).map(|(child, _)| *child)
    }
}
