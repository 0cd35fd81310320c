//! The plan of a reload, as a list made before anything is touched: a pure function of what runs and of the new config.
//!
//! One step at a time, parents before children, so that whoever starts finds its parents; then what is no
//! longer wanted, children before parents. Within a [`Move::Replace`] old and new process run beside each
//! other; the old one serves until the new one is prepared, and stands by for `limits.prove_ms` after that.
//! Up to there the step can be rolled back: a new process that does not start, does not take over in time
//! or dies costs nothing, and the steps behind it are not touched. Standing by runs beside the next steps;
//! the command ends when every predecessor has left. Nodes of one process have one new process, which is started with the first of
//! their steps; they hand over in their order, and are rolled back together.

use ffconfig::{Cluster, Node};
use ffproto::NodeName;

use super::order;

/// What is done with one node.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// The node does not run and is to: with this config.
    Start(Box<Node>),
    /// A new process takes over from the one that serves; one that does not serve is ended and started.
    Replace(Box<Node>),
    /// The node goes to another host: ended here, its config noted.
    Leave(Box<Node>),
    /// The config does not have it any more: ended and forgotten.
    Remove,
    /// Somebody else's, or one that an operator has stopped: its config is noted, nothing is touched.
    Note(Box<Node>),
}

/// A node as it is before the reload.
#[derive(Debug, Clone, Copy)]
pub struct Present<'a> {
    /// With the config that it has.
    pub node: &'a Node,
    /// Whether this master has started it.
    pub ours: bool,
    /// Whether somebody else has started it, and it is linked.
    pub theirs: bool,
    /// Whether an operator has stopped it.
    pub stopped: bool,
}

/// The steps of a reload to `new`; the nodes in `elsewhere` belong on other hosts.
pub fn reload(present: &[Present<'_>], new: &Cluster, elsewhere: &[NodeName]) -> Vec<(NodeName, Move)> {
    let steps = order::start_order(&new.nodes).into_iter().filter_map(|name| {
        let node = Box::new(new.node(name.as_str())?.clone());
        let here = !elsewhere.contains(&name);
        let step = match present.iter().find(|present| present.node.name == name) {
            None => Move::Start(node),
            Some(now) if now.theirs => Move::Note(node),
            Some(now) if !here && now.ours => Move::Leave(node),
            Some(_) if !here => Move::Note(node),
            Some(now) if !now.ours => Move::Start(node),
            Some(now) if now.stopped => Move::Note(node),
            Some(_) => Move::Replace(node),
        };
        Some((name, step))
    });
    let removed = present.iter().map(|present| present.node);
    let removed = removed.filter(|node| new.node(node.name.as_str()).is_none());
    let removed = order::stop_waves(removed).concat().into_iter().map(|name| (name, Move::Remove));
    together(steps.collect()).into_iter().chain(removed).collect()
}

/// Brings the nodes of one process together, where its first one stands: they hand over one right after the other, so that all of them
/// are on trial at once. Within a process parents stay before their children.
fn together(mut steps: Vec<(NodeName, Move)>) -> Vec<(NodeName, Move)> {
    let mut ordered = Vec::with_capacity(steps.len());
    while !steps.is_empty() {
        let first = steps.remove(0);
        let process = first.1.starts().cloned();
        let is_mate = |step: &(NodeName, Move)| {
            step.1.starts().zip(process.as_ref()).is_some_and(|(one, other)| one.shares_process_with(other))
        };
        let (mates, others) = steps.into_iter().partition(is_mate);
        ordered.push(first);
        ordered.extend::<Vec<_>>(mates);
        steps = others;
    }
    ordered
}

impl Move {
    /// The config that a process of the node is started with.
    pub fn starts(&self) -> Option<&Node> {
        match self {
            Self::Start(node) | Self::Replace(node) => Some(node),
            Self::Leave(_) | Self::Remove | Self::Note(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{cluster, name};

    /// The plan from one cluster to another, as text; `mark` changes how nodes are.
    fn plan(old: &[&str], new: &[&str], elsewhere: &[&str], mark: impl Fn(&mut Present<'_>)) -> String {
        let (old, new) = (cluster(old), cluster(new));
        let mut present: Vec<Present<'_>> = old
            .nodes
            .iter()
            .map(|node| Present { node, ours: true, theirs: false, stopped: false })
            .collect();
        present.iter_mut().for_each(mark);
        let elsewhere: Vec<NodeName> = elsewhere.iter().map(|node| name(node)).collect();
        let steps = reload(&present, &new, &elsewhere);
        let steps = steps.iter().map(|(node, step)| {
            let word = match step {
                Move::Start(_) => "start",
                Move::Replace(_) => "replace",
                Move::Leave(_) => "leave",
                Move::Remove => "remove",
                Move::Note(_) => "note",
            };
            format!("{word} {node}")
        });
        steps.collect::<Vec<_>>().join(", ")
    }

    const OLD: [&str; 3] = ["net:10001 > gate", "gate", "game > gate"];

    #[test]
    fn every_node_is_replaced_parents_first() {
        assert_eq!(plan(&OLD, &OLD, &[], |_| {}), "replace gate, replace net, replace game");
        let deep = ["a > b", "b > c", "c"];
        assert_eq!(plan(&deep, &deep, &[], |_| {}), "replace c, replace b, replace a");
    }

    #[test]
    fn what_is_new_starts_in_its_place_and_what_is_gone_ends_last_children_first() {
        let new = ["gate", "hub > gate", "net:10001 > hub"];
        assert_eq!(plan(&OLD, &new, &[], |_| {}), "replace gate, start hub, replace net, remove game");
        assert_eq!(plan(&OLD, &["lone"], &[], |_| {}), "start lone, remove net, remove game, remove gate");
    }

    #[test]
    fn nodes_of_one_process_stand_together_parents_first() {
        let mut new = cluster(&["gate", "net:10001 > gate", "hub > gate", "game > hub", "hall > gate"]);
        for node in new.nodes.iter_mut().filter(|node| ["gate", "game"].contains(&node.name.as_str())) {
            node.process = Some(name("world"));
        }
        let present = |node| Present { node, ours: true, theirs: false, stopped: false };
        let steps = reload(&new.nodes.iter().map(present).collect::<Vec<_>>(), &new, &[]);
        let names: Vec<&str> = steps.iter().map(|(node, _)| node.as_str()).collect();
        assert_eq!(names, ["gate", "game", "net", "hub", "hall"]);
    }

    #[test]
    fn what_an_operator_stopped_or_somebody_else_runs_is_only_noted() {
        let stopped = |present: &mut Present<'_>| present.stopped = present.node.name == *"game";
        assert_eq!(plan(&OLD, &OLD, &[], stopped), "replace gate, replace net, note game");
        let theirs = |present: &mut Present<'_>| {
            present.theirs = present.node.name == *"game";
            present.ours = !present.theirs;
        };
        assert_eq!(plan(&OLD, &OLD, &["game"], theirs), "replace gate, replace net, note game");
    }

    #[test]
    fn a_node_that_moves_to_another_host_leaves_and_one_that_comes_is_started() {
        assert_eq!(plan(&OLD, &OLD, &["game"], |_| {}), "replace gate, replace net, leave game");
        let far = |present: &mut Present<'_>| present.ours = present.node.name != *"game";
        assert_eq!(plan(&OLD, &OLD, &["game"], far), "replace gate, replace net, note game");
        assert_eq!(plan(&OLD, &OLD, &[], far), "replace gate, replace net, start game");
    }
}
