//! Hooks of nodes and of their children: when they run, with what, and that nothing waits for them that need not.

use anyhow::Result;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::process::until_gone;

/// A gate whose hooks write lines of the log (see `tests/apps/src/hooks.rs`), and these nodes behind it.
fn fixture(nodes: &str) -> Result<Fixture> {
    let text = r#"{
  "master": { "rootport": @master, "webport": @admin, "restart": { "wait_ms_max": 100 } },
  "limits": { "call_timeout_ms": 20000 },
  "servers": {
    "gate": { "rootport": @gate, "app": "hooksgate" },
    NODES
    "net":  { "netport": @net, "remoteport": [{ "rootname": "gate" }], "app": "hooksnet" }
  }
}"#;
    Fixture::new(&text.replace("NODES", nodes))
}

/// Waits until the hooks have written about `whom` as many lines as these, and wants them to be these.
async fn until_events(cluster: &Cluster, whom: &str, expected: &[&str]) -> Result<()> {
    let events = tests::wait::until("the hooks have ended", async || {
        let events = events(cluster, whom);
        if events.len() >= expected.len() { Ok(events) } else { Err(events) }
    });
    assert_eq!(events.await?, expected);
    Ok(())
}

/// A node behind the gate.
fn child(name: &str, app: &str) -> String {
    format!(r#""{name}": {{ "remoteport": [{{ "rootname": "gate" }}], "app": "{app}" }},"#)
}

/// The lines of the log that the hooks have written about `whom`, without what stands before them.
fn events(cluster: &Cluster, whom: &str) -> Vec<String> {
    let log = cluster.log();
    let events = log.lines().filter_map(|line| line.split_once("event: ").map(|(_, event)| event));
    // Those of handlers say of which request they are.
    let events = events.map(|event| event.split(" session=").next().unwrap_or_default());
    events.filter(|event| event.starts_with(whom)).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_hook_that_waits_leaves_its_childs_link_up() -> Result<()> {
    let cluster = Cluster::processes(fixture(&child("asked", "hooksgame"))?).await?;
    cluster.until_logged("event: asked connected").await?;
    let answer = cluster.client().await?.call(1, b"asked").await?;
    assert_eq!(answer, "heard from a client");
    // The hook waits for that, and for 3 s.
    cluster.until_logged("event: asked connected, the hook ends").await?;
    assert_eq!(events(&cluster, "asked"), ["asked connected", "asked connected, the hook ends"]);
    cluster.stop().await
}

#[tokio::test]
async fn a_hook_may_call_the_child_that_it_is_about() -> Result<()> {
    let cluster = Cluster::processes(fixture(&child("called", "hooksgame"))?).await?;
    cluster.until_logged("event: called connected, the hook ends").await?;
    assert_eq!(
        events(&cluster, "called"),
        [
            "called connected",
            r#"called answered Ok(b"heard from the hook")"#,
            "called connected, the hook ends"
        ]
    );
    cluster.stop().await
}

#[tokio::test]
async fn a_child_that_dies_is_lost_behind_the_hook_at_its_connecting_and_before_the_next() -> Result<()> {
    let cluster = Cluster::processes(fixture(&child("slow", "hooksgame"))?).await?;
    cluster.until_logged("event: slow connected").await?;
    let killed = cluster.kill_hard("slow").await?;
    cluster.until_back("slow", killed).await?;
    let ends = "slow connected, the hook ends";
    tests::wait::until("both links were told of", async || {
        let events = events(&cluster, "slow");
        if events.iter().filter(|event| *event == ends).count() == 2 { Ok(()) } else { Err(events) }
    })
    .await?;
    let mut events = events(&cluster, "slow");
    // The hook at the connecting takes 3 s: the child may be back before.
    let lost = events.remove(2);
    assert!(lost.starts_with("slow lost"), "{lost}, {events:?}");
    assert_eq!(events, ["slow connected", ends, "slow connected", ends]);
    cluster.stop().await
}

#[tokio::test]
async fn a_child_that_is_gone_for_good_is_lost_when_it_is_linked_no_more() -> Result<()> {
    let cluster = Cluster::processes(fixture(&child("game", "hooksgame"))?).await?;
    cluster.until_logged("event: game connected, the hook ends").await?;
    let answer = cluster.admin("POST", "/nodes/game/stop").await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    cluster.until_logged("event: game lost").await?;
    assert_eq!(
        events(&cluster, "game"),
        ["game connected", "game connected, the hook ends", "game lost, linked: false"]
    );
    cluster.stop().await
}

#[tokio::test]
async fn a_child_that_is_replaced_connects_again_and_is_not_lost() -> Result<()> {
    let cluster = Cluster::processes(fixture(&child("game", "hooksgame"))?).await?;
    cluster.until_logged("event: game connected, the hook ends").await?;
    let (game, gate) = (cluster.pid("game").await?, cluster.pid("gate").await?);
    let answer = cluster.admin("POST", "/nodes/game/reload").await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let each = ["game connected", "game connected, the hook ends"];
    until_events(&cluster, "game", &each.repeat(2)).await?;
    until_gone(game).await?;
    // Both processes of the gate are told that it connects, and none that it is lost.
    let answer = cluster.admin("POST", "/nodes/gate/reload").await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    until_events(&cluster, "game", &each.repeat(3)).await?;
    // A process of the gate that took a child for lost would say so before its end.
    until_gone(gate).await?;
    assert_eq!(events(&cluster, "game"), each.repeat(3));
    cluster.stop().await
}

#[tokio::test]
async fn a_node_that_stops_is_told_behind_its_handlers_and_sessions_and_before_its_links_close() -> Result<()>
{
    let cluster = Cluster::processes(fixture("")?).await?;
    let pid = cluster.pid("net").await?;
    let mut client = cluster.client().await?;
    client.send(2, b"300").await?;
    cluster.until_logged("event: stop: a handler begins").await?;
    let answer = cluster.admin("POST", "/nodes/net/stop").await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    cluster.until_logged("event: stop: net").await?;
    assert_eq!(
        events(&cluster, "stop"),
        [
            "stop: a handler begins",
            "stop: a handler ends",
            "stop: a session has closed",
            &format!("stop: net, process {pid}, 0 sessions, Ok(\"net is heard\")"),
        ]
    );
    cluster.stop().await
}

#[tokio::test]
async fn a_process_that_hands_over_is_told_that_it_stops_unless_its_state_went() -> Result<()> {
    let cluster = Cluster::processes(fixture(&child("frozen", "hooksfrozen"))?).await?;
    let (old, frozen) = (cluster.pid("net").await?, cluster.pid("frozen").await?);
    let answer = cluster.admin("POST", "/reload").await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    cluster.until_logged("event: stop: net").await?;
    until_gone(old).await?;
    until_gone(frozen).await?;
    let stopped = format!("stop: net, process {old}, 0 sessions, Ok(\"net is heard\")");
    assert_eq!(events(&cluster, "stop"), [stopped], "the state of `frozen` is its successor's to save");
    cluster.stop().await
}
