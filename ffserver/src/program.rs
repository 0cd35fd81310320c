//! The whole program of an author: arguments, config, log, runtime, node, exit code, and the allocator. A list, with no logic
//! of its own; which apps a config can name is what its callers tell it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};
use ffambient::{Ambient, Clock};
use ffnet::listen::{self, Inherited};
use ffproto::NodeName;
use fftelemetry::Colour;

use crate::app::app::App;
use crate::identity::keys::Startup;
use crate::identity::stop::Stop;
use crate::runtime::preflight;
use crate::runtime::process::{self, Hangup};
use crate::runtime::server::FFServer;
use crate::runtime::shared_process;

/// The allocator of the program. A handler that waits is a task, and tokio's tasks begin on cache lines: glibc takes a slow way
/// for those (docs/performance.md has what this saves). How soon memory that is free goes back to the system:
/// `MIMALLOC_PURGE_DELAY` in milliseconds, which the master sets.
#[cfg(feature = "allocator")]
#[global_allocator]
static ALLOCATOR: ffalloc::Allocator = ffalloc::Allocator;

/// Every app that a config can name, made anew for each node.
type Apps<'a> = &'a dyn Fn() -> Vec<App>;

/// Runs one node of a cluster, or several in one process. The master starts this program; by hand it is for debugging:
/// `appmain gate config.json`.
#[derive(Debug, Parser)]
#[command(version = concat!("(ffserver ", env!("FF_VERSION"), ")"))]
struct Args {
    /// The nodes, and last the cluster's config. A node is a key under `servers`, with `.1`, `.2` … where `count` makes several.
    /// Several nodes share the process: their links to each other are in memory, those to others TCP; each has its own name, rights,
    /// sockets and counters; the process ends with the last of them. `process` in the config does the same in a cluster.
    #[arg(
        value_name = "NODE... CONFIG",
        num_args = 2..,
        required_unless_present_any = ["apps", "all", "check_apps"]
    )]
    run: Vec<OsString>,
    /// Tries every connection of each node, prints what it finds, and starts nothing.
    #[arg(long, requires = "run", conflicts_with_all = ["apps", "all"])]
    check: bool,
    /// Runs every node of this config in one process, with links in memory and without a master.
    #[arg(long, value_name = "CONFIG", conflicts_with_all = ["run", "apps"])]
    all: Option<PathBuf>,
    /// Finds the apps that do not fit their nodes in this config, a line each, and connects to nothing: for `master --check`.
    #[arg(long, value_name = "CONFIG", conflicts_with_all = ["run", "apps", "all"])]
    check_apps: Option<PathBuf>,
    /// Prints the apps that a config can name, one a line.
    #[arg(long)]
    apps: bool,
    /// The key file of the one node, as `master key` writes it; without one a node that is started by hand gets its key from the
    /// master of its config, which runs on this host as the same user and with the same run folder: FF_RUN_DIR has to be that of
    /// the master (as of its --run-dir), where it was given one.
    #[arg(long, value_name = "FILE", requires = "run", conflicts_with_all = ["apps", "all"])]
    key: Option<PathBuf>,
    /// Colours in what is logged: auto (in a terminal, unless NO_COLOR is set), always or never. A log file has none.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: Colour,
}

