//! Sessions over all nodes: one page of them out of what each node has answered, and the story of one.

use std::collections::BTreeMap;

use ffproto::question::{AffinityView, Answer, RecentRequest, SessionRow, SessionView};
use ffproto::{NodeName, SessionId};
use serde::Serialize;

use super::{Gathered, NodeReport};
use crate::utc::utc;

/// A page of sessions, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct SessionPage {
    /// In the order of their ids.
    pub(crate) sessions: Vec<SessionInList>,
    /// Behind which session the next page begins, when there is one.
    pub(crate) next: Option<String>,
    /// Every node that was asked.
    pub(crate) nodes: Vec<NodeReport>,
}

/// A session in a list, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct SessionInList {
    pub(crate) session: String,
    /// The net node.
    pub(crate) node: NodeName,
    pub(crate) user: Option<String>,
    pub(crate) address: String,
    pub(crate) protocol: Option<String>,
    /// UTC.
    pub(crate) since: String,
    pub(crate) age_ms: u64,
    pub(crate) idle_ms: u64,
    pub(crate) requests: u32,
    pub(crate) last: Option<Request>,
    pub(crate) running: u32,
    pub(crate) queued_bytes: u64,
}

/// A request of a client, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Request {
    pub(crate) command: u32,
    pub(crate) ago_ms: u64,
}

impl From<RecentRequest> for Request {
    fn from(request: RecentRequest) -> Self {
        Self { command: request.command.0, ago_ms: request.ago_ms }
    }
}

impl SessionInList {
    fn new(node: NodeName, row: SessionRow) -> Self {
        let SessionRow { session, user, address, protocol, since_ms, .. } = row;
        Self {
            session: session.to_string(),
            node,
            user,
            address: address.to_string(),
            protocol,
            since: utc(since_ms),
            age_ms: row.age_ms,
            idle_ms: row.idle_ms,
            requests: row.requests,
            last: row.last.map(Request::from),
            running: row.running,
            queued_bytes: row.queued_bytes,
        }
    }
}

/// The id of a session in its text.
pub(crate) fn session_id(text: &str) -> Option<SessionId> {
    u64::from_str_radix(text, 16).ok().map(SessionId)
}

/// The first `limit` sessions of all answers. A node that has more than it could tell ends the page where its own rows end: what
/// others have behind that is for the next page.
pub(crate) fn page(gathered: Gathered, limit: usize) -> SessionPage {
    let (mut all, mut ends, mut more) = (BTreeMap::new(), None::<SessionId>, false);
    for (node, answer) in gathered.answers {
        let Answer::Sessions { rows, more: has_more } = answer else { continue };
        more |= has_more;
        if has_more && let Some(last) = rows.last() {
            ends = Some(ends.map_or(last.session, |end| end.min(last.session)));
        }
        // A session that goes from one process to its successor may be in both answers.
        all.extend(rows.into_iter().map(|row| (row.session, (node.clone(), row))));
    }
    let found = all.len();
    let mut shown: Vec<_> =
        all.into_iter().filter(|(id, _)| ends.is_none_or(|end| *id <= end)).take(limit).collect();
    more |= shown.len() < found;
    let next = shown.last().filter(|_| more).map(|(id, _)| id.to_string());
    let sessions = shown.drain(..).map(|(_, (node, row))| SessionInList::new(node, row)).collect();
    SessionPage { sessions, next, nodes: gathered.nodes }
}

/// The story of a session, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Story {
    /// As its net node sees it; `None` when that does not answer.
    pub(crate) session: Option<SessionInList>,
    /// The attributes that the app has noted.
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) groups: Vec<String>,
    /// Its last requests, the newest first.
    pub(crate) requests: Vec<Request>,
    /// What each node knows that has to do with it.
    pub(crate) at: Vec<Place>,
    /// Every node that was asked.
    pub(crate) nodes: Vec<NodeReport>,
}

/// A node that has to do with a session, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Place {
    pub(crate) node: NodeName,
    /// `net` for its net node, `replica` where its messages are or were handled, `passes` where they only pass.
    pub(crate) role: &'static str,
    /// Whether its messages are handled here now, of a replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) here: Option<bool>,
    /// The user that this node has been told of.
    pub(crate) user: Option<String>,
    /// The nodes that this one tells of changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) watchers: Vec<NodeName>,
    /// The neighbour that leads to the net node, of a replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) neighbour: Option<NodeName>,
    /// Where its messages go from here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) affinity: Vec<Way>,
}

/// Where messages for a target go, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Way {
    pub(crate) target: String,
    pub(crate) neighbour: Option<NodeName>,
    pub(crate) node: Option<NodeName>,
}

impl From<AffinityView> for Way {
    fn from(AffinityView { target, neighbour, node }: AffinityView) -> Self {
        Self { target, neighbour, node }
    }
}

/// The story of a session out of what nodes know; `None` when no node knows it.
pub(crate) fn story(gathered: Gathered) -> Option<Story> {
    let (attributes, groups, requests, at) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
    let mut story = Story { session: None, attributes, groups, requests, at, nodes: gathered.nodes };
    for (node, answer) in gathered.answers {
        let Answer::Session(Some(view)) = answer else { continue };
        let SessionView { row, user, attributes, groups, watchers, requests, affinity, replica } = *view;
        let role = match (&row, &replica) {
            (Some(_), _) => "net",
            (None, Some(_)) => "replica",
            (None, None) => "passes",
        };
        let (here, neighbour) =
            (replica.as_ref().map(|replica| replica.here), replica.map(|replica| replica.neighbour));
        let affinity = affinity.into_iter().map(Way::from).collect();
        story.at.push(Place { node: node.clone(), role, here, user, watchers, neighbour, affinity });
        if let Some(row) = row {
            story.session = Some(SessionInList::new(node, row));
            story.groups = groups;
            story.requests = requests.into_iter().map(Request::from).collect();
            story.attributes = attributes.into_iter().collect();
        } else if story.session.is_none() && story.attributes.is_empty() {
            // Until the net node says them: it may hang.
            story.attributes = attributes.into_iter().collect();
        }
    }
    (!story.at.is_empty()).then_some(story)
}

