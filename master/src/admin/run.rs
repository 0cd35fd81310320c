//! The commands of the app: which there are, and a run of one on a node, on a kind of nodes or on all.

use std::fmt::Write;
use std::time::Duration;

use ffproto::question::Question;
use rocket::http::Status;
use rocket::{Data, Route, get, post, routes};
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::Site;
use super::guard::{May, Operator, Reader};
use super::page::{escape, page};
use super::routes::{Answered, Reply};
use super::sessions::{read, silent_nodes};
use crate::asker::ANSWER_MAX;
use crate::inquiry::run::{CommandList, RunResults, commands, results};
use crate::inquiry::{Target, Which};

/// The time that a command has when nobody says how much, in milliseconds.
const WITHIN_MS: u64 = 5_000;
/// The longest time that a command may have, in milliseconds.
const WITHIN_MS_MAX: u64 = 60_000;

/// Everything that is mounted.
pub(super) fn all() -> Vec<Route> {
    routes![list, run]
}

/// The commands that there are, and which nodes have them.
#[get("/run")]
async fn list(reader: May<Reader<'_>>) -> Answered {
    let site = reader?.0;
    let list = commands(site.inquire(&Target::All, Which::Serving, Question::Commands, ANSWER_MAX).await?);
    let html = list_page(&list);
    Ok(Reply::with(Status::Ok, &list, html))
}

/// Runs a command. The node keeps the deadline itself; one that says nothing until a little later hangs.
#[post("/run/<name>?<on>&<within_ms>", data = "<arguments>")]
async fn run(
    operator: May<Operator<'_>>,
    name: &str,
    on: Option<&str>,
    within_ms: Option<&str>,
    arguments: Data<'_>,
) -> Answered {
    let (operator, begun) = (operator?, Instant::now());
    let reply = operator.site.run(name, on.unwrap_or("all"), within_ms, arguments).await;
    Ok(operator.audited(begun, reply))
}

impl Site {
    async fn run(&self, name: &str, on: &str, within_ms: Option<&str>, arguments: Data<'_>) -> Reply {
        let bad = |text: &str| Reply::error(Status::BadRequest, text);
        let time_ms = within_ms.map_or(Ok(WITHIN_MS), str::parse).ok();
        let Some(time_ms) = time_ms.filter(|time_ms| (1..=WITHIN_MS_MAX).contains(time_ms)) else {
            return bad(&format!("within_ms: 1 to {WITHIN_MS_MAX}"));
        };
        let arguments = match read(arguments).await {
            Ok(arguments) => arguments,
            Err(refused) => return refused,
        };
        if !arguments.is_empty()
            && let Err(why) = serde_json::from_slice::<IgnoredAny>(&arguments)
        {
            return bad(&format!("the arguments are not JSON: {why}"));
        }
        let question = Question::Run { name: name.to_owned(), arguments, time_ms };
        let (target, within) = (Target::of(on), Duration::from_millis(time_ms) + ANSWER_MAX);
        let gathered = match self.inquire(&target, Which::Serving, question, within).await {
            Ok(gathered) => gathered,
            Err(refused) => return refused,
        };
        match results(gathered) {
            Some(results) => {
                let status = if results.ok { Status::Ok } else { Status::InternalServerError };
                let html = results_page(name, &results);
                let failed = results.results.iter().filter(|result| !result.ok).count();
                let ran = format!("ran on {on}: {} results, {failed} of them errors", results.results.len());
                Reply::with(status, &results, html).saying(ran)
            }
            None => {
                let text = format!("no app of those nodes has a command `{name}`; `/run` lists them");
                Reply::error(Status::NotFound, &text)
            }
        }
    }
}

fn list_page(list: &CommandList) -> String {
    let mut body = String::from("<p><a href=/>all nodes</a></p>");
    body.push_str(&silent_nodes(&list.nodes));
    body.push_str("<table><tr><th>command<th>arguments<th>what it does<th>nodes");
    for command in &list.commands {
        let nodes: Vec<&str> = command.nodes.iter().map(|node| node.as_str()).collect();
        let _ = write!(
            body,
            "\n<tr><td>{}<td>{}<td>{}<td>{}",
            escape(&command.name),
            escape(&command.arguments.join(", ")),
            escape(&command.help),
            nodes.join(", ")
        );
    }
    page("commands of the app", None, &(body + "</table>"))
}

fn results_page(name: &str, results: &RunResults) -> String {
    let mut body = String::from("<table>");
    for result in &results.results {
        let class = if result.ok { "ready" } else { "bad" };
        let shown = match (&result.result, &result.error) {
            (_, Some(error)) => error.clone(),
            (Some(value), None) => serde_json::to_string_pretty(value).unwrap_or_default(),
            (None, None) => String::new(),
        };
        let _ = write!(body, "\n<tr><td>{}<td class={class}><pre>{}</pre>", result.node, escape(&shown));
    }
    body.push_str("</table><p><a href=/run>all commands</a></p>");
    page(name, None, &body)
}
