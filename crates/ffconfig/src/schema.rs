//! The table of every key: what it may be, what it is when absent, what it does.
//!
//! The check of a config, the suggestions for unknown keys and the tables in `docs/config.md` are made
//! from this one table, so they cannot drift apart.

use std::fmt::{self, Write as _};

/// What a value may be. Displays as messages and the documentation say it: `a port`.
#[derive(Debug, Clone, Copy)]
pub enum ValueKind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Whole {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// A text that is not empty.
    Text,
    /// A text that no message ever shows.
    Secret {
        /// The least number of characters.
        chars_min: usize,
    },
    /// A text that no message ever shows, or an object that says where it stands.
    Token(&'static Section),
    /// A name: letters, digits, `_`, `-`, `.`.
    Name,
    /// The name of an app, with or without firefly's leading `app.`.
    App,
    /// A port, 1 to 65535.
    Port,
    /// A port (on loopback) or `"ADDRESS:PORT"`.
    Listen,
    /// `"HOST:PORT"`.
    HostPort,
    /// The URL of a database.
    DatabaseUrl,
    /// Firefly's affinity mask, or a list of CPU numbers.
    Cpus,
    /// The number of a command.
    Command,
    /// `[FIRST, LAST]`: the commands between them, both included.
    Commands,
    /// The one or the other.
    CommandOrCommands,
    /// `true`, `false`, or a list of names.
    BoolOrNames,
    /// One of these texts, of which there are two.
    Either(&'static str, &'static str),
    /// One of these texts, of which there are three.
    OneOf(&'static str, &'static str, &'static str),
    /// A text, a number, `true` or `false`.
    Scalar,
    /// An object with the keys of that section.
    Section(&'static Section),
    /// A list of those.
    List(&'static ValueKind),
    /// An object with names of the author's choice, and that under each.
    Map(&'static ValueKind),
    /// An object with names of the author's choice, and a scalar under each.
    Vars,
    /// An object of the author's choice.
    Free,
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "true or false",
            Self::Whole { min, max } => return write!(f, "a whole number from {min} to {max}"),
            Self::Text | Self::Secret { .. } => "a text",
            Self::Token(_) => "a text or an object",
            Self::Name => "a name",
            Self::App => "the name of an app",
            Self::Port => "a port",
            Self::Listen => "a port or \"ADDRESS:PORT\"",
            Self::HostPort => "\"HOST:PORT\"",
            Self::DatabaseUrl => "the URL of a database",
            Self::Cpus => "a CPU mask or a list of CPU numbers",
            Self::Command => "a command",
            Self::Commands => "[FIRST, LAST]",
            Self::CommandOrCommands => "a command or [FIRST, LAST]",
            Self::BoolOrNames => "true, false or a list of names",
            Self::Either(one, other) => return write!(f, "\"{one}\" or \"{other}\""),
            Self::OneOf(one, two, three) => return write!(f, "\"{one}\", \"{two}\" or \"{three}\""),
            Self::Scalar => "a text, a number, true or false",
            Self::Section(Section { shorthand: Some("url"), .. }) => "an object or a URL",
            Self::Section(section) if section.shorthand.is_some() => "an object or a text",
            Self::Section(_) | Self::Map(_) | Self::Vars | Self::Free => "an object",
            Self::List(Self::Section(_)) => "a list of objects",
            Self::List(Self::Name) => "a list of names",
            Self::List(Self::Text) => "a list of texts",
            Self::List(Self::Command) => "a list of commands",
            Self::List(Self::CommandOrCommands) => "a list of commands and [FIRST, LAST]",
            Self::List(of) => return write!(f, "a list of {of}"),
        })
    }
}

/// One key of a section.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key's name, as it stands in the config.
    pub name: &'static str,
    /// The kind of value that the key may have.
    pub kind: ValueKind,
    /// The value that means the same as its absence, as JSON; `None` when there is no such value.
    pub default: Option<&'static str>,
    /// Whether its absence is a fault.
    pub required: bool,
    /// The key's effect, in one line.
    pub about: &'static str,
}

/// The keys that may stand in one kind of object.
#[derive(Debug)]
pub struct Section {
    /// Its place in the config: `servers.NAME`; empty at the top.
    pub place: &'static str,
    /// What changing it does on `/reload`.
    pub reload: &'static str,
    /// The key that a bare text in the section's place stands for.
    pub shorthand: Option<&'static str>,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Key],
}

impl Section {
    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The keys as a Markdown table, as it stands in `docs/config.md`.
    pub fn table(&self) -> String {
        let mut table = String::from("| key | value | default | effect |\n| --- | --- | --- | --- |\n");
        for Key { name, kind, default, required, about } in self.keys {
            let default = match default {
                Some(json) => format!("`{json}`"),
                None if *required => "required".to_owned(),
                None => "none".to_owned(),
            };
            // A write into a String cannot fail.
            let _ = writeln!(table, "| `{name}` | {kind} | {default} | {about} |");
        }
        table
    }
}

/// Every section, in the order of the documentation.
pub fn schema() -> &'static [&'static Section] {
    SECTIONS
}

