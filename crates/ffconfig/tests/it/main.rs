//! What ffconfig makes of whole configs: values, faults, routes, hostile texts, and its documentation.

mod conf;
mod docs;
mod faults;
mod hostile;
mod routes;
mod values;

use std::path::Path;

use ffconfig::{LoadError, Loaded, parse};

/// A config in which only `servers` differs from test to test: it starts on line 2.
fn with_servers(servers: &str) -> String {
    format!("{{\"master\": {{\"rootport\": 9999, \"webport\": 9998}}, \"servers\": {{\n{servers}\n}}}}")
}

/// Parses with an environment of two variables.
fn parsed(config: &str) -> Result<Loaded, LoadError> {
    let env = |name: &str| match name {
        "PORT" => Some("10001".to_owned()),
        "SECRET" | "FF_TOKEN" => Some("0123456789abcdef".to_owned()),
        "FF_ANN_SHA256" => Some("0a".repeat(32)),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    parse(config, Path::new("config.json"), &env)
}

/// Checks that a config has exactly these faults; each is the line that is shown, without `config.json:`.
#[track_caller]
fn check(config: &str, expected: &[&str]) {
    let shown: Vec<String> = match parsed(config) {
        Ok(_) => Vec::new(),
        Err(error) => error.faults().iter().map(ToString::to_string).collect(),
    };
    let shown: Vec<&str> =
        shown.iter().map(|line| line.strip_prefix("config.json:").unwrap_or(line)).collect();
    assert_eq!(shown, expected, "\n{config}");
}
