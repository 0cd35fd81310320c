//! Handlers that come, go and change places while their node runs: no message runs another handler than its own, none sees
//! the handlers of two turns, and nobody is told anything else than that a handler is not there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use ffserver::process;
use testapps::turnover::{GAME, Ledger, NAMES, NET, TURNS, Turns, apps};
use tests::client::{Client, parse_error};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::wait;
use tokio::runtime::{Builder, Runtime};

const CLIENTS: u32 = 6;

type TurnsOf = fn(&Ledger) -> &Turns;

/// A message, the handler that is meant, and the node that has it.
struct Asked {
    command: u32,
    body: String,
    handler: String,
    turns: TurnsOf,
}

/// Every message that a handler may answer which comes and goes, with that handler's number.
fn all_asked(n: u32) -> Vec<Asked> {
    let asked = |command, body: String, handler, turns| Asked { command, body, handler, turns };
    let (net, game): (TurnsOf, TurnsOf) = (|all| &all.net, |all| &all.game);
    vec![
        asked(NET + n, String::new(), format!("command {}", NET + n), net),
        asked(GAME + n, String::new(), format!("command {}", GAME + n), game),
        asked(1, format!("m{n}"), format!("root m{n}"), |all| &all.gate),
        asked(2, format!("m{n}"), format!("node m{n}"), game),
        asked(3, format!("m{n}"), format!("remote m{n}"), game),
    ]
}

/// What was answered and refused.
#[derive(Debug, Default)]
struct Counted {
    answered: u64,
    refused: u64,
}

/// What an answer says: the handler that ran, and its turn; `None` when there was none.
fn read(command: u32, answered: u32, answer: &[u8]) -> Result<Option<(String, u64)>> {
    if answered != command {
        let error = parse_error(answer)?;
        let is_refused = matches!(error.code.as_str(), "no_method" | "no_route");
        // What calls a handler that is away has itself run.
        let executed = if command < NET { "unknown" } else { "no" };
        ensure!(is_refused && error.executed == executed && error.command == u64::from(command), "{error:?}");
        return Ok(None);
    }
    let text = std::str::from_utf8(answer)?;
    let (handler, turn) = text.rsplit_once(' ').with_context(|| format!("answered: {text}"))?;
    Ok(Some((handler.to_owned(), turn.parse()?)))
}

impl Asked {
    /// Sends the message and judges its answer, by the turns of a cluster in this process, where they are known.
    async fn ask(&self, client: &mut Client, ledger: Option<&Ledger>) -> Result<Option<u64>> {
        let turns = ledger.map(self.turns);
        let before = turns.map_or(0, Turns::done);
        client.send(self.command, self.body.as_bytes()).await?;
        let (answered, answer) = client.receive().await?;
        let ran = read(self.command, answered, &answer).with_context(|| self.handler.clone())?;
        let after = turns.map_or(TURNS, Turns::begun);
        let Some((handler, turn)) = ran else { return Ok(None) };
        ensure!(handler == self.handler, "{handler} of turn {turn} ran for {}", self.handler);
        ensure!(
            (before..=after).contains(&turn),
            "{handler} of turn {turn} ran between {before} and {after}"
        );
        ensure!(turns.is_none_or(|turns| turns.had(turn, &handler)), "{handler} is not of turn {turn}");
        Ok(Some(turn))
    }
}

/// Sends all commands of the game node at once, and judges that they ran in their order: with the handlers of one turn, or
/// of later ones. A process that replaces the node's in between, of which there is at most one, counts its turns anew.
async fn ask_at_once(client: &mut Client, first: u32, replaced: usize, counted: &mut Counted) -> Result<()> {
    let order: Vec<u32> = (0..NAMES).map(|n| GAME + (first + n) % NAMES).collect();
    for command in &order {
        client.send(*command, b"").await?;
    }
    let mut turns = BTreeMap::new();
    for _ in &order {
        let (mut command, answer) = client.receive().await?;
        let answered = command;
        if !(GAME..GAME + NAMES).contains(&command) {
            command = u32::try_from(parse_error(&answer)?.command)?;
        }
        match read(command, answered, &answer)? {
            Some((handler, turn)) => {
                ensure!(handler == format!("command {command}"), "{handler} ran for command {command}");
                turns.insert(command, turn);
                counted.answered += 1;
            }
            None => counted.refused += 1,
        }
    }
    let in_order: Vec<u64> = order.iter().filter_map(|command| turns.get(command).copied()).collect();
    let back = in_order.windows(2).filter(|pair| pair[1] < pair[0]).count();
    ensure!(back <= replaced, "turns go back: {in_order:?}");
    Ok(())
}

