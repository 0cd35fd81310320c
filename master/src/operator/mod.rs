//! The operator's command: `master status`, `reload` and the like, by the HTTP interface of a running master; its exit codes.
//!
//! What reads top-down: [`Ask`] — what can be asked; `place` — which master, and with which token; `client` — HTTP; `table` and
//! `screen` — what people see; then a file for each command that shows more than an answer.

mod answers;
mod client;
mod events;
mod logs;
mod metrics;
mod place;
mod reload;
mod run;
mod screen;
mod sessions;
mod status;
mod table;
mod tls;
mod top;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fftelemetry::Colour;

pub use client::AskError;
use client::Client;
pub use place::PlaceError;
use screen::Screen;

/// Exit codes of the commands for a running master; the others are [`crate::cli::exit`]'s.
pub mod exit {
    /// It is done.
    pub const DONE: u8 = 0;
    /// It failed: a node failed or was rolled back, or the master could not do it.
    pub const FAILED: u8 = 1;
    /// No master answers there.
    pub const NO_MASTER: u8 = 3;
    /// The master refuses who asks: 401, 403, 429.
    pub const REFUSED: u8 = 4;
    /// Another command runs, or the config does not allow it: 409.
    pub const BUSY: u8 = 5;
    /// There is no such node, session or command: 404.
    pub const UNKNOWN: u8 = 6;
    /// Ended by Ctrl-C; what the master does goes on.
    pub const INTERRUPTED: u8 = 130;
}

const HELP: &str = "\
Which master: --at URL, or master.webport of the config: -c, or FF_CONFIG, or config.json in this folder. With which token: that of
--token-file, or FF_OPERATOR_TOKEN, or the file operator.token in the run folder, or none.

Exit codes:
   0  done                                   5  another command runs, or it does not fit the config (409)
   1  it failed; what failed is said         6  no such node, session or command
   3  no master answers there               64  wrong command line
   4  refused: which token, which role      78  the config does not say where its master is
 130  ended by Ctrl-C; what the master has begun goes on";

/// Whom to ask, and how to show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct To {
    /// The config of the cluster [default: $FF_CONFIG, or config.json]
    #[arg(short, long, value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// The master's address, when no config is here: http://HOST:PORT, or https:// with --cert
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub at: Option<String>,
    /// A file with the operator's token, which is its user's alone (mode 0600)
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The certificate of a master that speaks HTTPS, or those that vouch for it (PEM)
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Print the master's answer as JSON, refusals too
    #[arg(long)]
    pub json: bool,
}

/// What can be asked of a running master.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Ask {
    /// Show the nodes of the running cluster: state, pid, sessions, release, and what is wrong
    #[command(after_help = HELP)]
    Status {
        /// Show it again whenever it changes, until Ctrl-C
        #[arg(short, long)]
        watch: bool,
        /// Whom to ask.
        #[command(flatten)]
        to: To,
    },
    /// Read the config again and replace every node, or one, without a loss (also: reloadmodule)
    #[command(after_help = HELP, alias = "reloadmodule")]
    Reload {
        /// Only this node
        node: Option<String>,
        /// Show each node's stages as they come [default: in a terminal]
        #[arg(short, long)]
        watch: bool,
        /// Show only the outcome
        #[arg(long, conflicts_with = "watch")]
        no_watch: bool,
        /// Whom to ask.
        #[command(flatten)]
        to: To,
    },
    /// Stop the whole cluster in order, or one node, which then stays down (also: stopservice)
    #[command(after_help = HELP, alias = "stopservice")]
    Stop {
        /// Only this node
        node: Option<String>,
        /// Whom to ask.
        #[command(flatten)]
        to: To,
    },
    /// Start a node that is down
    #[command(after_help = HELP)]
    Start {
        /// The node
        node: String,
        /// Whom to ask.
        #[command(flatten)]
        to: To,
    },
    /// Stop a node and start it again, the hard way
    #[command(after_help = HELP)]
    Restart {
        /// The node
        node: String,
        /// Whom to ask.
        #[command(flatten)]
        to: To,
    },
    /// Let only the master leave: the nodes run on, and the next master adopts them
    #[command(after_help = HELP)]
    Detach {
        /// Whom to ask.
        #[command(flatten)]
        to: To,
    },
    /// Show the last lines that a node has printed
    #[command(after_help = HELP)]
    Logs {
        /// The node
        node: String,
        /// Go on with what it prints next, until Ctrl-C
        #[arg(short, long)]
        follow: bool,
        /// At most so many lines of before [default: all that the master keeps, 200]
        #[arg(short = 'n', long, value_name = "N")]
        lines: Option<usize>,
        /// Whom to ask.
        #[command(flatten)]
        to: To,
    },
    /// Show what happens, as it happens, until Ctrl-C
    #[command(after_help = HELP)]
    Events {
        /// Whom to ask.
        #[command(flatten)]
        to: To,
    },
    /// Show who is connected, or the story of one session
    #[command(after_help = HELP)]
    Sessions(sessions::Which),
    /// Close all sessions of a user
    #[command(after_help = HELP)]
    Kick {
        /// The user
        user: String,
        /// What the user's clients are told
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Whom to ask.
        #[command(flatten)]
        to: To,
    },
    /// Show the metrics of every node and of the master
    #[command(after_help = HELP)]
    Metrics {
        /// Only those whose name has this in it
        name: Option<String>,
        /// Whom to ask.
        #[command(flatten)]
        to: To,
    },
    /// Show nodes, sessions, messages, latency and lag live, in a terminal; q quits
    #[command(after_help = HELP)]
    Top {
        /// Whom to ask.
        #[command(flatten)]
        to: To,
    },
    /// Run a command of the app on nodes; without a name: which there are
    #[command(after_help = HELP)]
    Run(run::Run),
    /// Print what a shell needs to complete this command: `source <(master completions bash)`
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What surrounds a command: read once, at the edge.
pub struct Surroundings<'a> {
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Where run folders are.
    pub run_dir: PathBuf,
    /// Whether there are colours.
    pub colour: Colour,
}