const fn key(name: &'static str, kind: ValueKind, about: &'static str) -> Key {
    Key { name, kind, default: None, required: false, about }
}

impl Key {
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn or(mut self, json: &'static str) -> Self {
        self.default = Some(json);
        self
    }
}

const fn whole(min: u64, max: u64) -> ValueKind {
    ValueKind::Whole { min, max }
}

/// One more than this cannot be told apart in a session id ([`ffproto::NodeNumber::MAX`]).
pub const NODES_MAX: usize = ffproto::NodeNumber::MAX as usize;
/// The largest `count`.
pub const COUNT_MAX: u64 = 1000;
/// The fewest characters of a token: a shorter one could be guessed by trying.
pub const TOKEN_CHARS_MIN: usize = 16;

static SECTIONS: &[&Section] = &[
    &TOP,
    &MASTER,
    &TOKEN,
    &OPERATOR,
    &TLS,
    &MASTER_LOG,
    &RESTART,
    &SERVER,
    &LOG,
    &REMOTE,
    &ROUTE,
    &RIGHTS,
    &LOGIN,
    &DB,
    &MEMCACHED,
    &CLIENT,
    &LIMITS,
];

pub(crate) static TOP: Section = Section {
    place: "",
    reload: "`cluster` is who this cluster is: it changes when the master is started anew. Another `appmain` is asked for its apps before anything is touched, and each new process runs it. What the others do is said at their sections.",
    shorthand: None,
    keys: &[
        key("master", ValueKind::Section(&MASTER), "The supervisor.").required(),
        key("servers", ValueKind::Map(&ValueKind::Section(&SERVER)), "The nodes: an object, each node under its name.")
            .required(),
        key("cluster", ValueKind::Name, "The name of the cluster. Links between different clusters are refused.")
            .or("\"cluster\""),
        key(
            "appmain",
            ValueKind::Text,
            "The program that runs the nodes, one that calls `ffserver::main`; relative to the config's folder. `master --appmain PATH` wins over it, and so does the environment's `FF_APPMAIN`. Absent: the program `appmain` beside the master.",
        ),
        key(
            "db",
            ValueKind::Section(&DB),
            "The database of the nodes that say `\"db\": true`. Absent: the SQLite file `data/CLUSTER.sqlite` beside the config. A bare text is its `url`.",
        ),
        key(
            "databases",
            ValueKind::Map(&ValueKind::Section(&DB)),
            "Further databases for the same nodes, each under its name: a handler takes `NamedDb<Logs>`.",
        )
        .or("{}"),
        key(
            "data_dir",
            ValueKind::Text,
            "Where nodes keep the journals of records that wait to be written, one file each; relative to the config's folder. All nodes of a host share it: what one that died has left is written by another.",
        )
        .or("\"data\""),
        key(
            "memcached",
            ValueKind::Section(&MEMCACHED),
            "The memcached servers of the nodes that say `\"mem\": true`.",
        ),
        key(
            "second_login",
            ValueKind::Either("kick_old", "refuse_new"),
            "When a user who has a session gets another one, on any net node: the old one is closed, or the new one refused.",
        )
        .or("\"kick_old\""),
        key("client", ValueKind::Section(&CLIENT), "The constants of the client framing, for every node."),
        key("limits", ValueKind::Section(&LIMITS), "The bounds, for every node."),
        key(
            "vars",
            ValueKind::Vars,
            "Variables: `\"$NAME$\"` elsewhere means the value of `NAME` here. asiocore's `\"$MACRO$\"` is the same.",
        ),
    ],
};

