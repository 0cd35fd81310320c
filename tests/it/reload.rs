//! What a reload says: nothing alarming when nothing is amiss, and whose state is lost.

use anyhow::{Context, Result};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::wait;

/// A hub, four gates, four net nodes and eleven rooms below all of the gates.
fn twenty() -> Result<Fixture> {
    let gates: Vec<String> = (1..=4)
        .map(|n| {
            format!(r#""gate{n}": {{ "rootport": @gate{n}, "app": "mazegate", "remoteport": [{{ "rootname": "hub" }}] }}"#)
        })
        .collect();
    let nets: Vec<String> = (1..=4)
        .map(|n| {
            format!(
                r#""net{n}": {{ "netport": @net{n}, "app": "mazenet", "remoteport": [{{ "rootname": "gate{n}" }}],
                   "route": {{ "range": {{ "room": [[3000, 3999]] }} }} }}"#
            )
        })
        .collect();
    let parents: Vec<String> = (1..=4).map(|n| format!(r#"{{ "rootname": "gate{n}" }}"#)).collect();
    Fixture::new(&format!(
        r#"{{
  "master": {{ "rootport": @master, "webport": @admin }},
  "limits": {{ "prove_ms": 0 }},
  "servers": {{
    "hub": {{ "rootport": @hub, "app": "mazegate", "type": "hub" }},
    {},
    {},
    "room": {{ "count": 11, "app": "mazeroom", "type": "room", "remoteport": [{}] }}
  }}
}}"#,
        gates.join(",\n    "),
        nets.join(",\n    "),
        parents.join(", ")
    ))
}

/// A machine that gives a loop no time is not what a reload is judged by.
fn is_of_the_machine(line: &str) -> bool {
    ["the loop turns again", "this process stood still", "no sign of life", "hangs: nothing heard"]
        .iter()
        .any(|what| line.contains(what))
}

#[tokio::test]
async fn a_clean_reload_of_twenty_nodes_warns_of_nothing() -> Result<()> {
    let cluster = Cluster::processes(twenty()?).await?;
    let before = cluster.log().len();
    let answer = cluster.admin("POST", "/reload").await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let log = cluster.log();
    let during = log.get(before..).context("the log has shrunk")?;
    let alarms = during.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    let alarms: Vec<&str> = alarms.filter(|line| !is_of_the_machine(line)).collect();
    assert!(alarms.is_empty(), "{alarms:#?}");
    cluster.stop().await
}

#[tokio::test]
async fn a_reload_that_loses_state_says_so_in_the_log_and_in_its_answer() -> Result<()> {
    // A hall has .state(…) and no .freeze(…); its gate has none of both.
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let warning = "app hall has .state(…) and no .freeze(…): a reload loses it";
    let until_warned = async |times: usize| {
        let found = wait::until("the warnings are in the log", async || {
            let of_a_hall = |line: &&str| line.starts_with("hall.") && line.contains(warning);
            let found = cluster.log().lines().filter(of_a_hall).count();
            if found >= times { Ok(found) } else { Err(cluster.log()) }
        });
        assert_eq!(found.await?, times, "once for each process of a hall: {}", cluster.log());
        anyhow::Ok(())
    };
    until_warned(2).await?;
    for (node, loses) in [("gate", false), ("hall.1", true)] {
        let answer = cluster.admin("POST", &format!("/nodes/{node}/reload")).await?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let outcome = answer.json()?["nodes"][0]["outcome"].as_str().context("no outcome")?.to_owned();
        assert_eq!(outcome.contains("WARNING: its state is lost"), loses, "{node}: {outcome}");
    }
    until_warned(3).await?;
    cluster.stop().await
}
