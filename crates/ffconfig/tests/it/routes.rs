//! Routes: what they mean, what is wrong with them, and who can be reached.

use ffconfig::{Loaded, Route, RouteRule};
use ffproto::CommandId;

use crate::{check, parsed, with_servers};

/// A net below a gate, beside game and chat; the route starts at 3:50.
fn with_route(route: &str) -> String {
    with_servers(&format!(
        r#""gate": {{"app": "gateserver", "type": "gate", "rootport": 10000}},
"net": {{"app": "net", "netport": 10001, "route": {route}, "remoteport": [{{"rootname": "gate"}}]}},
"game": {{"app": "game1server", "type": "game", "remoteport": [{{"rootname": "gate"}}]}},
"chat": {{"app": "chat", "remoteport": [{{"rootname": "gate"}}]}}"#
    ))
}

fn ok(config: &str) -> Loaded {
    parsed(config).unwrap_or_else(|error| panic!("{error}\n{config}"))
}

fn route(route: &str) -> Route {
    let loaded = ok(&with_route(route));
    assert_eq!(loaded.warnings, []);
    loaded.cluster.nodes[1].route.clone()
}

/// `1-4 game, 5 chat stateless`.
fn shown(route: &Route) -> String {
    let rule = |RouteRule { first, last, to, stateless }: &RouteRule| {
        let span = if first == last { first.to_string() } else { format!("{first}-{last}") };
        format!("{span} {}{}", to.key(), if *stateless { " stateless" } else { "" })
    };
    route.rules().iter().map(rule).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_route_is_disjoint_rules_in_order() {
    for (text, rules) in [
        ("{}", ""),
        (r#"{"range": {"game": []}, "special": {}, "stateless": []}"#, ""),
        (
            r#"{"range": {"game": [[20, 29], [5, 9]], "chat": [[10, 15]]}}"#,
            "5-9 game, 10-15 chat, 20-29 game",
        ),
        (r#"{"range": {"game": [[0, 4294967295]]}}"#, "0-4294967295 game"),
        // `special` wins.
        (r#"{"range": {"game": [[1, 9]]}, "special": {"chat": [5]}}"#, "1-4 game, 5 chat, 6-9 game"),
        (
            r#"{"range": {"game": [[0, 4294967295]]}, "special": {"chat": [4294967295, 0]}}"#,
            "0 chat, 1-4294967294 game, 4294967295 chat",
        ),
        (r#"{"range": {"game": [[5, 5]]}, "special": {"gate": [5]}}"#, "5 gate"),
        // `stateless` splits, whatever it reaches.
        (
            r#"{"range": {"game": [[1, 9]]}, "special": {"chat": [5]}, "stateless": [[0, 2], [4, 6], 8, 8]}"#,
            "1-2 game stateless, 3 game, 4 game stateless, 5 chat stateless, 6 game stateless, 7 game, \
             8 game stateless, 9 game",
        ),
        (r#"{"range": {"game": [[1, 9]]}, "stateless": [[0, 3], [2, 100]]}"#, "1-9 game stateless"),
        // `to` wins over both, and is never stateless: there is nothing to choose.
        (
            r#"{"range": {"game": [[1, 9]]}, "special": {"chat": [5]}, "to": {"gate": [[4, 5], 8]}, "stateless": [[0, 9]]}"#,
            "1-3 game stateless, 4-5 =gate, 6-7 game stateless, 8 =gate, 9 game stateless",
        ),
        // Neighbours that mean the same are one.
        (r#"{"range": {"game": [[5, 9], [1, 4]]}, "special": {"game": [3, 10]}}"#, "1-10 game"),
    ] {
        assert_eq!(shown(&route(text)), rules, "{text}");
    }
}

#[test]
fn a_number_of_a_route_may_be_a_variable() {
    let text = r#"{"range": {"game": [["${PORT}", "$P$"]]}, "special": {"chat": ["${NOPE:-7}"]}, "stateless": ["$P$"]}"#;
    let config = with_route(text).replacen('{', r#"{"vars": {"P": 20000}, "#, 1);
    let route = &parsed(&config).unwrap().cluster.nodes[1].route;
    assert_eq!(shown(route), "7 chat, 10001-19999 game, 20000 game stateless");
}

#[test]
fn a_command_has_the_rule_that_covers_it_or_none() {
    let route =
        route(r#"{"range": {"game": [[10, 19], [30, 39]]}, "special": {"chat": [15]}, "stateless": [19]}"#);
    let kind = |command| {
        let rule = route.find(CommandId(command))?;
        assert!(rule.first.0 <= command && command <= rule.last.0);
        Some((&**rule.to.key(), rule.stateless))
    };
    let (game, chat) = (Some(("game", false)), Some(("chat", false)));
    assert_eq!([0, 9, 20, 29, 40, u32::MAX].map(kind), [None; 6]);
    assert_eq!([10, 14, 16, 18, 30, 39].map(kind), [game; 6]);
    assert_eq!((kind(15), kind(19)), (chat, Some(("game", true))));
    assert!(!route.is_empty());
    assert!(Route::default().is_empty() && Route::default().find(CommandId(0)).is_none());
}

#[test]
fn a_node_without_a_route_has_an_empty_one() {
    let cluster = parsed(&with_route("{}")).unwrap().cluster;
    assert!(cluster.nodes.iter().all(|node| node.route == Route::default()));
}

#[test]
fn a_command_cannot_be_for_two() {
    check(
        &with_route(
            r#"{"range": {
"game": [[1000, 1999], [1999, 2005]],
"chat": [[0, 10000], [3000, 3000], [1500, 1600], [3001, 4294967295], [3000, 3001]]}, "special": {"chat": [5, 5],
"game": [7, 5, 1000]}}"#,
        ),
        &[
            "4:24: servers.net.route.range.game[1]: command 1999 is taken by `servers.net.route.range.game[0]` on line 4",
            "5:10: servers.net.route.range.chat[0]: commands 1000 to 1999 are taken by `servers.net.route.range.game[0]` on line 4",
            "5:36: servers.net.route.range.chat[2]: commands 1500 to 1600 are taken by `servers.net.route.range.game[0]` on line 4",
            "5:70: servers.net.route.range.chat[4]: command 3001 is taken by `servers.net.route.range.chat[3]` on line 5",
            "5:110: servers.net.route.special.chat[1]: command 5 is taken by `servers.net.route.special.chat[0]` on line 5",
            "6:13: servers.net.route.special.game[1]: command 5 is taken by `servers.net.route.special.chat[0]` on line 5",
        ],
    );
}

#[test]
fn a_value_of_a_route_is_a_command_or_a_range() {
    check(
        &with_route(
            r#"{
"range": {"game": [[1999, 1000], [1], [1, 2, 3], 5, [0, 4294967296], [-1, 2], ["a", 2], [1.5, 2]], "chat": [1, 2]},
"special": {"game": [[1, 2], -1, "x", 4294967296], "chat": 5},
"stateless": [[9, 8], null, "x", [[1, 2], 3]]}"#,
        ),
        &[
            "4:20: servers.net.route.range.game[0]: 1999 is more than 1000: expected [FIRST, LAST]",
            "4:34: servers.net.route.range.game[1]: expected [FIRST, LAST], found a list of 1",
            "4:39: servers.net.route.range.game[2]: expected [FIRST, LAST], found a list of 3",
            "4:50: servers.net.route.range.game[3]: expected [FIRST, LAST], found the number 5",
            "4:53: servers.net.route.range.game[4]: 4294967296 is out of range: 0 to 4294967295",
            "4:70: servers.net.route.range.game[5]: -1 is out of range: 0 to 4294967295",
            r#"4:79: servers.net.route.range.game[6]: expected [FIRST, LAST], found the text "a" in it"#,
            "4:89: servers.net.route.range.game[7]: expected a whole number from 0 to 4294967295, found 1.5",
            "4:109: servers.net.route.range.chat[0]: expected [FIRST, LAST], found the number 1",
            "4:112: servers.net.route.range.chat[1]: expected [FIRST, LAST], found the number 2",
            "5:22: servers.net.route.special.game[0]: expected a command, found a list",
            "5:30: servers.net.route.special.game[1]: -1 is out of range: 0 to 4294967295",
            r#"5:34: servers.net.route.special.game[2]: expected a command, found the text "x""#,
            "5:39: servers.net.route.special.game[3]: 4294967296 is out of range: 0 to 4294967295",
            "5:60: servers.net.route.special.chat: expected a list of commands, found the number 5",
            "6:15: servers.net.route.stateless[0]: 9 is more than 8: expected [FIRST, LAST]",
            "6:23: servers.net.route.stateless[1]: expected a command or [FIRST, LAST], found null",
            r#"6:29: servers.net.route.stateless[2]: expected a command or [FIRST, LAST], found the text "x""#,
            "6:34: servers.net.route.stateless[3]: expected [FIRST, LAST], found a list in it",
        ],
    );
    check(
        &with_route(r#"{"range": [], "special": 1, "stateless": {}, "ranges": {}, "colour": {}}"#),
        &[
            "3:60: servers.net.route.range: expected an object, found a list",
            "3:75: servers.net.route.special: expected an object, found the number 1",
            "3:91: servers.net.route.stateless: expected a list of commands and [FIRST, LAST], found an object",
            "3:95: servers.net.route.ranges: unknown key; did you mean `range`?",
            "3:109: servers.net.route.colour: unknown key; known here: `range`, `special`, `to`, `stateless`",
        ],
    );
    // A variable that is not there is one fault, also inside of a range.
    check(
        &with_route(r#"{"range": {"game": [["$NO$", 5]]}}"#),
        &["3:71: servers.net.route.range.game[0][0]: there is no `NO` in `vars` (`$$` is a plain `$`)"],
    );
}

#[test]
fn a_kind_that_no_node_is_of_comes_with_the_nearest_one() {
    check(
        &with_route(r#"{"range": {"gaem": [[1, 2]], "game1server": []}, "special": {"a\nb": [5]}}"#),
        &[
            r#"3:61: servers.net.route.range.gaem: no node is of the kind "gaem"; did you mean `game`?"#,
            r#"3:79: servers.net.route.range.game1server: no node is of the kind "game1server""#,
            r#"3:111: servers.net.route.special["a\nb"]: no node is of the kind "a\nb""#,
        ],
    );
    // The kind may be the one whose entry has a fault: that is the one fault.
    check(
        &with_servers(
            r#""gate": {"app": "gate", "rootport": 10000, "route": {"range": {"game": [[1, 2]]}}},
"g": {"app": "g", "type": "ga me", "remoteport": [{"rootname": "gate"}]}"#,
        ),
        &[
            "3:27: servers.g.type: ` ` may not stand there: a name is made of letters, digits, `_`, `-`, `.`, and starts with a letter or digit",
        ],
    );
}

#[test]
fn a_target_is_reached_up_any_number_of_levels_and_then_down() {
    // Two trees; `mid` is in both.
    let config = |route_of: &str, key: &str, target: &str| {
        let servers = r#""top": {"app": "top", "rootport": 10000},
"gate": {"app": "gate", "rootport": 10001, "remoteport": [{"rootname": "top"}]},
"net": {"app": "net", "remoteport": [{"rootname": "gate"}]},
"other": {"app": "other", "rootport": 10002},
"far": {"app": "far", "remoteport": [{"rootname": "other"}]},
"mid": {"app": "mid", "rootport": 10003, "remoteport": [{"rootname": "gate"}, {"rootname": "other"}]},
"leaf": {"app": "leaf", "remoteport": [{"rootname": "mid"}]}"#;
        let place = format!("{route_of:?}: {{");
        let route = format!("{place}\"route\": {{{key:?}: {{{target:?}: [1]}}}}, ");
        with_servers(&servers.replace(&place, &route))
    };
    let above = "it must be above, below, or below a node above";
    for (from, reached) in [
        ("top", ["gate", "net", "mid", "leaf"].as_slice()),
        ("gate", &["top", "net", "mid", "leaf"]),
        ("net", &["top", "gate", "mid", "leaf"]),
        ("other", &["far", "mid", "leaf"]),
        ("far", &["other", "mid", "leaf"]),
        ("mid", &["top", "gate", "net", "other", "far", "leaf"]),
        ("leaf", &["top", "gate", "net", "other", "far", "mid"]),
    ] {
        for target in ["top", "gate", "net", "other", "far", "mid", "leaf"] {
            if from == target {
                continue;
            }
            for key in ["special", "to"] {
                let faults = match parsed(&config(from, key, target)) {
                    Ok(_) => Vec::new(),
                    Err(error) => error.faults().iter().map(|fault| fault.message.clone()).collect(),
                };
                let what = if key == "to" {
                    format!("`{target}`")
                } else {
                    format!("a node of the kind `{target}`")
                };
                let expected = match reached.contains(&target) {
                    true => vec![],
                    false => vec![format!("no way from `{from}` to {what}: {above}")],
                };
                assert_eq!(faults, expected, "{from} {key} {target}");
            }
        }
    }
}

#[test]
fn a_named_node_is_one_node() {
    let servers = |to: &str| {
        with_servers(&format!(
            r#""gate": {{"app": "gate", "rootport": 10000, "route": {{"to": {{{to:?}: [5]}}}}}},
"game": {{"app": "game", "count": 2, "remoteport": [{{"rootname": "gate"}}]}}"#
        ))
    };
    check(&servers("game.2"), &[]);
    check(
        &servers("game"),
        &[
            "2:61: servers.gate.route.to.game: `game` is 2 nodes: name one of them, as `game.1`, or route to their kind",
        ],
    );
    check(
        &servers("game.3"),
        &[
            r#"2:61: servers.gate.route.to["game.3"]: "game.3" is not among `servers`; did you mean `game.1`?"#,
        ],
    );
    check(
        &with_route(r#"{"to": {"game": [5, [5, 6], "x"]}}"#),
        &[
            "3:70: servers.net.route.to.game[1]: command 5 is taken by `servers.net.route.to.game[0]` on line 3",
            r#"3:78: servers.net.route.to.game[2]: expected a command or [FIRST, LAST], found the text "x""#,
        ],
    );
}

#[test]
fn a_command_that_would_go_in_a_circle_is_one_fault() {
    let needless = "a node's own handlers come before its route, so one of these rules is not needed";
    // obEspoir's route node has a range for its own kind.
    check(
        &with_servers(
            r#""route": {"app": "route", "rootport": 10000, "route": {"range": {"route": [[0, 99]], "service": [[100, 199]]}}},
"service": {"app": "service", "remoteport": [{"rootname": "route"}]}"#,
        ),
        &[&format!(
            "2:76: servers.route.route.range.route[0]: command 0 would go in a circle: route -> route; {needless}"
        )],
    );
    // Over three, where the ranges overlap; and a node that sends to its own sisters.
    check(
        &with_servers(
            r#""a": {"app": "a", "rootport": 10000, "route": {"range": {"b": [[10, 20]]}}},
"b": {"app": "b", "count": 2, "route": {"range": {"c": [[15, 30]]}, "to": {"b.2": [40]}}, "remoteport": [{"rootname": "a"}]},
"c": {"app": "c", "route": {"special": {"a": [12, 18]}}, "remoteport": [{"rootname": "a"}]}"#,
        ),
        &[
            &format!(
                "2:64: servers.a.route.range.b[0]: command 18 would go in a circle: a -> b -> c -> a; {needless}"
            ),
            &format!(
                "3:84: servers.b.route.to[\"b.2\"][0]: command 40 would go in a circle: b -> b; {needless}"
            ),
        ],
    );
    // What `to` and `special` take is in no circle.
    check(
        &with_servers(
            r#""a": {"app": "a", "rootport": 10000, "route": {"range": {"b": [[10, 20]]}}},
"b": {"app": "b", "route": {"range": {"a": [[15, 16]]}, "special": {"c": [15]}, "to": {"c": [16]}}, "remoteport": [{"rootname": "a"}]},
"c": {"app": "c", "remoteport": [{"rootname": "a"}]}"#,
        ),
        &[],
    );
}

#[test]
fn every_node_of_a_count_needs_a_way() {
    let servers = r#""gate": {"app": "gate", "rootport": 10000, "count": 2, "route": {"range": {"game": [[1, 2]]}}},
"net": {"app": "net", "remoteport": [{"rootname": "gate.1"}], "route": {"special": {"game": [5]}}},
"game": {"app": "game", "remoteport": [{"rootname": "gate.2"}]}"#;
    check(
        &with_servers(servers),
        &[
            "2:76: servers.gate.route.range.game: no way from `gate.1` to a node of the kind `game`: it must be above, below, or below a node above",
            "3:85: servers.net.route.special.game: no way from `net` to a node of the kind `game`: it must be above, below, or below a node above",
        ],
    );
    check(&with_servers(&servers.replace("gate.2", "gate")), &[]);
    // A way that a fault elsewhere cut is not a second fault.
    check(
        &with_servers(&servers.replace("gate.2", "gaet")),
        &[
            r#"4:53: servers.game.remoteport[0].rootname: "gaet" is not among `servers`; did you mean `gate`?"#,
        ],
    );
}

#[test]
fn a_stateless_entry_without_a_routed_command_is_a_warning() {
    let config = with_route(
        r#"{"range": {"game": [[10, 19]]}, "special": {"chat": [5]},
"stateless": [[0, 4], 5, [6, 9], [6, 10], 20, [0, 100]]}"#,
    );
    let warnings: Vec<String> = ok(&config).warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "config.json:4:15: servers.net.route.stateless[0]: no effect: neither `range` nor `special` has a command of it",
            "config.json:4:26: servers.net.route.stateless[2]: no effect: neither `range` nor `special` has a command of it",
            "config.json:4:43: servers.net.route.stateless[4]: no effect: neither `range` nor `special` has a command of it",
        ]
    );
}

/// The binary search against reading the route as it is written.
#[test]
fn a_random_route_says_for_every_command_what_is_written() {
    // xorshift: the same routes every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % u64::from(below)) as u32
    };
    let kinds = ["game", "chat", "gate"];
    for _ in 0..200 {
        let mut expected: Vec<Option<&str>> = vec![None; 64];
        let mut ranges: Vec<(&str, String)> = Vec::new();
        let mut at = random(5);
        while at < 60 {
            let last = (at + random(8)).min(63);
            let kind = kinds[random(3) as usize];
            expected[at as usize..=last as usize].fill(Some(kind));
            ranges.push((kind, format!("[{at}, {last}]")));
            at = last + 1 + random(3);
        }
        let specials: Vec<(&str, String)> = (0..64)
            .filter(|_| random(8) == 0)
            .collect::<Vec<u32>>()
            .into_iter()
            .map(|command| (kinds[random(3) as usize], command))
            .inspect(|(kind, command)| expected[*command as usize] = Some(kind))
            .map(|(kind, command)| (kind, command.to_string()))
            .collect();
        let (from, to) = (random(32), 32 + random(32));
        let object = |entries: &[(&str, String)]| {
            let list = |kind: &str| {
                let of_kind = entries.iter().filter(|(other, _)| *other == kind);
                let texts: Vec<&str> = of_kind.map(|(_, text)| text.as_str()).collect();
                format!("{kind:?}: [{}]", texts.join(", "))
            };
            format!("{{{}}}", kinds.map(list).join(", "))
        };
        ranges.reverse();
        let text = format!(
            r#"{{"range": {}, "special": {}, "stateless": [[{from}, {to}]]}}"#,
            object(&ranges),
            object(&specials)
        );
        let route = self::route(&text);
        for (command, kind) in (0..64).zip(&expected) {
            let rule = route.find(CommandId(command));
            assert_eq!(rule.map(|rule| &**rule.to.key()), *kind, "{command} in {text}");
            let stateless = (from..=to).contains(&command);
            assert!(rule.is_none_or(|rule| rule.stateless == stateless), "{command} in {text}");
        }
    }
}