pub(crate) static MASTER: Section = Section {
    place: "master",
    reload: "The running master takes `token` (a rotation of the keys, docs/operations.md), `operators` and `restart`, and reads the files of `tls` again; another change is refused with 409, and taken when the master is started anew.",
    shorthand: None,
    keys: &[
        key("rootport", ValueKind::Listen, "Where nodes register.").required(),
        key("webport", ValueKind::Listen, "Administration over HTTP, or over HTTPS where `tls` is given. Beyond loopback it needs `tls`.").required(),
        key("roothost", ValueKind::Text, "Where nodes find the master.").or("\"localhost\""),
        key(
            "token",
            ValueKind::Token(&TOKEN),
            "What the cluster's keys are made of; no HTTP request takes it. A text of at least 16 characters, or an object that says where only the master finds it. Required as soon as a rootport or webport, the master's or a node's, listens beyond loopback; without one the master makes a secret of its own.",
        ),
        key(
            "operators",
            ValueKind::List(&ValueKind::Section(&OPERATOR)),
            "Who may look at and command the cluster over HTTP, each with a token of their own (docs/security.md). On the master's host its own user and root need none.",
        )
        .or("[]"),
        key(
            "tls",
            ValueKind::Section(&TLS),
            "The certificate of `webport`, which speaks HTTPS and nothing else then. Absent: it speaks HTTP, on loopback.",
        ),
        key(
            "plain_http",
            ValueKind::Bool,
            "Whether `webport` may speak HTTP beyond loopback, where everybody on the way reads tokens: behind something that encrypts. The master warns of it at each start.",
        )
        .or("false"),
        key(
            "encrypt",
            ValueKind::OneOf("auto", "always", "never"),
            "Whether links between nodes and control connections are encrypted: `auto` encrypts those that leave their host, `always` those on loopback, too, `never` none (docs/security.md). The same for all hosts of a cluster.",
        )
        .or("\"auto\""),
        key(
            "log",
            ValueKind::Section(&MASTER_LOG),
            "The files of the master's log, besides the terminal, and what is logged. A bare text is its `file`.",
        ),
        key("restart", ValueKind::Section(&RESTART), "How ended nodes are started again."),
    ],
};

pub(crate) static TOKEN: Section = Section {
    place: "master.token",
    reload: "As `master`.",
    shorthand: None,
    keys: &[
        key(
            "file",
            ValueKind::Text,
            "The file that the token is the text of, relative to the config's folder. Only its owner may read it.",
        ),
        key(
            "credential",
            ValueKind::Name,
            "The name of a credential that systemd hands over (`LoadCredential=`).",
        ),
    ],
};

pub(crate) static OPERATOR: Section = Section {
    place: "master.operators[]",
    reload: "As `master`: who is gone from the list is refused from then on.",
    shorthand: None,
    keys: &[
        key("name", ValueKind::Name, "Who it is: in the audit, and as the user name in a browser.").required(),
        key("role", ValueKind::Either("read", "operate"), "`read` looks, `operate` commands, too.").required(),
        key(
            "hash",
            ValueKind::Text,
            "`sha256:` and the SHA-256 of the token in hexadecimal. `master token NAME --role ROLE` makes a token and its entry.",
        )
        .required(),
    ],
};

pub(crate) static TLS: Section = Section {
    place: "master.tls",
    reload: "Other files are taken when the master is started anew. What stands in the files is read again by `/reload`, and when they change.",
    shorthand: None,
    keys: &[
        key(
            "cert",
            ValueKind::Text,
            "The certificate in PEM, followed by those that vouch for it; relative to the config's folder.",
        )
        .required(),
        key(
            "key",
            ValueKind::Text,
            "Its private key in PEM, relative to the config's folder. Only its owner may read it.",
        )
        .required(),
    ],
};