/// Asks on and on for everything, until it is over.
async fn plays(
    mut client: Client,
    from: u32,
    ledger: Option<Arc<Ledger>>,
    over: Arc<AtomicBool>,
) -> Result<Counted> {
    let mut counted = Counted::default();
    // A cluster in this process, whose turns are known, is not reloaded.
    let replaced = usize::from(ledger.is_none());
    for n in from.. {
        for asked in all_asked(n % NAMES) {
            match asked.ask(&mut client, ledger.as_deref()).await? {
                Some(_) => counted.answered += 1,
                None => counted.refused += 1,
            }
        }
        ask_at_once(&mut client, n, replaced, &mut counted).await?;
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(counted)
}

/// Waits until everything is answered, by handlers of the last turn.
async fn all_is_there(cluster: &Cluster) -> Result<()> {
    let mut client = cluster.client().await?;
    for asked in (0..NAMES).flat_map(all_asked) {
        wait::until(&format!("{} of the last turn", asked.handler), async || {
            let turn = asked.ask(&mut client, None).await.map_err(|error| format!("{error:#}"))?;
            if turn == Some(TURNS) { Ok(()) } else { Err(format!("turn {turn:?}")) }
        })
        .await?;
    }
    Ok(())
}

async fn every_message_runs_its_own_handler(runtime: fn() -> std::io::Result<Runtime>) -> Result<()> {
    let ledger = Arc::<Ledger>::default();
    let known = ledger.clone();
    let cluster = Cluster::in_process_of(Fixture::turnover()?, move || apps(&known), runtime).await?;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let client = cluster.client().await?;
        clients.push(tokio::spawn(plays(client, n, Some(ledger.clone()), over.clone())));
    }
    wait::until("all nodes have had their turns", async || {
        let done = [&ledger.net, &ledger.gate, &ledger.game].map(Turns::done);
        let ended = clients.iter().any(tokio::task::JoinHandle::is_finished);
        if ended || done == [TURNS; 3] { Ok(()) } else { Err(done) }
    })
    .await?;
    over.store(true, Ordering::Relaxed);
    let mut all = Counted::default();
    for client in clients {
        let Counted { answered, refused } = client.await??;
        (all.answered, all.refused) = (all.answered + answered, all.refused + refused);
    }
    ensure!(all.answered > 50 && all.refused > 50, "{all:?}");
    all_is_there(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn every_message_runs_its_own_handler_of_one_turn_while_they_come_go_and_change_places() -> Result<()> {
    every_message_runs_its_own_handler(process::runtime_of_all).await
}

#[tokio::test]
async fn every_message_runs_its_own_handler_of_one_turn_on_several_threads() -> Result<()> {
    every_message_runs_its_own_handler(|| Builder::new_multi_thread().worker_threads(3).enable_all().build())
        .await
}

#[tokio::test]
async fn a_reload_begins_with_the_programs_own_handlers_and_nobody_notices_but_by_handlers_that_are_away()
-> Result<()> {
    let cluster = Cluster::processes(Fixture::turnover()?).await?;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        clients.push(tokio::spawn(plays(cluster.client().await?, n, None, over.clone())));
    }
    for node in ["gate", "game", "net", "gate"] {
        let answer = cluster.admin("POST", &format!("/nodes/{node}/reload")).await?;
        ensure!(answer.status < 300, "{node}: {answer:?}");
        cluster.until(node, "is replaced", |node| node["state"] == "ready").await?;
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        let counted = client.await?.with_context(|| format!("log: {}", cluster.log_path().display()))?;
        ensure!(counted.answered > 0, "{counted:?}");
    }
    all_is_there(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_node_takes_clients_messages_from_its_first_command_to_its_last() -> Result<()> {
    let cluster = Cluster::in_process(Fixture::turnover()?).await?;
    let mut client = cluster.client().await?;
    for _ in 0..3 {
        assert_eq!(client.call(4, b"takes_clients").await?, "takes clients");
        let answered = async || client.call(300, b"").await.map_err(|error| format!("{error:#}"));
        assert_eq!(wait::until("command 300 is answered", answered).await?, "command 300 1");
        assert_eq!(client.call(4, b"takes_none").await?, "takes none");
        let refused = async || {
            let error = client.call_error(300, b"").await.map_err(|error| format!("{error:#}"))?;
            if error.code == "no_node" { Ok(()) } else { Err(format!("{error:?}")) }
        };
        wait::until("nobody takes command 300", refused).await?;
    }
    cluster.stop().await
}
