//! What a config without faults means.

use std::path::Path;
use std::time::Duration;

use ffconfig::schema::{Key, Section, ValueKind};
use ffconfig::{
    ClientFraming, Cluster, Limits, Loaded, Log, Restart, SecondLogin, SlowClient, Token, load, parse, schema,
};
use ffproto::CommandId;
use ffproto::encrypt::Encrypt;

use crate::{parsed, with_servers};

const FIREFLY: &str = include_str!("../../testdata/firefly.json");

fn ok(config: &str) -> Loaded {
    parsed(config).unwrap_or_else(|error| panic!("{error}\n{config}"))
}

fn cluster(config: &str) -> Cluster {
    ok(config).cluster
}

/// A config of one master with those keys at the top.
fn with_top(keys: &str) -> String {
    format!(
        "{{\"master\": {{\"rootport\": 1, \"webport\": 2}}, {keys}, \"servers\": {{\"a\": {{\"app\": \"a\", \"db\": true}}}}}}"
    )
}

#[test]
fn links_are_encrypted_beyond_the_host_unless_the_config_says_otherwise() {
    let loaded = |encrypt: &str| {
        let master = format!(
            "\"webport\": 9998, \"token\": \"0123456789abcdef\", \"rootport\": \"0.0.0.0:1\"{encrypt}"
        );
        parsed(&format!("{{\"master\": {{{master}}}, \"servers\": {{}}}}"))
    };
    let encrypt = |text: &str| loaded(text).unwrap().cluster.master.encrypt;
    assert_eq!((encrypt(""), encrypt(", \"encrypt\": \"auto\"")), (Encrypt::Auto, Encrypt::Auto));
    assert_eq!(encrypt(", \"encrypt\": \"always\""), Encrypt::Always);
    assert!(loaded("").unwrap().warnings.is_empty());
    let never = loaded(", \"encrypt\": \"never\"").unwrap();
    assert_eq!(never.cluster.master.encrypt, Encrypt::Never);
    let warning = never.warnings[0].to_string();
    let expected =
        "master.encrypt: who is on the way to 0.0.0.0:1 reads and changes what nodes say to each other";
    assert!(warning.ends_with(expected), "{warning}");
    assert!(loaded(", \"encrypt\": \"sometimes\"").is_err());
}