const LOG_FILE: Key = key(
    "file",
    ValueKind::Text,
    "The file that lines are appended to, relative to the config's folder; mode 0600. Several processes may share one.",
);
const LOG_ERRORS: Key =
    key("errors", ValueKind::Text, "A file for the lines from WARN up alone, besides `file`.");
const LOG_JSON: Key = key(
    "json",
    ValueKind::Bool,
    "Whether a line is a JSON object (docs/operations.md), in the files and on the terminal.",
)
.or("false");
const LOG_LEVEL: Key = key(
    "level",
    ValueKind::Text,
    "What is shown: levels, and targets with theirs, as `info,ffserver::gateway=debug`. The environment's `FF_LOG` wins over it. Absent: `info`.",
);
const LOG_ROTATE_MB: Key = key("rotate_mb", whole(0, 1_000_000), "A file that would get larger is begun anew; the older ones are `FILE.1`, the newest of them, `FILE.2` … 0: it is not.").or("64");
const LOG_ROTATE_DAILY: Key =
    key("rotate_daily", ValueKind::Bool, "Whether a file is begun anew with each day, by UTC.").or("false");
const LOG_KEEP: Key = key("keep", whole(1, 1000), "So many older files are kept.").or("7");

pub(crate) static MASTER_LOG: Section = Section {
    place: "master.log",
    reload: "As `master`.",
    shorthand: Some("file"),
    keys: &[LOG_FILE, LOG_ERRORS, LOG_JSON, LOG_LEVEL, LOG_ROTATE_MB, LOG_ROTATE_DAILY, LOG_KEEP],
};

pub(crate) static LOG: Section = Section {
    place: "servers.NAME.log",
    reload: "As `servers.NAME`: the node is replaced.",
    shorthand: Some("file"),
    keys: &[
        LOG_FILE,
        LOG_ERRORS,
        LOG_JSON,
        LOG_LEVEL,
        LOG_ROTATE_MB,
        LOG_ROTATE_DAILY,
        LOG_KEEP,
        key(
            "quiet_commands",
            ValueKind::List(&ValueKind::CommandOrCommands),
            "Commands whose calls are not logged, as `[300, [400, 499]]`; what goes wrong with one is logged all the same.",
        )
        .or("[]"),
    ],
};

pub(crate) static RESTART: Section = Section {
    place: "master.restart",
    reload: "As `master`.",
    shorthand: None,
    keys: &[
        key(
            "wait_ms_min",
            whole(1, 600_000),
            "The first wait before a start; it doubles with each quick end.",
        )
        .or("100"),
        key("wait_ms_max", whole(1, 3_600_000), "No wait is longer.").or("10000"),
        key("healthy_s", whole(1, 86_400), "A node that lived that long starts again from the first wait.")
            .or("60"),
        key("crash_loop", whole(1, 1000), "That many quick ends in a row are shown as a crash loop.").or("5"),
        key("max", whole(0, 1_000_000), "After that many the node is marked failed and not tried any more, until `/nodes/NAME/start` or a reload; 0 never gives up. Some minutes: what would have come back has come back by then.").or("20"),
    ],
};

