//! Handlers and their calls: every kind of end is an answer of its own. Each test runs on nodes in this
//! process and on real processes: what a client sees is the same.

use std::time::Duration;

use anyhow::{Context, Result};
use tests::client::{Client, ErrorFrame, parse_error};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::http;
use tokio::time::Instant;

/// Runs the test on both kinds of cluster.
async fn on_both(test: impl AsyncFn(&Cluster, &mut Client) -> Result<()>) -> Result<()> {
    for cluster in
        [Cluster::in_process(Fixture::trial()?).await?, Cluster::processes(Fixture::trial()?).await?]
    {
        let mut client = cluster.client().await?;
        test(&cluster, &mut client).await?;
        cluster.stop().await?;
    }
    Ok(())
}

fn brief(error: &ErrorFrame) -> (u64, &str, &str) {
    (error.command, &error.code, &error.executed)
}

#[tokio::test]
async fn a_panic_is_an_error_frame_and_the_connection_goes_on() -> Result<()> {
    on_both(async |_, client| {
        let error = client.call_error(2, b"now").await?;
        assert_eq!(brief(&error), (2, "panic", "unknown"));
        assert!(!error.message.contains("now"), "the client is not told why: {error:?}");
        assert_eq!(client.call(1, b"still here").await?, "still here");
        Ok(())
    })
    .await
}

