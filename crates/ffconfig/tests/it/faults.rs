//! Every fault, with the text that a person reads.

use crate::{check, parsed, with_servers};

#[test]
fn an_unknown_key_comes_with_the_nearest_known_one() {
    check(
        &with_servers(r#"    "net": {"app": "a", "netprot": 1}"#),
        &["2:25: servers.net.netprot: unknown key; did you mean `netport`?"],
    );
    check(
        &with_servers(r#""net": {"app": "a", "token": "x"}"#),
        &["2:21: servers.net.token: unknown key; `token` belongs under `master`"],
    );
    check(
        r#"{"master": {"rootport": 1, "webport": 2, "colour": 3}, "servers": {}, "server": {}}"#,
        &[
            "1:42: master.colour: unknown key; known here: `rootport`, `webport`, `roothost`, `token`, `operators`, `tls`, `plain_http`, `encrypt`, `log`, `restart`",
            "1:71: server: unknown key; did you mean `servers`?",
        ],
    );
    check(
        r#"{"master": {"rootport": 1, "webport": 2, "restart": {"count": 3, "ga te\n": 4}}, "servers": {}}"#,
        &[
            "1:54: master.restart.count: unknown key; `count` belongs under `servers.NAME`",
            r#"1:66: master.restart["ga te\n"]: unknown key; known here: `wait_ms_min`, `wait_ms_max`, `healthy_s`, `crash_loop`, `max`"#,
        ],
    );
}

#[test]
fn a_login_needs_clients_and_a_command() {
    check(
        &with_servers(
            r#""net": {"app": "a", "netport": 1, "login": {"timeout_s": 0}},
"gate": {"app": "b", "rootport": 2, "login": {"command": 100}}"#,
        ),
        &[
            "2:44: servers.net.login: the key `command` is missing",
            "2:58: servers.net.login.timeout_s: 0 is out of range: 1 to 3600",
            "3:46: servers.gate.login: a login needs a `netport`: this node has no clients",
        ],
    );
}

#[test]
fn nodes_of_one_process_agree_in_what_a_process_has_once() {
    check(
        &with_servers(
            r#""gate": {"app": "a", "process": "world", "threads": 2, "cpu": 3, "log": "w.log"},
"game": {"app": "a", "process": "world", "count": 2, "threads": 2, "cpu": [0, 1], "log": "w.log"},
"hall": {"app": "a", "process": "world", "threads": 3, "cpu": [1], "log": "v.log", "host": "far"},
"shop": {"app": "a", "process": "world"},
"bank": {"app": "a", "process": "bank", "host": "localhost"},
"till": {"app": "a", "process": "bank", "threads": 1}"#,
        ),
        &[
            "4:53: servers.hall.threads: `threads` is 3 here and 2 at `servers.gate` on line 2: the nodes of a process (`world`) share it",
            "4:63: servers.hall.cpu: `cpu` is [1] here and [0, 1] at `servers.gate` on line 2: the nodes of a process (`world`) share it",
            "4:75: servers.hall.log: `log` is `v.log` here and `w.log` at `servers.gate` on line 2: the nodes of a process (`world`) share it",
            "4:92: servers.hall.host: `host` is `far` here and the master's at `servers.gate` on line 2: the nodes of a process (`world`) share it",
            "5:9: servers.shop: `threads` is 1 here and 2 at `servers.gate` on line 2: the nodes of a process (`world`) share it",
            "5:9: servers.shop: `cpu` is absent here and [0, 1] at `servers.gate` on line 2: the nodes of a process (`world`) share it",
            "5:9: servers.shop: `log` is absent here and `w.log` at `servers.gate` on line 2: the nodes of a process (`world`) share it",
        ],
    );
}

#[test]
fn nodes_of_one_process_agree_in_all_of_their_log() {
    check(
        &with_servers(
            r#""gate": {"app": "a", "process": "world", "log": {"file": "w.log", "keep": 7}},
"hall": {"app": "a", "process": "world", "log": "w.log"},
"shop": {"app": "a", "process": "world", "log": {"errors": "e.log", "json": true, "rotate_mb": 0, "quiet_commands": [300, [400, 499]]}}"#,
        ),
        &[
            "4:49: servers.shop.log: `log` is {errors `e.log`, json true, rotate_mb 0, quiet_commands [300, [400, 499]]} here and `w.log` at `servers.gate` on line 2: the nodes of a process (`world`) share it",
        ],
    );
}

#[test]
fn a_process_has_a_name_that_says_whose_it_is() {
    check(
        &with_servers(
            r#""gate": {"app": "a", "process": "game.2"},
"game": {"app": "a", "count": 2},
"hall": {"app": "a", "process": "master"},
"shop": {"app": "a", "process": "shop"},
"bank": {"app": "a", "process": "a b"}"#,
        ),
        &[
            "2:33: servers.gate.process: `game.2` is the name of a node in another process, `servers.game` on line 3",
            "4:33: servers.hall.process: a process cannot be named as the master",
            "6:33: servers.bank.process: ` ` may not stand there: a name is made of letters, digits, `_`, `-`, `.`, and starts with a letter or digit",
        ],
    );
}

#[test]
fn processes_that_share_a_log_file_agree_about_it_and_levels_are_levels() {
    check(
        &with_servers(
            r#""a": {"app": "a", "log": {"file": "a.log", "errors": "e.log", "keep": 3}},
"b": {"app": "b", "log": "a.log"},
"c": {"app": "c", "log": {"file": "e.log", "keep": 3, "level": "loud"}},
"d": {"app": "d", "log": {"file": "a.log", "keep": 3, "quiet_commands": ["x"]}}"#,
        ),
        &[
            "3:26: servers.b.log.file: this file is also `servers.a.log.file` on line 2: who shares a file has the same `json`, `rotate_mb`, `rotate_daily` and `keep`",
            "4:35: servers.c.log.file: this file is also `servers.a.log.errors` on line 2: one has all lines, the other those from WARN up",
            r#"4:64: servers.c.log.level: "loud" is neither a level (`off`, `error`, `warn`, `info`, `debug`, `trace`) nor `TARGET=LEVEL`"#,
            r#"5:74: servers.d.log.quiet_commands[0]: expected a command or [FIRST, LAST], found the text "x""#,
        ],
    );
}

#[test]
fn a_value_of_another_type_says_what_was_expected() {
    check(
        &with_servers(
            r#""a": {"app": 5, "netport": true, "db": "yes", "mem": null,
"threads": 1.5, "remoteport": {}, "log": [], "cpu": {}, "client": 1, "count": "2"},
"b": [],
"c": {"app": "", "remoteport": [5, {"rootname": 1, "rootport": "x"}], "cpu": [0, "1"]}"#,
        ),
        &[
            "2:14: servers.a.app: expected the name of an app, found the number 5",
            r#"2:28: servers.a.netport: expected a port or "ADDRESS:PORT", found true"#,
            r#"2:40: servers.a.db: expected true or false, found the text "yes""#,
            "2:54: servers.a.mem: expected true or false, found null",
            "3:12: servers.a.threads: expected a whole number from 1 to 1024, found 1.5",
            "3:31: servers.a.remoteport: expected a list of objects, found an object",
            "3:42: servers.a.log: expected an object or a text, found a list",
            "3:53: servers.a.cpu: expected a CPU mask or a list of CPU numbers, found an object",
            "3:67: servers.a.client: expected an object, found the number 1",
            r#"3:79: servers.a.count: expected a whole number from 1 to 1000, found the text "2""#,
            "4:6: servers.b: expected an object, found a list",
            "5:14: servers.c.app: expected the name of an app, found an empty text",
            "5:33: servers.c.remoteport[0]: expected an object, found the number 5",
            "5:49: servers.c.remoteport[1].rootname: expected a text, found the number 1",
            r#"5:64: servers.c.remoteport[1].rootport: expected a port, found the text "x""#,
            r#"5:78: servers.c.cpu: expected CPU numbers in the list, found the text "1""#,
        ],
    );
    check(
        r#"{"master": [], "servers": 1, "cluster": 2, "db": 3, "memcached": {"urls": "h:1"}, "limits": [], "vars": []}"#,
        &[
            "1:12: master: expected an object, found a list",
            "1:27: servers: expected an object, found the number 1",
            "1:41: cluster: expected a name, found the number 2",
            "1:50: db: expected an object or a URL, found the number 3",
            r#"1:75: memcached.urls: expected a list of "HOST:PORT", found the text "h:1""#,
            "1:93: limits: expected an object, found a list",
            "1:105: vars: expected an object: the variables and their values",
        ],
    );
    check(
        &with_servers(
            r#""a": {"app": "a", "limits": {"slow_client": "drpo", "idle_s": "never"}},
"b": {"app": "b", "limits": {"slow_client": true, "requests_per_s": 0.5}}"#,
        ),
        &[
            r#"2:45: servers.a.limits.slow_client: expected "disconnect" or "drop", found the text "drpo""#,
            r#"2:63: servers.a.limits.idle_s: expected a whole number from 0 to 604800, found the text "never""#,
            r#"3:45: servers.b.limits.slow_client: expected "disconnect" or "drop", found true"#,
            "3:69: servers.b.limits.requests_per_s: expected a whole number from 0 to 1000000, found 0.5",
        ],
    );
    check(r#"[]"#, &["1:1: expected an object, found a list"]);
    check(
        r#"{"master": {"rootport": 1, "webport": 2, "token": 1234567890123456}, "db": {"user": "u", "db": "d", "passwd": 5}, "servers": {}}"#,
        &[
            "1:51: master.token: expected a text or an object, found a number",
            "1:111: db.passwd: expected a text, found a number",
        ],
    );
}

#[test]
fn a_missing_key_is_named() {
    check("{}", &["1:1: the key `master` is missing", "1:1: the key `servers` is missing"]);
    check(
        r#"{"master": {}, "servers": {"a": {}, "b": {"app": "b", "remoteport": [{}]}}, "memcached": {}}"#,
        &[
            "1:12: master: the key `rootport` is missing",
            "1:12: master: the key `webport` is missing",
            "1:33: servers.a: the key `app` is missing",
            "1:70: servers.b.remoteport[0]: the key `rootname` is missing",
            "1:90: memcached: the key `urls` is missing",
        ],
    );
}

#[test]
fn a_number_out_of_range_says_the_range() {
    check(
        &with_servers(
            r#""a": {"app": "a", "netport": 0, "rootport": 65536, "webport": "127.0.0.1:70000", "count": 0,
"threads": 99999999999999999999999999, "cpu": 0, "drain_s": -1, "client": {"head_0": 256}, "limits": {"calls_max": 0}},
"b": {"app": "b", "cpu": [1024], "remoteport": [{"rootname": "a", "rootport": 0}]},
"c": {"app": "c", "cpu": [], "netport": 1.5}"#,
        ),
        &[
            "2:30: servers.a.netport: 0 is out of range: a port is 1 to 65535",
            "2:45: servers.a.rootport: 65536 is out of range: a port is 1 to 65535",
            "2:63: servers.a.webport: 70000 is out of range: a port is 1 to 65535",
            "2:91: servers.a.count: 0 is out of range: 1 to 1000",
            "3:12: servers.a.threads: 999999999999999999999999… is out of range: 1 to 1024",
            "3:47: servers.a.cpu: 0 is out of range: at least 1, in 64 bits",
            "3:61: servers.a.drain_s: -1 is out of range: 0 to 3600",
            "3:86: servers.a.client.head_0: 256 is out of range: 0 to 255",
            "3:116: servers.a.limits.calls_max: 0 is out of range: 1 to 16777216",
            "4:26: servers.b.cpu: 1024 is out of range: 0 to 1023",
            "4:79: servers.b.remoteport[0].rootport: 0 is out of range: a port is 1 to 65535",
            "5:26: servers.c.cpu: an empty list leaves the node no CPU",
            "5:41: servers.c.netport: 1.5 is out of range: a port is 1 to 65535",
        ],
    );
}

#[test]
fn a_port_used_twice_names_both_places() {
    check(
        &with_servers(
            r#""a": {"app": "a", "netport": 9999},
"b": {"app": "b", "rootport": 5000, "webport": 5000},
"c": {"app": "c", "netport": "0.0.0.0:5000"}"#,
        ),
        &[
            "2:30: servers.a.netport: port 9999 is taken by `master.rootport` on line 1",
            "3:48: servers.b.webport: port 5000 is taken by `servers.b.rootport` on line 3",
            "4:30: servers.c.netport: port 5000 is taken by `servers.b.rootport` on line 3",
        ],
    );
    check(
        &with_servers(
            r#""a": {"app": "a", "count": 3, "netport": 10001, "webport": 10003},
"b": {"app": "b", "netport": 10002}"#,
        ),
        &[
            "2:60: servers.a.webport: port 10003 (of a.1) is taken by `servers.a.netport` (of a.3) on line 2",
            "3:30: servers.b.netport: port 10002 is taken by `servers.a.netport` (of a.2) on line 2",
        ],
    );
    check(
        &with_servers(r#""a": {"app": "a", "count": 3, "netport": 65534}"#),
        &["2:42: servers.a.netport: `count` makes the port of `a.3` larger than 65535"],
    );
    // Another host and another address are other ports.
    check(
        &with_servers(
            r#""a": {"app": "a", "netport": "10.0.0.1:5000"}, "b": {"app": "b", "netport": "10.0.0.2:5000"},
"c": {"app": "c", "netport": 5000, "host": "far"}, "d": {"app": "d", "netport": 5000, "host": "farther"}"#,
        ),
        &[],
    );
    check(
        &with_servers(
            r#""a": {"app": "a", "netport": 5000}, "b": {"app": "b", "netport": 5000, "host": "localhost"},
"c": {"app": "c", "netport": 5000, "host": "far"}, "d": {"app": "d", "netport": 5000, "host": "far"}"#,
        ),
        &[
            "2:66: servers.b.netport: port 5000 is taken by `servers.a.netport` on line 2",
            "3:81: servers.d.netport: port 5000 is taken by `servers.c.netport` on line 3",
        ],
    );
}

#[test]
fn a_name_is_checked() {
    check(
        &with_servers(
            r#""ga te": {"app": "a"},
"master": {"app": "a"},
"": {"app": "a"},
"game": {"app": "a", "count": 2},
"game.2": {"app": "a"},
"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx": {"app": "app.", "count": 10, "type": "a b"}"#,
        ),
        &[
            r#"2:1: servers["ga te"]: ` ` may not stand there: a name is made of letters, digits, `_`, `-`, `.`, and starts with a letter or digit"#,
            "3:1: servers.master: a node cannot be named as the master",
            r#"4:1: servers[""]: a name may not be empty"#,
            r#"6:1: servers["game.2"]: `game.2` is also a node of `servers.game` on line 5"#,
            "7:1: servers.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: `count` makes `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.10` of it: a name has at most 64 bytes",
            "7:75: servers.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.app: a name may not be empty",
            "7:104: servers.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.type: ` ` may not stand there: a name is made of letters, digits, `_`, `-`, `.`, and starts with a letter or digit",
        ],
    );
    check(
        &with_servers(
            r#""a": {"app": "a", "count": 1000}, "b": {"app": "a", "count": 1000}, "c": {"app": "a", "count": 1000},
"d": {"app": "a", "count": 1000}, "e": {"app": "a", "count": 96}"#,
        ),
        &["1:60: servers: 4096 nodes: a cluster has at most 4095"],
    );
}

#[test]
fn a_parent_is_a_node_with_that_rootport() {
    check(
        &with_servers(
            r#""gate": {"app": "g", "rootport": 10000},
"a": {"app": "a", "remoteport": [{"rootname": "gat", "rootport": 10000}]},
"b": {"app": "b", "remoteport": [{"rootname": "gate", "rootport": 10001}]},
"c": {"app": "c", "remoteport": [{"rootname": "a", "rootport": 10000}]},
"d": {"app": "d", "remoteport": [{"rootname": "gate", "rootport": 10000},
  {"rootname": "gate", "rootport": 10000}]},
"e": {"app": "e", "remoteport": [{"rootname": "nobody"}, {"rootname": "master"}]}"#,
        ),
        &[
            r#"3:47: servers.a.remoteport[0].rootname: "gat" is not among `servers`; did you mean `gate`?"#,
            "4:67: servers.b.remoteport[0].rootport: `gate` takes its children on 10000, not on 10001 (line 2)",
            "5:47: servers.c.remoteport[0].rootname: `a` (line 3) has no `rootport`, so it cannot be a parent",
            "7:16: servers.d.remoteport[1].rootname: `gate` is a parent already, on line 6",
            r#"8:47: servers.e.remoteport[0].rootname: "nobody" is not among `servers`"#,
            r#"8:71: servers.e.remoteport[1].rootname: "master" is not among `servers`"#,
        ],
    );
    // A parent whose rootport is misspelled or of another type is one fault, at the parent.
    check(
        &with_servers(
            r#""gate": {"app": "g", "rootprot": 10000}, "gate2": {"ap": "g", "rootport": "x"},
"a": {"app": "a", "remoteport": [{"rootname": "gate", "rootport": 10000}, {"rootname": "gate2", "rootport": 1}]}"#,
        ),
        &[
            "2:22: servers.gate.rootprot: unknown key; did you mean `rootport`?",
            "2:52: servers.gate2.ap: unknown key; did you mean `app`?",
            r#"2:75: servers.gate2.rootport: expected a port or "ADDRESS:PORT", found "x""#,
        ],
    );
    check(
        &with_servers(
            r#""game": {"app": "g", "rootport": 10000, "count": 2},
"a": {"app": "a", "remoteport": [{"rootname": "game", "rootport": 10000}]},
"b": {"app": "b", "remoteport": [{"rootname": "game.2", "rootport": 10000}]},
"c": {"app": "c", "remoteport": [{"rootname": "game.2", "rootport": 10001}, {"rootname": "game"}]},
"d": {"app": "d", "remoteport": [{"rootname": "game.3"}]}"#,
        ),
        &[
            "4:69: servers.b.remoteport[0].rootport: `game.2` takes its children on 10001, not on 10000 (line 2)",
            "5:90: servers.c.remoteport[1].rootname: `game` is a parent already, on line 5",
            r#"6:47: servers.d.remoteport[0].rootname: "game.3" is not among `servers`; did you mean `game.1`?"#,
        ],
    );
}

#[test]
fn a_circle_of_parents_is_written_out() {
    check(
        &with_servers(
            r#""a": {"app": "a", "rootport": 1001, "remoteport": [{"rootname": "c"}]},
"b": {"app": "b", "rootport": 1002, "remoteport": [{"rootname": "a"}]},
"c": {"app": "c", "rootport": 1003, "remoteport": [{"rootname": "b"}]},
"d": {"app": "d", "rootport": 1004, "remoteport": [{"rootname": "d"}]},
"e": {"app": "e", "remoteport": [{"rootname": "d"}]}"#,
        ),
        &[
            "2:65: servers.a.remoteport[0].rootname: a circle of parents: a -> c -> b -> a",
            "5:65: servers.d.remoteport[0].rootname: a circle of parents: d -> d",
        ],
    );
}

#[test]
fn a_node_has_parents_of_as_many_kinds_as_its_credential_can_name() {
    let parents = |count: usize| {
        let parents: Vec<String> =
            (0..count).map(|n| format!(r#""p{n}": {{"app": "p{n}", "rootport": {}}},"#, 1001 + n)).collect();
        let below: Vec<String> = (0..count).map(|n| format!(r#"{{"rootname": "p{n}"}}"#)).collect();
        let (parents, below) = (parents.concat(), below.join(", "));
        with_servers(&format!("{parents}\n\"net\": {{\"app\": \"net\", \"remoteport\": [{below}]}}"))
    };
    check(&parents(32), &[]);
    check(
        &parents(33),
        &["3:37: servers.net.remoteport: parents of 33 kinds: a node has those of at most 32"],
    );
}

#[test]
fn a_control_port_beyond_loopback_needs_a_token() {
    let open = r#"{"master": {"rootport": "0.0.0.0:9999", "webport": 9998 TOKEN}, "servers": {
"a": {"app": "a", "netport": "0.0.0.0:1001", "rootport": "[::]:1002", "webport": "10.0.0.1:1003"},
"b": {"app": "b", "rootport": "127.0.0.2:1004", "webport": "[::1]:1005"}}}"#;
    check(
        &open.replace("TOKEN", ""),
        &[
            "1:25: master.rootport: 0.0.0.0:9999 is beyond loopback: that needs a `master.token`",
            "2:58: servers.a.rootport: [::]:1002 is beyond loopback: that needs a `master.token`",
            "2:82: servers.a.webport: 10.0.0.1:1003 is beyond loopback: that needs a `master.token`",
        ],
    );
    check(
        &open.replace("TOKEN", r#", "token": "short""#),
        &["1:68: master.token: it has 5 characters: at least 16 are needed"],
    );
    check(&open.replace("TOKEN", r#", "token": "${SECRET}""#), &[]);
}

#[test]
fn a_webport_beyond_loopback_needs_https_or_says_that_it_has_none() {
    let open = r#"{"master": {"rootport": 9999, "webport": "0.0.0.0:9998", "token": "0123456789abcdef" MORE}, "servers": {}}"#;
    let fault = "1:42: master.webport: 0.0.0.0:9998 is beyond loopback: that needs `master.tls`, or `\"plain_http\": true` behind something that encrypts";
    check(&open.replace("MORE", ""), &[fault]);
    check(&open.replace("MORE", ", \"plain_http\": false"), &[fault]);
    check(&open.replace("MORE", r#", "tls": {"cert": "c.pem", "key": "k.pem"}"#), &[]);
    let said = parsed(&open.replace("MORE", ", \"plain_http\": true")).unwrap();
    let warning = said.warnings[0].to_string();
    assert!(
        warning.ends_with("speaks HTTP: who is on the way to it reads the operators' tokens"),
        "{warning}"
    );
}

#[test]
fn two_operators_have_two_names_and_two_tokens() {
    let config = |operators: &str| {
        format!(
            r#"{{"master": {{"rootport": 1, "webport": 2, "operators": [{operators}]}}, "servers": {{}}}}"#
        )
    };
    let one = |name: &str, digit: &str| {
        format!(r#"{{"name": "{name}", "role": "read", "hash": "sha256:{}"}}"#, digit.repeat(64))
    };
    check(&config(&format!("{}, {}", one("ann", "1"), one("bob", "2"))), &[]);
    check(
        &config(&format!("{}, {}", one("ann", "1"), one("ann", "2"))),
        &["1:181: master.operators[1].name: `ann` is an operator already"],
    );
    check(
        &config(&format!("{}, {}", one("ann", "1"), one("bob", "1"))),
        &["1:212: master.operators[1].hash: another operator has this token"],
    );
    check(
        &config(&one("ann", "x")),
        &[
            "1:96: master.operators[0].hash: it is no `sha256:` with 64 hexadecimal digits: `master token NAME --role ROLE` makes one",
        ],
    );
}

#[test]
fn settings_that_do_not_fit_together_are_faults() {
    check(
        r#"{"master": {"rootport": 1, "webport": 2, "restart": {"wait_ms_min": 20000}}, "limits": {"outbox_bytes_max": 1024},
"db": {"url": "sqlite:x", "user": "root"}, "servers": {
"a": {"app": "a", "mem": true, "limits": {"link_frame_bytes_max": 2048, "outbox_bytes_max": 100000}}}}"#,
        &[
            "1:53: master.restart: `wait_ms_min` (20000) is more than `wait_ms_max` (10000)",
            "1:88: limits: `frame_bytes_max` (65536) does not fit into `outbox_bytes_max` (1024)",
            "2:35: db.user: `user` beside `url`: give the one or the other",
            "3:26: servers.a.mem: there is no `memcached` at the top of the config",
            "3:42: servers.a.limits: `frame_bytes_max` (65536) does not fit into `link_frame_bytes_max` (2048)",
        ],
    );
    check(
        &with_servers(r#""a": {"app": "a", "limits": {"session_queue_bytes_max": 65535}}"#),
        &[
            "2:29: servers.a.limits: `frame_bytes_max` (65536) does not fit into `session_queue_bytes_max` (65535)",
        ],
    );
    check(
        r#"{"master": {"rootport": 1, "webport": 2}, "db": {"host": "h"}, "servers": {}}"#,
        &[
            "1:49: db: the key `user` is missing: `host` is given",
            "1:49: db: the key `db` is missing: `host` is given",
        ],
    );
    check(
        r#"{"master": {"rootport": 1, "webport": 2}, "db": "oracle://scott:tiger@h/d", "memcached": {"urls": ["h", ":1", "h:0"]}, "servers": {}}"#,
        &[
            r#"1:49: db.url: the scheme "oracle" is unknown: expected sqlite, mysql or postgres"#,
            r#"1:100: memcached.urls[0]: expected "HOST:PORT", found "h""#,
            r#"1:105: memcached.urls[1]: expected "HOST:PORT", found ":1""#,
            "1:111: memcached.urls[2]: 0 is out of range: a port is 1 to 65535",
        ],
    );
    check(
        r#"{"master": {"rootport": 1, "webport": 2}, "db": {"url": "mysql:h"}, "servers": {}}"#,
        &["1:57: db.url: after `mysql:` the URL goes on with `//HOST`"],
    );
    check(
        r#"{"master": {"rootport": 1, "webport": 2}, "db": "sqlite://", "servers": {}}"#,
        &["1:49: db.url: the URL names no file"],
    );
}

#[test]
fn a_variable_that_is_not_there_is_a_fault() {
    check(
        r#"{"vars": {"HOST": "${NOWHERE}", "P": [1], "Q": null, "9": 1, "EARLY": "$LATE$", "LATE": 1},
"master": {"rootport": "$HOTS$", "webport": "$HOST$", "log": "a/$NO$/b", "roothost": "${no name}"},
"servers": {"a": {"app": "${APP", "log": "${LOG}"}}}"#,
        &[
            "1:19: vars.HOST: the environment variable `NOWHERE` is not set",
            "1:33: vars.P: a variable is a text, a number, true or false",
            "1:43: vars.Q: a variable is a text, a number, true or false",
            "1:54: vars.9: a variable's name is made of letters, digits and `_`, and starts with no digit",
            "1:71: vars.EARLY: there is no `LATE` in `vars` (`$$` is a plain `$`)",
            "2:24: master.rootport: there is no `HOTS` in `vars` (`$$` is a plain `$`); did you mean `HOST`?",
            "2:62: master.log: there is no `NO` in `vars` (`$$` is a plain `$`)",
            r#"2:86: master.roothost: "no name" is no name of an environment variable"#,
            "3:26: servers.a.app: `${` without its `}` (`$$` is a plain `$`)",
            "3:42: servers.a.log: the environment variable `LOG` is not set",
        ],
    );
}

#[test]
fn a_text_that_is_no_json_is_one_fault() {
    check("", &["1:1: there is nothing in it: expected an object"]);
    check("// nothing\n", &["1:1: there is nothing in it: expected an object"]);
    check("{\n  \"master\": {\"rootport\": 1 \"webport\": 2}\n}", &["2:27: this is no JSON: expected comma"]);
    check("{\"master\": ", &["1:12: this is no JSON: expected value after colon in object property"]);
    check("{\"a\": 'x'}", &["1:7: this is no JSON: single-quoted strings are not allowed"]);
    check("{} {}", &["1:4: this is no JSON: text cannot contain more than one JSON value"]);
    check("{\"master\": {\"log\": \"é\" x}}", &["1:24: this is no JSON: unexpected token"]);
}

#[test]
fn a_finding_is_one_line_whatever_a_key_is_named() {
    check(
        &with_servers(r#""a\nb": {"app": "a\tb"}, "c": {"app": "c", "remoteport": [{"rootname": "a\nb"}]}"#),
        &[
            r#"2:1: servers["a\nb"]: `\n` may not stand there: a name is made of letters, digits, `_`, `-`, `.`, and starts with a letter or digit"#,
            r#"2:17: servers["a\nb"].app: `\t` may not stand there: a name is made of letters, digits, `_`, `-`, `.`, and starts with a letter or digit"#,
            r#"2:72: servers.c.remoteport[0].rootname: `a\nb` (line 2) has no `rootport`, so it cannot be a parent"#,
        ],
    );
}

#[test]
fn all_faults_are_shown_in_the_order_of_the_text_and_counted() {
    let error = parsed("{\n\"servers\": {\n\"net\": {\"ap\": 1}}}").unwrap_err();
    let expected = "config.json:1:1: the key `master` is missing\n\
                    config.json:3:9: servers.net.ap: unknown key; did you mean `app`?\n\
                    2 faults in config.json";
    assert_eq!(error.to_string(), expected);
    let error = parsed("{").unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.json:1:1: this is no JSON: unterminated object\n1 fault in config.json"
    );
}

#[test]
fn an_unknown_app_is_found_by_whoever_has_the_apps() {
    let config = with_servers(
        "\"gate\": {\"app\": \"app.gatserver\"},\n\"net\": {\"app\": \"netserver\"}, \"x\": {\"app\": \"x\"}",
    );
    let known = ["gateserver".to_owned(), "netserver".to_owned()];
    let faults = parsed(&config).unwrap().check_apps(&known);
    let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "config.json:2:17: servers.gate.app: there is no app \"gatserver\"; the program has `gateserver`, `netserver`; did you mean `gateserver`?",
            "config.json:3:43: servers.x.app: there is no app \"x\"; the program has `gateserver`, `netserver`",
        ]
    );
}

#[test]
fn rights_are_for_kinds_callees_and_clients_that_there_are() {
    check(
        &with_servers(
            r#""net": {"app": "net", "netport": 1, "remoteport": [{"rootname": "gate"}],
"route": {"range": {"game": [[1, 9]]}}, "rights": {"push": "yes", "commands": [[1, 5], 7]}},
"gate": {"app": "gate", "rootport": 2, "rights": {"claim": true, "close": ["nte"], "pull": true}},
"game": {"app": "game", "remoteport": [{"rootname": "gate"}], "rights": {"call": {"gaet": ["greet"], "*": ["x"]}, "set": [5]}}"#,
        ),
        &[
            r#"3:30: servers.net.route.range.game[0]: command 6 is not among `rights.commands` on line 3"#,
            r#"3:60: servers.net.rights.push: expected true, false or a list of names, found the text "yes""#,
            "4:60: servers.gate.rights.claim: it needs a `netport`: this node has no clients",
            r#"4:76: servers.gate.rights.close[0]: no node with a `netport` is of the kind "nte"; did you mean `net`?"#,
            "4:84: servers.gate.rights.pull: unknown key; known here: `push`, `set`, `close`, `move`, `broadcast`, `claim`, `call`, `commands`",
            r#"5:83: servers.game.rights.call.gaet: "gaet" is no node, no key under `servers` and no kind; did you mean `gate`?"#,
            "5:123: servers.game.rights.set[0]: expected a name, found the number 5",
        ],
    );
}
