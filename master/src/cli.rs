//! The command line: what can be said, and the help that teaches it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use ffnet::run_folder;
use fftelemetry::Colour;

use crate::new_project::Framework;
use crate::operator::Ask;
use crate::supervisor::program::{self, Programs};

/// Exit codes, as in sysexits.h where it has one.
pub mod exit {
    /// Everything was stopped in order.
    pub const STOPPED: u8 = 0;
    /// Something failed: a port, a program, a node's first start; or a second signal cut the stop short.
    pub const FAILED: u8 = 1;
    /// The command line makes no sense.
    pub const USAGE: u8 = 64;
    /// The config has faults.
    pub const CONFIG: u8 = 78;
}

const LONG: &str = "\
Reads config.json, opens every listening socket, starts each configured node as a child process
(`appmain NODE config.json`), parents before children, and supervises them: a node that ends is
started again. Nodes register at master.rootport; people and programs look at and command the
cluster at master.webport.";

const AFTER: &str = "\
Examples:
  master config.json                 start the cluster and stay with it
  master --check config.json         only find every fault in the config; exit code 78 if there is one
  master single game2 config.json    start one node of the config here and supervise it; it registers
                                     at the configured master, which may be on another host
  master new mygame                  make a game of your own in ./mygame, which builds and plays as it is
  master dev                         in there: build it, run it, and build and reload what changes
  master key game2 --config config.json --out game2.key
                                     make a key for `appmain game2 config.json --key game2.key`
  master token ann --role operate    make a token for ann, who then commands from other hosts; on this one the
                                     master's user and root need none
  curl http://127.0.0.1:9998/status  (webport) the nodes: state, pid, restarts, sessions, last exit
  curl -X POST http://127.0.0.1:9998/reload         read the config again, replace every node in turn
  curl -N http://127.0.0.1:9998/events              what happens, as it happens (server-sent events)
  curl -X POST http://127.0.0.1:9998/nodes/NAME/restart       also: stop, start, reload
  curl -X POST http://127.0.0.1:9998/rotate         other keys for all nodes, when there is no master.token
                                     (with one: write another one where it stands, and reload)
  curl -X POST http://127.0.0.1:9998/stop           stop in waves: net nodes, the others, parents last
  curl -X POST http://127.0.0.1:9998/detach         only this master leaves; the next one adopts the nodes

Signals:
  SIGTERM, SIGINT (Ctrl-C)   stop in order, as /stop; a second one kills every node at once
  SIGHUP                     reload, as /reload, after the command that runs, if one does;
                             `master single`: read the keys again, restart the node
  SIGUSR1                    open the log files again, those of the nodes as well
  SIGUSR2                    leave and let the nodes run on, as /detach

A master that was killed leaves its nodes running. The next `master config.json` finds them, adopts
them and starts only what is missing. A config has one master: a second one says who holds it.

What the nodes' keys are made of is master.token in the config: a text, {\"file\": \"PATH\"} (mode 0600) or
{\"credential\": \"NAME\"} (systemd's LoadCredential); without one, a secret in the run folder.

Exit codes:
   0  stopped in order           64  wrong command line
   1  something failed           78  the config has faults

Environment:
  FF_APPMAIN   the program that runs the nodes, as --appmain, which wins over it; both win over the config's
               `appmain`, and that over the program appmain beside this one
  FF_RUN_DIR   as --run-dir
  FF_LOG       what is logged, in the syntax of RUST_LOG (default: the config's `log.level`, or info)
  NO_COLOR     when it is not empty: no colours, unless --color always says so";

const DEV: &str = "\
In the folder of a game (`master new NAME` makes one). The program is built by `cargo build`, in the profile dev, and the nodes run what
the config's `appmain` names. Then the game's files are looked at, and what has changed is built and reloaded; players stay.

  does not build        the errors are said here and over the game's page (a node's webport, on this host) until
                        they are mended; the last program that did build serves on
  config has a fault    the same: the cluster goes on with the last one
  html, css, js ...     the page loads itself anew when the reload is over
  Ctrl-C                stops the cluster in order; once more: kills it

Needs cargo, a Rust that is new enough (https://rustup.rs), and a C compiler (Debian: gcc and libc6-dev), and says which of them is
missing. More: docs/operations.md, \"While it is written\".";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "master",
    version = env!("FF_VERSION"),
    about = "Starts a game-server cluster from one config.json and supervises it",
    long_about = LONG,
    after_help = AFTER,
    subcommand_negates_reqs = true
)]
pub struct Args {
    /// The cluster's config
    #[arg(required = true, value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// Only check the config: print every fault, or what would be started
    #[arg(long)]
    pub check: bool,
    /// The program that runs the nodes: one of `ffserver::main`
    /// [default: FF_APPMAIN, the config's `appmain`, or appmain beside this program]
    #[arg(long, value_name = "PATH", global = true)]
    pub appmain: Option<PathBuf>,
    /// Where this master keeps its lock and what it knows of its processes, for the next master
    /// [default: $FF_RUN_DIR, $XDG_RUNTIME_DIR, or the folder for temporary files]
    #[arg(long, value_name = "FOLDER", global = true)]
    pub run_dir: Option<PathBuf>,
    /// Log one JSON object a line
    #[arg(long, global = true)]
    pub log_json: bool,
    /// Colours in what is printed: auto (in a terminal), always or never. A log file has none
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    pub color: Colour,
    /// What else can be done.
    #[command(subcommand)]
    pub other: Option<Other>,
}

