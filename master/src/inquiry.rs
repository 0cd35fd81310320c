//! Inquiries of operators: which nodes are asked, and what of each of them is known afterwards.

pub(crate) mod run;
pub(crate) mod sessions;

use std::collections::BTreeMap;
use std::time::Duration;

use ffproto::NodeName;
use ffproto::question::{Answer, Question};
use serde::Serialize;

use crate::asker::{Asker, Asks, Process, Silence, Told};
use crate::supervisor::machine::{ClusterView, NodeState, NodeView};

/// The nodes that an inquiry is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// All.
    All,
    /// Those that listen for clients.
    Nets,
    /// One.
    Node(String),
    /// Those of a kind.
    Kind(String),
}

impl Target {
    /// Of `all`, `kind:K`, `node:N` or `N`.
    pub(crate) fn of(text: &str) -> Self {
        match text.split_once(':') {
            Some(("kind", kind)) => Self::Kind(kind.to_owned()),
            Some(("node", node)) => Self::Node(node.to_owned()),
            _ if text == "all" => Self::All,
            _ => Self::Node(text.to_owned()),
        }
    }

    fn has(&self, node: &NodeView) -> bool {
        match self {
            Self::All => true,
            Self::Nets => node.listens.net.is_some(),
            Self::Node(name) => node.name == *name.as_str(),
            Self::Kind(kind) => node.kind == *kind,
        }
    }

    /// The nodes that are meant; `None` when there is none. One that is down on purpose is meant only by its name.
    pub(crate) fn nodes<'a>(&self, view: &'a ClusterView) -> Option<Vec<&'a NodeView>> {
        let by_name = matches!(self, Self::Node(_));
        let meant = view.nodes.iter().filter(|node| self.has(node));
        let mut meant: Vec<_> = meant.collect();
        if meant.is_empty() && *self != Self::Nets {
            return None;
        }
        meant.retain(|node| by_name || node.state != NodeState::Stopped);
        Some(meant)
    }
}

/// Which processes of a node are asked, while one replaces the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Both.
    Every,
    /// The one that serves.
    Serving,
}

/// What is known of a node after an inquiry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NodeReport {
    /// The node.
    pub(crate) node: NodeName,
    /// Whether it has answered, with all its processes.
    pub(crate) ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// What an inquiry has brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Gathered {
    /// The answers of processes, in the order of the nodes.
    pub(crate) answers: Vec<(NodeName, Answer)>,
    /// Every node that was meant, in the order of the config.
    pub(crate) nodes: Vec<NodeReport>,
}

impl Gathered {
    /// Whether every node has answered.
    pub(crate) fn is_whole(&self) -> bool {
        self.nodes.iter().all(|node| node.ok)
    }

    /// The nodes that have not, for a sentence: ` (net2: no answer within 250 ms)`.
    pub(crate) fn silent(&self) -> String {
        let silent =
            self.nodes.iter().filter_map(|node| Some(format!("{}: {}", node.node, node.error.as_ref()?)));
        let silent: Vec<String> = silent.collect();
        if silent.is_empty() { String::new() } else { format!(" ({})", silent.join(", ")) }
    }
}

/// Asks nodes, and waits until all have answered or the time is over.
pub(crate) async fn inquire(
    asker: &Asker,
    nodes: &[&NodeView],
    which: Which,
    question: Question,
    within: Duration,
) -> Gathered {
    let linked = asker.all_linked();
    let meant = |(name, incarnation): &Process| {
        let node = nodes.iter().find(|node| node.name == *name);
        node.is_some_and(|node| which == Which::Every || node.incarnation == Some(*incarnation))
    };
    let mut answered = Vec::new();
    let each = |process, told| {
        if let Told::Answer(answer) = told {
            answered.push((process, answer));
        }
    };
    let silent = asker.ask(&Asks::Question(question), meant, within, each).await;
    gathered(nodes, answered, &silent, |node| {
        linked.iter().any(|process| process.0 == node.name && meant(process))
    })
}

/// What is known of each node.
fn gathered(
    nodes: &[&NodeView],
    mut answered: Vec<(Process, Answer)>,
    silent: &[(Process, Silence)],
    is_linked: impl Fn(&NodeView) -> bool,
) -> Gathered {
    // The older process first: of two that say the same thing the successor has the last word.
    answered.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut of: BTreeMap<NodeName, Vec<Answer>> = BTreeMap::new();
    for ((node, _), answer) in answered {
        of.entry(node).or_default().push(answer);
    }
    let mut gathered = Gathered::default();
    for node in nodes {
        let answers = of.remove(&node.name).unwrap_or_default();
        let (failed, told): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| matches!(answer, Answer::Failed(_)));
        let silence =
            silent.iter().find(|((name, _), _)| *name == node.name).map(|(_, silence)| silence.to_string());
        // A successor that only prepares fails beside a process that answers.
        let failure = failed.into_iter().find_map(|answer| match answer {
            Answer::Failed(why) if told.is_empty() => Some(why),
            _ => None,
        });
        let unlinked = || (!is_linked(node)).then(|| format!("not connected to the master: {}", node.state));
        let error = silence.or(failure).or_else(unlinked);
        gathered.nodes.push(NodeReport { node: node.name.clone(), ok: error.is_none(), error });
        gathered.answers.extend(told.into_iter().map(|answer| (node.name.clone(), answer)));
    }
    gathered
}

