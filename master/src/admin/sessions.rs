//! The pages and commands about sessions: who is connected, one session's story, close, kick, send a notice.

use std::fmt::Write;
use std::time::Duration;

use ffproto::question::{Answer, BODY_BYTES_MAX, BadAddress, Question, ROWS_MAX, SessionFilter};
use ffproto::{CommandId, SessionId};
use rocket::data::ToByteUnit;
use rocket::form::{self, FromForm, Strict};
use rocket::http::Status;
use rocket::{Data, Route, get, post, routes};
use tokio::time::Instant;

use super::Site;
use super::guard::{May, Operator, Reader};
use super::page::{button, escape, page};
use super::routes::{Answered, Reply};
use crate::asker::ANSWER_MAX;
use crate::inquiry::sessions::{SessionInList, SessionPage, SessionsDone, Story, done, session_id, story};
use crate::inquiry::{self, Gathered, NodeReport, Target, Which, inquire};

/// The sessions of a page when nobody says how many.
const LIMIT: u32 = 100;
/// What clients are told when nobody says why they are closed.
const REASON: &str = "closed by an operator";
/// The longest reason, in bytes: it stands in an error that clients get.
const REASON_BYTES_MAX: usize = 512;

/// Everything that is mounted.
pub(super) fn all() -> Vec<Route> {
    routes![list, one, close, kick, notice, notice_to_many]
}

/// What may stand behind `?`, checked by [`Query::filter`] and the like. What is not known is refused: a filter with a slip of the
/// pen would mean everybody.
#[derive(Debug, Default, FromForm)]
struct Query<'r> {
    user: Option<&'r str>,
    address: Option<&'r str>,
    node: Option<&'r str>,
    command: Option<&'r str>,
    older_s: Option<&'r str>,
    after: Option<&'r str>,
    limit: Option<&'r str>,
}

/// The same of a notice, whose command is what is sent.
#[derive(Debug, Default, FromForm)]
struct NoticeQuery<'r> {
    command: Option<&'r str>,
    user: Option<&'r str>,
    address: Option<&'r str>,
    node: Option<&'r str>,
    older_s: Option<&'r str>,
    last_command: Option<&'r str>,
}

/// Of a form whose fields may be left empty.
fn given(field: Option<&str>) -> Option<&str> {
    field.filter(|text| !text.is_empty())
}

fn number<T: std::str::FromStr>(name: &str, field: Option<&str>) -> Result<Option<T>, String> {
    let read =
        |text: &str| text.parse().map_err(|_| format!("{name}: `{text}` is no number that may stand here"));
    given(field).map(read).transpose()
}

fn id(name: &str, text: &str) -> Result<SessionId, String> {
    session_id(text).ok_or_else(|| format!("{name}: `{text}` is no id of a session"))
}

impl Query<'_> {
    fn filter(&self) -> Result<SessionFilter, String> {
        let address = given(self.address).map(str::parse).transpose();
        let older_s: Option<u64> = number("older_s", self.older_s)?;
        Ok(SessionFilter {
            session: None,
            user: given(self.user).map(str::to_owned),
            address: address.map_err(|bad: BadAddress| bad.to_string())?,
            command: number("command", self.command)?.map(CommandId),
            older_ms: older_s.map(|older_s| older_s.saturating_mul(1000)),
        })
    }

    /// The question, and the rows of a page.
    fn question(&self) -> Result<(Question, u32), String> {
        let after = given(self.after).map(|text| id("after", text)).transpose()?;
        let limit: u32 = number("limit", self.limit)?.unwrap_or(LIMIT);
        if !(1..=ROWS_MAX).contains(&limit) {
            return Err(format!("limit: 1 to {ROWS_MAX}"));
        }
        Ok((Question::Sessions { filter: self.filter()?, after, rows_max: limit }, limit))
    }

    /// The nodes that are asked.
    fn target(&self, otherwise: Target) -> Target {
        given(self.node).map_or(otherwise, |node| Target::Node(node.to_owned()))
    }

    /// The address of the next page.
    fn next(&self, after: &str) -> String {
        let mut url = format!("/sessions?after={after}");
        let fields = [
            ("user", self.user),
            ("address", self.address),
            ("node", self.node),
            ("command", self.command),
            ("older_s", self.older_s),
            ("limit", self.limit),
        ];
        for (name, value) in fields {
            if let Some(value) = given(value) {
                let _ = write!(url, "&{name}={}", in_url(value));
            }
        }
        url
    }
}

/// A text as it may stand in a URL, between two separators.
fn in_url(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            let _ = write!(safe, "%{byte:02X}");
        }
    }
    safe
}

fn bad(text: impl AsRef<str>) -> Reply {
    Reply::error(Status::BadRequest, text.as_ref())
}

