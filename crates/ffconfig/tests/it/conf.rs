//! `conf` of a node, as a type of an app reads it.

use std::collections::BTreeMap;

use ffconfig::{Conf, diff};
use serde::Deserialize;

use crate::{check, parsed, with_servers};

fn conf(text: &str) -> Conf {
    let config = with_servers(&format!("\"hall\": {{\"app\": \"hall\", \"conf\": {text}}}"));
    parsed(&config).unwrap_or_else(|error| panic!("{error}")).cluster.nodes[0].conf.clone()
}

/// What is said when the type reads the text: column, path below the node, and what is wrong.
#[track_caller]
fn fault<T: serde::de::DeserializeOwned>(text: &str, expected: &str) {
    let said = conf(text).read::<T>().err().unwrap_or_else(|| panic!("{text} is read")).to_string();
    assert_eq!(said.replace("config.json:2:", "").replace("servers.hall.", ""), expected);
}

#[derive(Debug, Deserialize, PartialEq, Default)]
#[serde(default)]
struct All {
    int: i32,
    large: u64,
    share: f32,
    on: bool,
    text: String,
    none: Option<u8>,
    some: Option<u8>,
    list: Vec<(u8, String)>,
    levels: BTreeMap<u32, Level>,
    #[serde(alias = "old_level")]
    level: Level,
    rest: serde_json::Value,
}

#[derive(Debug, Deserialize, PartialEq, Default)]
enum Level {
    #[default]
    Easy,
    Hard,
    Custom(u8),
    Timed {
        seconds: u8,
    },
}

#[test]
fn values_of_every_kind_are_read_with_variables_written_out() {
    let text = r#"{"int": -7, "large": 18446744073709551615, "share": 1, "on": true, "text": "a ${SECRET}", "none": null,
        "some": "${PORT8:-8}", "list": [[1, "x"], [2, "y"]], "levels": {"1": "Hard", "20": {"Custom": 3}},
        "old_level": {"Timed": {"seconds": 9}}, "rest": {"free": [1, 2.5, null, "z"]}, }"#;
    let all: All = conf(text).read().unwrap();
    let expected = All {
        int: -7,
        large: u64::MAX,
        share: 1.0,
        on: true,
        text: "a 0123456789abcdef".into(),
        none: None,
        some: Some(8),
        list: vec![(1, "x".into()), (2, "y".into())],
        levels: [(1, Level::Hard), (20, Level::Custom(3))].into(),
        level: Level::Timed { seconds: 9 },
        rest: serde_json::json!({"free": [1, 2.5, null, "z"]}),
    };
    assert_eq!(all, expected);
    assert_eq!(conf("{}").read::<All>().unwrap(), All::default());
}

#[test]
fn a_node_without_conf_has_an_empty_one_and_a_fault_says_so() {
    #[derive(Debug, Deserialize)]
    struct Needs {
        #[allow(dead_code, reason = "what is read is not looked at")]
        rounds: u8,
    }
    let config = with_servers("  \"hall\": {\"app\": \"hall\"}");
    let none = parsed(&config).unwrap().cluster.nodes[0].conf.clone();
    assert!(!none.is_given() && none.read::<All>().is_ok());
    let said = none.read::<Needs>().unwrap_err().to_string();
    assert_eq!(
        said,
        "config.json:2:3: servers.hall.conf: the key `rounds` is missing: the node has no `conf`"
    );
    assert!(conf("{}").is_given());
    fault::<Needs>("{}", "33: conf: the key `rounds` is missing");
}

#[test]
fn what_is_wrong_is_said_at_its_place() {
    fault::<All>(r#"{"txet": "x"}"#, "34: conf.txet: unknown key; did you mean `text`?");
    fault::<All>(r#"{"int": "seven"}"#, "41: conf.int: expected i32, found the text \"seven\"");
    fault::<All>(r#"{"int": 3000000000}"#, "41: conf.int: expected i32, found the number 3000000000");
    fault::<All>(r#"{"on": {}}"#, "40: conf.on: expected a boolean, found an object");
    fault::<All>(
        r#"{"list": [[1, "x"], [2]]}"#,
        "53: conf.list[1]: expected a tuple of size 2, found 1 elements",
    );
    fault::<All>(
        r#"{"list": [[1, "x"], [256, "y"]]}"#,
        "54: conf.list[1][0]: expected u8, found the number 256",
    );
    fault::<All>(
        r#"{"levels": {"one": "Easy"}}"#,
        "45: conf.levels.one: expected u32, found the text \"one\"",
    );
    fault::<All>(
        r#"{"level": "Hrad"}"#,
        "43: conf.level: expected one of `Easy`, `Hard`, `Custom`, `Timed`, found the text \"Hrad\"; did you mean `Hard`?",
    );
    fault::<All>(
        r#"{"level": "Custom"}"#,
        "43: conf.level: `Custom` has values: expected an object with that key",
    );
    fault::<All>(
        r#"{"level": {"Timed": {"secs": 1}}}"#,
        "54: conf.level.Timed.secs: unknown key; known here: `seconds`",
    );
    fault::<All>(r#"{"level": 3}"#, "43: conf.level: expected one of `Easy`, `Hard`, `Custom`, `Timed`");
    fault::<()>(r#"{"a": 1}"#, "33: conf: expected unit, found an object");
    check(
        &with_servers("\"hall\": {\"app\": \"hall\", \"conf\": 7}"),
        &["2:33: servers.hall.conf: expected an object, found the number 7"],
    );
}

#[test]
fn a_conf_is_the_same_wherever_it_stands_and_another_one_replaces_its_nodes() {
    let cluster = |servers: &str| parsed(&with_servers(servers)).unwrap().cluster;
    let old = cluster("\"a\": {\"app\": \"x\", \"count\": 2, \"conf\": {\"n\": 1}}, \"b\": {\"app\": \"x\"}");
    let moved = cluster(
        "\"a\": {\"app\": \"x\", \"count\": 2,\n\n   \"conf\": { \"n\": 1 }}, \"b\": {\"app\": \"x\"}",
    );
    assert!(diff(&old, &moved).is_empty());
    let other =
        cluster("\"a\": {\"app\": \"x\", \"count\": 2, \"conf\": {\"n\": 2}}, \"b\": {\"app\": \"x\"}");
    let changed: Vec<_> = diff(&old, &other).changed.iter().map(ToString::to_string).collect();
    assert_eq!(changed, ["a.1", "a.2"]);
    assert_eq!(format!("{:?}", conf("{\"password\": \"pw\"}")), "{\"password\"}");
}

#[test]
fn a_deep_and_a_strange_conf_are_read_or_refused_and_nothing_panics() {
    let deep = format!("{{\"a\": {}{}}}", "[".repeat(58), "]".repeat(58));
    assert!(conf(&deep).read::<serde_json::Value>().is_ok());
    for text in ["{\"a\": 1e999}", "{\"\": {\"\\u0000\": \"\\n\"}}", "{\"a\": -0, \"b\": 1.5e-300}"] {
        let _ = conf(text).read::<serde_json::Value>();
        assert!(conf(text).read::<BTreeMap<String, u8>>().is_err(), "{text}");
    }
}