#[test]
fn a_token_is_a_text_a_file_or_a_credential() {
    let token = |token: &str| {
        let master = format!("\"webport\": 2, \"token\": {token}");
        parsed(&with_top("\"db\": {}").replace("\"webport\": 2", &master))
            .map(|loaded| loaded.cluster.master.token)
    };
    let text = "0123456789abcdef";
    assert_eq!(token(&format!("\"{text}\"")).unwrap(), Some(Token::Text(text.into())));
    let file = token(r#"{"file": "secret/token"}"#).unwrap();
    assert!(matches!(&file, Some(Token::File(path)) if path.ends_with("secret/token")), "{file:?}");
    let credential = token(r#"{"credential": "token"}"#).unwrap();
    assert_eq!(credential, Some(Token::Credential("token".into())));
    for wrong in ["{}", r#"{"file": "a", "credential": "b"}"#, r#"{"text": "0123456789abcdef"}"#, "[]"] {
        assert!(token(wrong).is_err(), "{wrong}");
    }
    assert!(!format!("{:?}", token(&format!("\"{text}\""))).contains(text));
}

#[test]
fn a_second_login_kicks_the_old_session_unless_the_config_says_otherwise() {
    assert_eq!(cluster(&with_top("\"db\": {}")).second_login, SecondLogin::KickOld);
    for (text, expected) in [("kick_old", SecondLogin::KickOld), ("refuse_new", SecondLogin::RefuseNew)] {
        assert_eq!(cluster(&with_top(&format!("\"second_login\": \"{text}\""))).second_login, expected);
    }
    assert!(parsed(&with_top("\"second_login\": \"both\"")).is_err());
}

#[test]
fn a_login_has_its_command_and_its_time() {
    let servers = r#""a": {"app": "a", "netport": 1, "login": {"command": 100}},
"b": {"app": "b", "netport": 2, "login": {"command": 7, "timeout_s": 30}}, "c": {"app": "c", "netport": 3}"#;
    let cluster = parsed(&with_servers(servers)).unwrap().cluster;
    let seconds = |node: &ffconfig::Node| node.login.map(|login| (login.command.0, login.timeout.as_secs()));
    let logins: Vec<_> = cluster.nodes.iter().map(seconds).collect();
    assert_eq!(logins, [Some((100, 10)), Some((7, 30)), None]);
}

#[test]
fn the_seeds_config_loads_unchanged_with_one_warning() {
    let loaded = ok(FIREFLY);
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["config.json:5:39: servers.net.name: given twice: this one replaces the one on line 5"]
    );
    let Cluster { name, master, nodes, db, memcached, .. } = loaded.cluster;
    assert_eq!((name.as_str(), db, memcached), ("cluster", None, None));
    assert_eq!(
        (master.rootport.to_string(), master.webport.to_string()),
        ("127.0.0.1:9999".into(), "127.0.0.1:9998".into())
    );
    assert_eq!(
        (master.roothost.as_str(), master.token, master.log, master.restart),
        ("localhost", None, Log::default(), Restart::default())
    );
    let shown: Vec<String> = nodes
        .iter()
        .map(|node| {
            let parents: Vec<String> =
                node.parents.iter().map(|p| format!("{}:{}", p.name, p.port)).collect();
            format!(
                "{} {} {} {:?} {:?} {parents:?}",
                node.name, node.kind, node.app, node.netport, node.rootport
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "gate gateserver gateserver None Some(127.0.0.1:10000) []",
            "net netserver netserver Some(127.0.0.1:10001) None [\"gate:10000\"]",
            "game1 game1server game1server None None [\"gate:10000\"]",
        ]
    );
    for node in nodes {
        assert_eq!(
            (node.threads, node.drain, node.client, node.limits),
            (1, Duration::from_secs(10), ClientFraming::default(), Limits::default())
        );
        assert_eq!(
            (node.db, node.mem, node.cpu, node.log, node.host, node.webport),
            (false, false, None, Log::default(), None, None)
        );
    }
}

#[test]
fn comments_and_trailing_commas_are_allowed() {
    let config = "\u{feff}// the demo\n{\"master\": {\"rootport\": 1, /* } */ \"webport\": 2,}, \"servers\": {\"a//b\\\"\": 1}, \"servers\": {},}";
    let loaded = ok(config);
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["config.json:2:78: servers: given twice: this one replaces the one on line 2"]);
}

#[test]
fn a_name_beside_the_key_is_a_warning() {
    let loaded = ok(&with_servers(r#""net1": {"app": "a", "name": "net"}, "b": {"app": "b", "name": "b"}"#));
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["config.json:2:30: servers.net1.name: \"net\" has no effect: the key `net1` is the name"]
    );
}

#[test]
fn variables_are_written_out() {
    let master = cluster(
        r#"{"vars": {"P": 5000, "WEB": "${PORT}", "HOST": "far", "BOTH": "$HOST$.example", "ON": true},
        "$MACRO$": {"N": 2},
        "master": {"rootport": "$P$", "webport": "$WEB$", "roothost": "$BOTH$:$P$$HOST$",
                   "log": "${NOPE:-a}/$$P$$/${EMPTY:-b}/$5 ${EMPTY}.$", "token": "${SECRET}"},
        "servers": {"a": {"app": "a", "db": "$ON$", "threads": "$N$", "count": "${NOPE:-3}", "mem": "${NOPE:-false}"}}}"#,
    );
    let node = &master.nodes[2];
    assert_eq!((node.name.as_str(), node.db, node.threads, node.mem), ("a.3", true, 2, false));
    let master = master.master;
    assert_eq!((master.rootport.port(), master.webport.port()), (5000, 10001));
    assert_eq!(master.roothost, "far.example:5000far");
    assert_eq!(master.log.file.as_deref(), Some(Path::new("a/$P$/b/$5 .$")));
    assert_eq!(master.token, Some(Token::Text("0123456789abcdef".into())));
}

#[test]
fn a_log_is_a_file_or_says_all_of_its_files() {
    let log = |text: &str| {
        let servers = format!(r#""a": {{"app": "a", "log": {text}}}"#);
        cluster(&with_servers(&servers)).nodes[0].log.clone()
    };
    let (file, of) = (Some("a.log".into()), |n| CommandId(n));
    assert_eq!(log(r#""a.log""#), Log { file: file.clone(), ..Log::default() });
    let all = r#"{"file": "a.log", "errors": "e.log", "json": true, "level": "warn,ffserver=debug", "rotate_mb": 2,
        "rotate_daily": true, "keep": 3, "quiet_commands": [300, [400, 499], [301, 302]]}"#;
    let quiet_commands = vec![(of(300), of(300)), (of(301), of(302)), (of(400), of(499))];
    let (errors, level) = (Some("e.log".into()), Some("warn,ffserver=debug".into()));
    let (rotate_bytes, rotate_daily, keep) = (Some(2 << 20), true, 3);
    let expected = Log { file, errors, json: true, level, rotate_bytes, rotate_daily, keep, quiet_commands };
    assert_eq!(log(all), expected);
    assert_eq!(log(r#"{"rotate_mb": 0}"#).rotate_bytes, None);
}

#[test]
fn a_count_is_written_out_and_parents_follow_it() {
    let cluster = cluster(&with_servers(r#""game": {"app": "g", "rootport": "0.0.0.0:10000", "webport": 8000, "count": 3},
"one": {"app": "o", "count": 1, "type": "kind", "remoteport": [{"rootname": "game", "rootport": 10000, "roothost": "far"}]},
"two": {"app": "t", "remoteport": [{"rootname": "game.2"}]}"#).replace("\"webport\": 9998", "\"webport\": 9998, \"token\": \"${SECRET}\""));
    let shown: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| {
            let parents: Vec<String> = node
                .parents
                .iter()
                .map(|p| format!("{}={}:{}@{:?}", p.key, p.name, p.port, p.host))
                .collect();
            let ports = [node.rootport, node.webport].into_iter().flatten().map(|listen| listen.to_string());
            format!(
                "{}/{}/{} {} {}",
                node.name,
                node.key,
                node.kind,
                ports.collect::<Vec<_>>().join(","),
                parents.join(",")
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "game.1/game/g 0.0.0.0:10000,127.0.0.1:8000 ",
            "game.2/game/g 0.0.0.0:10001,127.0.0.1:8001 ",
            "game.3/game/g 0.0.0.0:10002,127.0.0.1:8002 ",
            "one.1/one/kind  game=game.1:10000@Some(\"far\"),game=game.2:10001@Some(\"far\"),game=game.3:10002@Some(\"far\")",
            "two/two/t  game=game.2:10001@None",
        ]
    );
}

#[test]
fn the_nodes_limits_win_over_the_clusters_over_the_defaults() {
    let cluster = cluster(
        r#"{"master": {"rootport": 1, "webport": 2},
        "limits": {"calls_max": 7, "call_timeout_ms": 100}, "client": {"head_0": 78, "head_3": 2},
        "servers": {"a": {"app": "a", "limits": {"calls_max": 8}, "client": {"head_3": 3, "error_command": 9}}, "b": {"app": "b"}}}"#,
    );
    let [a, b] = &cluster.nodes[..] else { panic!("two nodes") };
    assert_eq!(
        (a.limits.calls_max, a.limits.call_timeout, a.limits.sessions_max),
        (8, Duration::from_millis(100), 20_000)
    );
    assert_eq!(b.limits.calls_max, 7);
    assert_eq!((a.client.head, a.client.error_command.0), ([78, 0, 0, 3], 9));
    assert_eq!((b.client.head, b.client.error_command.0), ([78, 0, 0, 2], u32::MAX));
}

#[test]
fn a_bound_on_clients_is_a_number_and_0_is_none() {
    let limits = |keys: &str| cluster(&with_top(&format!("\"limits\": {{{keys}}}"))).nodes[0].limits.clone();
    let plain = limits("");
    assert_eq!(
        (plain.session_calls_max, plain.session_queue_max, plain.session_queue_bytes_max),
        (256, 1024, 1024 * 1024)
    );
    let seconds = |s| Some(Duration::from_secs(s));
    assert_eq!((plain.idle, plain.first_message), (seconds(600), seconds(30)));
    assert_eq!((plain.requests_per_s, plain.connections_per_address), (None, None));
    assert_eq!(plain.slow_client, SlowClient::Disconnect);

    let set = limits(
        r#""session_calls_max": 1, "session_queue_max": 2, "session_queue_bytes_max": 65536, "idle_s": 3,
        "first_message_s": 4, "requests_per_s": 5, "connections_per_address": 6, "slow_client": "drop""#,
    );
    assert_eq!((set.session_calls_max, set.session_queue_max, set.session_queue_bytes_max), (1, 2, 65536));
    assert_eq!((set.idle, set.first_message), (seconds(3), seconds(4)));
    assert_eq!((set.requests_per_s, set.connections_per_address), (Some(5), Some(6)));
    assert_eq!(set.slow_client, SlowClient::Drop);

    let none = r#""idle_s": 0, "first_message_s": 0, "requests_per_s": 0, "connections_per_address": 0"#;
    let none = limits(none);
    assert_eq!((none.idle, none.first_message), (None, None));
    assert_eq!((none.requests_per_s, none.connections_per_address), (None, None));

    // As soon as clients come from other hosts, one address gets so many and no more; a number of the config goes before.
    let per_address = |limits: &str, netport: &str| {
        let netport = format!("\"netport\": {netport}, \"app\": \"a\"");
        let text = with_top(&format!("\"limits\": {{{limits}}}")).replace("\"app\": \"a\"", &netport);
        cluster(&text).nodes[0].limits.connections_per_address
    };
    for (netport, expected) in [
        ("1000", None),
        ("\"0.0.0.0:1000\"", Some(256)),
        ("\"[::]:1000\"", Some(256)),
        ("\"[::1]:1000\"", None),
    ] {
        assert_eq!(per_address("", netport), expected, "{netport}");
        assert_eq!(per_address("\"connections_per_address\": 6", netport), Some(6), "{netport}");
        assert_eq!(per_address("\"connections_per_address\": 0", netport), None, "{netport}");
    }

    // A node's own 0 wins over the cluster's number.
    let own = cluster(
        r#"{"master": {"rootport": 1, "webport": 2}, "limits": {"idle_s": 9, "slow_client": "drop"},
        "servers": {"a": {"app": "a", "limits": {"idle_s": 0, "slow_client": "disconnect"}}, "b": {"app": "b"}}}"#,
    );
    let shown: Vec<_> = own.nodes.iter().map(|n| (n.limits.idle, n.limits.slow_client)).collect();
    assert_eq!(shown, [(None, SlowClient::Disconnect), (seconds(9), SlowClient::Drop)]);
}

#[test]
fn a_cpu_mask_is_a_list_of_cpus() {
    let cluster = cluster(&with_servers(
        r#""a": {"app": "a", "cpu": 5}, "b": {"app": "b", "cpu": [3, 1, 3]}, "c": {"app": "c", "cpu": 18446744073709551615}"#,
    ));
    assert_eq!(cluster.nodes[0].cpu, Some(vec![0, 2]));
    assert_eq!(cluster.nodes[1].cpu, Some(vec![1, 3]));
    assert_eq!(cluster.nodes[2].cpu, Some((0..64).collect()));
}

#[test]
fn a_database_is_a_url_or_fireflys_keys_or_a_file() {
    let url = |keys: &str| {
        let text = with_top(keys);
        let loaded = parse(&text, Path::new("/srv/game/config.json"), &|_| None).unwrap();
        loaded.cluster.db.unwrap().url
    };
    assert_eq!(url(r#""cluster": "demo""#), "sqlite:///srv/game/data/demo.sqlite?mode=rwc");
    assert_eq!(url(r#""db": {}"#), "sqlite:///srv/game/data/cluster.sqlite?mode=rwc");
    assert_eq!(url(r#""db": "postgres://u:p@h/d""#), "postgres://u:p@h/d");
    assert_eq!(url(r#""db": {"url": "sqlite:x.db"}"#), "sqlite:///srv/game/x.db?mode=rwc");
    assert_eq!(
        url(
            r#""db": {"host": "db.example", "user": "root", "passwd": "p@ss:/?#%é", "port": 3307, "db": "my game", "charset": "utf8"}"#
        ),
        "mysql://root:p%40ss%3A%2F%3F%23%25%C3%A9@db.example:3307/my%20game?charset=utf8"
    );
    assert_eq!(url(r#""db": {"user": "root", "passwd": "", "db": "g"}"#), "mysql://root:@localhost:3306/g");
    assert_eq!(url(r#""db": {"user": "root", "host": "::1", "db": "g"}"#), "mysql://root@[::1]:3306/g");
    let kept = cluster(&with_top(
        r#""db": {"mincached": 9, "blocking": true, "connections_max": 3, "connect_timeout_ms": 10}"#,
    ))
    .db
    .unwrap();
    assert_eq!(format!("{:?}", kept.options), r#"{"blocking": "true", "mincached": "9"}"#);
    assert_eq!((kept.connections_max, kept.connect_timeout), (3, Duration::from_millis(10)));
}

#[test]
fn memcached_has_the_clusters_name_as_prefix() {
    let memcached = |keys: &str| cluster(&with_top(keys)).memcached.unwrap();
    let plain = memcached(r#""cluster": "demo", "memcached": {"urls": ["127.0.0.1:11211", "far:1"]}"#);
    assert_eq!(
        (plain.urls, plain.prefix.as_str(), plain.timeout),
        (vec!["127.0.0.1:11211".into(), "far:1".into()], "demo", Duration::from_secs(1))
    );
    assert_eq!(memcached(r#""memcached": {"urls": [], "hostname": "h", "timeout_ms": 5}"#).prefix, "h");
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!(
        "{:?}",
        cluster(
            &with_top(r#""db": "mysql://u:s3cret@h/d""#)
                .replace("\"webport\": 2", "\"webport\": 2, \"token\": \"s3cret0123456789\"")
        )
    );
    assert!(shown.contains("mysql://u:***@h/d") && !shown.contains("s3cret"), "{shown}");
}

/// The table of keys says what the absence of each means; here it is taken at its word.
#[test]
fn writing_out_every_default_changes_nothing() {
    let plain = r#"{"master": {"rootport": 1, "webport": 2}, "memcached": {"urls": ["h:1"]},
        "servers": {"a": {"app": "a", "db": true}}}"#;
    let defaults = |place: &str| {
        let section: &Section = schema().iter().find(|section| section.place == place).unwrap();
        let line = |key: &Key| key.default.map(|json| format!("\"{}\": {json}, ", key.name));
        section.keys.iter().filter_map(line).collect::<String>()
    };
    let client_limits =
        format!("\"client\": {{{}}}, \"limits\": {{{}}}, ", defaults("client"), defaults("limits"));
    let full = format!(
        r#"{{{top} {client_limits}
        "master": {{"rootport": 1, "webport": 2, {master} "restart": {{{restart}}}}},
        "db": {{{db}}}, "memcached": {{"urls": ["h:1"], {memcached}}},
        "servers": {{"a": {{{server} {client_limits} "route": {{{route}}}, "app": "a", "db": true}}}}}}"#,
        top = defaults(""),
        master = defaults("master"),
        restart = defaults("master.restart"),
        db = defaults("db"),
        memcached = defaults("memcached"),
        server = defaults("servers.NAME"),
        route = defaults("servers.NAME.route"),
    );
    assert!(
        full.contains("\"heartbeat_ms\": 500")
            && full.contains("\"slow_client\": \"disconnect\"")
            && full.contains("\"crash_loop\": 5"),
        "{full}"
    );
    assert_eq!(cluster(&full), cluster(plain));
}

#[test]
fn a_number_of_the_schema_fits_the_field_that_takes_it() {
    for key in schema().iter().flat_map(|section| section.keys) {
        let ValueKind::Whole { max, .. } = key.kind else { continue };
        let largest = if key.name.starts_with("link_outbox") { u64::MAX } else { u32::MAX.into() };
        assert!(max <= largest, "{}", key.name);
    }
}

#[test]
fn the_program_is_in_the_configs_folder_and_is_known_of_a_config_with_faults() {
    assert_eq!(cluster(&with_top("\"db\": {}")).appmain, None);
    let named =
        cluster(&with_top("\"vars\": {\"GAME\": \"game\"}, \"appmain\": \"target/debug/$GAME$\"")).appmain;
    assert_eq!(named.as_deref(), Some(Path::new("target/debug/game")));

    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("program.json");
    let found = |text: &str| {
        std::fs::write(&file, text).unwrap();
        ffconfig::load_appmain(&file, &|_| None)
    };
    let game = file.with_file_name("game");
    assert_eq!(found("{\"appmain\": \"game\", \"servers\": {\"net\": {\"netprot\": 7}}}"), Some(game));
    assert_eq!(found("{\"appmain\": \"/srv/game\"}"), Some("/srv/game".into()));
    for none in ["{\"appmain\": 7}", "{\"appmain\": \"game\"", "{\"servers\": {}}", "[]"] {
        assert_eq!(found(none), None, "{none}");
    }
    assert_eq!(ffconfig::load_appmain(Path::new("no/config.json"), &|_| None), None);
}

#[test]
fn the_masters_webport_is_known_of_a_config_with_faults() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("webport.json");
    let found = |text: &str| {
        std::fs::write(&file, text).unwrap();
        ffconfig::load_webport(&file, &|_| None).unwrap().map(|it| (it.at, it.roothost, it.cert))
    };
    let master =
        |more: &str| format!("{{\"master\": {{{more}}}, \"servers\": {{\"net\": {{\"netprot\": 7}}}}}}");
    let at = |at: &str| at.parse().unwrap();
    assert_eq!(found(&master("\"webport\": 9998")), Some((at("127.0.0.1:9998"), None, None)));
    let there = found(&master("\"webport\": \"0.0.0.0:9998\", \"roothost\": \"game.example\""));
    assert_eq!(there, Some((at("0.0.0.0:9998"), Some("game.example".into()), None)));
    let sealed = found(&master("\"webport\": 9998, \"tls\": {\"cert\": \"web.pem\", \"key\": \"web.key\"}"));
    assert_eq!(sealed, Some((at("127.0.0.1:9998"), None, Some(file.with_file_name("web.pem")))));
    assert_eq!(found(&master("\"rootport\": 7")), None);
    for none in ["{}", "[]", "{\"master\": 7}", "{\"master\""] {
        assert_eq!(found(none), None, "{none}");
    }
    assert!(ffconfig::load_webport(Path::new("no/config.json"), &|_| None).is_err());
}

#[test]
fn a_file_is_read_and_its_paths_become_absolute() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let cluster = load(&folder.join("firefly.json"), &|_| None).unwrap().cluster;
    assert_eq!(cluster.path, folder.join("firefly.json"));
    let relative = load(Path::new("testdata/firefly.json"), &|_| None).unwrap().cluster;
    assert_eq!(relative.path, folder.join("firefly.json"));

    let error = load(Path::new("no/config.json"), &|_| None).unwrap_err();
    assert_eq!(error.to_string(), "no/config.json: cannot be read: No such file or directory (os error 2)");
    assert!(error.faults().is_empty());

    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("latin1.json");
    std::fs::write(&file, b"{\n\"master\": \"\xe9\"}").unwrap();
    let error = load(&file, &|_| None).unwrap_err();
    let shown = format!("{0}:2:12: the text is not UTF-8 from here\n1 fault in {0}", file.display());
    assert_eq!(error.to_string(), shown);
}