#[cfg(test)]
mod tests {
    use ffproto::Incarnation;

    use super::*;
    use crate::asker::tests::answering;
    use crate::fixture::{cluster, name};
    use crate::supervisor::machine::Machine;
    use crate::supervisor::moment;

    /// The view of gate, net and game1, of which each has that state.
    pub(crate) fn view(states: [NodeState; 3]) -> ClusterView {
        let cluster = cluster(&["gate", "net:10001 > gate", "game1 > gate"]);
        let mut view = Machine::new(&cluster, &[], moment(&ffambient::Ambient::system())).view();
        for (node, state) in view.nodes.iter_mut().zip(states) {
            (node.state, node.incarnation) = (state, Some(Incarnation(1)));
        }
        view
    }

    fn reports(gathered: &Gathered) -> Vec<(String, String)> {
        let report = |node: &NodeReport| (node.node.to_string(), node.error.clone().unwrap_or_default());
        gathered.nodes.iter().map(report).collect()
    }

    #[test]
    fn a_target_is_all_a_kind_or_a_node_and_one_that_names_nobody_is_none() {
        let mut view = view([NodeState::Ready, NodeState::Stopped, NodeState::Ready]);
        view.nodes[2].kind = "game".into();
        view.nodes[1].listens.net = "127.0.0.1:10001".parse().ok();
        let names = |text: &str| {
            let nodes = Target::of(text).nodes(&view)?;
            Some(nodes.iter().map(|node| node.name.to_string()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names("all").as_deref(), Some("gate game1"), "one that is down on purpose is not meant");
        assert_eq!(names("kind:game").as_deref(), Some("game1"));
        assert_eq!((names("net").as_deref(), names("node:net").as_deref()), (Some("net"), Some("net")));
        assert_eq!((names("nobody"), names("kind:nobody"), names("node:all")), (None, None, None));
        assert_eq!(Target::Nets.nodes(&view).map(|nodes| nodes.len()), Some(0));
        view.nodes[1].state = NodeState::Hanging;
        assert_eq!(Target::Nets.nodes(&view).map(|nodes| nodes.len()), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn every_node_that_is_meant_is_named_with_what_keeps_it_from_answering() {
        let asker = Asker::default();
        answering(&asker, (name("gate"), Incarnation(1)), |_| Some(Answer::NoCommand));
        answering(&asker, (name("game1"), Incarnation(1)), |_| None);
        let view = view([NodeState::Ready, NodeState::Backoff, NodeState::Hanging]);
        let nodes = Target::All.nodes(&view).unwrap();
        let within = Duration::from_millis(300);
        let gathered = inquire(&asker, &nodes, Which::Every, Question::Commands, within).await;
        assert_eq!(gathered.answers, [(name("gate"), Answer::NoCommand)]);
        let said = |node: &str, error: &str| (node.to_owned(), error.to_owned());
        assert_eq!(
            reports(&gathered),
            [
                said("gate", ""),
                said("net", "not connected to the master: backoff"),
                said("game1", "no answer within 300 ms")
            ]
        );
        assert!(!gathered.is_whole());
        let silent = " (net: not connected to the master: backoff, game1: no answer within 300 ms)";
        assert_eq!(gathered.silent(), silent);
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_node_is_replaced_both_of_its_processes_are_asked_or_only_the_one_that_serves() {
        let asker = Asker::default();
        answering(&asker, (name("gate"), Incarnation(1)), |_| Some(Answer::Ran("1".into())));
        answering(&asker, (name("gate"), Incarnation(2)), |_| {
            Some(Answer::Failed("the node is starting".into()))
        });
        let view = view([NodeState::Ready; 3]);
        let nodes = Target::Node("gate".into()).nodes(&view).unwrap();
        for which in [Which::Every, Which::Serving] {
            let gathered = inquire(&asker, &nodes, which, Question::Commands, Duration::from_secs(1)).await;
            assert_eq!(gathered.answers, [(name("gate"), Answer::Ran("1".into()))], "{which:?}");
            assert!(gathered.is_whole(), "{which:?}");
        }
        asker.unlinked(&(name("gate"), Incarnation(1)), 1);
        let asked = |which| inquire(&asker, &nodes, which, Question::Commands, Duration::from_secs(1));
        assert_eq!(asked(Which::Every).await.nodes[0].error.as_deref(), Some("the node is starting"));
        let error = "not connected to the master: ready";
        assert_eq!(asked(Which::Serving).await.nodes[0].error.as_deref(), Some(error));
    }
}