pub(crate) static SERVER: Section = Section {
    place: "servers.NAME",
    reload: "Nodes that are new are started, nodes that are gone are stopped, nodes with any change here are replaced; the others are restarted as they are.",
    shorthand: None,
    keys: &[
        key(
            "app",
            ValueKind::App,
            "Which app the node runs; `app.gateserver`, as firefly wrote it, is `gateserver`.",
        )
        .required(),
        key(
            "type",
            ValueKind::Name,
            "The kind of the node: routing chooses among the nodes of a kind. Absent: its app.",
        ),
        key(
            "count",
            whole(1, COUNT_MAX),
            "So many nodes, named `NAME.1`, `NAME.2` …, with the ports counted up from those given here. Absent: one node, named `NAME`.",
        ),
        key(
            "conf",
            ValueKind::Free,
            "Values for the app, which its type for them reads: see [Values for the app](#values-for-the-app). Absent: none, as `{}`.",
        ),
        key("netport", ValueKind::Listen, "Where game clients connect. Absent: the node takes none."),
        key(
            "rootport",
            ValueKind::Listen,
            "Where child nodes connect. Absent: the node can be nobody's parent.",
        ),
        key("webport", ValueKind::Listen, "The node's web server. Absent: none."),
        key("remoteport", ValueKind::List(&ValueKind::Section(&REMOTE)), "The parents, of at most 32 kinds.")
            .or("[]"),
        key(
            "route",
            ValueKind::Section(&ROUTE),
            "Where commands without a handler on this node go: see [Routes](#routes). Absent: none goes anywhere.",
        ),
        key(
            "login",
            ValueKind::Section(&LOGIN),
            "Clients must log in before anything else is accepted from them. Absent: they need not.",
        ),
        key(
            "rights",
            ValueKind::Section(&RIGHTS),
            "What the node may do to clients and to other nodes: see [Rights](#rights). Absent: what its place in the tree and the routes say.",
        ),
        key("db", ValueKind::Bool, "Whether the node uses `db` and `databases`.").or("false"),
        key("mem", ValueKind::Bool, "Whether the node uses `memcached` in place of its in-process cache.")
            .or("false"),
        key(
            "log",
            ValueKind::Section(&LOG),
            "The files of the node's log, besides the terminal, and what is logged. A bare text is its `file`. The nodes of a `count` share the files.",
        ),
        key(
            "cpu",
            ValueKind::Cpus,
            "The processors that the node may run on: firefly's affinity mask (`5` is CPU 0 and 2), or a list of CPU numbers (`[0, 2]`). Absent: all.",
        ),
        key(
            "process",
            ValueKind::Name,
            "The name of the process that the node runs in: nodes of one name, and all of a `count`, share one. See [Nodes of one process](#nodes-of-one-process). Absent: a process of its own.",
        ),
        key("threads", whole(1, 1024), "Threads of the node's runtime. Processes scale better: see `count`.")
            .or("1"),
        key(
            "drain_s",
            whole(0, 3600),
            "How long the node may take to stop in good order before it is stopped firmly.",
        )
        .or("10"),
        key(
            "host",
            ValueKind::Text,
            "The host that the node runs on, as the others reach it; the master does not start such a node. Absent (or `localhost`): the master's host.",
        ),
        key(
            "client",
            ValueKind::Section(&CLIENT),
            "As the top-level `client`, for this node; the keys given here win.",
        ),
        key(
            "limits",
            ValueKind::Section(&LIMITS),
            "As the top-level `limits`, for this node; the keys given here win.",
        ),
        key(
            "name",
            ValueKind::Text,
            "Firefly's; no effect, the key under `servers` is the name. A different text is a warning.",
        ),
        key(
            "reload",
            ValueKind::Text,
            "Firefly's: what a reload refreshes. Shown, no effect: a reload replaces the whole process.",
        ),
    ],
};

pub(crate) static REMOTE: Section = Section {
    place: "servers.NAME.remoteport[]",
    reload: "As `servers.NAME`: the child is replaced.",
    shorthand: None,
    keys: &[
        key("rootname", ValueKind::Text, "The parent: a key under `servers`. One with a `count` means each of its nodes; `game.2` means that one.").required(),
        key("rootport", ValueKind::Port, "The parent's `rootport` (with a `count`: the first one's), checked against it. Absent: taken from it."),
        key("roothost", ValueKind::Text, "Where the parent is reached, when that is not where the master sees it."),
    ],
};

pub(crate) static ROUTE: Section = Section {
    place: "servers.NAME.route",
    reload: "As `servers.NAME`: the node is replaced.",
    shorthand: None,
    keys: &[
        key("range", ValueKind::Map(&ValueKind::List(&ValueKind::Commands)), "Under the name of a kind: the commands for nodes of it, as a list of `[FIRST, LAST]`, both included. No two of them overlap.").or("{}"),
        key("special", ValueKind::Map(&ValueKind::List(&ValueKind::Command)), "Under the name of a kind: a list of single commands for nodes of it. They win over `range`.").or("{}"),
        key("to", ValueKind::Map(&ValueKind::List(&ValueKind::CommandOrCommands)), "Under the name of a node: the commands for that one node. They win over `special` and `range`.").or("{}"),
        key("stateless", ValueKind::List(&ValueKind::CommandOrCommands), "For these, each message goes to the node of the kind with the least load; for the others a session keeps the node that was chosen first.").or("[]"),
    ],
};

