//! The examples of docs/testing.md: a game, and its tests. What stands there stands here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ffserver::Code;
use ffserver::prelude::*;
use ffserver::testing::{self, Cluster, paused};

/// Handlers and tests fail alike: whatever a test may fail with becomes a `HandlerError` with `?`.
pub(super) type Result<T> = std::result::Result<T, HandlerError>;

pub(super) const CONFIG: &str = r#"{
    "master": { "rootport": 9999, "webport": 9998 },
    "servers": {
        "room": { "app": "room", "rootport": 10000 },
        "net": { "app": "net", "netport": 10001, "remoteport": [{ "rootname": "room" }],
                 "route": { "range": { "room": [[2, 9]] } } } } }"#;

ffserver::parents! { Room = "room" }

/// How often anybody has clicked.
#[derive(Default)]
struct Total(AtomicU64);

/// At the net node, which asks the room.
#[net_handle(1)]
async fn total(room: Parent<Room>) -> Result<Bytes> {
    Ok(room.call("total_for", "net").await?)
}

#[root_handle]
async fn total_for(total: State<Total>, Body(who): Body<String>) -> String {
    format!("{} for {who}", total.0.load(Ordering::Relaxed))
}

/// In the room: everybody is told.
#[net_handle(2)]
async fn click(node: Node, total: State<Total>) -> String {
    let clicks = (total.0.fetch_add(1, Ordering::Relaxed) + 1).to_string();
    node.broadcasts().to_all(CommandId(10), clicks.as_bytes());
    clicks
}

#[net_handle(3)]
async fn dream() -> String {
    std::future::pending().await
}

#[net_handle(4)]
async fn dice(node: Node) -> Result<String> {
    Ok((node.chance().u64()? % 6 + 1).to_string())
}

#[net_handle(5)]
async fn greet(session: Session, Body(name): Body<String>) -> Result<()> {
    session.push(CommandId(11), format!("hello, {name}").as_bytes())?;
    Ok(())
}

fn room() -> App {
    App::new("room").state(Total::default()).handlers(handlers![total_for, click, dream, dice, greet])
}

pub(super) fn apps() -> Vec<App> {
    vec![App::new("net").handlers(handlers![total]), room()]
}

#[tokio::test]
async fn two_players_see_what_both_have_done() -> Result<()> {
    let cluster = Cluster::start_text(CONFIG, apps).await?;
    let (mut ann, mut bob) = (cluster.client("net")?, cluster.client("net")?);
    assert_eq!(ann.call(2, "").await?, "1");
    assert_eq!(bob.call(2, "").await?, "2");
    assert_eq!(ann.push(10).await?, "1");
    assert_eq!(ann.push(10).await?, "2");
    assert_eq!(ann.call(1, "").await?, "2 for net");
    Ok(cluster.stop().await?)
}

#[tokio::test]
async fn a_click_is_counted() -> Result<()> {
    let node = testing::node(room).await?;
    let total = node.state::<Total>().ok_or("no total")?;
    assert_eq!(click(node.node(), total.clone()).await, "1");
    assert_eq!(total_for(total, Body("ann".into())).await, "1 for ann");
    let mut ann = node.session().await?;
    greet(ann.session(), Body("ann".into())).await?;
    assert_eq!(ann.client.push(11).await?, "hello, ann");
    Ok(())
}

#[tokio::test]
async fn the_total_is_what_the_room_says() -> Result<()> {
    let room = testing::parent::<Room>(&["total_for"], |_method, who| Ok(who)).await?;
    assert_eq!(total(room.parent()).await?, "net");
    assert_eq!(room.calls(), [("total_for".to_owned(), Bytes::from("net"))]);
    Ok(())
}

#[tokio::test]
async fn who_plays_on_is_served_when_a_killed_room_is_back() -> Result<()> {
    let mut cluster = Cluster::start_text(CONFIG, apps).await?;
    let mut ann = cluster.client("net")?;
    assert_eq!(ann.call(2, "").await?, "1");
    cluster.kill("room").await?;
    cluster.start_node("room").await?;
    assert_eq!(ann.call(2, "").await?, "1", "the total was in its memory");
    Ok(())
}

#[test]
fn a_handler_that_dreams_is_ended_after_five_seconds() -> Result<()> {
    paused(async |clock| {
        let cluster = Cluster::start_text(CONFIG, apps).await?;
        let mut ann = cluster.client("net")?;
        let (late, ()) = tokio::join!(ann.call(3, ""), clock.advance(Duration::from_secs(5)));
        assert_eq!(late.unwrap_err().code(), Some(Code::Timeout));
        Ok(())
    })
}

#[test]
fn a_call_over_a_cut_link_fails_within_two_seconds() -> Result<()> {
    paused(async |clock| {
        let cluster = Cluster::start_text(CONFIG, apps).await?;
        let mut ann = cluster.client("net")?;
        cluster.cut("net", "room").await?;
        // limits.park_ms: for so long a call waits for a neighbour that may come back.
        let (failed, ()) = tokio::join!(ann.call(1, ""), clock.advance(Duration::from_secs(2)));
        assert_eq!(failed.unwrap_err().code(), Some(Code::NoNode));
        cluster.heal("net", "room").await?;
        assert_eq!(ann.call(1, "").await?, "0 for net");
        Ok(())
    })
}

#[test]
fn a_slow_link_costs_its_delay_twice() -> Result<()> {
    paused(async |clock| {
        let cluster = Cluster::start_text(CONFIG, apps).await?;
        let mut ann = cluster.client("net")?;
        cluster.delay("net", "room", Duration::from_millis(80))?;
        let call = async { (ann.call(1, "").await, clock.elapsed()) };
        let ((total, after), ()) = tokio::join!(call, clock.advance(Duration::from_secs(1)));
        assert_eq!((&total?[..], after), (&b"0 for net"[..], Duration::from_millis(160)));
        Ok(())
    })
}

#[tokio::test]
async fn a_cheat_has_to_guess_the_dice() -> Result<()> {
    let thrown = async |seed: u64| {
        let cluster = Cluster::setup_text(CONFIG).seed(seed).start(apps).await?;
        let mut ann = cluster.client("net")?;
        Result::Ok([ann.call(4, "").await?, ann.call(4, "").await?, ann.call(4, "").await?])
    };
    assert_eq!(thrown(7).await?, thrown(7).await?);
    assert_ne!(thrown(7).await?, thrown(8).await?);
    Ok(())
}