fn unknown(names: &str) -> Reply {
    bad(format!("a parameter that is not known here, or that is there twice: {names} are"))
}

impl Site {
    /// Asks the nodes that are meant; a refusal when there are none.
    pub(super) async fn inquire(
        &self,
        target: &Target,
        which: Which,
        question: Question,
        within: Duration,
    ) -> Result<Gathered, Reply> {
        let view = self.handle.view();
        let nodes = target.nodes(&view);
        let nodes = nodes.ok_or_else(|| {
            Reply::error(Status::NotFound, "there is no such node or kind; `/status` lists them")
        })?;
        Ok(inquire(self.handle.asker(), &nodes, which, question, within).await)
    }

    /// Does something to sessions, on the nodes that have any: what becomes of it, with the page that says so.
    async fn to_sessions(&self, target: &Target, question: Question, what: &str) -> Reply {
        let is_one = matches!(
            &question,
            Question::Close { filter, .. } | Question::Notice { filter, .. } if filter.session.is_some()
        );
        match self.inquire(target, Which::Every, question, ANSWER_MAX).await {
            Ok(gathered) if is_one && gathered.is_whole() && is_nobody(&gathered) => {
                Reply::error(Status::NotFound, "there is no such session; `/sessions` lists them")
            }
            Ok(gathered) => {
                let done = done(gathered);
                let status = if done.ok { Status::Ok } else { Status::InternalServerError };
                let html = done_page(&done, what);
                let result = match (done.ok, done.sessions) {
                    (true, 1) => format!("{what}: 1 session"),
                    (true, n) => format!("{what}: {n} sessions"),
                    (false, n) => format!("{what}: {n} sessions, and a node has not answered"),
                };
                Reply::with(status, &done, html).saying(result)
            }
            Err(refused) => refused,
        }
    }
}

fn is_nobody(gathered: &Gathered) -> bool {
    let nobody = Answer::Done { reached: 0, missed: 0 };
    gathered.answers.iter().all(|(_, answer)| *answer == nobody)
}

/// Who is connected: from every node, page by page.
#[get("/sessions?<query..>")]
async fn list(reader: May<Reader<'_>>, query: form::Result<'_, Strict<Query<'_>>>) -> Answered {
    let site = reader?.0;
    let Ok(query) = query else {
        return Err(unknown("user, address, node, command, older_s, after and limit"));
    };
    let (question, limit) = query.question().map_err(bad)?;
    let gathered = site.inquire(&query.target(Target::All), Which::Every, question, ANSWER_MAX).await?;
    let found = inquiry::sessions::page(gathered, limit as usize);
    let html = list_page(&found, &query);
    Ok(Reply::with(Status::Ok, &found, html))
}

/// The story of one session.
#[get("/sessions/<session>")]
async fn one(reader: May<Reader<'_>>, session: &str) -> Answered {
    let site = reader?.0;
    let session = id("session", session).map_err(bad)?;
    let question = Question::Session { session };
    let gathered = site.inquire(&Target::All, Which::Every, question, ANSWER_MAX).await?;
    let silent = gathered.silent();
    match story(gathered) {
        Some(story) => {
            let html = story_page(&session.to_string(), &story);
            Ok(Reply::with(Status::Ok, &story, html))
        }
        None => Err(Reply::error(
            Status::NotFound,
            &format!("no node knows that session{silent}; `/sessions` lists them"),
        )),
    }
}

fn reason_of(given_reason: Option<&str>) -> Result<String, Reply> {
    let reason = given(given_reason).unwrap_or(REASON);
    if reason.len() > REASON_BYTES_MAX {
        return Err(bad(format!("reason: at most {REASON_BYTES_MAX} bytes")));
    }
    Ok(reason.to_owned())
}

#[post("/sessions/<session>/close?<reason>")]
async fn close(operator: May<Operator<'_>>, session: &str, reason: Option<&str>) -> Answered {
    let (operator, begun) = (operator?, Instant::now());
    let closed = async |site: &Site| {
        let filter =
            SessionFilter { session: Some(id("session", session).map_err(bad)?), ..Default::default() };
        let close = Question::Close { filter, reason: reason_of(reason)? };
        Ok(site.to_sessions(&Target::Nets, close, "closed the session").await)
    };
    let answered = closed(operator.site).await;
    Ok(operator.audited(begun, answered.unwrap_or_else(|refused: Reply| refused)))
}

/// Closes all sessions of a user.
#[post("/users/<user>/kick?<reason>")]
async fn kick(operator: May<Operator<'_>>, user: &str, reason: Option<&str>) -> Answered {
    let (operator, begun) = (operator?, Instant::now());
    let kicked = async |site: &Site| {
        let filter = SessionFilter { user: Some(user.to_owned()), ..SessionFilter::default() };
        let close = Question::Close { filter, reason: reason_of(reason)? };
        Ok(site.to_sessions(&Target::Nets, close, &format!("closed the sessions of {user}")).await)
    };
    let answered = kicked(operator.site).await;
    Ok(operator.audited(begun, answered.unwrap_or_else(|refused: Reply| refused)))
}

