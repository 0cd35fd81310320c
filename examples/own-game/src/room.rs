//! The room: it counts the clicks of all players, and keeps those of each player in a table.

use std::sync::atomic::{AtomicU64, Ordering};

use ffserver::prelude::*;
use ffserver::record::RecordError;
use serde::Serialize;

/// To everybody: how many clicks there were.
const TOTAL: CommandId = CommandId(10);
const NAME_CHARS_MAX: usize = 24;

/// The clicks of all players since the room was started. A reload takes it along: see `app`.
#[derive(Default)]
struct Total(AtomicU64);

#[derive(Record, Clone, PartialEq)]
#[record(table = "score")]
struct Score {
    #[record(key)]
    name: String,
    clicks: i64,
}

#[derive(Serialize)]
struct Clicked {
    total: u64,
    mine: i64,
}

/// A click of the player whose name the client says; everybody is told.
#[net_handle(2)]
async fn click(
    node: Node,
    total: State<Total>,
    scores: Table<Score>,
    Body(name): Body<String>,
) -> Result<Json<Clicked>, HandlerError> {
    let mine = counted(&scores, &player(&name)?).await?;
    let total = total.0.fetch_add(1, Ordering::Relaxed) + 1;
    node.broadcasts().to_all(TOTAL, total.to_string().as_bytes());
    Ok(Json(Clicked { total, mine }))
}

/// How many clicks there were: for who has just come.
#[net_handle(3)]
async fn clicks(total: State<Total>) -> String {
    total.0.load(Ordering::Relaxed).to_string()
}

fn player(name: &str) -> Result<String, HandlerError> {
    let name = name.trim();
    match name.chars().count() {
        1..=NAME_CHARS_MAX => Ok(name.to_owned()),
        _ => Err(HandlerError::new(format!("a name has 1 to {NAME_CHARS_MAX} characters"))),
    }
}

/// One click more, and how many they are: in the database within a tenth of a second.
async fn counted(scores: &Table<Score>, name: &String) -> Result<i64, RecordError> {
    if scores.get(name).await?.is_none() {
        match scores.insert(Score { name: name.clone(), clicks: 0 }).await {
            Ok(_) | Err(RecordError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let more = |score: &mut Score| {
        score.clicks += 1;
        score.clicks
    };
    scores.update(name, Save::within_ms(100), more).await
}

pub fn app() -> App {
    App::new("room")
        .state(Total::default())
        .table::<Score>()
        .handlers(handlers![click, clicks])
        .freeze(1, |node| async move {
            let total = node.state::<Total>().map_or(0, |total| total.0.load(Ordering::Relaxed));
            Ok(total.to_le_bytes().to_vec())
        })
        .thaw(|node, frozen| async move {
            let total = u64::from_le_bytes(frozen.bytes.as_slice().try_into()?);
            node.state::<Total>().ok_or_else(|| HandlerError::new("no total"))?.0.store(total, Ordering::Relaxed);
            Ok(())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_player_has_a_name_of_some_length() {
        assert_eq!(player(" ann ").unwrap(), "ann");
        assert!(player("  ").is_err() && player(&"a".repeat(25)).is_err());
    }
}