/// Where the handler of command 2 panics, in the source of its app.
fn place_of_panic() -> Result<String> {
    const FILE: &str = "tests/apps/src/trial.rs";
    let source = std::fs::read_to_string(tests::bins::root().join(FILE))?;
    let line = source.lines().position(|line| line.contains(r#"panic!("asked to: {text}")"#));
    Ok(format!("{FILE}:{}:9: asked to: ", line.context("no such line")? + 1))
}

#[tokio::test]
async fn a_panic_is_told_once_with_its_place_in_the_log_and_on_the_page_of_the_node() -> Result<()> {
    let cluster = Cluster::processes(Fixture::trial()?).await?;
    let mut client = cluster.client().await?;
    client.call_error(2, b"now").await?;
    let told = format!("handler panics: the handler panicked: {}now", place_of_panic()?);
    cluster.until_logged(&told).await?;
    let page = cluster.admin("GET", "/nodes/net").await?.body;
    assert!(page.contains(&told), "{page}");
    let log = cluster.log();
    assert!(log.matches("asked to: now").count() == 1 && !log.contains("thread '"), "{log}");
    cluster.stop().await
}

#[tokio::test]
async fn a_process_that_panics_while_it_panics_leaves_the_place_of_the_first_in_its_crash_report()
-> Result<()> {
    let cluster = Cluster::processes(Fixture::trial()?).await?;
    let old = cluster.pid("net").await?;
    cluster.client().await?.send(2, b"twice").await?;
    let node = cluster.until_back("net", old).await?;
    let told = format!("panicked at {}twice", place_of_panic()?);
    assert_eq!(node["crash"]["exit"], "signal 6 (SIGABRT)", "{node}");
    assert_eq!(node["crash"]["reason"], told, "{node}");
    let log = cluster.log();
    let path = log.split("is kept in ").nth(1).and_then(|rest| rest.split([' ', '\n']).next());
    let report = std::fs::read_to_string(path.context("no file")?)?;
    assert!(report.contains(&format!("reason       {told}\n")), "{report}");
    cluster.stop().await
}

#[tokio::test]
async fn a_handlers_error_reaches_the_client_without_its_cause() -> Result<()> {
    on_both(async |_, client| {
        let error = client.call_error(4, b"no such room").await?;
        assert_eq!(brief(&error), (4, "handler", "unknown"));
        assert_eq!(error.message, "no such room");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_handler_without_a_value_replies_nothing_and_an_empty_value_is_an_empty_reply() -> Result<()> {
    on_both(async |_, client| {
        client.send(5, b"").await?;
        assert_eq!(client.call(6, b"").await?, "");
        client.send(1003, b"").await?;
        assert_eq!(client.call(1, b"next").await?, "next", "nothing came for 5 and 1003");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_json_handler_reads_and_writes_json_and_says_what_does_not_fit() -> Result<()> {
    on_both(async |_, client| {
        assert_eq!(client.call(12, b"[2,40]").await?, "42");
        let error = client.call_error(12, b"[2]").await?;
        assert_eq!(brief(&error), (12, "bad_request", "no"));
        assert!(error.message.contains("expected JSON"), "{error:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_handler_that_does_not_end_is_ended_at_the_deadline() -> Result<()> {
    on_both(async |_, client| {
        let start = Instant::now();
        let error = client.call_error(3, b"60000").await?;
        assert_eq!(brief(&error), (3, "timeout", "unknown"));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let error = client.call_error(10, b"gate_waits_long").await?;
        assert_eq!(brief(&error), (10, "timeout", "unknown"));
        assert_eq!(client.call(1, b"next").await?, "next");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_way_in_which_a_call_fails_has_its_own_code() -> Result<()> {
    on_both(async |_, client| {
        for (command, body, code) in [
            (10, "gate_panics", "panic"),
            (10, "no_such_method", "no_method"),
            (10, "gate_calls_missing_child", "no_node"),
            (10, "gate_calls_unknown_method", "no_method"),
            (11, "", "no_node"),
            (1002, "", "panic"),
            (1999, "", "no_route"),
            (4711, "", "no_route"),
        ] {
            let error = client.call_error(command, body.as_bytes()).await?;
            assert_eq!((error.command, error.code.as_str()), (command.into(), code), "{body}: {error:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn calls_run_both_ways_on_a_link() -> Result<()> {
    on_both(async |_, client| {
        let answer = client.call(10, b"gate_calls_game").await?;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("gate called, gate says: called by game."), "{text}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn messages_of_a_session_wait_for_each_other_unless_the_handler_is_concurrent() -> Result<()> {
    on_both(async |_, client| {
        client.send(3, b"100").await?;
        client.send(1, b"after").await?;
        assert_eq!(client.receive().await?, (3, "100".into()));
        assert_eq!(client.receive().await?, (1, "after".into()));
        client.send(7, b"100").await?;
        client.send(1, b"beside").await?;
        assert_eq!(client.receive().await?, (1, "beside".into()));
        assert_eq!(client.receive().await?, (7, "100".into()));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_slow_session_delays_no_other() -> Result<()> {
    on_both(async |cluster, slow| {
        let mut quick = cluster.client().await?;
        slow.send(3, b"700").await?;
        slow.send(1000, b"1 700").await?;
        let start = Instant::now();
        for n in 1..50 {
            quick.call(1, b"x").await?;
            assert!(
                quick
                    .call(1000, format!("{n} 0").as_bytes())
                    .await?
                    .starts_with(format!("{n} ok").as_bytes())
            );
        }
        assert!(start.elapsed() < Duration::from_millis(600), "{:?}", start.elapsed());
        assert_eq!(slow.receive().await?.0, 3);
        assert_eq!(slow.receive().await?.0, 1000);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_its_handler_nor_hurt_others() -> Result<()> {
    let cluster = Cluster::processes(Fixture::trial()?).await?;
    let mut leaving = cluster.client().await?;
    leaving.send(3, b"200").await?;
    drop(leaving);
    assert_eq!(cluster.client().await?.call(1, b"x").await?, "x");
    for hook in ["hook: net started", "hook: child net connected", " opened", " closed"] {
        cluster.until_logged(hook).await?;
    }
    cluster.stop().await
}

#[tokio::test]
async fn the_apps_web_routes_and_healthz_are_served_on_the_nodes_webport() -> Result<()> {
    let cluster = Cluster::processes(Fixture::trial()?).await?;
    let hello = http::request(cluster.at("web"), "GET", "/hello", &[]).await?;
    assert_eq!((hello.status, hello.body.as_str()), (200, "hello from net\n"));
    let health = http::request(cluster.at("web"), "GET", "/healthz", &[]).await?;
    assert_eq!((health.status, health.json()?["phase"].as_str()), (200, Some("ready")));
    cluster.stop().await
}

#[tokio::test]
async fn an_error_frame_is_json_with_four_fields() -> Result<()> {
    on_both(async |_, client| {
        client.send(4711, b"").await?;
        let (command, body) = client.receive().await?;
        assert_eq!(command, u32::MAX);
        assert_eq!(
            body,
            r#"{"command":4711,"code":"no_route","message":"no handler and no route for command 4711","executed":"no"}"#
        );
        parse_error(&body).map(drop)
    })
    .await
}
