//! Requests as facts, on Rocket's local client: no port, and a supervisor that the test plays.

use std::sync::Arc;

use rocket::http::{Header, Status};
use rocket::local::asynchronous::{Client, LocalResponse};
use tokio::sync::{mpsc, watch};

use ffconfig::{Operator, OperatorRole};
use ffhttp::PEER_HEADER;
use ffkeys::operator_hash;

use super::*;
use crate::audit::{Audit, Entry};
use crate::fixture::{cluster, name};
use crate::metrics::ClusterMetrics;
use crate::output::Logs;
use crate::supervisor::event::Event;
use crate::supervisor::machine::{Machine, Outcome, Refused};
use crate::supervisor::{Order, moment};

const UID: u32 = 1000;
/// What the front says of the master's own user, and of others.
const OWNER: &str = "127.0.0.1:40000 127.0.0.1:9998 1000/7 http direct";
const NOBODY: &str = "127.0.0.1:40001 127.0.0.1:9998 65534/7 http direct";
const AFAR: (&str, &str) = (PEER_HEADER, "192.0.2.7:40000 192.0.2.1:9998 - http direct");
const ANN: (&str, &str) = ("Authorization", "Bearer ffop-of-ann");
const BOB: (&str, &str) = ("Authorization", "Bearer ffop-of-bob");
/// ann:ffop-of-ann
const ANN_IN_A_BROWSER: (&str, &str) = ("Authorization", "Basic YW5uOmZmb3Atb2YtYW5u");

/// A site whose supervisor answers each order with its own text.
async fn site() -> Client {
    let machine =
        Machine::new(&cluster(&["gate", "net:10001 > gate"]), &[], moment(&ffambient::Ambient::system()));
    let (_, view) = watch::channel(Arc::new(machine.view()));
    let (events, mut orders) = mpsc::channel(10);
    tokio::spawn(async move {
        while let Some(Event::Ordered { order, reply }) = orders.recv().await {
            let answer = match order {
                Order::Restart(node) => Err(Refused::Unknown { name: node, nearest: Some("net".into()) }),
                Order::Reload(None) => Err(Refused::Config("a: wrong\nb: wrong\n2 faults".into())),
                Order::Start(_) => Err(Refused::Busy("a stop is at `net`".into())),
                Order::Stop(_) => {
                    Ok(vec![Outcome { node: name("net"), ok: false, outcome: "<stuck>".into() }])
                }
                order => Ok(vec![Outcome { node: name("net"), ok: true, outcome: format!("{order:?}") }]),
            };
            let _ = reply.send(answer);
        }
    });
    let logs = Logs::default();
    logs.of(&name("net"), ffproto::Incarnation(1), 3).line("a <line>");
    let feed = tokio::sync::broadcast::Sender::new(4);
    let audit = Audit::open(None, ffambient::Clock::system());
    let handle = Handle { events, view, logs, feed, metrics: ClusterMetrics::new(), audit };
    let readers = Arc::new(Semaphore::new(2));
    let of = |name: &str, role, token| Operator { name: name.into(), role, hash: operator_hash(token) };
    let operators =
        [of("ann", OperatorRole::Operate, "ffop-of-ann"), of("bob", OperatorRole::Read, "ffop-of-bob")];
    let site = Site {
        handle,
        readers,
        operators: Operators::of(&operators),
        backoff: Mutex::default(),
        uid: UID,
        certificates: None,
    };
    let config =
        rocket::Config { log_level: rocket::config::LogLevel::Off, ..rocket::Config::release_default() };
    Client::untracked(set_up(site, rocket::custom(config))).await.unwrap()
}

async fn ask<'c>(client: &'c Client, post: bool, path: &str, headers: &[(&str, &str)]) -> LocalResponse<'c> {
    let mut request = if post { client.post(path.to_owned()) } else { client.get(path.to_owned()) };
    for (key, value) in [("Host", "127.0.0.1:9998"), (PEER_HEADER, OWNER)].iter().chain(headers) {
        request.replace_header(Header::new(key.to_string(), value.to_string()));
    }
    request.dispatch().await
}