pub(crate) static RIGHTS: Section = Section {
    place: "servers.NAME.rights",
    reload: "As `servers.NAME`: the node is replaced. Each node judges by the config that it was started with.",
    shorthand: None,
    keys: &[
        key(
            "push",
            ValueKind::BoolOrNames,
            "Whether the node may send messages to clients of other nodes: to all, to none, or to those of the net nodes of these kinds. Absent: to those whose messages can come to it.",
        ),
        key("set", ValueKind::BoolOrNames, "The same of changes of a session: user, attributes and groups."),
        key("close", ValueKind::BoolOrNames, "The same of the end of a session."),
        key("move", ValueKind::BoolOrNames, "The same of `move_to`."),
        key(
            "broadcast",
            ValueKind::BoolOrNames,
            "The same of broadcasts. Absent: as `push`, and net nodes to all.",
        ),
        key(
            "claim",
            ValueKind::Bool,
            "Whether the node, which has a `netport`, may end sessions of other nodes because their users have logged in here. Absent: it may.",
        ),
        key(
            "call",
            ValueKind::Map(&ValueKind::List(&ValueKind::Text)),
            "Under the name of a node, a key under `servers`, or a kind: the methods of it that the node may call and notify; `\"*\"` means all, of nodes as of methods. Absent: all of all.",
        ),
        key(
            "commands",
            ValueKind::List(&ValueKind::CommandOrCommands),
            "The commands of its clients that other nodes take from the node, which has a `netport`. Absent: all.",
        ),
    ],
};

pub(crate) static LOGIN: Section = Section {
    place: "servers.NAME.login",
    reload: "As `servers.NAME`: the node is replaced. Clients that are in need not log in again.",
    shorthand: None,
    keys: &[
        key("command", ValueKind::Command, "The command of the first message. A handler of this node, or one that `route` leads to, decides: it answers a `Verdict`.").required(),
        key("timeout_s", whole(1, 3600), "A client that is not in by then is disconnected; counted from when it connects.").or("10"),
    ],
};

pub(crate) static DB: Section = Section {
    place: "db",
    reload: "The nodes that say `\"db\": true` are replaced.",
    shorthand: Some("url"),
    keys: &[
        key(
            "url",
            ValueKind::DatabaseUrl,
            "`sqlite:FILE`, `mysql://…` or `postgres://…`; not together with firefly's keys below. A SQLite file is relative to the config's folder, and made when it is missing.",
        ),
        key("connections_max", whole(1, 10_000), "Size of each node's pool.").or("5"),
        key("connect_timeout_ms", whole(1, 600_000), "How long a start waits for the database.").or("5000"),
        key(
            "read_url",
            ValueKind::DatabaseUrl,
            "A replica for `Db::reading`: statements that only read and may be a moment behind. Absent: the same database.",
        ),
        key(
            "migrations",
            ValueKind::Text,
            "A folder of SQL files `NUMBER_NAME.sql`, relative to the config's folder; each is run once, in order, by one node under a lock, before a node is ready. With a subfolder `sqlite`, `mysql` or `postgres`, the files of the database's kind in there. Absent: none.",
        ),
        key("slow_ms", whole(1, 600_000), "A statement that takes longer is logged, without its values.")
            .or("500"),
        key(
            "host",
            ValueKind::Text,
            "Firefly's: the MySQL server. Default, beside other keys of firefly's: `localhost`.",
        ),
        key("port", ValueKind::Port, "Firefly's: its port. Default: 3306."),
        key("user", ValueKind::Text, "Firefly's: required when one of firefly's keys is given."),
        key("passwd", ValueKind::Secret { chars_min: 0 }, "Firefly's: its password. Default: none."),
        key(
            "db",
            ValueKind::Text,
            "Firefly's: the name of the database; required when one of firefly's keys is given.",
        ),
        key("charset", ValueKind::Text, "Firefly's: the character set of the connection. Default: utf8mb4."),
        key("mincached", ValueKind::Scalar, "Firefly's pool; kept, no effect."),
        key("maxcached", ValueKind::Scalar, "Firefly's pool; kept, no effect."),
        key("maxshared", ValueKind::Scalar, "Firefly's pool; kept, no effect."),
        key("maxconnections", ValueKind::Scalar, "Firefly's pool; kept, no effect: see `connections_max`."),
        key("maxusage", ValueKind::Scalar, "Firefly's pool; kept, no effect."),
        key("blocking", ValueKind::Scalar, "Firefly's pool; kept, no effect."),
        key("use_unicode", ValueKind::Scalar, "Firefly's driver; kept, no effect."),
    ],
};