/// The other ways to run.
#[derive(Debug, Subcommand)]
pub enum Other {
    /// Start one node of the config here and supervise it; no webport, no other nodes
    Single {
        /// The node's name
        node: String,
        /// The cluster's config
        config: PathBuf,
    },
    /// Make a game of your own: a folder NAME with its program, config, page, client and test (also: createproject)
    #[command(alias = "createproject")]
    New {
        /// The game's name, and the folder's: small letters, digits, - and _
        name: String,
        /// The checkout of the framework that it depends on [default: the one that this program was built from]
        #[arg(long, value_name = "FOLDER", conflicts_with = "git")]
        path: Option<PathBuf>,
        /// The repository of the framework that it depends on
        #[arg(long, value_name = "URL")]
        git: Option<String>,
    },
    /// Run a game while it is written: build it, start its cluster, and build and reload what changes; Ctrl-C ends everything
    #[command(after_help = DEV)]
    Dev {
        /// The cluster's config, beside the game's Cargo.toml
        #[arg(default_value = "config.json")]
        config: PathBuf,
    },
    /// Make the token of an operator: printed once, with its entry for `master.operators`, which has no more than its hash
    Token {
        /// The operator's name, for the audit and as user name in a browser
        name: String,
        /// What the operator may do: read (look) or operate (command, too)
        #[arg(long, value_name = "ROLE", default_value = "operate", value_parser = ["read", "operate"])]
        role: String,
    },
    /// Make a key file for a node that no master starts (`appmain NODE CONFIG --key FILE`): it makes keys for starts of
    /// that name only
    Key {
        /// The node's name
        node: String,
        /// The cluster's config
        #[arg(long, value_name = "CONFIG")]
        config: PathBuf,
        /// Where to write it, for its owner alone [default: it is printed]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// What is asked of a running master.
    #[command(flatten)]
    Ask(Ask),
}

/// The command that the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The whole cluster.
    Cluster,
    /// Only the check.
    Check,
    /// One node.
    Single(String),
    /// A key file for a node, and where to write it.
    Key(String, Option<PathBuf>),
    /// The token of an operator of that name and role.
    Token(String, String),
    /// A game of that name.
    New(String, Framework),
    /// A game while it is written.
    Dev,
    /// Something of a running master.
    Ask(Box<Ask>),
}

impl Args {
    /// What to do, with which config.
    pub fn asked(&self) -> (Asked, PathBuf) {
        match &self.other {
            Some(Other::Single { node, config }) => (Asked::Single(node.clone()), config.clone()),
            Some(Other::Key { node, config, out }) => (Asked::Key(node.clone(), out.clone()), config.clone()),
            Some(Other::Token { name, role }) => (Asked::Token(name.clone(), role.clone()), PathBuf::new()),
            Some(Other::Dev { config }) => (Asked::Dev, config.clone()),
            Some(Other::New { name, path, git }) => {
                let framework = match (path, git) {
                    (Some(path), _) => Framework::Path(path.clone()),
                    (None, Some(url)) => Framework::Git(url.clone()),
                    (None, None) => Framework::of_this_program(),
                };
                (Asked::New(name.clone(), framework), PathBuf::new())
            }
            Some(Other::Ask(ask)) => (Asked::Ask(Box::new(ask.clone())), PathBuf::new()),
            None => {
                let what = if self.check { Asked::Check } else { Asked::Cluster };
                (what, self.config.clone().unwrap_or_default())
            }
        }
    }

    /// Where run folders are: as named, or the default.
    pub fn run_dir(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| run_folder::base(&|name| std::env::var_os(name)))
    }

    /// What names the program that runs nodes, beside the config; relative to where this program is started.
    pub fn programs(&self) -> Programs {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let environment = std::env::var_os(program::ENV).filter(|named| !named.is_empty());
        Programs {
            argument: self.appmain.clone().map(absolute),
            environment: environment.map(PathBuf::from).map(absolute),
            own: std::env::current_exe().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<(Asked, PathBuf), clap::Error> {
        Args::try_parse_from(line.split(' ')).map(|args| args.asked())
    }

    #[test]
    fn every_way_to_run_is_understood() {
        let key = |out| (Asked::Key("game1".into(), out), "c.json".into());
        assert_eq!(asked("master key game1 --config c.json").unwrap(), key(None));
        assert_eq!(asked("master key game1 --config c.json --out k").unwrap(), key(Some("k".into())));
        let token = (Asked::Token("ann".into(), "read".into()), PathBuf::new());
        assert_eq!(asked("master token ann --role read").unwrap(), token);
        assert_eq!(asked("master c.json").unwrap(), (Asked::Cluster, "c.json".into()));
        assert_eq!(asked("master --check c.json").unwrap(), (Asked::Check, "c.json".into()));
        assert_eq!(asked("master c.json --check").unwrap(), (Asked::Check, "c.json".into()));
        let single = asked("master single game1 c.json --appmain /x/appmain").unwrap();
        assert_eq!(single, (Asked::Single("game1".into()), "c.json".into()));
        assert_eq!(asked("master --appmain /x/appmain single game1 c.json").unwrap(), single);
    }

    #[test]
    fn a_wrong_line_is_refused_and_help_teaches() {
        for line in [
            "master",
            "master a b",
            "master single",
            "master key game1",
            "master --chek c.json",
            "master token",
            "master token ann --role root",
        ] {
            assert!(asked(line).is_err(), "{line}");
        }
        let dev = asked("master dev --help").unwrap_err().to_string();
        assert!(dev.contains("does not build") && dev.contains("https://rustup.rs"), "{dev}");
        let help = asked("master --help").unwrap_err().to_string();
        for taught in [
            "master --check config.json",
            "FF_APPMAIN, the config's `appmain`, or",
            "SIGHUP",
            "/rotate",
            "\"credential\"",
            "78  the config has faults",
        ] {
            assert!(help.contains(taught), "{help}");
        }
    }
}
