//! Requests as facts, on Rocket's local client: no port, and a supervisor that the test plays.

use std::sync::Arc;

use rocket::http::{Header, Status};
use rocket::local::asynchronous::{Client, LocalResponse};
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use super::*;
use crate::fixture::{cluster, name};
use crate::metrics::ClusterMetrics;
use crate::output::Logs;
use crate::supervisor::event::Event;
use crate::supervisor::machine::{Machine, Outcome, Refused};
use crate::supervisor::{Order, moment};

/// A site whose supervisor answers each order with its own text.
async fn site(token: Option<&str>) -> Client {
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
    let handle = Handle { events, view, logs, feed, metrics: ClusterMetrics::new() };
    let readers = Arc::new(Semaphore::new(2));
    let site = Site {
        handle,
        readers,
        tokens: Tokens::of(token.map(|token| Arc::new(Zeroizing::new(token.to_owned())))),
        loopback: true,
    };
    let config =
        rocket::Config { log_level: rocket::config::LogLevel::Off, ..rocket::Config::release_default() };
    Client::untracked(set_up(site, rocket::custom(config))).await.unwrap()
}

async fn ask<'c>(client: &'c Client, post: bool, path: &str, headers: &[(&str, &str)]) -> LocalResponse<'c> {
    let mut request = if post { client.post(path.to_owned()) } else { client.get(path.to_owned()) };
    for (key, value) in [("Host", "127.0.0.1:9998")].iter().chain(headers) {
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
    let client = site(None).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_commands_nothing() {
    let client = site(None).await;
    for (key, value) in [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:8000"),
        ("Referer", "http://evil.example/page"),
        ("Host", "evil.example:9998"),
    ] {
        for (post, path) in [(true, "/stop"), (false, "/stop"), (false, "/nodes/net/stop"), (true, "/reload")]
        {
            let response = ask(&client, post, path, &[(key, value)]).await;
            assert_eq!(response.status(), Status::Forbidden, "{key}: {value} {path}");
            assert!(json(response).await["error"].as_str().unwrap().contains(' '));
        }
    }
    let own = [("Origin", "http://127.0.0.1:9998"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(status_of(&client, true, "/stop", &own).await, 202, "its own page may");
    assert_eq!(status_of(&client, false, "/stop", &[("Sec-Fetch-Site", "none")]).await, 202, "typed by hand");
    let rebound = [("Host", "evil.example")];
    assert_eq!(status_of(&client, false, "/status", &rebound).await, 403, "not even reading");
    assert_eq!(status_of(&client, false, "/status", &[("Host", "[::1]:9998")]).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_everything_but_healthz_asks_for_it() {
    let client = site(Some("s3cret")).await;
    for (post, path) in [
        (false, "/"),
        (false, "/status"),
        (false, "/metrics"),
        (false, "/nodes/net"),
        (true, "/stop"),
        (false, "/stop"),
    ] {
        let response = ask(&client, post, path, &[]).await;
        assert_eq!(response.status(), Status::Unauthorized, "{path}");
        let offers: Vec<_> = response.headers().get("WWW-Authenticate").collect();
        assert_eq!(offers, ["Bearer realm=\"master\"", "Basic realm=\"master\""]);
        assert_eq!(status_of(&client, post, path, &[("Authorization", "Bearer s3cre")]).await, 401);
        let right = [("Authorization", "Bearer s3cret")];
        assert!(status_of(&client, post, path, &right).await < 300, "{path}");
        // any:s3cret, as a browser sends it
        let basic = [("Authorization", "Basic YW55OnMzY3JldA==")];
        assert!(status_of(&client, post, path, &basic).await < 300, "{path}");
        let cross = [basic[0], ("Sec-Fetch-Site", "cross-site")];
        let expected = if path == "/stop" { 403 } else { 200 };
        assert_eq!(status_of(&client, post, path, &cross).await, expected, "{path}");
    }
    let health = ask(&client, false, "/healthz", &[]).await;
    assert_eq!(health.status(), Status::ServiceUnavailable);
    assert_eq!(json(health).await["error"], "not healthy: see /status");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_for_whoever_may_look_and_for_so_many_at_once() {
    let client = site(Some("s3cret")).await;
    assert_eq!(status_of(&client, false, "/events", &[]).await, 401);
    let right = [("Authorization", "Bearer s3cret")];
    let mut first = ask(&client, false, "/events", &right).await;
    assert_eq!(first.content_type(), Some(rocket::http::ContentType::EventStream));
    let mut text = vec![0; 4096];
    let read = tokio::io::AsyncReadExt::read(&mut first, &mut text).await.unwrap();
    let text = String::from_utf8_lossy(&text[..read]).into_owned();
    assert!(text.starts_with("event:status\n"), "{text}");
    let second = ask(&client, false, "/events", &right).await;
    assert_eq!(second.status(), Status::Ok);
    let third = ask(&client, false, "/events", &right).await;
    assert_eq!(third.status(), Status::ServiceUnavailable);
    assert_eq!(json(third).await["error"], "too many read the events already");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_own_codes_and_all_their_lines() {
    let client = site(None).await;
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
    let client = site(None).await;
    let browser = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let index = ask(&client, false, "/", &browser).await.into_string().await.unwrap();
    assert!(
        index.contains("<a href=\"/nodes/net\">net</a>") && index.contains("action=\"/nodes/net/restart\"")
    );
    let node = ask(&client, false, "/nodes/net", &browser).await.into_string().await.unwrap();
    assert!(node.contains("a &lt;line&gt;"), "{node}");
    let done = ask(&client, true, "/nodes/net/stop", &browser).await.into_string().await.unwrap();
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
