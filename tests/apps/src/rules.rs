//! An app whose rules stand in the config: in a handler, in the hook of a start and in that of a session.

use std::collections::BTreeMap;

use ffserver::prelude::*;
use serde::Deserialize;

/// What the config says of the game.
#[derive(Debug, Deserialize)]
struct Rules {
    rounds: u8,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    maps: BTreeMap<u16, Map>,
    motto: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Duel,
    Teams {
        size: u8,
    },
}

#[derive(Debug, Deserialize)]
struct Map {
    name: String,
}

#[net_handle(1)]
async fn rules(rules: Conf<Rules>) -> String {
    let maps: Vec<String> = rules.maps.iter().map(|(number, map)| format!("{number} {}", map.name)).collect();
    let mode = match &rules.mode {
        Mode::Duel => "duel".to_owned(),
        Mode::Teams { size } => format!("teams of {size}"),
    };
    format!("{} rounds, {mode}, maps: {}", rules.rounds, maps.join(", "))
}

async fn tells_the_motto(node: Node, session: Session) {
    if let Some(motto) = node.conf::<Rules>().and_then(|rules| rules.motto.clone()) {
        // A client that has gone already is told nothing.
        let _ = session.push(CommandId(2), motto.as_bytes());
    }
}

/// A net node with rules.
pub(crate) fn app() -> App {
    let started = |node: Node| async move {
        let rules = node.conf::<Rules>().ok_or("no rules")?;
        if rules.rounds == 0 { Err("a game without rounds".into()) } else { Ok(()) }
    };
    App::new("rules")
        .conf::<Rules>()
        .handlers(handlers![rules])
        .on_started(started)
        .on_session_opened(tells_the_motto)
}

/// The same, which has forgotten to say what its handler takes.
pub fn without_conf() -> App {
    App::new("rules").handlers(handlers![rules])
}
