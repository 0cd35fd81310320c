//! The guard of the administration: who may read and who may command, by the token; and no page of another site on an
//! operator's behalf.

use ffhttp::{is_loopback_host, is_same_secret};
use rocket::catch;
use rocket::http::{HeaderMap, Status};
use rocket::request::{FromRequest, Outcome, Request};

use super::Site;
use super::routes::Reply;

/// A reader: who may look.
pub(super) struct Reader;
/// An operator: who may command.
pub(super) struct Operator;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    Token,
    Host,
    CrossSite,
}

impl Denied {
    fn status(self) -> Status {
        match self {
            Denied::Token => Status::Unauthorized,
            Denied::Host | Denied::CrossSite => Status::Forbidden,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Denied::Token => {
                "the master's token is needed: send `Authorization: Bearer TOKEN`, or log in with any user \
                 name and the token as password"
            }
            Denied::Host => {
                "this port serves its own host only: ask for it as localhost, 127.0.0.1 or [::1], or set \
                 master.token"
            }
            Denied::CrossSite => "a page of another site may not command this cluster",
        }
    }
}

/// Whether a request may read.
fn may_read(site: &Site, headers: &HeaderMap<'_>) -> Result<(), Denied> {
    match site.tokens.current() {
        Some(tokens) => {
            let given = headers.get_one("Authorization").and_then(password);
            let right = given.is_some_and(|given| {
                tokens.iter().any(|token| is_same_secret(given.as_bytes(), token.as_bytes()))
            });
            right.then_some(()).ok_or(Denied::Token)
        }
        // Without a token, what protects is that only this host can connect. A name that somebody lets
        // point at 127.0.0.1 would make a stranger's page "same origin" here.
        None if site.loopback => {
            let host = headers.get_one("Host");
            host.is_none_or(is_loopback_host).then_some(()).ok_or(Denied::Host)
        }
        None => Ok(()),
    }
}

/// Whether a request may command: not when a browser says, one way or another, that another site sent it.
fn may_command(headers: &HeaderMap<'_>) -> Result<(), Denied> {
    let host = headers.get_one("Host").unwrap_or_default();
    let from_here = |url: &str| authority(url).is_some_and(|from| from.eq_ignore_ascii_case(host));
    let site = headers.get_one("Sec-Fetch-Site").is_none_or(|site| matches!(site, "same-origin" | "none"));
    let origin = headers.get_one("Origin").is_none_or(from_here);
    let referer = headers.get_one("Referer").is_none_or(from_here);
    (site && origin && referer).then_some(()).ok_or(Denied::CrossSite)
}

/// `http://HOST:PORT/…` → `HOST:PORT`. `null` and other schemes have none.
fn authority(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    rest.split(['/', '?', '#']).next()
}

/// The token in an `Authorization` header: as Bearer, or as the password of Basic, which browsers ask for.
fn password(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("Bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let pair = String::from_utf8(base64(rest.trim())?).ok()?;
    pair.split_once(':').map(|(_user, password)| password.to_owned())
}

/// Decodes base64 (RFC 4648, padding optional).
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut have) = (Vec::new(), 0u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
            bits &= (1 << have) - 1;
        }
    }
    Some(bytes)
}

/// Refuses, and leaves the reason for the catcher.
fn outcome<T>(request: &Request<'_>, guard: T, checked: Result<(), Denied>) -> Outcome<T, Denied> {
    match checked {
        Ok(()) => Outcome::Success(guard),
        Err(denied) => {
            request.local_cache(|| Some(denied));
            Outcome::Error((denied.status(), denied))
        }
    }
}

/// The site, which every request has; without one nothing is allowed.
fn checked(
    request: &Request<'_>,
    check: impl FnOnce(&Site, &HeaderMap<'_>) -> Result<(), Denied>,
) -> Result<(), Denied> {
    request.rocket().state::<Site>().map_or(Err(Denied::Token), |site| check(site, request.headers()))
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Reader {
    type Error = Denied;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Denied> {
        outcome(request, Reader, checked(request, may_read))
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Operator {
    type Error = Denied;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Denied> {
        let both = |site: &Site, headers: &HeaderMap<'_>| {
            may_read(site, headers).and_then(|()| may_command(headers))
        };
        outcome(request, Operator, checked(request, both))
    }
}

/// Answers every request that no route has answered.
#[catch(default)]
pub(super) fn fault(status: Status, request: &Request<'_>) -> Reply {
    match request.local_cache(|| None::<Denied>) {
        Some(denied) => Reply::error(status, denied.sentence()),
        None if status == Status::NotFound => {
            Reply::error(status, "there is no such page; `/` shows what there is")
        }
        None => Reply::error(status, status.reason_lossy()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_and_without_padding() {
        for (text, bytes) in [("", ""), ("YQ==", "a"), ("YWI", "ab"), ("YWJj", "abc"), ("dTp0b2s/", "u:tok?")]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(base64("a b"), None);
    }

    #[test]
    fn the_token_is_found_in_both_schemes() {
        assert_eq!(password("Bearer t1").as_deref(), Some("t1"));
        assert_eq!(password("basic dXNlcjp0OjE=").as_deref(), Some("t:1"));
        assert_eq!(password("Digest x"), None);
        assert_eq!(password("Bearer"), None);
    }
}