impl Ask {
    /// Asks the master and shows what it answers; the exit code.
    ///
    /// # Errors
    /// [`AskError`], which has an exit code, too.
    pub async fn run(self, around: &Surroundings<'_>) -> Result<u8, AskError> {
        let screen = Screen::of_stdout(around.colour);
        let client = |to: &To| place::client(to, around);
        match self {
            Ask::Status { watch, to } => status::show(&client(&to)?, watch, to.json, &screen).await,
            Ask::Reload { node, watch, no_watch, to } => {
                let client = client(&to)?;
                let path =
                    node.as_deref().map_or_else(|| "/reload".to_owned(), |node| of_node(node, "reload"));
                match !to.json && (watch || (screen.is_terminal && !no_watch)) {
                    true => reload::watched(&client, &path, node.as_deref(), &screen).await,
                    false => command(&client, &path, node.as_deref(), to.json, &screen).await,
                }
            }
            Ask::Stop { node: None, to } => command(&client(&to)?, "/stop", None, to.json, &screen).await,
            Ask::Stop { node: Some(node), to } => {
                of_one(&client(&to)?, &node, "stop", to.json, &screen).await
            }
            Ask::Start { node, to } => of_one(&client(&to)?, &node, "start", to.json, &screen).await,
            Ask::Restart { node, to } => of_one(&client(&to)?, &node, "restart", to.json, &screen).await,
            Ask::Detach { to } => command(&client(&to)?, "/detach", None, to.json, &screen).await,
            Ask::Logs { node, follow, lines, to } => {
                let wanted = logs::Wanted { node: &node, follow, lines, json: to.json };
                logs::show(&client(&to)?, wanted, &screen).await
            }
            Ask::Events { to } => events::show(&client(&to)?, to.json).await,
            Ask::Sessions(which) => sessions::show(&client(&which.to)?, &which, &screen).await,
            Ask::Kick { user, reason, to } => {
                sessions::kick(&client(&to)?, &user, reason.as_deref(), to.json).await
            }
            Ask::Metrics { name, to } => metrics::show(&client(&to)?, name.as_deref(), to.json).await,
            Ask::Top { to } => top::show(&client(&to)?, &screen).await,
            Ask::Run(run) => run::run(&client(&run.to)?, &run, &screen).await,
            Ask::Completions { shell } => completions(shell),
        }
    }
}

/// The path of a command for a node.
fn of_node(node: &str, what: &str) -> String {
    format!("/nodes/{}/{what}", client::in_url(node))
}

async fn of_one(
    client: &Client,
    node: &str,
    what: &str,
    json: bool,
    screen: &Screen,
) -> Result<u8, AskError> {
    command(client, &of_node(node, what), Some(node), json, screen).await
}

/// Gives a command and shows what has become of it.
async fn command(
    client: &Client,
    path: &str,
    node: Option<&str>,
    json: bool,
    screen: &Screen,
) -> Result<u8, AskError> {
    let answer = client.post(path, Vec::new()).await?;
    answers::outcome(client, &answer, node, json, screen).await
}

fn completions(shell: clap_complete::Shell) -> Result<u8, AskError> {
    let mut text = Vec::new();
    clap_complete::generate(
        shell,
        &mut <crate::cli::Args as clap::CommandFactory>::command(),
        "master",
        &mut text,
    );
    print(&String::from_utf8_lossy(&text))?;
    Ok(exit::DONE)
}

/// Prints; what cannot be printed ends the command.
fn print(text: &str) -> Result<(), AskError> {
    fftelemetry::print(text).map_err(AskError::Output)
}