pub(crate) static MEMCACHED: Section = Section {
    place: "memcached",
    reload: "The nodes that say `\"mem\": true` are replaced.",
    shorthand: None,
    keys: &[
        key("urls", ValueKind::List(&ValueKind::HostPort), "The servers, `\"HOST:PORT\"` each.").required(),
        key(
            "hostname",
            ValueKind::Text,
            "The prefix of every key, so that clusters can share a server. Absent: the cluster's name.",
        ),
        key("timeout_ms", whole(1, 600_000), "How long an operation may take.").or("1000"),
    ],
};

pub(crate) static CLIENT: Section = Section {
    place: "client",
    reload: "The nodes for which it changes are replaced.",
    shorthand: None,
    keys: &[
        key(
            "protocols",
            ValueKind::List(&ValueKind::Name),
            "The protocols that clients may speak: `firefly`, `websocket-binary`, `websocket-json`, and those that the app brings. A client's first bytes tell which; the first of the list is taken for granted when the server has to speak before. Absent: every one that the program has.",
        ),
        key("head_0", whole(0, 255), "First byte of every frame.").or("0"),
        key("head_1", whole(0, 255), "Second byte.").or("0"),
        key("head_2", whole(0, 255), "Third byte.").or("0"),
        key("head_3", whole(0, 255), "Fourth byte.").or("0"),
        key("proto_version", whole(0, 255), "Fifth byte.").or("0"),
        key("server_version", whole(0, u32::MAX as u64), "The next four bytes.").or("0"),
        key(
            "error_command",
            whole(0, u32::MAX as u64),
            "The command of error frames: one that no handler uses.",
        )
        .or("4294967295"),
    ],
};

const MIB: u64 = 1024 * 1024;