/// The `main` of a program that runs nodes with these apps: an author's own, `appmain` of the sample. The master starts it for each
/// node (`master --appmain PATH config.json`), and asks it which apps there are; `--help` says what else it does. It owns the
/// arguments, the config, the log, the runtime and the exit code, and by the default feature `allocator` the allocator: a program
/// with a `#[global_allocator]` of its own depends on `ffserver` with `default-features = false`, and the features that it needs.
///
/// One process runs one node (`mygame gate config.json`), or several (`mygame net gate config.json`): those link to each other in memory
/// and to all others over TCP, and each stays a node of its own, with its name, rights, sockets, counters and place at the master. It
/// may be stopped or replaced alone; the process ends with the last of them, or fails with the first that ends by itself. The master
/// starts so what the config gives one `"process"`.
///
/// `apps` makes the apps anew for each node.
///
/// ```no_run
/// use ffserver::prelude::*;
///
/// #[net_handle(100)]
/// async fn greet(Body(name): Body<String>) -> String {
///     format!("hello, {name}")
/// }
///
/// fn main() -> std::process::ExitCode {
///     ffserver::main(|| vec![App::new("greeter").handlers(handlers![greet])])
/// }
/// ```
#[allow(clippy::print_stderr, reason = "the last line of a failed start, for the operator")]
pub fn main(apps: impl Fn() -> Vec<App>) -> ExitCode {
    process::keep_files_private();
    process::tell_panics_by_place();
    let args = args(std::env::args_os()).unwrap_or_else(|shown| shown.exit());
    match run(args, &apps, &Ambient::system()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments of a program by any name: it is called as whoever runs it calls it.
fn args(line: impl Iterator<Item = OsString>) -> Result<Args, clap::Error> {
    let mut line = line.peekable();
    let own = line.peek().and_then(|own| Path::new(own).file_name()).unwrap_or_default();
    let name = own.to_string_lossy();
    let usage = format!("{name} [OPTIONS] <NODE>... <CONFIG>\n       {name} [OPTIONS] --all <CONFIG>");
    let mut command = Args::command().display_name(name).override_usage(usage);
    let args = Args::from_arg_matches(&command.try_get_matches_from_mut(line)?)?;
    match fault_of(&args) {
        Some(fault) => Err(command.error(ErrorKind::ArgumentConflict, fault)),
        None => Ok(args),
    }
}

/// What is wrong with the arguments as a whole.
fn fault_of(args: &Args) -> Option<String> {
    let (_, nodes) = args.run.split_last()?;
    match &args.key {
        Some(_) if nodes.len() > 1 => Some(format!(
            "--key is the key of one node, and these are {}: start them one by one",
            nodes.len()
        )),
        _ => None,
    }
}

impl Args {
    /// The nodes to run, and the config; `None` when another thing is to be done.
    fn to_run(&self) -> Option<(Vec<String>, &Path)> {
        let (config, nodes) = self.run.split_last()?;
        // A name that is no text is no node's, and is named as it looks.
        Some((nodes.iter().map(|node| node.to_string_lossy().into_owned()).collect(), Path::new(config)))
    }
}

fn run(args: Args, apps: Apps<'_>, ambient: &Ambient) -> Result<ExitCode> {
    if let Some(config) = &args.all {
        return run_all(config, args.color, apps, ambient).map(|()| ExitCode::SUCCESS);
    }
    if let Some(config) = &args.check_apps {
        return check_apps(config, apps);
    }
    let Some((nodes, config)) = args.to_run() else {
        let names: String = apps().iter().map(|app| format!("{}\n", app.name())).collect();
        fftelemetry::print(&names)?;
        return Ok(ExitCode::SUCCESS);
    };
    if args.check {
        return check_nodes(&nodes, config, apps, ambient);
    }
    match nodes.as_slice() {
        [node] => run_node(node, config, args.key.as_deref(), args.color, apps, ambient)?,
        _ => run_nodes(&nodes, config, args.color, apps, ambient)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn check_apps(config: &Path, apps: Apps<'_>) -> Result<ExitCode> {
    let cluster = ffconfig::load(config, &env)?.cluster;
    let findings = preflight::check_apps(&cluster, apps);
    fftelemetry::print(&findings.iter().map(|finding| format!("{finding}\n")).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

/// Checks each node; those of several stand under their names.
fn check_nodes(nodes: &[String], config: &Path, apps: Apps<'_>, ambient: &Ambient) -> Result<ExitCode> {
    let cluster = ffconfig::load(config, &env)?.cluster;
    let servers = nodes.iter().map(|node| {
        let startup = Startup::without_keys(process::incarnation(None, &ambient.clock)?);
        Ok(FFServer::with_startup(&cluster, node, apps(), startup, ambient)?)
    });
    let servers = servers.collect::<Result<Vec<_>>>()?;
    shared_process::settings(nodes, &servers)?;
    let (runtime, mut fault) = (process::runtime(1)?, false);
    for server in &servers {
        let findings = runtime.block_on(preflight::check(server));
        let heading = if servers.len() > 1 { format!("{}:\n", server.config().name) } else { String::new() };
        let shown = findings.iter().map(|finding| format!("{finding}\n")).collect::<String>();
        fftelemetry::print(&(heading + &shown))?;
        fault |= findings.iter().any(|finding| finding.fault);
    }
    Ok(if fault { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn run_node(
    node: &str,
    config: &Path,
    key: Option<&Path>,
    colour: Colour,
    apps: Apps<'_>,
    ambient: &Ambient,
) -> Result<()> {
    let startup = process::startup(config, key, &env, ambient)?;
    let cluster = ffconfig::load(config, &env)?.cluster;
    let server = process::own_node(&cluster, node, apps(), startup, &env, ambient)?;
    let settings = server.config().clone();
    let log = log_options(settings.log, Some(&settings.name), colour, &ambient.clock);
    let _log = init_log(log).with_context(|| format!("servers.{}.log", settings.key))?;
    if let Some(cpus) = &settings.cpu {
        process::pin_to_cpus(cpus).with_context(|| format!("servers.{}.cpu", settings.key))?;
    }
    let inherited = env(listen::ENV).map_or(Ok(Inherited::default()), |value| listen::take(&value))?;
    process::runtime(settings.threads)?.block_on(async {
        tokio::spawn(process::reopen_log_on_signals());
        tokio::spawn(process::stop_on_signals(server.stop_handle(), Hangup::of(&env)));
        server.run(inherited).await.map_err(Into::into)
    })
}

/// Runs several nodes in this process.
fn run_nodes(
    nodes: &[String],
    config: &Path,
    colour: Colour,
    apps: Apps<'_>,
    ambient: &Ambient,
) -> Result<()> {
    let startups = process::startups(nodes.len(), config, &env, ambient)?;
    let cluster = ffconfig::load(config, &env)?.cluster;
    let (servers, settings) = process::own_nodes(&cluster, nodes, apps, startups, &env, ambient)?;
    let log = log_options(settings.log, None, colour, &ambient.clock);
    let _log = init_log(log).with_context(|| format!("log of the nodes {}", nodes.join(", ")))?;
    if let Some(cpus) = &settings.cpu {
        process::pin_to_cpus(cpus).with_context(|| format!("cpu of the nodes {}", nodes.join(", ")))?;
    }
    let given = env(listen::ENV).unwrap_or_default();
    let mut inherited = listen::take_of_several(&given)?;
    let own = |server: FFServer| {
        let inherited = inherited.remove(&server.config().name).unwrap_or_default();
        (server, inherited)
    };
    let nodes = servers.into_iter().map(own).collect();
    let stop = Stop::new(Default::default());
    process::runtime(settings.threads)?.block_on(async {
        tokio::spawn(process::reopen_log_on_signals());
        tokio::spawn(process::stop_on_signals(stop.clone(), Hangup::of(&env)));
        process::run_nodes(nodes, stop).await.map_err(Into::into)
    })
}

fn run_all(config: &Path, colour: Colour, apps: Apps<'_>, ambient: &Ambient) -> Result<()> {
    let cluster = ffconfig::load(config, &env)?.cluster;
    let log = log_options(cluster.master.log.clone(), None, colour, &ambient.clock);
    let _log = init_log(log).context("master.log")?;
    process::allow_descriptors()?;
    let stop = Stop::new(Default::default());
    process::runtime_of_all()?.block_on(async {
        tokio::spawn(process::reopen_log_on_signals());
        tokio::spawn(process::stop_on_signals(stop.clone(), Hangup::Stops));
        let incarnation = process::incarnation(None, &ambient.clock)?;
        process::run_all(&cluster, apps, incarnation, stop, ambient).await.map_err(Into::into)
    })
}

/// Sets up the log, whose word about panics is for those that nobody catches.
fn init_log(options: fftelemetry::Options) -> Result<fftelemetry::Guard, fftelemetry::InitError> {
    let guard = fftelemetry::init(options)?;
    process::tell_panics_by_place();
    Ok(guard)
}

/// The log of a process as the config has it; `node` for the lines that name it.
fn log_options(
    log: ffconfig::Log,
    node: Option<&NodeName>,
    colour: Colour,
    clock: &Clock,
) -> fftelemetry::Options {
    let ffconfig::Log { file, errors, json, level, rotate_bytes, rotate_daily, keep, quiet_commands: _ } =
        log;
    let rotation = fftelemetry::Rotation { bytes_max: rotate_bytes, daily: rotate_daily, keep };
    let node = node.map(ToString::to_string);
    fftelemetry::Options {
        file,
        errors,
        rotation,
        json,
        node,
        levels: level,
        colour,
        ..fftelemetry::Options::new(clock.clone())
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        args(line.split(' ').map(OsString::from))
    }

    #[test]
    fn a_program_by_any_name_runs_a_node_all_nodes_or_tells_of_its_apps() {
        let one = parsed("/srv/mygame gate config.json").unwrap();
        assert_eq!(one.to_run(), Some((vec!["gate".to_owned()], Path::new("config.json"))));
        let three = parsed("mygame net gate game.1 config.json --check").unwrap();
        let (nodes, config) = three.to_run().unwrap();
        assert_eq!(
            (nodes, config),
            (["net", "gate", "game.1"].map(String::from).into(), Path::new("config.json"))
        );
        assert!(three.check && parsed("mygame --apps").unwrap().to_run().is_none());
        assert_eq!(parsed("mygame --all config.json").unwrap().all, Some("config.json".into()));
        assert!(parsed("mygame --apps").unwrap().apps);
        for line in ["mygame", "mygame gate", "mygame --apps --all config.json", "mygame gate c.json --chek"]
        {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_program_says_its_own_name_and_the_release_that_it_is_made_of() {
        let version = parsed("/srv/mygame --version").unwrap_err().to_string();
        assert_eq!(version, format!("mygame (ffserver {})\n", env!("FF_VERSION")));
        let help = parsed("/srv/mygame --help").unwrap_err().to_string();
        assert!(help.contains("Usage: mygame [OPTIONS] <NODE>... <CONFIG>\n"), "{help}");
        assert!(help.contains("--check-apps") && help.contains("Several nodes share the process"), "{help}");
    }

    #[test]
    fn a_key_file_is_of_one_node() {
        assert!(parsed("mygame gate c.json --key gate.key").unwrap().key.is_some());
        let several = parsed("mygame gate net c.json --key gate.key").unwrap_err().to_string();
        assert!(several.contains("--key is the key of one node, and these are 2"), "{several}");
    }
}
