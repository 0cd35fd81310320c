//! What the trial of coins runs on game nodes: moves between accounts, each with its number, so that it can
//! be told afterwards which of them have happened, and that none has twice.

use ffserver::Save;
use ffserver::prelude::*;
use ffserver::record::RecordError;

/// An account; `done` has the number of each move from it, as u32 little-endian.
#[derive(Record, Clone, PartialEq)]
#[record(table = "coins")]
struct Purse {
    #[record(key)]
    name: String,
    coins: i64,
    done: Vec<u8>,
}

/// The body is `NUMBER|FROM|TO|COINS|MS`: within so many milliseconds, or durable for 0. Answers
/// `NUMBER done NODE`, or `NUMBER no WHY` when nothing was changed for sure; anything else is an error.
#[net_handle(1600)]
async fn move_coins(
    purses: Table<Purse>,
    node: Node,
    Body(text): Body<String>,
) -> Result<String, HandlerError> {
    let words: Vec<&str> = text.split('|').collect();
    let [number, from, to, coins, ms] = words[..] else {
        return Err(HandlerError::new("NUMBER|FROM|TO|COINS|MS is expected"));
    };
    let (number, coins, ms): (u32, i64, u64) = (number.parse()?, coins.parse()?, ms.parse()?);
    let save = if ms == 0 { Save::Durable } else { Save::within_ms(ms) };
    let (from, to) = (from.to_owned(), to.to_owned());
    let moved = purses.update_two(&from, &to, save, |from, to| {
        // A request is never sent twice, so a number that is there already would be a fault of ours.
        from.coins -= coins;
        to.coins += coins;
        from.done.extend(number.to_le_bytes());
    });
    match moved.await {
        Ok(()) => Ok(format!("{number} done {}", node.name())),
        Err(e) if e.is_unsent() => Ok(format!("{number} no {}", said(&e))),
        Err(e) => Err(e.into()),
    }
}

/// Needs no database: what a blocked one must not delay.
#[net_handle(1601)]
async fn echo(Body(body): Body<Bytes>) -> Bytes {
    body
}

fn said(error: &RecordError) -> &'static str {
    match error {
        RecordError::Held { .. } => "held",
        RecordError::Contended { .. } => "contended",
        RecordError::Backlog { .. } => "backlog",
        RecordError::Journal { .. } => "journal",
        RecordError::Db(_) => "database",
        _ => "other",
    }
}

pub(crate) fn game() -> App {
    App::new("coinsgame").table::<Purse>().handlers(handlers![move_coins, echo])
}
