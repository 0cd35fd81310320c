//! A stolen node key is that node and nothing else: what a node has no right to is refused, whatever it says on its link.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use ffproto::link::Kind;
use ffproto::relay::{Audience, Broadcast, Call, Claim, MoveOrder, Op, SessionChange};
use ffproto::{Code, CommandId, Fault, NodeName, NodeNumber, SessionId};
use serde_json::Value;
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::rogue::{Rogue, envelope};

/// The numbers that the master gives, in the order of the config.
const NET: u16 = 2;
const HALL: u16 = 4;
const ROGUE: u16 = 6;

/// A hall with a node that no route leads to, with these keys in its entry. The master starts it nowhere: whoever has its key is
/// it.
async fn with_spare(keys: &str) -> Result<Cluster> {
    let spare = format!(
        r#""remoteport": [{{ "rootname": "gate" }}], "app": "hall" }},
    "spare": {{ "type": "spare", "host": "192.0.2.1", "remoteport": [{{ "rootname": "gate" }}], "app": "hall"{keys} }}"#
    );
    let fixture =
        Fixture::hall()?.replace(r#""remoteport": [{ "rootname": "gate" }], "app": "hall" }"#, &spare);
    Cluster::processes(fixture).await
}

/// A rogue as the spare, which everybody reaches.
async fn spare(cluster: &Cluster) -> Result<Rogue> {
    let rogue = Rogue::link(cluster, "spare", "spare").await?;
    rogue.reach(vec![rogue.entry(ROGUE, "spare")]).await?;
    Ok(rogue)
}

/// What a hall sees of the client's session.
async fn seen(client: &mut Client) -> Result<Value> {
    Ok(serde_json::from_slice(&client.call(2101, b"").await?)?)
}

async fn session(client: &mut Client) -> Result<SessionId> {
    let seen = seen(client).await?;
    Ok(SessionId(u64::from_str_radix(seen["session"].as_str().context("no id")?, 16)?))
}

fn change(user: Option<&str>, key: &str) -> Result<Vec<u8>> {
    let attributes = vec![(key.to_owned(), Some("x".to_owned()))];
    Ok(bincode::serialize(&SessionChange { user: user.map(str::to_owned), attributes })?)
}

fn broadcast(audience: Audience<'_>, body: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    Broadcast { command: CommandId(10), audience, body }.write(&mut payload);
    payload
}

fn order(node: &str) -> Result<Vec<u8>> {
    Ok(bincode::serialize(&MoveOrder { node: NodeName::try_from(node)?, extra: Vec::new() })?)
}

fn claim(session: SessionId, user: &str) -> Result<Vec<u8>> {
    Ok(bincode::serialize(&vec![Claim { session, stamp: u64::MAX / 2, held: true, user: user.to_owned() }])?)
}

/// The requests about a session that take a right, with the key of the right in the config.
fn requests() -> Result<Vec<(&'static str, Op, Vec<u8>)>> {
    Ok(vec![
        ("push", Op::Touch, Vec::new()),
        ("push", Op::Push, b"forged".to_vec()),
        ("set", Op::Set, change(None, "forged")?),
        ("set", Op::Join, b"forged".to_vec()),
        ("set", Op::Leave, b"forged".to_vec()),
        ("move", Op::Move, order("hall.2")?),
        ("close", Op::Close, b"forged".to_vec()),
    ])
}

fn forbidden(outcome: Result<Bytes, Fault>) -> Result<Fault> {
    match outcome {
        Err(fault) if fault.code == Code::Forbidden => Ok(fault),
        other => bail!("{other:?}"),
    }
}

fn counted(name: &str, least: u64) -> impl Fn(&Value) -> bool {
    move |node| node["counters"][name].as_u64().is_some_and(|count| count >= least)
}

#[tokio::test]
async fn a_node_that_no_route_leads_to_does_nothing_to_a_session() -> Result<()> {
    let cluster = with_spare("").await?;
    let mut client = cluster.client().await?;
    let id = session(&mut client).await?;
    let mut rogue = spare(&cluster).await?;
    let mut refused = 0;
    for (key, op, payload) in requests()? {
        let fault = forbidden(rogue.ask((ROGUE, NET), op, Some(id), &payload).await?);
        let fault = fault.with_context(|| format!("{op:?}"))?;
        assert_eq!(fault.message, format!("`spare` has no right to `{key}` at `net`"));
        refused += 1;
    }
    let ended = SessionId(u64::from(ROGUE) << 52 | 1);
    let fault = forbidden(rogue.ask((ROGUE, NET), Op::Claim, None, &claim(ended, "ann")?).await?)?;
    assert_eq!(fault.message, "`spare` has no right to `claim` at `net`");
    for (op, about, payload) in [
        (Op::Push, Some(id), b"forged".to_vec()),
        (Op::Close, Some(id), b"forged".to_vec()),
        (Op::Broadcast, None, broadcast(Audience::All, b"forged")),
        (Op::Broadcast, None, broadcast(Audience::Sessions(&[id.0.to_le_bytes()]), b"forged")),
        (Op::Check, None, id.0.to_le_bytes().to_vec()),
        (Op::Ways, None, id.0.to_le_bytes().to_vec()),
    ] {
        rogue.tell((ROGUE, NET), op, about, &payload).await?;
        refused += 1;
    }
    cluster.until("net", "has counted all", counted("forbidden", refused + 1)).await?;
    cluster.until_logged("was refused: the config gives that node no right to it").await?;
    // The next frame is the answer, and nothing has changed.
    let after = seen(&mut client).await?;
    assert_eq!((&after["attributes"], &after["user"]), (&serde_json::json!({}), &Value::Null), "{after}");
    cluster.stop().await
}

#[tokio::test]
async fn a_node_that_routes_lead_to_does_all_of_it_and_no_more() -> Result<()> {
    let cluster = with_spare("").await?;
    assert_eq!(cluster.admin("POST", "/nodes/hall.2/stop").await?.status, 200);
    let mut client = cluster.client().await?;
    let id = session(&mut client).await?;
    let rogue = HALL + 1;
    let mut hall = Rogue::link(&cluster, "hall", "hall.2").await?;
    hall.reach(vec![hall.entry(rogue, "hall")]).await?;
    for (_, op, payload) in requests()? {
        if matches!(op, Op::Close | Op::Move) {
            continue;
        }
        let outcome = hall.ask((rogue, NET), op, Some(id), &payload).await?;
        ensure!(outcome.is_ok(), "{op:?}: {outcome:?}");
    }
    assert_eq!(client.receive().await?, (9, Bytes::from_static(b"forged")));
    hall.tell((rogue, NET), Op::Broadcast, None, &broadcast(Audience::All, b"to all")).await?;
    assert_eq!(client.receive().await?, (10, Bytes::from_static(b"to all")));
    // It has no clients: it claims no users, and sends no message of a session of its own.
    let own = SessionId(u64::from(rogue) << 52 | 1);
    forbidden(hall.ask((rogue, NET), Op::Claim, None, &claim(own, "ann")?).await?)?;
    forbidden(hall.ask((rogue, HALL), Op::Enter, Some(own), b"").await?)?;
    let fault = forbidden(hall.call("@hall", Some((own, 2101)), b"").await?)?;
    assert_eq!(fault.message, "`hall.2` has no right to `commands`: command 2101 at `gate`");
    // Nor in the name of another: not as the net node, and not of its sessions.
    let Err(fault) = hall.ask((NET, HALL), Op::Ended, Some(id), b"").await? else { bail!("it was taken") };
    assert_eq!(fault.code, Code::BadRequest, "{fault}");
    let Err(fault) = hall.call("@hall", Some((SessionId(u64::from(NET + 1) << 52 | 1), 2101)), b"").await?
    else {
        bail!("it was taken")
    };
    assert_eq!(fault.code, Code::BadRequest, "{fault}");
    let moved = hall.ask((rogue, NET), Op::Move, Some(id), &order("hall.1")?).await?;
    ensure!(moved.is_ok(), "{moved:?}");
    hall.tell((rogue, NET), Op::Close, Some(id), b"by hall.2").await?;
    client.until_closed().await?;
    cluster.until("gate", "has counted", counted("forbidden", 1)).await?;
    cluster.stop().await
}

#[tokio::test]
async fn the_config_gives_a_right_and_takes_one() -> Result<()> {
    // By op, whether it is answered.
    let all = async |keys: &str| -> Result<BTreeMap<String, bool>> {
        let cluster = with_spare(keys).await?;
        let mut client = cluster.client().await?;
        let id = session(&mut client).await?;
        let mut rogue = spare(&cluster).await?;
        let mut taken = BTreeMap::new();
        for (_, op, payload) in requests()? {
            let outcome = rogue.ask((ROGUE, NET), op, Some(id), &payload).await?;
            let refused = outcome.is_err_and(|fault| fault.code == Code::Forbidden);
            taken.insert(format!("{op:?}"), !refused);
        }
        cluster.stop().await?;
        Ok(taken)
    };
    let shown = |taken: BTreeMap<String, bool>| {
        taken.into_iter().filter(|(_, taken)| *taken).map(|(op, _)| op).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shown(all(r#", "rights": { "push": ["hallnet"] }"#).await?), "Push Touch");
    assert_eq!(
        shown(all(r#", "rights": { "set": true, "move": true }"#).await?),
        "Join Leave Move Set Touch"
    );
    assert_eq!(shown(all(r#", "rights": { "close": true }"#).await?), "Close Touch");
    Ok(())
}

#[tokio::test]
async fn a_node_calls_the_methods_that_the_config_gives_it() -> Result<()> {
    let cluster = with_spare(r#", "rights": { "call": { "hall": ["greet"] } }"#).await?;
    let mut rogue = spare(&cluster).await?;
    let call = |method: &str| Call { method, body: b"" }.write();
    // The hall has no such method: that is not for the rights to say.
    let Err(fault) = rogue.ask((ROGUE, HALL), Op::Call, None, &call("greet")).await? else {
        bail!("answered")
    };
    assert_eq!(fault.code, Code::NoMethod, "{fault}");
    let fault = forbidden(rogue.ask((ROGUE, HALL), Op::Call, None, &call("ban")).await?)?;
    assert_eq!(fault.message, "`spare` has no right to `call` of `ban` at `hall.1`");
    let fault = forbidden(rogue.ask((ROGUE, NET), Op::Call, None, &call("greet")).await?)?;
    assert_eq!(fault.message, "`spare` has no right to `call` of `greet` at `net`");
    // On behalf of a client that nobody has sent there.
    let id = session(&mut cluster.client().await?).await?;
    let fault = forbidden(rogue.ask((ROGUE, HALL), Op::Call, Some(id), &call("greet")).await?)?;
    assert_eq!(fault.message, format!("`spare` has no right to `call` for session {id} at `hall.1`"));
    // A method of its parent, over the link itself.
    let fault = forbidden(rogue.call("gate_sees", None, b"").await?)?;
    assert_eq!(fault.message, "`spare` has no right to `call` of `gate_sees` at `gate`");
    rogue.send(Kind::Notify, "gate_sees", None, 0, b"").await?;
    cluster.until("gate", "has counted both", counted("forbidden", 2)).await?;
    cluster.stop().await
}

#[tokio::test]
async fn the_commands_of_a_nodes_clients_are_those_of_the_config() -> Result<()> {
    let rights = r#""rights": { "commands": [[2000, 2999]] }, "app": "hallnet""#;
    let fixture = Fixture::hall()?.replace(r#""app": "hallnet""#, rights);
    let cluster = Cluster::processes(fixture).await?;
    cluster.client().await?.call(2101, b"").await?;
    assert_eq!(cluster.admin("POST", "/nodes/net/stop").await?.status, 200);
    let mut net = Rogue::link(&cluster, "net", "net").await?;
    net.reach(vec![net.entry(NET, "hallnet")]).await?;
    let own = SessionId(u64::from(NET) << 52 | 1);
    let fault = forbidden(net.call("@hall", Some((own, 3000)), b"").await?)?;
    assert_eq!(fault.message, "`net` has no right to `commands`: command 3000 at `gate`");
    // Nobody knows the session, but the command passes.
    let outcome = net.call("@hall", Some((own, 2000)), b"").await?;
    ensure!(!outcome.as_ref().is_err_and(|fault| fault.code == Code::Forbidden), "{outcome:?}");
    cluster.stop().await
}

#[tokio::test]
async fn what_a_neighbour_cannot_reach_redirects_nobody() -> Result<()> {
    let cluster = with_spare("").await?;
    let mut client = cluster.client().await?;
    let id = session(&mut client).await?;
    let mut rogue = spare(&cluster).await?;
    let as_node = |name: &str, number: u16, kind: &str| -> Result<_> {
        let entry = rogue.entry(number, kind);
        Ok(ffproto::relay::Reachable { name: NodeName::try_from(name)?, net: true, ..entry })
    };
    let own = rogue.entry(ROGUE, "hallnet");
    let said = vec![
        own.clone(),
        // Those that the config has elsewhere, and one that it does not have.
        as_node("hall.1", HALL, "hall")?,
        as_node("net", NET, "hallnet")?,
        as_node("hall.9", 77, "hall")?,
        as_node("phantom", 78, "phantom")?,
        // Numbers of others.
        ffproto::relay::Reachable { number: NodeNumber(NET), ..own.clone() },
        ffproto::relay::Reachable { number: NodeNumber(79), ..own },
    ];
    rogue.reach(said).await?;
    cluster.until("gate", "has counted all six", counted("false_reach", 6)).await?;
    cluster.until_logged("it is not believed that this node is behind that link").await?;
    cluster.until_logged("a number is not believed").await?;
    // Broadcasts go to nobody that has said to take clients, and messages to where they went.
    for _ in 0..20 {
        assert_eq!(session(&mut client).await?, id);
    }
    client.send(2109, b"all 1 4").await?;
    assert_eq!(client.receive().await?.0, 10);
    assert_eq!(client.receive().await?, (2109, Bytes::from_static(b"2")), "net nodes");
    let fault = rogue.ask((NET, HALL), Op::Ended, Some(id), b"").await?;
    ensure!(fault.is_err_and(|fault| fault.code == Code::BadRequest), "it spoke for the net node");
    cluster.stop().await
}

#[tokio::test]
async fn a_peer_cannot_let_a_handler_run_for_ever() -> Result<()> {
    let cluster = Cluster::processes(Fixture::new(
        r#"{
  "master": { "rootport": @master, "webport": @admin },
  "limits": { "call_timeout_ms": 200, "peer_timeout_ms_max": 300 },
  "servers": {
    "gate":  { "rootport": @gate, "app": "mazegate" },
    "room":  { "app": "mazeroom", "remoteport": [{ "rootname": "gate" }] },
    "spare": { "host": "192.0.2.1", "app": "mazeroom", "remoteport": [{ "rootname": "gate" }] }
  }
}"#,
    )?)
    .await?;
    let mut rogue = Rogue::link(&cluster, "spare", "spare").await?;
    rogue.reach(vec![rogue.entry(3, "mazeroom")]).await?;
    let wait = Call { method: "wait", body: b"86400000" }.write();
    rogue.send(Kind::Call, ffproto::relay::TO, None, u32::MAX, &envelope((3, 2), Op::Call, &wait)).await?;
    let Err(fault) = rogue.answered().await? else { bail!("it was answered") };
    assert_eq!(fault.code, Code::Timeout, "{fault}");
    cluster.stop().await
}
