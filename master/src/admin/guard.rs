//! The guard of the administration: it finds the facts of a request, asks who may, and has refusals written down.

use ffconfig::OperatorRole;
use ffhttp::{PEER_HEADER, Peer};
use rocket::catch;
use rocket::http::{HeaderMap, Method, Status};
use rocket::request::{FromRequest, Outcome, Request};
use tokio::time::Instant;

use super::backoff::Source;
use super::routes::Reply;
use super::who::{Denied, Door, Facts, Verdict, Who, may_command};
use super::{Site, who};
use crate::audit::Caller;

/// A guard that a route has passed, or why it has not. A route takes it as a value: when a guard itself fails, Rocket writes a line
/// into the log for each request, and strangers make as many as they like. Only what has passed leads to the site.
pub(super) type May<T> = Result<T, Denied>;

/// A reader: who may look.
pub(super) struct Reader<'r>(pub(super) &'r Site);
/// Who may see the audit: whoever may command.
pub(super) struct Auditor<'r>(pub(super) &'r Site);
/// An operator: who may command.
pub(super) struct Operator<'r> {
    pub(super) site: &'r Site,
    pub(super) caller: Caller,
}
/// Whether a request may look; it is not refused when it may not.
pub(super) struct MayLook(pub(super) bool);

impl Denied {
    pub(super) fn status(self) -> u16 {
        match self {
            Denied::NoToken | Denied::WrongToken | Denied::AnotherUser | Denied::Closed => 401,
            Denied::Host | Denied::CrossSite | Denied::Role => 403,
            Denied::Get => 405,
            Denied::Later { .. } => 429,
        }
    }

    pub(super) fn sentence(self) -> String {
        let how = "send an operator's token, `Authorization: Bearer TOKEN`, or log in with the operator's name and the \
                   token as password (`master token NAME` makes one for master.operators)";
        match self {
            Denied::NoToken => how.into(),
            Denied::WrongToken => {
                format!("that is no operator's token; master.token is the cluster's own and opens nothing here: {how}")
            }
            Denied::AnotherUser => {
                format!("without a token only the master's own user and root may, on its host: {how}")
            }
            Denied::Closed => format!("nobody has the other end of this connection open: {how}"),
            Denied::Later { wait_s } => {
                format!("too many wrong tokens came from there: the next one is looked at in {wait_s} s")
            }
            Denied::Host => "without a token this port serves its own host only: ask for it as localhost, 127.0.0.1 or [::1]".into(),
            Denied::CrossSite => "a page of another site may not command this cluster".into(),
            Denied::Role => "this operator may look and not command: the role in master.operators is `read`".into(),
            Denied::Get => {
                "commands are made by POST; by GET only by the master's own user on its host, with `curl` and without a token".into()
            }
        }
    }
}

/// What a request says of itself, and what the front says of its connection.
fn facts<'r>(request: &'r Request<'_>) -> Facts<'r> {
    let headers: &HeaderMap<'_> = request.headers();
    let get = |name: &str| headers.get_one(name);
    let of_browsers = headers.contains("Cookie")
        || headers.iter().any(|header| header.name().as_str().to_ascii_lowercase().starts_with("sec-"));
    Facts {
        peer: get(PEER_HEADER).and_then(|peer| peer.parse().ok()),
        post: request.method() == Method::Post,
        host: get("Host"),
        origin: get("Origin"),
        referer: get("Referer"),
        fetch_site: get("Sec-Fetch-Site"),
        accept: get("Accept"),
        user_agent: get("User-Agent"),
        of_browsers,
        authorization: get("Authorization"),
    }
}

impl Site {
    /// Who the request is from, unless wrong tokens have come from there lately.
    fn who(&self, facts: &Facts<'_>, now: Instant) -> Result<Verdict, Denied> {
        let source = facts.peer.as_ref().map(Source::of).filter(|_| facts.authorization.is_some());
        let mut backoff = self.backoff.lock();
        if let Some(wait) = source.and_then(|source| backoff.wait(source, now)) {
            return Err(Denied::Later { wait_s: wait.as_secs() + 1 });
        }
        let operators = self.operators.current();
        let verdict = who::who(facts, &Door { uid: self.uid, operators: &operators });
        if let Some(source) = source {
            match verdict {
                Ok(_) => backoff.right(source),
                Err(_) => backoff.wrong(source, now),
            }
        }
        verdict
    }
}

fn caller(request: &Request<'_>, facts: &Facts<'_>, verdict: Option<&Verdict>) -> Caller {
    let stranger = Caller::stranger(request.method().as_str(), request.uri().path().as_str());
    let from = facts.peer.map_or_else(|| "unknown".into(), shown);
    let who = match verdict.map(|verdict| &verdict.who) {
        Some(Who::Owner { uid: 0 }) => "root".into(),
        Some(Who::Owner { .. }) => "owner".into(),
        Some(Who::Operator { name }) => name.clone(),
        None => "-".into(),
    };
    Caller { who, role: verdict.map(|verdict| verdict.role.to_string()), from, ..stranger }
}

/// Where a request is from: its address, and on this host whose its socket is.
fn shown(peer: Peer) -> String {
    match peer.owner {
        Some(owner) if owner.inode != 0 => format!("{} (uid {})", peer.client.ip(), owner.uid),
        _ => peer.client.ip().to_string(),
    }
}

/// What a request wants.
#[derive(Clone, Copy)]
enum Wants {
    Look,
    /// To see who has commanded what.
    Audit,
    Command,
}

/// Lets a request in, or refuses it and has that written down.
fn admit<'r>(request: &'r Request<'_>, wants: Wants) -> Outcome<Operator<'r>, Denied> {
    let facts = facts(request);
    // The site is there for every request; without one nothing is allowed.
    let Some(site) = request.rocket().state::<Site>() else {
        return Outcome::Error((Status::Unauthorized, Denied::NoToken));
    };
    let now = Instant::now();
    let verdict = site.who(&facts, now);
    let may = verdict.clone().and_then(|who| match wants {
        Wants::Look => Ok(()),
        Wants::Audit if who.role == OperatorRole::Operate => Ok(()),
        Wants::Audit => Err(Denied::Role),
        Wants::Command => may_command(&facts, &who),
    });
    let caller = caller(request, &facts, verdict.as_ref().ok());
    match may {
        Ok(()) => Outcome::Success(Operator { site, caller }),
        Err(denied) => {
            let (source, status) = (facts.peer.as_ref().map(Source::of), denied.status());
            site.handle.audit.refused(&caller, source, status, &denied.sentence(), now);
            Outcome::Error((Status::new(status), denied))
        }
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Reader<'r> {
    type Error = Denied;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Denied> {
        admit(request, Wants::Look).map(|admitted| Reader(admitted.site))
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Auditor<'r> {
    type Error = Denied;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Denied> {
        admit(request, Wants::Audit).map(|admitted| Auditor(admitted.site))
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Operator<'r> {
    type Error = Denied;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Denied> {
        admit(request, Wants::Command)
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for MayLook {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let site = request.rocket().state::<Site>();
        let may = site.is_some_and(|site| site.who(&facts(request), Instant::now()).is_ok());
        Outcome::Success(Self(may))
    }
}

/// Answers every request that no route has answered. A stranger does not even learn which pages there are.
#[catch(default)]
pub(super) fn fault(status: Status, request: &Request<'_>) -> Reply {
    match admit(request, Wants::Look) {
        Outcome::Error((_, denied)) => denied.into(),
        _ if status == Status::NotFound => {
            Reply::error(status, "there is no such page; `/` shows what there is")
        }
        _ => Reply::error(status, status.reason_lossy()),
    }
}
