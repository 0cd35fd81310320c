//! A command of the app: its arguments as JSON, and the results of the nodes.

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::client::{AskError, Client, in_url};
use super::screen::Screen;
use super::table::{Cell, Table, Tone};
use super::{To, exit, print};

/// What is run, where.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Run {
    /// The command's name; without one: which there are
    pub name: Option<String>,
    /// Its arguments: NAME=VALUE each, or one JSON value
    pub arguments: Vec<String>,
    /// The nodes: a name, kind:KIND, or all
    #[arg(long, value_name = "NODES", default_value = "all")]
    pub on: String,
    /// How long a node may take, in milliseconds [default: the master's, 5000]
    #[arg(long, value_name = "MS")]
    pub within_ms: Option<u64>,
    /// Whom to ask.
    #[command(flatten)]
    pub to: To,
}

/// The arguments as the body of the request: a JSON value as it is; `name=value` pairs as an object, whose values are JSON where
/// they can be read as such, and texts otherwise. Pure.
fn body(arguments: &[String]) -> Result<Vec<u8>, AskError> {
    match arguments {
        [] => return Ok(Vec::new()),
        [one] if serde_json::from_str::<Value>(one).is_ok() => return Ok(one.clone().into_bytes()),
        _ => {}
    }
    let mut object = Map::new();
    for argument in arguments {
        let strange =
            || AskError::Usage(format!("`{argument}` is neither NAME=VALUE nor, alone, a JSON value"));
        let (name, text) =
            argument.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(strange)?;
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        if object.insert(name.to_owned(), value).is_some() {
            return Err(AskError::Usage(format!("`{name}` is given twice")));
        }
    }
    Ok(Value::Object(object).to_string().into_bytes())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Results {
    ok: bool,
    results: Vec<OfNode>,
    without: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OfNode {
    node: String,
    ok: bool,
    result: Option<Value>,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct List {
    commands: Vec<Listed>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    name: String,
    help: String,
    arguments: Vec<String>,
    nodes: Vec<String>,
}

/// Runs it, or lists what can be run.
pub(super) async fn run(client: &Client, run: &Run, screen: &Screen) -> Result<u8, AskError> {
    let Some(name) = &run.name else { return list(client, run.to.json, screen).await };
    let within = run.within_ms.map_or_else(String::new, |ms| format!("&within_ms={ms}"));
    let path = format!("/run/{}?on={}{within}", in_url(name), in_url(&run.on));
    let answer = client.post(&path, body(&run.arguments)?).await?;
    if run.to.json {
        print(&answer.text)?;
    }
    let results = match answer.read::<Results>() {
        Ok(results) if answer.is_good() || !results.results.is_empty() => results,
        _ => return Err(client.refusal(&answer)),
    };
    if !run.to.json {
        print(&results_text(&results, screen.colours))?;
    }
    Ok(if results.ok { exit::DONE } else { exit::FAILED })
}

fn results_text(results: &Results, colours: bool) -> String {
    let mut table = Table::new(&["NODE", "RESULT"]);
    for of in &results.results {
        let shown = match (&of.error, &of.result) {
            (Some(error), _) => error.clone(),
            (None, Some(Value::String(text))) => text.clone(),
            (None, result) => result.as_ref().map(Value::to_string).unwrap_or_default(),
        };
        table.row([Cell::new(&of.node), Cell::toned(shown, if of.ok { Tone::Plain } else { Tone::Bad })]);
    }
    let without = match results.without.as_slice() {
        [] => String::new(),
        without => format!("without that command: {}\n", without.join(", ")),
    };
    // Results are for reading whole, so a terminal wraps them.
    table.text(None, colours) + &without
}

async fn list(client: &Client, json: bool, screen: &Screen) -> Result<u8, AskError> {
    let answer = client.get("/run").await?;
    if json {
        print(&answer.text)?;
    }
    if !answer.is_good() {
        return Err(client.refusal(&answer));
    }
    if !json {
        let mut table = Table::new(&["COMMAND", "ARGUMENTS", "NODES", "WHAT IT DOES"]);
        for listed in answer.read::<List>()?.commands {
            table.row([
                Cell::new(&listed.name),
                Cell::new(listed.arguments.join(" ")),
                Cell::new(listed.nodes.join(" ")),
                Cell::new(&listed.help),
            ]);
        }
        print(&table.text(screen.width(), screen.colours))?;
    }
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Result<String, String> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        body(&arguments).map(|body| String::from_utf8(body).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn arguments_become_json() {
        assert_eq!(of(&[]).unwrap(), "");
        assert_eq!(of(&["[1, 2]"]).unwrap(), "[1, 2]");
        assert_eq!(
            of(&["user=ann", "coins=5", "why=a=b"]).unwrap(),
            r#"{"coins":5,"user":"ann","why":"a=b"}"#
        );
        assert_eq!(of(&["id=\"5\""]).unwrap(), r#"{"id":"5"}"#);
        assert!(of(&["ann"]).unwrap_err().contains("NAME=VALUE"));
        assert!(of(&["a=1", "a=2"]).unwrap_err().contains("twice"));
    }

    #[test]
    fn every_node_has_its_result_and_a_silent_one_its_name() {
        let results: Results = serde_json::from_str(
            r#"{"ok": false, "results": [{"node": "a", "ok": true, "result": {"n": 1}},
                {"node": "b", "ok": false, "error": "no answer within 5 s"}], "without": ["net"]}"#,
        )
        .unwrap();
        let text = results_text(&results, false);
        assert_eq!(
            text,
            "NODE  RESULT\na     {\"n\":1}\nb     no answer within 5 s\nwithout that command: net\n"
        );
    }
}
