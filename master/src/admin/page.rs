//! The pages: plain HTML without scripts, each complete in itself.

use std::fmt::Write;

use crate::audit::Entry;
use crate::supervisor::machine::{ClusterView, CommandView, NodeState, NodeView, Outcome};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .7rem;border-bottom:1px solid \
#8884;vertical-align:top}form{display:inline}button{font:inherit;padding:.1rem .6rem;margin:0 .2rem .2rem 0}\
pre{background:#8881;padding:.7rem;overflow-x:auto;font-size:13px}.ready{color:#178a3a}.stopped{color:#888}\
.crash_loop,.failed,.hanging,.not_touched,.bad{color:#c22}.backoff,.starting,.stopping,.waiting,.absent,.adopting,.preparing,.handing_over,.proving{color:#b26a00}\
:root{color-scheme:light dark}small{color:#888}";

/// Lines that are shown of a node in trouble.
const LINES_SHOWN: usize = 10;

pub(super) fn page(title: &str, refresh: Option<&str>, body: &str) -> String {
    let refresh =
        refresh.map_or_else(String::new, |to| format!("<meta http-equiv=refresh content=\"{to}\">"));
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         {refresh}<title>{0}</title><style>{STYLE}</style><h1>{0}</h1>\n{body}\n</html>\n",
        escape(title)
    )
}

/// Text as it may stand in HTML, in attributes too.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && c != '\n' && c != '\t' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

pub(super) fn button(action: &str, text: &str) -> String {
    format!("<form method=post action=\"{}\"><button>{text}</button></form>", escape(action))
}

/// All nodes and all commands.
pub(super) fn index(view: &ClusterView, lines: impl Fn(&str) -> Vec<String>) -> String {
    let mut body = String::new();
    let state = view.unhealthy().unwrap_or_else(|| "up, every node is ready".into());
    let doing = view.doing.as_ref().map_or_else(String::new, |doing| format!(" — {}", escape(doing)));
    let _ = write!(
        body,
        "<p>{}{doing}</p>\n<p>{} {} ",
        escape(&state),
        button("/reload", "reload all"),
        button("/stop", "stop all")
    );
    body.push_str(
        "<small>also: <a href=/status>/status</a> <a href=/healthz>/healthz</a> <a href=/events>/events</a> <a href=/sessions>/sessions</a> <a href=/run>/run</a> <a href=/audit>/audit</a></small></p>\n<table><tr>",
    );
    for head in [
        "node",
        "kind",
        "state",
        "pid",
        "since (UTC)",
        "restarts",
        "sessions",
        "parents",
        "listens",
        "last exit",
        "",
    ] {
        let _ = write!(body, "<th>{head}");
    }
    for node in &view.nodes {
        body.push_str("\n<tr>");
        row(&mut body, node);
    }
    body.push_str("\n</table>");
    if let Some(command) = &view.command {
        steps(&mut body, command);
    }
    for node in view
        .nodes
        .iter()
        .filter(|node| matches!(node.state, NodeState::CrashLoop | NodeState::Backoff | NodeState::Failed))
    {
        let lines = lines(node.name.as_str());
        let from = lines.len().saturating_sub(LINES_SHOWN);
        let last = escape(&lines.get(from..).unwrap_or_default().join("\n"));
        let _ = write!(body, "\n<h2 class={0}>{1}: {0}</h2><pre>{last}</pre>", node.state, node.name);
    }
    page(&format!("cluster {}", view.cluster), Some("3"), &body)
}

/// The command that runs, or the last one, node by node.
fn steps(body: &mut String, command: &CommandView) {
    let ended = command.ended.as_ref().map_or_else(|| "runs".into(), |at| format!("ended {at}"));
    let _ = write!(body, "\n<h2>{}, {}: {ended}</h2><table>", escape(&command.what), command.since);
    for step in &command.steps {
        let stage = serde_json::to_value(step.stage).unwrap_or_default();
        let stage = stage.as_str().unwrap_or_default();
        let outcome = escape(step.outcome.as_deref().unwrap_or_default());
        let _ = write!(body, "<tr><td>{}<td class={stage}>{stage}<td>{}<td>{outcome}", step.node, step.since);
    }
    body.push_str("</table>");
}

fn row(body: &mut String, node: &NodeView) {
    let name = node.name.as_str();
    let pid = node.pid.map_or_else(|| "–".into(), |pid| pid.to_string());
    // Names have no character that HTML knows.
    let pid = node.process.as_ref().map_or_else(|| pid.clone(), |process| format!("{pid} ({process})"));
    let parents = node.parents.iter().map(|p| format!("{} {}", p.name, if p.up { "up" } else { "down" }));
    let ports = [("net", node.listens.net), ("root", node.listens.root), ("web", node.listens.web)];
    let listens = ports.iter().filter_map(|(what, at)| at.map(|at| format!("{what} {at}")));
    let join = |texts: Vec<String>| escape(&texts.join("\n")).replace('\n', "<br>");
    let _ = write!(
        body,
        "<td><a href=\"/nodes/{name}\">{name}</a><td>{}<td class={state}>{state}<td>{pid}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>",
        escape(&node.kind),
        escape(&node.since),
        node.restarts,
        node.sessions,
        join(parents.collect()),
        join(listens.collect()),
        escape(&last_exit(node)),
        state = node.state,
    );
    for command in ["start", "stop", "restart", "reload"] {
        body.push_str(&button(&format!("/nodes/{name}/{command}"), command));
    }
}

/// How the last process has ended, and why, where that is known: a panic with its place in the author's source, for instance.
fn last_exit(node: &NodeView) -> String {
    let Some(exit) = &node.last_exit else { return "–".into() };
    let crash = node.crash.as_ref().filter(|crash| crash.exit == *exit);
    let why = crash.and_then(|crash| crash.reason.as_ref());
    why.map_or_else(|| exit.clone(), |why| format!("{exit}: {why}"))
}

/// One node and its last lines.
pub(super) fn node(node: &NodeView, lines: &[String]) -> String {
    let mut body = String::from("<p><a href=/>all nodes</a></p><table><tr>");
    row(&mut body, node);
    body.push_str("</table>");
    if let Some(reason) = &node.reason {
        let _ = write!(body, "<p class=bad>{}</p>", escape(reason));
    }
    let _ = write!(body, "<pre>{}</pre>", escape(&lines.join("\n")));
    page(&format!("node {}", node.name), Some("3"), &body)
}

/// The page with what became of a command.
pub(super) fn outcomes(outcomes: &[Outcome]) -> String {
    let mut body = String::from("<table>");
    for Outcome { node, ok, outcome } in outcomes {
        let class = if *ok { "ready" } else { "bad" };
        let _ = write!(body, "<tr><td>{node}<td class={class}>{}", escape(outcome));
    }
    body.push_str("</table><p><a href=/>all nodes</a></p>");
    page("done", Some("4;url=/"), &body)
}

/// Who has commanded what, and who was refused.
pub(super) fn audit(entries: &[Entry]) -> String {
    let mut body = String::from("<p><a href=/>all nodes</a></p><table><tr>");
    for head in ["at (UTC)", "who", "role", "from", "method", "what", "status", "result", "ms"] {
        let _ = write!(body, "<th>{head}");
    }
    for entry in entries {
        let refused = if entry.who == "-" || (400..500).contains(&entry.status) { " class=bad" } else { "" };
        let more = if entry.more > 0 { format!(" ({} more)", entry.more) } else { String::new() };
        let _ = write!(
            body,
            "\n<tr{refused}><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}{more}<td>{}",
            escape(&entry.at),
            escape(&entry.who),
            escape(entry.role.as_deref().unwrap_or_default()),
            escape(&entry.from),
            escape(&entry.method),
            escape(&entry.what),
            entry.status,
            escape(&entry.result),
            entry.ms,
        );
    }
    body.push_str("\n</table>");
    page("audit", None, &body)
}

/// Why nothing was done.
pub(super) fn refusal(text: &str) -> String {
    let body = format!("<pre class=bad>{}</pre><p><a href=/>all nodes</a></p>", escape(text));
    page("refused", None, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_prints_cannot_become_html() {
        assert_eq!(escape("<b onclick='x'>&\"\x1b["), "&lt;b onclick=&#39;x&#39;&gt;&amp;&quot;\u{fffd}[");
        let shown = refusal("<script>alert(1)</script>");
        assert!(!shown.contains("<script>"), "{shown}");
    }
}
