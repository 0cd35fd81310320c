//! Who a request is from, and what that one may do: out of the request's facts, without any I/O. docs/security.md has the table.

use ffconfig::{Operator, OperatorRole};
use ffhttp::{Owner, Peer, is_loopback_host, is_same_secret};
use ffkeys::operator_hash;

/// What a request says of itself, and what its connection says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts<'a> {
    /// The connection, as the front knows it.
    pub(super) peer: Option<Peer>,
    /// Whether it is made by POST; what is not counts as GET.
    pub(super) post: bool,
    pub(super) host: Option<&'a str>,
    pub(super) origin: Option<&'a str>,
    pub(super) referer: Option<&'a str>,
    /// `Sec-Fetch-Site`.
    pub(super) fetch_site: Option<&'a str>,
    pub(super) accept: Option<&'a str>,
    pub(super) user_agent: Option<&'a str>,
    /// Whether it has another header that browsers alone send: a cookie, or one of `Sec-Fetch-`.
    pub(super) of_browsers: bool,
    pub(super) authorization: Option<&'a str>,
}

/// What the door knows of those who may come in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Door<'a> {
    /// The user that the master runs as.
    pub(super) uid: u32,
    pub(super) operators: &'a [Operator],
}

/// Who a request is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    /// The master's own user or root, on its host.
    Owner {
        /// Which of the two.
        uid: u32,
    },
    /// An operator of the config, by the token.
    Operator {
        /// The operator's name.
        name: String,
    },
}

/// Who a request is from, and what that one may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) who: Who,
    pub(super) role: OperatorRole,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// It has no token, and comes from another host, or through a proxy.
    NoToken,
    /// The token is nobody's.
    WrongToken,
    /// Too many wrong tokens came from there.
    Later {
        /// In so many seconds it may try again.
        wait_s: u64,
    },
    /// It comes from this host, and from another user.
    AnotherUser,
    /// It comes from this host, and its socket is nobody's any more.
    Closed,
    /// It asks for another name than this host's.
    Host,
    /// The page of another site has made it.
    CrossSite,
    /// The operator may only look.
    Role,
    /// A command by GET that is not the owner's `curl`.
    Get,
}

/// Who the request is from.
///
/// # Errors
/// It is a stranger's.
pub(super) fn who(facts: &Facts<'_>, door: &Door<'_>) -> Result<Verdict, Denied> {
    if let Some(given) = facts.authorization {
        return operator(given, door.operators).ok_or(Denied::WrongToken);
    }
    let Some(peer) = facts.peer.filter(|peer| !peer.forwarded && is_of_this_host(peer)) else {
        return Err(Denied::NoToken);
    };
    let uid = match peer.owner {
        Some(Owner { inode: 0, .. }) | None => return Err(Denied::Closed),
        Some(Owner { uid, .. }) if uid == door.uid || uid == 0 => uid,
        Some(_) => return Err(Denied::AnotherUser),
    };
    // A name that somebody lets point at 127.0.0.1 would make a stranger's page one of this host.
    if !facts.host.is_some_and(is_loopback_host) {
        return Err(Denied::Host);
    }
    Ok(Verdict { who: Who::Owner { uid }, role: OperatorRole::Operate })
}

/// Whether who it is from may command by it.
///
/// # Errors
/// He may not, or may not this way.
pub(super) fn may_command(facts: &Facts<'_>, verdict: &Verdict) -> Result<(), Denied> {
    if verdict.role < OperatorRole::Operate {
        return Err(Denied::Role);
    }
    let browser = is_of_a_browser(facts);
    if !facts.post {
        // The page of another site makes GETs with the browser's rights, by no more than an image.
        let is_owner = matches!(verdict.who, Who::Owner { .. });
        return if is_owner && !browser { Ok(()) } else { Err(Denied::Get) };
    }
    let encrypted = facts.peer.is_some_and(|peer| peer.encrypted);
    let from_here = |url: &str| is_from_here(url, facts.host, encrypted);
    let site = facts.fetch_site.is_none_or(|site| matches!(site, "same-origin" | "none"));
    let referer = facts.referer.is_none_or(from_here);
    let origin = match facts.origin {
        Some(origin) => from_here(origin),
        // Browsers say where a POST is from. One that does not must say it another way.
        None => !browser || facts.fetch_site == Some("same-origin") || facts.referer.is_some(),
    };
    if site && referer && origin { Ok(()) } else { Err(Denied::CrossSite) }
}

