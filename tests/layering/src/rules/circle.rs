//! Circles of files inside a room: files that all need each other are one file to a reader.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::File;
use crate::walk::Edge;
use crate::{Fault, MAX_CIRCLE};

pub(crate) fn check(files: &[File], edges: &BTreeSet<Edge>) -> Vec<Fault> {
    let inside = |edge: &&Edge| edge.fine && files[edge.from].room() == files[edge.to].room();
    let mut graph: BTreeMap<usize, BTreeMap<usize, &Edge>> = BTreeMap::new();
    for edge in edges.iter().filter(inside).filter(|edge| files[edge.from].room().is_some()) {
        graph.entry(edge.from).or_default().entry(edge.to).or_insert(edge);
    }
    let mut circles = components(files.len(), &graph);
    circles.retain(|circle| circle.len() > MAX_CIRCLE);
    circles.iter().map(|circle| fault(files, circle, &graph)).collect()
}

fn fault(files: &[File], circle: &BTreeSet<usize>, graph: &BTreeMap<usize, BTreeMap<usize, &Edge>>) -> Fault {
    let mut why = vec![];
    for from in circle {
        for (to, edge) in graph.get(from).into_iter().flatten().filter(|(to, _)| circle.contains(to)) {
            why.push(format!("{}: needs {}, {}", files[*from].place(edge.line), files[*to].path, edge.how));
        }
    }
    let mut paths: Vec<_> = circle.iter().map(|file| files[*file].path.clone()).collect();
    paths.sort();
    let first = circle.first().copied().unwrap_or_default();
    let room = files[first].room().unwrap_or_default().to_owned();
    Fault::Circle { at: files[first].place(1), room, files: paths, why }
}

/// Strongly connected components: whatever a node reaches and is reached by.
fn components(nodes: usize, graph: &BTreeMap<usize, BTreeMap<usize, &Edge>>) -> Vec<BTreeSet<usize>> {
    let reaches: Vec<BTreeSet<usize>> = (0..nodes)
        .map(|from| {
            let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
            while let Some(at) = todo.pop() {
                let next = graph.get(&at).into_iter().flat_map(|next| next.keys());
                todo.extend(next.filter(|next| seen.insert(**next)));
            }
            seen
        })
        .collect();
    let (mut done, mut found) = (BTreeSet::new(), vec![]);
    for from in 0..nodes {
        if done.contains(&from) {
            continue;
        }
        let circle: BTreeSet<usize> =
            reaches[from].iter().copied().filter(|to| reaches[*to].contains(&from)).collect();
        done.extend(circle.iter().copied());
        found.push(circle);
    }
    found
}