async fn status_of(client: &Client, post: bool, path: &str, headers: &[(&str, &str)]) -> u16 {
    ask(client, post, path, headers).await.status().code
}

async fn json(response: LocalResponse<'_>) -> serde_json::Value {
    let text = response.into_string().await.unwrap();
    assert!(text.ends_with("}\n"), "{text:?}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_by_curl_works_by_get_and_by_post() {
    let client = site().await;
    for post in [true, false] {
        let response = ask(&client, post, "/stop", &[("Accept", "*/*")]).await;
        assert_eq!(response.status(), Status::Accepted, "it answers, then stops");
        assert_eq!(
            json(response).await,
            serde_json::json!({"ok": true, "nodes": [{"node": "net", "ok": true, "outcome": "StopAll"}]})
        );
        let response = ask(&client, post, "/nodes/net/reload", &[]).await;
        assert_eq!(response.status(), Status::Ok);
        assert_eq!(json(response).await["nodes"][0]["outcome"], "Reload(Some(\"net\"))");
    }
}

async fn audited(client: &Client) -> Vec<Entry> {
    let answer = json(ask(client, false, "/audit?limit=1000", &[]).await).await;
    serde_json::from_value(answer["entries"].clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_commands_nothing() {
    let client = site().await;
    for (key, value, by_post) in [
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-site", 403),
        ("Origin", "http://evil.example", 403),
        ("Origin", "null", 403),
        ("Origin", "http://127.0.0.1:8000", 403),
        ("Referer", "http://evil.example/page", 403),
        // As an image of any page makes it.
        ("User-Agent", "Mozilla/5.0", 403),
        ("Cookie", "a=b", 403),
        ("Sec-Fetch-Mode", "no-cors", 403),
    ] {
        for (post, path) in [(true, "/stop"), (false, "/stop"), (false, "/nodes/net/stop"), (true, "/reload")]
        {
            let response = ask(&client, post, path, &[(key, value)]).await;
            assert_eq!(response.status().code, if post { by_post } else { 405 }, "{key}: {value} {path}");
            assert!(json(response).await["error"].as_str().unwrap().contains(' '));
        }
    }
    let own = [("Origin", "http://127.0.0.1:9998"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(status_of(&client, true, "/stop", &own).await, 202, "its own page may");
    let by_hand = ask(&client, false, "/stop", &[("Sec-Fetch-Site", "none")]).await;
    assert_eq!((by_hand.status().code, by_hand.headers().get_one("Allow")), (405, Some("POST")));
    let rebound = [("Host", "evil.example")];
    assert_eq!(status_of(&client, false, "/status", &rebound).await, 403, "not even reading");
    assert_eq!(status_of(&client, false, "/status", &[("Host", "[::1]:9998")]).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_cannot_show_this_one_in_a_frame() {
    let client = site().await;
    let response = ask(&client, false, "/", &[("Accept", "text/html")]).await;
    assert_eq!(response.headers().get_one("X-Frame-Options"), Some("DENY"));
    assert!(
        response.headers().get_one("Content-Security-Policy").unwrap().contains("frame-ancestors 'none'")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_nothing_but_whether_the_cluster_is_up() {
    let client = site().await;
    for stranger in [AFAR, (PEER_HEADER, NOBODY), (PEER_HEADER, "")] {
        for (post, path) in [
            (false, "/"),
            (false, "/status"),
            (false, "/metrics"),
            (false, "/nodes/net"),
            (false, "/events"),
            (false, "/audit"),
            (true, "/stop"),
            (false, "/stop"),
            (true, "/rotate"),
            (true, "/log?level=debug"),
            (true, "/nodes/net/log?level=debug"),
            (false, "/sessions"),
            (false, "/sessions/1"),
            (true, "/sessions/1/close"),
            (true, "/sessions/1/notice?command=1"),
            (true, "/sessions/notice?command=1"),
            (true, "/users/ann/kick"),
            (false, "/run"),
            (true, "/run/weather"),
            (false, "/nonsense"),
        ] {
            let response = ask(&client, post, path, &[stranger]).await;
            assert_eq!(response.status(), Status::Unauthorized, "{path}");
            let offers: Vec<_> = response.headers().get("WWW-Authenticate").collect();
            assert_eq!(offers, ["Bearer realm=\"master\"", "Basic realm=\"master\""]);
        }
        let health = ask(&client, false, "/healthz", &[stranger]).await;
        assert_eq!(health.status(), Status::ServiceUnavailable);
        assert_eq!(json(health).await, serde_json::json!({ "ok": false }));
    }
    let whole = json(ask(&client, false, "/healthz", &[]).await).await;
    assert_eq!(whole["error"], "the cluster is starting", "the owner is told why: {whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_does_what_the_role_says() {
    let client = site().await;
    for (post, path, reads, operates) in [
        (false, "/status", 200, 200),
        (false, "/metrics", 200, 200),
        (false, "/nodes/net", 200, 200),
        (false, "/audit", 403, 200),
        (true, "/stop", 403, 202),
        (true, "/rotate", 403, 200),
        (true, "/log?level=debug", 403, 200),
        (true, "/log?level=loud", 403, 422),
        (true, "/nodes/net/log?level=debug", 403, 409),
        (false, "/sessions", 200, 200),
        (true, "/sessions/x/close", 403, 400),
        (true, "/users/ann/kick", 403, 200),
        (false, "/run", 200, 200),
        (true, "/run/weather", 403, 404),
        (false, "/stop", 403, 405),
    ] {
        assert_eq!(status_of(&client, post, path, &[AFAR, BOB]).await, reads, "{path}");
        assert_eq!(status_of(&client, post, path, &[AFAR, ANN]).await, operates, "{path}");
        assert_eq!(status_of(&client, post, path, &[AFAR, ANN_IN_A_BROWSER]).await, operates, "{path}");
        let cross = [AFAR, ANN_IN_A_BROWSER, ("Origin", "http://evil.example")];
        let expected = if post { 403 } else { operates };
        assert_eq!(status_of(&client, post, path, &cross).await, expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_wrong_tokens_waits_and_nobody_else_does() {
    let client = site().await;
    let wrong = [AFAR, ("Authorization", "Bearer a-secret-of-sixteen")];
    for _ in 0..5 {
        let response = ask(&client, false, "/status", &wrong).await;
        assert_eq!(response.status(), Status::Unauthorized);
        assert!(
            json(response).await["error"].as_str().unwrap().contains("master.token is the cluster's own")
        );
    }
    let response = ask(&client, false, "/status", &[AFAR, ANN]).await;
    assert_eq!(response.status(), Status::TooManyRequests, "also with the right one");
    assert!(response.headers().get_one("Retry-After").unwrap().parse::<u64>().unwrap() > 0);
    let another = (PEER_HEADER, "192.0.2.8:40000 192.0.2.1:9998 - http direct");
    assert_eq!(status_of(&client, false, "/status", &[another, ANN]).await, 200);
    assert_eq!(status_of(&client, false, "/status", &[]).await, 200, "nor does the owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_and_each_refusal_is_in_the_audit() {
    let client = site().await;
    ask(&client, true, "/stop", &[AFAR, ANN]).await;
    ask(&client, false, "/nodes/net/reload", &[]).await;
    ask(&client, true, "/nodes/nte/restart", &[]).await;
    ask(&client, true, "/stop", &[AFAR, BOB]).await;
    ask(&client, true, "/stop", &[(PEER_HEADER, NOBODY)]).await;
    let shown = |entry: &Entry| {
        let role = entry.role.as_deref().unwrap_or("-");
        format!("{} {role} {} {} {} {}", entry.who, entry.from, entry.method, entry.what, entry.status)
    };
    let entries = audited(&client).await;
    let shown: Vec<String> = entries.iter().rev().map(shown).collect();
    assert_eq!(
        shown,
        [
            "ann operate 192.0.2.7 POST /stop 202",
            "owner operate 127.0.0.1 (uid 1000) GET /nodes/net/reload 200",
            "owner operate 127.0.0.1 (uid 1000) POST /nodes/nte/restart 404",
            "bob read 192.0.2.7 POST /stop 403",
            "- - 127.0.0.1 (uid 65534) POST /stop 401",
        ]
    );
    assert_eq!(entries[4].result, "net: StopAll");
    assert_eq!(entries[2].result, "refused: there is no node `nte`; did you mean `net`?");
    let page = ask(&client, false, "/audit", &[("Accept", "text/html")]).await.into_string().await.unwrap();
    assert!(page.contains("<td>ann<td>operate<td>192.0.2.7"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_for_so_many_at_once() {
    let client = site().await;
    let mut first = ask(&client, false, "/events", &[]).await;
    assert_eq!(first.content_type(), Some(rocket::http::ContentType::EventStream));
    let mut text = vec![0; 4096];
    let read = tokio::io::AsyncReadExt::read(&mut first, &mut text).await.unwrap();
    let text = String::from_utf8_lossy(&text[..read]).into_owned();
    assert!(text.starts_with("event:status\n"), "{text}");
    let second = ask(&client, false, "/events", &[]).await;
    assert_eq!(second.status(), Status::Ok);
    let third = ask(&client, false, "/events", &[]).await;
    assert_eq!(third.status(), Status::ServiceUnavailable);
    assert_eq!(json(third).await["error"], "too many read the events already");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_own_codes_and_all_their_lines() {
    let client = site().await;
    let unknown = ask(&client, true, "/nodes/nte/restart", &[]).await;
    assert_eq!(unknown.status(), Status::NotFound);
    assert_eq!(json(unknown).await["error"], "there is no node `nte`; did you mean `net`?");
    let faults = ask(&client, true, "/reload", &[]).await;
    assert_eq!(faults.status(), Status::UnprocessableEntity);
    assert_eq!(json(faults).await["faults"], serde_json::json!(["a: wrong", "b: wrong", "2 faults"]));
    let busy = ask(&client, true, "/nodes/net/start", &[]).await;
    assert_eq!(busy.status(), Status::Conflict);
    assert_eq!(json(busy).await["error"], "a stop is at `net`; try again when that is done");
    let failed = ask(&client, true, "/nodes/net/stop", &[]).await;
    assert_eq!(failed.status(), Status::InternalServerError);
    assert_eq!(json(failed).await["ok"], false);
    assert_eq!(status_of(&client, false, "/nonsense", &[]).await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_pages_and_a_program_gets_json() {
    let client = site().await;
    let browser = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let index = ask(&client, false, "/", &browser).await.into_string().await.unwrap();
    assert!(
        index.contains("<a href=\"/nodes/net\">net</a>") && index.contains("action=\"/nodes/net/restart\"")
    );
    let node = ask(&client, false, "/nodes/net", &browser).await.into_string().await.unwrap();
    assert!(node.contains("a &lt;line&gt;"), "{node}");
    let own_page = [browser[0], ("Origin", "http://127.0.0.1:9998")];
    let done = ask(&client, true, "/nodes/net/stop", &own_page).await.into_string().await.unwrap();
    assert!(done.contains("&lt;stuck&gt;") && done.starts_with("<!doctype html>"));
    let status = json(ask(&client, false, "/status", &[]).await).await;
    assert_eq!(status["cluster"], "cluster");
    let keys = [
        "name",
        "kind",
        "state",
        "pid",
        "incarnation",
        "since",
        "restarts",
        "parents",
        "children",
        "sessions",
        "last_exit",
    ];
    for key in keys {
        assert!(status["nodes"][1].get(key).is_some(), "{key}");
    }
    assert_eq!(
        json(ask(&client, false, "/nodes/net", &[]).await).await["lines"],
        serde_json::json!(["a <line>"])
    );
}