fn is_of_this_host(peer: &Peer) -> bool {
    peer.client.ip().to_canonical().is_loopback() && peer.server.ip().to_canonical().is_loopback()
}

/// Whether a browser has made the request, as far as it shows.
fn is_of_a_browser(facts: &Facts<'_>) -> bool {
    let says = |header: Option<&str>, what: &str| header.is_some_and(|text| text.contains(what));
    facts.of_browsers
        || facts.fetch_site.is_some()
        || facts.origin.is_some()
        || facts.referer.is_some()
        || says(facts.accept, "text/html")
        || says(facts.user_agent, "Mozilla")
}

/// Whether a URL is of the site that was asked for: `https://HOST:PORT/…`. `null` is of none.
fn is_from_here(url: &str, host: Option<&str>, encrypted: bool) -> bool {
    let scheme = if encrypted { "https://" } else { "http://" };
    let authority = url.strip_prefix(scheme).and_then(|rest| rest.split(['/', '?', '#']).next());
    authority.zip(host).is_some_and(|(from, host)| from.eq_ignore_ascii_case(host))
}

/// The operator whose token that is. It takes as long whoever it is, and whatever is right of it.
fn operator(authorization: &str, operators: &[Operator]) -> Option<Verdict> {
    let given = credentials(authorization)?;
    let hash = operator_hash(&given.token);
    let mut found = None;
    for operator in operators {
        if is_same_secret(&hash, &operator.hash) {
            found = Some(operator);
        }
    }
    let named = |operator: &&Operator| given.user.as_ref().is_none_or(|user| *user == operator.name);
    let Operator { name, role, .. } = found.filter(named)?;
    Some(Verdict { who: Who::Operator { name: name.clone() }, role: *role })
}

/// What an `Authorization` header has.
struct Credentials {
    /// The name that a browser's user has typed.
    user: Option<String>,
    token: String,
}

/// The token as Bearer, or as the password of Basic, which browsers ask for.
fn credentials(header: &str) -> Option<Credentials> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("Bearer") {
        return Some(Credentials { user: None, token: rest.trim().to_owned() });
    }
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let pair = String::from_utf8(base64(rest.trim())?).ok()?;
    let (user, token) = pair.split_once(':')?;
    Some(Credentials { user: Some(user.to_owned()), token: token.to_owned() })
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

#[cfg(test)]
mod tests {
    use super::*;

    const UID: u32 = 1000;
    const ANN: &str = "Bearer ffop-of-ann";
    const BOB: &str = "Bearer ffop-of-bob";
    /// ann:ffop-of-ann, as a browser that has logged in sends it with whatever goes there.
    const ANN_IN_A_BROWSER: &str = "Basic YW5uOmZmb3Atb2YtYW5u";
    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

    fn operators() -> [Operator; 2] {
        let of = |name: &str, role, token| Operator { name: name.into(), role, hash: operator_hash(token) };
        [of("ann", OperatorRole::Operate, "ffop-of-ann"), of("bob", OperatorRole::Read, "ffop-of-bob")]
    }

    fn peer(text: &str) -> Option<Peer> {
        Some(text.parse().unwrap())
    }