/// Sends a message to the client of one session.
#[post("/sessions/<session>/notice?<command>", data = "<body>")]
async fn notice(
    operator: May<Operator<'_>>,
    session: &str,
    command: Option<&str>,
    body: Data<'_>,
) -> Answered {
    let (operator, begun) = (operator?, Instant::now());
    let reply = match id("session", session) {
        Ok(session) => {
            let filter = SessionFilter { session: Some(session), ..SessionFilter::default() };
            let what = "sent the notice to the session";
            send(operator.site, &Target::Nets, filter, command, body, what).await
        }
        Err(why) => bad(why),
    };
    Ok(operator.audited(begun, reply))
}

/// Sends a message to the clients of all sessions that are meant.
#[post("/sessions/notice?<query..>", data = "<body>")]
async fn notice_to_many(
    operator: May<Operator<'_>>,
    query: form::Result<'_, Strict<NoticeQuery<'_>>>,
    body: Data<'_>,
) -> Answered {
    let (operator, begun) = (operator?, Instant::now());
    let reply = match query {
        Ok(query) => send_to_many(operator.site, query.into_inner(), body).await,
        Err(_) => unknown("command, user, address, node, older_s and last_command"),
    };
    Ok(operator.audited(begun, reply))
}

async fn send_to_many(site: &Site, query: NoticeQuery<'_>, body: Data<'_>) -> Reply {
    let NoticeQuery { command, user, address, node, older_s, last_command } = query;
    let meant = Query { user, address, node, older_s, command: last_command, ..Default::default() };
    match meant.filter() {
        Ok(filter) => send(site, &meant.target(Target::Nets), filter, command, body, "sent the notice").await,
        Err(why) => bad(why),
    }
}

async fn send(
    site: &Site,
    target: &Target,
    filter: SessionFilter,
    command: Option<&str>,
    body: Data<'_>,
    what: &str,
) -> Reply {
    let command = match number("command", command) {
        Ok(Some(command)) => CommandId(command),
        Ok(None) => return bad("command: the command of the message is missing"),
        Err(why) => return bad(why),
    };
    match read(body).await {
        Ok(body) => site.to_sessions(target, Question::Notice { filter, command, body }, what).await,
        Err(refused) => refused,
    }
}

/// The whole body, of at most [`BODY_BYTES_MAX`].
pub(super) async fn read(body: Data<'_>) -> Result<Vec<u8>, Reply> {
    match body.open(BODY_BYTES_MAX.bytes()).into_bytes().await {
        Ok(body) if body.is_complete() => Ok(body.into_inner()),
        Ok(_) => {
            Err(Reply::error(Status::PayloadTooLarge, &format!("the body: at most {BODY_BYTES_MAX} bytes")))
        }
        Err(why) => Err(bad(format!("the body cannot be read: {why}"))),
    }
}

/// What nodes have not answered, or nothing.
pub(super) fn silent_nodes(nodes: &[NodeReport]) -> String {
    let mut out = String::new();
    for NodeReport { node, error, .. } in nodes {
        if let Some(error) = error {
            let _ = write!(out, "<p class=bad>{node}: {}</p>", escape(error));
        }
    }
    out
}

const HEADS: [&str; 9] = [
    "session",
    "node",
    "user",
    "address",
    "protocol",
    "since (UTC)",
    "idle",
    "requests, last command",
    "waiting bytes",
];

fn row(body: &mut String, one: &SessionInList) {
    let last = one.last.as_ref().map_or_else(String::new, |last| format!(", {}", last.command));
    let _ = write!(
        body,
        "\n<tr><td><a href=\"/sessions/{0}\">{0}</a><td>{1}<td>{2}<td>{3}<td>{4}<td>{5}<td>{6} s<td>{7}{last}<td>{8}",
        one.session,
        one.node,
        escape(one.user.as_deref().unwrap_or("–")),
        one.address,
        escape(one.protocol.as_deref().unwrap_or("–")),
        one.since,
        one.idle_ms / 1000,
        one.requests,
        one.queued_bytes,
    );
}

fn table(sessions: &[SessionInList]) -> String {
    let mut body = String::from("<table><tr>");
    for head in HEADS {
        let _ = write!(body, "<th>{head}");
    }
    for one in sessions {
        row(&mut body, one);
        body.push_str("<td>");
        body.push_str(&button(&format!("/sessions/{}/close", one.session), "close"));
        if let Some(user) = &one.user {
            body.push_str(&button(&format!("/users/{}/kick", in_url(user)), "kick user"));
        }
    }
    body + "\n</table>"
}

