//! Commands of the app over nodes: which there are, and the results of a run.

use std::collections::BTreeMap;

use ffproto::NodeName;
use ffproto::question::Answer;
use serde::Serialize;
use serde_json::Value;

use super::{Gathered, NodeReport};

/// The commands of the apps of all nodes, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct CommandList {
    pub(crate) commands: Vec<CommandInList>,
    /// Every node that was asked.
    pub(crate) nodes: Vec<NodeReport>,
}

/// A command of an app, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct CommandInList {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) arguments: Vec<String>,
    /// The nodes that have it.
    pub(crate) nodes: Vec<NodeName>,
}

/// The commands of all nodes by name; those of one name and different arguments are several.
pub(crate) fn commands(gathered: Gathered) -> CommandList {
    let mut commands: BTreeMap<_, Vec<NodeName>> = BTreeMap::new();
    for (node, answer) in gathered.answers {
        let Answer::Commands(of_node) = answer else { continue };
        for command in of_node {
            commands.entry(command).or_default().push(node.clone());
        }
    }
    let commands = commands.into_iter().map(|(command, nodes)| CommandInList {
        name: command.name,
        help: command.help,
        arguments: command.arguments,
        nodes,
    });
    CommandList { commands: commands.collect(), nodes: gathered.nodes }
}

/// The results of a command, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct RunResults {
    /// Whether it has run on all nodes that were meant and have it.
    pub(crate) ok: bool,
    /// By node, in the order of the config.
    pub(crate) results: Vec<RunResult>,
    /// The nodes whose app has no such command.
    pub(crate) without: Vec<NodeName>,
}

/// The result of a command on one node, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct RunResult {
    pub(crate) node: NodeName,
    pub(crate) ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// The results of a run; `None` when all nodes have answered that they have no such command.
pub(crate) fn results(gathered: Gathered) -> Option<RunResults> {
    let mut answers: BTreeMap<_, _> = gathered.answers.into_iter().collect();
    let (mut results, mut without) = (Vec::new(), Vec::new());
    for NodeReport { node, error, .. } in gathered.nodes {
        let failed = |why: String| (None, Some(why));
        let (result, error) = match (error, answers.remove(&node)) {
            (None, Some(Answer::NoCommand)) => {
                without.push(node);
                continue;
            }
            (None, Some(Answer::Ran(json))) => match serde_json::from_str(&json) {
                Ok(value) => (Some(value), None),
                Err(why) => failed(format!("the result is not JSON: {why}")),
            },
            (Some(why), _) => failed(why),
            (None, _) => failed("no result".into()),
        };
        results.push(RunResult { node, ok: error.is_none(), result, error });
    }
    let ok = results.iter().all(|result| result.ok);
    (!results.is_empty()).then_some(RunResults { ok, results, without })
}

#[cfg(test)]
mod tests {
    use ffproto::question::AppCommand;
    use serde_json::json;

    use super::*;
    use crate::fixture::name;

    fn report(node: &str, error: Option<&str>) -> NodeReport {
        NodeReport { node: name(node), ok: error.is_none(), error: error.map(str::to_owned) }
    }

    #[test]
    fn results_are_gathered_and_who_hangs_and_who_lacks_the_command_is_named() {
        let answers = vec![
            (name("gate"), Answer::NoCommand),
            (name("game1"), Answer::Ran("{\"n\":1}".into())),
            (name("game2"), Answer::Ran("null".into())),
        ];
        let nodes = vec![
            report("gate", None),
            report("game1", None),
            report("game2", None),
            report("game3", Some("no answer within 500 ms")),
        ];
        let results = results(Gathered { answers, nodes }).unwrap();
        assert_eq!(
            serde_json::to_value(&results).unwrap(),
            json!({ "ok": false, "without": ["gate"], "results": [
                { "node": "game1", "ok": true, "result": {"n": 1} },
                { "node": "game2", "ok": true, "result": null },
                { "node": "game3", "ok": false, "error": "no answer within 500 ms" },
            ] })
        );
    }

    #[test]
    fn a_command_that_nobody_has_is_none() {
        let gathered = |error| Gathered {
            answers: vec![(name("gate"), Answer::NoCommand)],
            nodes: vec![report("gate", None), report("net", error)],
        };
        assert!(results(gathered(Some("late"))).is_some(), "one that hangs may have it");
        let all = Gathered { nodes: vec![report("gate", None)], ..gathered(None) };
        assert!(results(all).is_none());
    }

    #[test]
    fn commands_are_listed_once_with_the_nodes_that_have_them() {
        let command = |name: &str, arguments: &[&str]| AppCommand {
            name: name.into(),
            help: String::new(),
            arguments: arguments.iter().map(|one| (*one).to_owned()).collect(),
        };
        let answers = vec![
            (name("a"), Answer::Commands(vec![command("who", &[]), command("grant", &["user"])])),
            (name("b"), Answer::Commands(vec![command("who", &[]), command("grant", &["user", "gold"])])),
        ];
        let list = commands(Gathered { answers, nodes: Vec::new() });
        let shown = |one: &CommandInList| {
            format!("{}({}) at {:?}", one.name, one.arguments.join(","), one.nodes.len())
        };
        let shown: Vec<String> = list.commands.iter().map(shown).collect();
        assert_eq!(shown, ["grant(user) at 1", "grant(user,gold) at 1", "who() at 2"]);
    }
}