pub(crate) static LIMITS: Section = Section {
    place: "limits",
    reload: "The nodes for which it changes are replaced.",
    shorthand: None,
    keys: &[
        key("frame_bytes_max", whole(64, 16 * MIB), "The largest `length` of a client's frame. A game message is far smaller, and 1,000 hostile clients cost 64 MiB at most.").or("65536"),
        key("link_frame_bytes_max", whole(1024, 1024 * MIB), "The largest frame on a link: room for a state, far from what would block a link for long.").or("16777216"),
        key("call_timeout_ms", whole(1, 600_000), "How long a call may take: a player has given up by then.").or("5000"),
        key("peer_timeout_ms_max", whole(1, 3_600_000), "How long another node may let what it calls here run, if no node of the config has a longer `call_timeout_ms`: far above what a player waits for.").or("60000"),
        key("outbox_bytes_max", whole(1024, 1024 * MIB), "Bytes queued for one client: seconds of pushes on a slow line.").or("1048576"),
        key("link_outbox_bytes_max", whole(1024, 16 * 1024 * MIB), "Bytes queued for one link: half a second of a full gigabit.").or("67108864"),
        key("calls_max", whole(1, 16_777_216), "Calls of the node that wait for an answer on one link.").or("65536"),
        key("sessions_max", whole(1, 1_000_000), "Client connections of one node: below the usual limit of descriptors.").or("20000"),
        key("start_s", whole(1, 3600), "How long the node may take to become ready: a database may be slow to wake.").or("60"),
        key("heartbeat_ms", whole(10, 60_000), "How often a silent link is asked; three missed answers are its end.").or("500"),
        key("session_calls_max", whole(1, 1_000_000), "Forwarded requests of one session that may wait for an answer; above it the client's socket is not read. Few clients pipeline a tenth of it.").or("256"),
        key("session_queue_max", whole(1, 1_000_000), "Messages of one session that may wait behind its running handler on a node; above it they get the error `overloaded`. Nobody waits for the thousandth.").or("1024"),
        key("session_queue_bytes_max", whole(1024, 1024 * MIB), "The same in bytes: 16 of the largest frames.").or("1048576"),
        key("session_state_bytes_max", whole(64, 65_536), "Bytes of a session's user and attributes: they travel whole to every node that handles the session.").or("1024"),
        key("session_groups_max", whole(0, 65_536), "Groups that a session may be in: a guild, a room, some channels.").or("64"),
        key("net_lost_ms", whole(100, 600_000), "How long a net node may be out of reach before its sessions are closed on this node: longer than a gate takes to come back, short enough that nobody waits for the dead.").or("5000"),
        key("latest_bytes_max", whole(0, 1 << 30), "Bytes of updates that wait for the next tick of one `Broadcasts::every`; above it they go before.").or("1048576"),
        key("hops_max", whole(1, 31), "Over how many links a client's message may go: one that goes in a circle ends there with `too_many_hops`.").or("16"),
        key("park_ms", whole(0, 60_000), "How long messages wait for a neighbour that ended or is being replaced; 0 waits for nobody.").or("2000"),
        key("park_max", whole(1, 16 * MIB), "Messages that may wait so at one node; above it `overloaded`.").or("65536"),
        key("park_bytes_max", whole(1024, 1024 * MIB), "The same in bytes.").or("67108864"),
        key("prove_ms", whole(0, 600_000), "A successor that lives that long is trusted; until then the old process stands by.").or("2000"),
        key("hang_s", whole(0, 86_400), "A node whose loop does not turn for that long is killed and started again; 0 is never.").or("10"),
        key("idle_s", whole(0, 604_800), "A client that sends nothing for that long is disconnected: a phone that vanished says nothing. 0: never.").or("600"),
        key("first_message_s", whole(0, 3600), "A client whose first message is not whole by then is disconnected: it costs a descriptor, and even a slow line is faster. 0: never.").or("30"),
        key("requests_per_s", whole(0, 1_000_000), "Messages of one client in a second; above it its socket is read more slowly. 0: no limit, for only the game knows what is too much.").or("0"),
        key("connections_per_address", whole(0, 1_000_000), "Client connections from one address, in IPv6 from one /64: a whole school may share one. 0: no limit. Absent: 256, or 0 where `netport` is on loopback: there all clients have one."),
        key("web_connections_max", whole(1, 1_000_000), "HTTP connections of one node, half of them from one address (IPv6: one /64), from this host all. Where all are taken, the one that is between two requests for longest makes room; where requests run on all of them, `/healthz` and `/metrics` are still answered, and others get 503.").or("1024"),
        key("web_head_s", whole(1, 3600), "How long the head of an HTTP request may take from its first byte: even a slow line is faster.").or("10"),
        key("web_idle_s", whole(1, 86_400), "An HTTP connection whose client sends no request, no more of one, or takes no answer for that long is closed.").or("60"),
        key("slow_client", ValueKind::Either("disconnect", "drop"), "What happens when a client's outbox is over `outbox_bytes_max`: it is disconnected, or pushes to it are dropped and counted. A client that misses a push without knowing shows a wrong world.").or("\"disconnect\""),
        key("cache_bytes_max", whole(1024, u32::MAX as u64), "What the in-process cache holds: memcached's own default.").or("67108864"),
        key("records_bytes_max", whole(1024, u32::MAX as u64), "Records of one table in the node's memory: some 100,000 players. Those that wait to be written are never dropped.").or("67108864"),
        key("dirty_records_max", whole(1, 100_000_000), "Records that wait to be written to the database; above it writes are refused. A database takes so many up within a minute after an outage.").or("100000"),
        key("dirty_bytes_max", whole(1024, u32::MAX as u64), "The same in bytes; the journal's file is at most about twice as large.").or("67108864"),
        key("record_idle_s", whole(1, 604_800), "A record that nobody uses for that long leaves memory, as a silent client does.").or("600"),
        key("record_fresh_ms", whole(0, 3_600_000), "How long a record is read from memory before it is asked for again: so late another node's change may be seen. 0: every read asks.").or("1000"),
    ],
};
