//! What clients and peers get for bad input: a reason, and nobody else is hurt.

use anyhow::Result;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;

#[tokio::test]
async fn a_bad_client_frame_closes_that_connection_with_a_logged_reason() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut good = cluster.client().await?;
    let length = |n: u32| [&[0; 9][..], &n.to_be_bytes()].concat();
    for (bytes, reason) in [
        (b"HEAD / HTTP/1.1\r\n\r\n".to_vec(), "illegal frame: wrong head"),
        (length(3), "illegal frame: length 3 is below 4"),
        (length(65_537), "illegal frame: length 65537 is above limits.frame_bytes_max = 65536"),
        (length(u32::MAX), "illegal frame: length 4294967295 is above"),
    ] {
        let mut bad = cluster.client().await?;
        bad.send_bytes(&bytes).await?;
        bad.until_closed().await?;
        cluster.until_logged(reason).await?;
    }
    good.call(300, b"still here").await?;
    cluster.stop().await
}

#[tokio::test]
async fn an_unknown_command_is_an_error_frame_and_the_connection_goes_on() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut client = cluster.client().await?;
    let error = client.call_error(4711, b"").await?;
    assert_eq!((error.command, error.code.as_str(), error.executed.as_str()), (4711, "no_route", "no"));
    assert_eq!(client.call(100, b"x").await?, "netHandle_100 completed");
    cluster.stop().await
}

#[tokio::test]
async fn a_body_that_does_not_fit_its_handler_is_an_error_frame() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut client = cluster.client().await?;
    let error = client.call_error(100, b"\xff\xfe").await?;
    assert_eq!((error.code.as_str(), error.executed.as_str()), ("bad_request", "no"));
    assert!(error.message.contains("no UTF-8 text"), "{error:?}");
    cluster.stop().await
}