fn list_page(found: &SessionPage, query: &Query<'_>) -> String {
    let mut body = String::from("<p><a href=/>all nodes</a></p><form action=/sessions>");
    let fields = [
        ("user", query.user),
        ("address", query.address),
        ("node", query.node),
        ("command", query.command),
        ("older_s", query.older_s),
    ];
    for (name, value) in fields {
        let value = escape(value.unwrap_or_default());
        let _ = write!(body, "<label>{name} <input name={name} size=12 value=\"{value}\"></label> ");
    }
    body.push_str("<button>filter</button></form>\n");
    body.push_str(&silent_nodes(&found.nodes));
    body.push_str(&table(&found.sessions));
    if let Some(next) = &found.next {
        let _ = write!(body, "<p><a href=\"{}\">more</a></p>", escape(&query.next(next)));
    }
    page("sessions", None, &body)
}

fn story_page(id: &str, story: &Story) -> String {
    let mut body = String::from("<p><a href=/sessions>all sessions</a></p>");
    body.push_str(&silent_nodes(&story.nodes));
    body.push_str(&table(story.session.as_slice()));
    let _ = write!(body, "<p>groups: {}</p>", escape(&story.groups.join(", ")));
    body.push_str("<h2>attributes</h2><table>");
    for (key, value) in &story.attributes {
        let _ = write!(body, "<tr><td>{}<td>{}", escape(key), escape(value));
    }
    body.push_str("</table><h2>last requests</h2><table>");
    for request in &story.requests {
        let _ = write!(body, "<tr><td>{}<td>{} ms ago", request.command, request.ago_ms);
    }
    body.push_str("</table><h2>where</h2><table><tr><th>node<th>role<th>its messages go to");
    for place in &story.at {
        let ways = place.affinity.iter().map(|way| {
            let by = way.neighbour.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
            let to = way.node.as_ref().map_or("?", |node| node.as_str());
            format!("{}: {to}{by}", way.target)
        });
        let here = if place.here == Some(true) { ", handles it now" } else { "" };
        let ways = ways.collect::<Vec<_>>().join(", ");
        let _ = write!(body, "<tr><td>{}<td>{}{here}<td>{}", place.node, place.role, escape(&ways));
    }
    page(&format!("session {id}"), None, &(body + "</table>"))
}

fn done_page(done: &SessionsDone, what: &str) -> String {
    let class = if done.ok { "ready" } else { "bad" };
    let body = format!(
        "<p class={class}>{}: {}, missed: {}</p>{}<p><a href=/sessions>all sessions</a></p>",
        escape(what),
        done.sessions,
        done.missed,
        silent_nodes(&done.nodes)
    );
    page("done", None, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_a_filter_and_what_is_left_empty_means_everybody() {
        assert_eq!(Query { user: Some(""), ..Default::default() }.filter(), Ok(SessionFilter::default()));
        let query = Query {
            user: Some("ann"),
            address: Some("10.0.0.0/8"),
            command: Some("300"),
            older_s: Some("60"),
            after: Some("1a"),
            limit: Some("7"),
            node: Some("net"),
        };
        let filter = SessionFilter {
            session: None,
            user: Some("ann".into()),
            address: "10.0.0.0/8".parse().ok(),
            command: Some(CommandId(300)),
            older_ms: Some(60_000),
        };
        let question = Question::Sessions { filter, after: Some(SessionId(0x1a)), rows_max: 7 };
        assert_eq!(query.question(), Ok((question, 7)));
        assert_eq!(query.target(Target::All), Target::Node("net".into()));
        let next = "/sessions?after=2b&user=ann&address=10.0.0.0%2F8&node=net&command=300&older_s=60&limit=7";
        assert_eq!(query.next("2b"), next);
    }

    #[test]
    fn what_is_no_value_of_its_parameter_is_said_and_nobody_is_meant() {
        let said = |query: Query<'_>| query.question().unwrap_err();
        let wrong = "command: `x` is no number that may stand here";
        assert_eq!(said(Query { command: Some("x"), ..Default::default() }), wrong);
        assert!(said(Query { older_s: Some("-1"), ..Default::default() }).starts_with("older_s: "));
        assert!(said(Query { address: Some("home"), ..Default::default() }).contains("`home` is no address"));
        assert_eq!(
            said(Query { after: Some("xyz"), ..Default::default() }),
            "after: `xyz` is no id of a session"
        );
        for limit in ["0", "1001"] {
            assert_eq!(said(Query { limit: Some(limit), ..Default::default() }), "limit: 1 to 1000");
        }
    }

    #[test]
    fn a_name_in_a_url_ends_nothing() {
        assert_eq!(in_url("ann/b?c#d&e=f \u{e9}\""), "ann%2Fb%3Fc%23d%26e%3Df%20%C3%A9%22");
    }
}
