//! Arguments and replies that an author brings, from a crate of its own (`tests/authors/src/players.rs`): on the node of the
//! client's session, behind a gate, and at start.

use std::time::Duration;

use anyhow::{Context, Result};
use authors::players;
use ffproto::Incarnation;
use ffserver::{Ambient, BuildError, FFServer, Stop, process};
use tests::client::Client;
use tests::fixtures::Fixture;
use tests::wait;
use tokio::sync::oneshot;

fn fixture() -> Result<Fixture> {
    Fixture::new(
        r#"{"master": {"rootport": @master, "webport": @admin}, "servers": {
            "gate": {"app": "gate", "rootport": @gate},
            "net": {"app": "net", "netport": @net, "remoteport": [{"rootname": "gate"}],
                    "route": {"range": {"game": [[1000, 1999]]}}},
            "game": {"app": "game", "remoteport": [{"rootname": "gate"}]}}}"#,
    )
}

fn config(fixture: &Fixture) -> Result<ffconfig::Cluster> {
    Ok(ffconfig::parse(&fixture.text, "/test/config.json".as_ref(), &|_| None)?.cluster)
}

/// Runs the test against the author's apps, every node in this process.
async fn running(test: impl AsyncFnOnce(Client) -> Result<()>) -> Result<()> {
    let fixture = fixture()?;
    let config = config(&fixture)?;
    let (_, at) = fixture.ports().find(|(name, _)| *name == "net").context("no port of net")?;
    let (stop, ambient) = (Stop::new(Duration::from_secs(5)), Ambient::system());
    let (done, is_done) = oneshot::channel::<()>();
    let asking = async {
        let _done = done;
        let opened = wait::until("the net node takes clients", async || {
            Client::connect(at).await.map_err(|e| format!("{e:#}"))
        });
        test(opened.await?).await
    };
    let running = async {
        let all = process::run_all(&config, players::apps, Incarnation(1), stop.clone(), &ambient);
        let stopping = async {
            let _ = is_done.await;
            stop.begin(None);
        };
        tokio::join!(all, stopping).0
    };
    let (ended, asked) = tokio::join!(running, asking);
    asked?;
    Ok(ended?)
}

#[tokio::test]
async fn an_authors_argument_is_taken_out_of_a_request_on_a_node_behind_the_gate() -> Result<()> {
    running(async |mut client| {
        let error = client.call_error(1000, b"1").await?;
        assert_eq!((error.code.as_str(), error.executed.as_str()), ("bad_request", "no"), "{error:?}");
        assert_eq!(error.message, "nobody has logged in");
        client.send(1, b"ann").await?;
        assert_eq!(client.call(1000, b"1\n2,3\n").await?, "ann,6\n");
        assert_eq!(client.call(1000, b"-4").await?, "ann,2\n");
        assert_eq!(client.call(1003, b"").await?, "ann,2\n");
        let error = client.call_error(1000, b"four").await?;
        assert_eq!((error.code.as_str(), error.message.as_str()), ("handler", "the handler failed"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_authors_argument_sees_the_request_and_one_of_them_takes_the_body() -> Result<()> {
    running(async |mut client| {
        // The gate has brought it.
        let label = "game for gate, Some(1001), Some(5) bytes, in time: true, 2 rows";
        assert_eq!(client.call(1001, b"1\n2,3").await?, label);
        let error = client.call_error(1001, b"\xff").await?;
        assert!(error.message.contains("no UTF-8 text"), "{error:?}");
        let error = client.call_error(1002, b"1").await?;
        assert_eq!(error.message, "two arguments of the handler take the body");
        Ok(())
    })
    .await
}

#[test]
fn a_node_without_what_an_authors_argument_needs_does_not_start_and_says_which_handler() -> Result<()> {
    let built = FFServer::new(&config(&fixture()?)?, "game", vec![players::without_points()], Incarnation(1));
    let Err(BuildError::Faults { faults, .. }) = built else { panic!("it is built") };
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("`standing` (") && faults[0].contains("takes State<"), "{faults:?}");
    assert!(faults[0].contains("Points>, which the app does not have: add .state(…) to it"), "{faults:?}");
    Ok(())
}