/// What was done to sessions, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct SessionsDone {
    /// Whether every node that may have such sessions has answered.
    pub(crate) ok: bool,
    /// The sessions for which it was done.
    pub(crate) sessions: u32,
    /// The sessions that were closing already, or read too slowly.
    pub(crate) missed: u32,
    /// Every node that was asked.
    pub(crate) nodes: Vec<NodeReport>,
}

/// What all nodes have done together.
pub(crate) fn done(gathered: Gathered) -> SessionsDone {
    let ok = gathered.is_whole();
    let (mut sessions, mut missed_all) = (0u32, 0u32);
    for (_, answer) in &gathered.answers {
        if let Answer::Done { reached, missed } = answer {
            sessions = sessions.saturating_add(*reached);
            missed_all = missed_all.saturating_add(*missed);
        }
    }
    SessionsDone { ok, sessions, missed: missed_all, nodes: gathered.nodes }
}

#[cfg(test)]
mod tests {
    use ffproto::question::ReplicaView;

    use super::*;
    use crate::fixture::name;

    fn row(id: u64) -> SessionRow {
        SessionRow {
            session: SessionId(id),
            user: None,
            address: "127.0.0.1:1".parse().unwrap(),
            protocol: None,
            since_ms: 0,
            age_ms: 0,
            idle_ms: 0,
            requests: 0,
            last: None,
            running: 0,
            queued_bytes: 0,
        }
    }

    fn shown(answers: &[(&str, &[u64], bool)], limit: usize) -> (String, Option<String>) {
        let answer = |(node, ids, more): &(&str, &[u64], bool)| {
            let rows = ids.iter().map(|id| row(*id)).collect();
            (name(node), Answer::Sessions { rows, more: *more })
        };
        let answers = answers.iter().map(answer).collect();
        let page = page(Gathered { answers, nodes: Vec::new() }, limit);
        let ids: Vec<String> = page.sessions.iter().map(|one| one.session.clone()).collect();
        (ids.join(" "), page.next)
    }

    #[test]
    fn pages_have_the_lowest_ids_of_all_nodes() {
        let next = |id: &str| Some(id.to_owned());
        assert_eq!(shown(&[("net", &[1, 5], false), ("net2", &[2, 3], false)], 9), ("1 2 3 5".into(), None));
        assert_eq!(
            shown(&[("net", &[1, 5], false), ("net2", &[2, 3], false)], 3),
            ("1 2 3".into(), next("3"))
        );
        assert_eq!(shown(&[("net", &[], false)], 3), (String::new(), None));
        assert_eq!(shown(&[], 3), (String::new(), None));
    }

    #[test]
    fn a_page_ends_where_a_node_could_tell_no_more_so_that_none_is_passed_over() {
        let next = |id: &str| Some(id.to_owned());
        // net2 has a 4 that it had no room for.
        assert_eq!(
            shown(&[("net", &[1, 5], false), ("net2", &[2, 3], true)], 9),
            ("1 2 3".into(), next("3"))
        );
        assert_eq!(shown(&[("net", &[1, 2], true), ("net2", &[3, 4], true)], 9), ("1 2".into(), next("2")));
        // All were told of exactly as many as there may be, and one has more.
        assert_eq!(shown(&[("net", &[1, 2], true)], 2), ("1 2".into(), next("2")));
    }

    #[test]
    fn a_session_that_two_processes_of_its_node_tell_of_is_one() {
        assert_eq!(shown(&[("net", &[1, 2], false), ("net", &[2, 3], false)], 9), ("1 2 3".into(), None));
    }

    #[test]
    fn a_story_has_what_each_node_knows_also_without_the_net_node() {
        let view = SessionView {
            row: None,
            user: Some("ann".into()),
            attributes: vec![("room".into(), "red".into())],
            groups: Vec::new(),
            watchers: Vec::new(),
            requests: Vec::new(),
            affinity: Vec::new(),
            replica: Some(ReplicaView { neighbour: name("gate"), here: true }),
        };
        let replica = (name("game1"), Answer::Session(Some(Box::new(view.clone()))));
        let nodes = Vec::new();
        let one = story(Gathered { answers: vec![replica.clone()], nodes: nodes.clone() }).unwrap();
        assert_eq!(
            (one.at[0].role, one.attributes["room"].as_str(), one.session.is_none()),
            ("replica", "red", true)
        );
        let passes = SessionView { user: None, attributes: Vec::new(), replica: None, ..view.clone() };
        let net = SessionView { row: Some(row(7)), replica: None, attributes: Vec::new(), ..view };
        let answers = vec![
            replica,
            (name("gate"), Answer::Session(Some(Box::new(passes)))),
            (name("net"), Answer::Session(Some(Box::new(net)))),
            (name("net2"), Answer::Session(None)),
        ];
        let whole = story(Gathered { answers, nodes: nodes.clone() }).unwrap();
        assert_eq!(whole.at.iter().map(|place| place.role).collect::<Vec<_>>(), ["replica", "passes", "net"]);
        assert!(whole.attributes.is_empty(), "the net node knows best");
        assert_eq!(whole.session.unwrap().node, name("net"));
        assert!(story(Gathered { answers: vec![(name("net"), Answer::Session(None))], nodes }).is_none());
    }
}
