//! `--check`: every fault of a config and of the apps that it names, or a picture of what a sound one would start.

use std::collections::HashMap;
use std::fmt::Write;

use ffconfig::{AppFinding, AppFindingPlace, Cluster, Finding, LoadError, Loaded, Node};
use ffproto::NodeName;

use crate::place;
use crate::supervisor::order;
use crate::supervisor::program::{AppsError, Program};

/// What a config would start whose apps fit, and what is odd about it. What could not be asked about the apps is odd.
///
/// # Errors
/// The apps that do not fit their nodes, as faults of the config.
pub fn describe(
    loaded: &Loaded,
    program: &Program,
    apps: &Result<Vec<AppFinding>, AppsError>,
) -> Result<String, LoadError> {
    let mut odd: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    odd.extend(isolated(loaded));
    odd.extend(fitting(loaded, apps)?);
    let odd: String = odd.iter().map(|odd| format!("warning: {odd}\n")).collect();
    Ok(odd + &picture(&loaded.cluster) + &format!("nodes run {program}\n"))
}

/// What the program finds odd about its apps and their nodes. What could not be asked is odd.
///
/// # Errors
/// The apps that do not fit their nodes, as faults of the config.
pub(crate) fn fitting(
    loaded: &Loaded,
    apps: &Result<Vec<AppFinding>, AppsError>,
) -> Result<Vec<String>, LoadError> {
    let (mut faults, mut odd) = (Vec::new(), Vec::new());
    match apps {
        Ok(findings) => {
            for app in findings {
                match placed(loaded, app) {
                    Some(finding) if app.fault => faults.push(finding),
                    Some(finding) => odd.push(finding.to_string()),
                    None => odd.push(format!("servers.{}: {}", app.key, app.found)),
                }
            }
        }
        Err(why) => odd.push(format!("whether the apps fit their nodes is not known: {why}")),
    }
    if faults.is_empty() { Ok(odd) } else { Err(LoadError::Faults(faults)) }
}

/// What the program has found, as a finding of the config.
fn placed(loaded: &Loaded, app: &AppFinding) -> Option<Finding> {
    let finding = loaded.at_app(&app.key, app.found.clone())?;
    Some(match app.at.clone() {
        Some(AppFindingPlace { line, column, path }) => Finding { line, column, path, ..finding },
        None => finding,
    })
}

/// Whom nobody can reach: a node among others without links, clients and web requests was rather meant to be somebody's
/// child.
fn isolated(loaded: &Loaded) -> Vec<String> {
    let nodes = &loaded.cluster.nodes;
    let is_parent =
        |node: &Node| nodes.iter().any(|n| n.parents.iter().any(|parent| parent.name == node.name));
    let alone = |node: &&Node| {
        let reached = node.netport.or(node.webport).is_some();
        nodes.len() > 1 && !reached && node.parents.is_empty() && !is_parent(node)
    };
    let say = |node: &Node| {
        let why = match node.rootport {
            Some(_) => "no node names it in a `remoteport`, and it has none itself",
            None => "it has no `remoteport`, no `netport` and no `webport`",
        };
        let (path, message) = (format!("servers.{}", node.name), format!("nobody can reach it: {why}"));
        match loaded.at_app(&node.key, message.clone()) {
            Some(finding) => Finding { path, ..finding }.to_string(),
            None => format!("{path}: {message}"),
        }
    };
    nodes.iter().filter(alone).map(say).collect()
}

/// All faults in one line, the last one of a check: a script or a log that shows only that shows them all.
pub fn in_one_line(faults: &[Finding]) -> String {
    let brief =
        |fault: &Finding| format!("{}:{} {}: {}", fault.line, fault.column, fault.path, fault.message);
    let all: Vec<String> = faults.iter().map(brief).collect();
    match all.len() {
        1 => format!("1 fault: {}", all.join("; ")),
        n => format!("{n} faults: {}", all.join("; ")),
    }
}

/// The nodes in the order of their start, children indented below their first parent.
fn picture(cluster: &Cluster) -> String {
    let master = &cluster.master;
    let mut text = format!(
        "cluster `{}`: control at {}, administration at http://{}\n",
        cluster.name, master.rootport, master.webport
    );
    let elsewhere = place::elsewhere(cluster);
    let together =
        |node: &Node| cluster.nodes.iter().filter(|other| node.shares_process_with(other)).count() > 1;
    let mut depths: HashMap<NodeName, usize> = HashMap::new();
    let order = order::start_order(&cluster.nodes);
    for node in order.iter().filter_map(|name| cluster.node(name.as_str())) {
        let above = node.parents.iter().filter_map(|parent| depths.get(&parent.name)).max();
        depths.insert(node.name.clone(), above.map_or(0, |depth| depth + 1));
    }
    let deepest = depths.values().max().copied().unwrap_or(0);
    let width = cluster.nodes.iter().map(|node| node.name.as_str().len()).max().unwrap_or(0) + 2 * deepest;
    for node in order.iter().filter_map(|name| cluster.node(name.as_str())) {
        let indent = 2 * depths.get(&node.name).copied().unwrap_or(0);
        let _ = write!(text, "  {:indent$}{:<rest$}", "", node.name, rest = width - indent);
        describe_node(&mut text, node, elsewhere.contains(&node.name), together(node));
    }
    text
}

fn describe_node(text: &mut String, node: &Node, elsewhere: bool, together: bool) {
    let _ = write!(text, "  app {}", node.app);
    if node.kind != node.app {
        let _ = write!(text, ", kind {}", node.kind);
    }
    for (what, at) in [("root", node.rootport), ("net", node.netport), ("web", node.webport)] {
        at.map(|at| write!(text, ", {what} {at}"));
    }
    let parents: Vec<&str> = node.parents.iter().map(|parent| parent.name.as_str()).collect();
    if !parents.is_empty() {
        let _ = write!(text, ", child of {}", parents.join(", "));
    }
    if let (true, Some(process)) = (together, &node.process) {
        let _ = write!(text, ", in process {process}");
    }
    if elsewhere {
        let host = node.host.as_deref().unwrap_or_default();
        let _ = write!(text, "; on {host}: `master single {} CONFIG` there", node.name);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{changed, cluster};

    #[test]
    fn the_picture_shows_what_would_be_started_where() {
        let demo = cluster(&["net:10001 > gate", "gate", "far > gate"]);
        let demo = changed(&demo, "far", |node| node.host = Some("192.0.2.1".into()));
        assert_eq!(
            picture(&demo),
            "cluster `cluster`: control at 127.0.0.1:9999, administration at http://127.0.0.1:9998\n  \
             gate    app x, root 127.0.0.1:20001\n    \
             net   app x, net 127.0.0.1:10001, child of gate\n    \
             far   app x, child of gate; on 192.0.2.1: `master single far CONFIG` there\n"
        );
    }

    #[test]
    fn the_picture_shows_which_nodes_share_a_process() {
        let into = |node: &mut Node| node.process = Some("world".try_into().unwrap());
        let demo = cluster(&["gate", "net:10001 > gate", "game > gate"]);
        let alone = changed(&demo, "gate", into);
        assert!(!picture(&alone).contains("world"), "a process of one node is as any");
        let world = changed(&alone, "game", into);
        let lines: Vec<String> = picture(&world).lines().map(str::to_owned).collect();
        assert_eq!(lines[1], "  gate    app x, root 127.0.0.1:20000, in process world");
        assert_eq!(lines[2], "    net   app x, net 127.0.0.1:10001, child of gate");
        assert_eq!(lines[3], "    game  app x, child of gate, in process world");
    }
}