    /// The owner's `curl` on the master's host.
    fn curl() -> Facts<'static> {
        Facts {
            peer: peer("127.0.0.1:40000 127.0.0.1:9998 1000/7 http direct"),
            host: Some("127.0.0.1:9998"),
            accept: Some("*/*"),
            user_agent: Some("curl/8.14.1"),
            ..Facts::default()
        }
    }

    fn from_afar() -> Facts<'static> {
        let peer = peer("192.0.2.7:40000 192.0.2.1:9998 - https direct");
        Facts { peer, host: Some("game.example:9998"), ..curl() }
    }

    /// What a request gets for a look, for a command by POST, and for one by GET.
    fn judged(facts: Facts<'_>) -> [Result<(), Denied>; 3] {
        let operators = operators();
        let door = Door { uid: UID, operators: &operators };
        let look = who(&facts, &door);
        let command = |post| look.clone().and_then(|who| may_command(&Facts { post, ..facts }, &who));
        [look.clone().map(drop), command(true), command(false)]
    }

    /// What a row of the table is called in docs/security.md, its request, and what it gets.
    type Row = (&'static str, Facts<'static>, [Result<(), Denied>; 3]);

    fn rows() -> Vec<Row> {
        let all = |denied: Denied| [Err(denied); 3];
        let browser = Facts { user_agent: Some(FIREFOX), accept: Some("text/html,*/*;q=0.8"), ..curl() };
        let (no, get) = (Err(Denied::CrossSite), Err(Denied::Get));
        let with = |authorization| Facts { authorization: Some(authorization), ..from_afar() };
        let at_home = |peer_text| Facts { peer: peer(peer_text), ..curl() };
        vec![
            ("the master's user, by `curl` on its host", curl(), [Ok(()); 3]),
            (
                "root, by `curl` on the master's host",
                at_home("[::1]:40000 [::1]:9998 0/7 http direct"),
                [Ok(()); 3],
            ),
            (
                "the master's user, on the master's own page in a browser",
                Facts { origin: Some("http://127.0.0.1:9998"), fetch_site: Some("same-origin"), ..browser },
                [Ok(()), Ok(()), get],
            ),
            (
                "a page of another origin in the browser of the master's user",
                Facts { origin: Some("http://evil.example"), ..browser },
                [Ok(()), no, get],
            ),
            ("the same, in a browser that says nothing of where it is", browser, [Ok(()), no, get]),
            (
                "a page under a name that points at the master's host (rebinding)",
                Facts {
                    host: Some("evil.example:9998"),
                    origin: Some("http://evil.example:9998"),
                    ..browser
                },
                all(Denied::Host),
            ),
            (
                "another user of the master's host",
                at_home("127.0.0.1:40000 127.0.0.1:9998 65534/7 http direct"),
                all(Denied::AnotherUser),
            ),
            (
                "another user who sends a command and hangs up at once",
                at_home("127.0.0.1:40000 127.0.0.1:9998 0/0 http direct"),
                all(Denied::Closed),
            ),
            (
                "who comes through a proxy on the master's host",
                at_home("127.0.0.1:40000 127.0.0.1:9998 0/7 http forwarded"),
                all(Denied::NoToken),
            ),
            ("another host, without a token", from_afar(), all(Denied::NoToken)),
            ("another host, with a wrong token", with("Bearer ffop-of-eve"), all(Denied::WrongToken)),
            (
                "anybody, with the cluster's `master.token`",
                with("Bearer a-secret-of-sixteen"),
                all(Denied::WrongToken),
            ),
            ("an operator with the role `read`", with(BOB), [Ok(()), Err(Denied::Role), Err(Denied::Role)]),
            ("an operator with the role `operate`", with(ANN), [Ok(()), Ok(()), get]),
            (
                "the same, on the master's own page in a browser that is logged in",
                Facts {
                    origin: Some("https://game.example:9998"),
                    user_agent: Some(FIREFOX),
                    ..with(ANN_IN_A_BROWSER)
                },
                [Ok(()), Ok(()), get],
            ),
            (
                "a page of another origin in that browser",
                Facts {
                    origin: Some("https://evil.example"),
                    user_agent: Some(FIREFOX),
                    ..with(ANN_IN_A_BROWSER)
                },
                [Ok(()), no, get],
            ),
        ]
    }

    #[test]
    fn each_row_of_the_table_of_rights_is_so() {
        let page = include_str!("../../../docs/security.md");
        for (row, facts, expected) in rows() {
            assert_eq!(judged(facts), expected, "{row}");
            let cells = page.lines().find_map(|line| line.strip_prefix(&format!("| {row} | ")));
            let cells = cells.unwrap_or_else(|| panic!("docs/security.md has no row {row:?}"));
            let shown: Vec<&str> = cells.trim_end_matches(" |").split(" | ").collect();
            let of = |judged: Result<(), Denied>| {
                judged.map_or_else(|denied| denied.status().to_string(), |()| "yes".into())
            };
            assert_eq!(shown, expected.map(of), "{row}");
        }
    }

    #[test]
    fn a_foreign_page_commands_nothing_whatever_it_says() {
        let own = "http://127.0.0.1:9998";
        for facts in [
            Facts { fetch_site: Some("cross-site"), ..curl() },
            Facts { fetch_site: Some("same-site"), origin: Some(own), ..curl() },
            Facts { origin: Some("null"), ..curl() },
            Facts { origin: Some("http://127.0.0.1:8000"), ..curl() },
            Facts { origin: Some("https://127.0.0.1:9998"), ..curl() },
            Facts { origin: Some(own), referer: Some("http://evil.example/page"), ..curl() },
            Facts { referer: Some("http://127.0.0.1:9998.evil.example/"), ..curl() },
            Facts { of_browsers: true, ..curl() },
            Facts { user_agent: Some(FIREFOX), ..curl() },
        ] {
            let [look, post, get] = judged(facts);
            assert_eq!((look, post, get), (Ok(()), Err(Denied::CrossSite), Err(Denied::Get)), "{facts:?}");
        }
        let own_page = Facts { referer: Some("http://127.0.0.1:9998/"), user_agent: Some(FIREFOX), ..curl() };
        assert_eq!(judged(own_page)[1], Ok(()), "its own page may, where the browser sends no origin");
    }

    #[test]
    fn a_connection_that_nobody_knows_is_a_strangers() {
        assert_eq!(judged(Facts { peer: None, ..curl() })[0], Err(Denied::NoToken));
        let unfound = peer("127.0.0.1:40000 127.0.0.1:9998 - http direct");
        assert_eq!(judged(Facts { peer: unfound, ..curl() })[0], Err(Denied::Closed));
        let mixed = peer("127.0.0.1:40000 192.0.2.1:9998 1000/7 http direct");
        assert_eq!(judged(Facts { peer: mixed, ..curl() })[0], Err(Denied::NoToken));
        assert_eq!(judged(Facts { host: None, ..curl() })[0], Err(Denied::Host));
    }

    #[test]
    fn a_token_is_found_in_both_schemes_and_is_its_owners_alone() {
        let by = |header| operator(header, &operators()).map(|verdict| verdict.who);
        let ann = Some(Who::Operator { name: "ann".into() });
        assert_eq!((by(ANN), by("bearer  ffop-of-ann ")), (ann.clone(), ann.clone()));
        assert_eq!(by(ANN_IN_A_BROWSER), ann);
        // bob:ffop-of-ann
        assert_eq!(by("Basic Ym9iOmZmb3Atb2YtYW5u"), None);
        for wrong in ["", "Bearer", "Bearer ", "Digest x", "Basic !", "Basic YW5u", "ffop-of-ann"] {
            assert_eq!(by(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn base64_is_read_with_and_without_padding() {
        for (text, bytes) in [("", ""), ("YQ==", "a"), ("YWI", "ab"), ("YWJj", "abc"), ("dTp0b2s/", "u:tok?")]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(base64("a b"), None);
    }
}
