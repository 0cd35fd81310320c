//! The program that runs one node by name: arguments, config, log, runtime, node, exit code. A list, with no logic of its
//! own; which apps a config can name is what its callers tell it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use ffnet::listen::{self, Inherited};
use ffserver::keys::Startup;
use ffserver::process::{self, Hangup};
use ffserver::{Ambient, App, FFServer, Stop};
use fftelemetry::Colour;

/// Every app that a config can name, made anew for each node.
pub type Apps = fn() -> Vec<App>;

/// Runs one node of a cluster. The master starts it; by hand it is for debugging: `appmain gate config.json`.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The node: a key under `servers`, with `.1`, `.2` … where `count` makes several.
    #[arg(required_unless_present_any = ["apps", "all", "check_apps"])]
    node: Option<String>,
    /// The cluster's config.
    #[arg(required_unless_present_any = ["apps", "all", "check_apps"])]
    config: Option<PathBuf>,
    /// Tries every connection of the node, prints what it finds, and starts nothing.
    #[arg(long, requires = "node", conflicts_with_all = ["apps", "all"])]
    check: bool,
    /// Runs every node of this config in one process, with links in memory and without a master.
    #[arg(long, value_name = "CONFIG", conflicts_with_all = ["node", "apps"])]
    all: Option<PathBuf>,
    /// Finds the apps that do not fit their nodes in this config, a line each, and connects to nothing: for `master --check`.
    #[arg(long, value_name = "CONFIG", conflicts_with_all = ["node", "apps", "all"])]
    check_apps: Option<PathBuf>,
    /// Prints the apps that a config can name, one a line.
    #[arg(long)]
    apps: bool,
    /// The key file of the node, as `master key` writes it; without one the node that is started by hand gets its key from the
    /// master of its config, which runs on this host as the same user and with the same run folder: FF_RUN_DIR has to be that of
    /// the master (as of its --run-dir), where it was given one.
    #[arg(long, value_name = "FILE", requires = "node", conflicts_with_all = ["apps", "all"])]
    key: Option<PathBuf>,
    /// Colours in what is logged: auto (in a terminal, unless NO_COLOR is set), always or never. A log file has none.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: Colour,
}

/// The whole `main` of such a program, but for its allocator.
#[allow(clippy::print_stderr, reason = "the last line of a failed start, for the operator")]
pub fn main(apps: Apps) -> ExitCode {
    process::keep_files_private();
    match run(Args::parse(), apps, &Ambient::system()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args, apps: Apps, ambient: &Ambient) -> Result<ExitCode> {
    if let Some(config) = args.all {
        return run_all(&config, args.color, apps, ambient).map(|()| ExitCode::SUCCESS);
    }
    if let Some(config) = args.check_apps {
        return check_apps(&config, apps);
    }
    let (Some(node), Some(config)) = (args.node, args.config) else {
        let names: String = apps().iter().map(|app| format!("{}\n", app.name())).collect();
        fftelemetry::print(&names)?;
        return Ok(ExitCode::SUCCESS);
    };
    if args.check {
        return check_node(&node, &config, apps, ambient);
    }
    let key = args.key.as_deref();
    run_node(&node, &config, key, args.color, apps, ambient).map(|()| ExitCode::SUCCESS)
}

fn check_apps(config: &Path, apps: Apps) -> Result<ExitCode> {
    let cluster = ffconfig::load(config, &env)?.cluster;
    let findings = ffserver::check_apps(&cluster, apps);
    fftelemetry::print(&findings.iter().map(|finding| format!("{finding}\n")).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn check_node(node: &str, config: &Path, apps: Apps, ambient: &Ambient) -> Result<ExitCode> {
    let cluster = ffconfig::load(config, &env)?.cluster;
    let startup = Startup::without_keys(process::incarnation(None, &ambient.clock)?);
    let server = FFServer::with_startup(&cluster, node, apps(), startup, ambient)?;
    let findings = process::runtime(1)?.block_on(ffserver::check(&server));
    fftelemetry::print(&findings.iter().map(|finding| format!("{finding}\n")).collect::<String>())?;
    let fault = findings.iter().any(|finding| finding.fault);
    Ok(if fault { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn run_node(
    node: &str,
    config: &Path,
    key: Option<&Path>,
    colour: Colour,
    apps: Apps,
    ambient: &Ambient,
) -> Result<()> {
    let startup = process::startup(config, key, &env, ambient)?;
    let cluster = ffconfig::load(config, &env)?.cluster;
    let server = process::own_node(&cluster, node, apps(), startup, &env, ambient)?;
    let settings = server.config().clone();
    let _log = fftelemetry::init(fftelemetry::Options { file: settings.log, json: false, colour })?;
    if let Some(cpus) = &settings.cpu {
        process::pin_to_cpus(cpus).with_context(|| format!("servers.{}.cpu", settings.key))?;
    }
    let inherited = env(listen::ENV).map_or(Ok(Inherited::default()), |value| listen::take(&value))?;
    process::runtime(settings.threads)?.block_on(async {
        tokio::spawn(process::stop_on_signals(server.stop_handle(), Hangup::of(&env)));
        server.run(inherited).await.map_err(Into::into)
    })
}

fn run_all(config: &Path, colour: Colour, apps: Apps, ambient: &Ambient) -> Result<()> {
    let cluster = ffconfig::load(config, &env)?.cluster;
    let file = cluster.master.log.clone();
    let _log = fftelemetry::init(fftelemetry::Options { file, json: false, colour })?;
    process::allow_descriptors()?;
    let stop = Stop::new(Default::default());
    process::runtime_of_all()?.block_on(async {
        tokio::spawn(process::stop_on_signals(stop.clone(), Hangup::Stops));
        let incarnation = process::incarnation(None, &ambient.clock)?;
        process::run_all(&cluster, apps, incarnation, stop, ambient).await.map_err(Into::into)
    })
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
