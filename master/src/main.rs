//! The program `master`: reads the config, starts the cluster, stays until it has stopped.

// Here is where a person reads what went wrong and a script reads the exit code.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;
use ffambient::Ambient;
use ffconfig::{Cluster, LoadError, Loaded};
use ffnet::launch::SPEAK_ENV;
use ffnet::notify::{self, Notifier, Word};
use ffnet::private_file;
use ffproto::Versions;
use ffproto::control::LogOrder;
use fftelemetry::Colour;
use master::cli::{Args, Asked, exit};
use master::console::Console;
use master::descriptors::{self, Shares};
use master::dev::{Dev, DevSetup, toolchain};
use master::keys::{self, MasterKeys};
use master::new_project::{self, Framework};
use master::operator::{Ask, AskError, Surroundings};
use master::signals::{self, Signals};
use master::single::{Renewed, Single};
use master::source::{self, Source, SourceError};
use master::supervisor::Handle;
use master::supervisor::machine::End;
use master::supervisor::process::ProcessLauncher;
use master::{RunFolder, Setup, check};
use nix::sys::stat::{Mode, umask};
use tracing::{info, warn};

fn main() -> ExitCode {
    // Logs, crash reports and lists are for this user alone; nodes inherit that for their data, and say so themselves.
    let of_person = umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(shown) => {
            let _ = shown.print();
            return ExitCode::from(if shown.use_stderr() { exit::USAGE } else { exit::STOPPED });
        }
    };
    let done = match args.asked().0 {
        Asked::New(name, framework) => {
            umask(of_person);
            new_game(&name, framework)
        }
        Asked::Token(name, role) => operator_token(&name, &role),
        Asked::Dev => {
            umask(of_person);
            write_game(&args)
        }
        Asked::Ask(ask) => ask_master(*ask, &args),
        _ => run(&args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("master: {error:#}");
            if let Some(error) = error.downcast_ref::<LoadError>().filter(|error| !error.faults().is_empty())
            {
                eprintln!("master: {}", check::in_one_line(error.faults()));
            }
            let asked = error.downcast_ref::<AskError>().map(AskError::exit_code);
            let code = if error.is::<LoadError>() { exit::CONFIG } else { exit::FAILED };
            ExitCode::from(asked.unwrap_or(code))
        }
    }
}

/// Makes a game, and says what to do with it.
fn new_game(name: &str, framework: Framework) -> anyhow::Result<u8> {
    let folder = new_project::create(Path::new(""), name, framework)?;
    let missing = toolchain::check(&folder, &|name| std::env::var_os(name)).err();
    let next = format!(
        "{name} is made. It builds and plays as it is:\n\n  cd {name}\n  {} dev\n\nREADME.md there says the rest.\n",
        std::env::current_exe().map_or_else(|_| "master".to_owned(), |own| own.display().to_string())
    );
    fftelemetry::print(&next)?;
    if let Some(missing) = missing {
        eprintln!("\nmaster: before it builds:\n{missing}");
    }
    Ok(exit::STOPPED)
}

/// Makes a token: it is shown here and nowhere else.
fn operator_token(name: &str, role: &str) -> anyhow::Result<u8> {
    let name = ffproto::NodeName::try_from(name).context("NAME")?;
    let token = ffkeys::operator_token(&Ambient::system().chance)?;
    let hash: String = ffkeys::operator_hash(&token).iter().map(|byte| format!("{byte:02x}")).collect();
    let entry = format!(r#"{{ "name": "{name}", "role": "{role}", "hash": "sha256:{hash}" }}"#);
    let shown = zeroize::Zeroizing::new(format!(
        "{}\n\nThis is the token of {name}, and it is shown this once. Into the config, and then /reload:\n\n  \"master\": {{ \"operators\": [ {entry} ] }}\n",
        *token
    ));
    fftelemetry::print(&shown)?;
    Ok(exit::STOPPED)
}

/// Runs a game while it is written.
fn write_game(args: &Args) -> anyhow::Result<u8> {
    let config = std::path::absolute(args.asked().1).context("no folder")?;
    let ambient = Ambient::system();
    let log = fftelemetry::Options::new(ambient.clock.clone());
    let _log = fftelemetry::init(fftelemetry::Options { json: args.log_json, colour: args.color, ..log })?;
    let mut arguments: Vec<OsString> = match args.color {
        Colour::Auto => vec![],
        Colour::Always => vec!["--color".into(), "always".into()],
        Colour::Never => vec!["--color".into(), "never".into()],
    };
    if let Some(folder) = &args.run_dir {
        arguments.extend(["--run-dir".into(), folder.into()]);
    }
    let master = std::env::current_exe().context("this program has no name")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let folder = RunFolder::make(&args.run_dir(), &config)?;
        let (signals, chance) = (Signals::of_terminal().context("no signals")?, ambient.chance);
        let (master, colour) = ((master, arguments), args.color);
        Dev::new(DevSetup { config, master, folder, colour, signals, chance })?.run().await?;
        Ok(exit::STOPPED)
    })
}

/// Asks a running master.
fn ask_master(ask: Ask, args: &Args) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let around = Surroundings { env: &env, run_dir: args.run_dir(), colour: args.color };
    Ok(runtime.block_on(ask.run(&around))?)
}

fn run(args: &Args) -> anyhow::Result<u8> {
    let ambient = Ambient::system();
    let (asked, path) = args.asked();
    let config = std::path::absolute(&path).with_context(|| path.display().to_string())?;
    let programs = args.programs();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Small and mostly idle: one for the supervisor, one for whoever connects meanwhile.
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no runtime")?;
    let loaded = match asked {
        Asked::Key(..) => read(&path)?,
        _ => runtime.block_on(source::load(&path, &programs, env)).map_err(unsourced)?,
    };
    if let Asked::Key(node, out) = &asked {
        return key_file(&loaded.cluster, node, out.as_deref(), args, &path, &ambient);
    }
    if asked == Asked::Check {
        if let Some(place) = &loaded.cluster.master.token {
            keys::read_token(place, &env)?;
        }
        let program = programs.of(loaded.cluster.appmain.as_deref());
        let apps = runtime.block_on(program.check_apps(&config));
        fftelemetry::print(&check::describe(&loaded, &program, &apps)?)?;
        return Ok(exit::STOPPED);
    }
    let log = log_options(loaded.cluster.master.log.clone(), args, &ambient);
    let _log = fftelemetry::init(log).context("master.log")?;
    let console = Console::stdout(args.color);
    info!("this is master {}", env!("FF_VERSION"));
    info!("nodes run {}", programs.of(loaded.cluster.appmain.as_deref()));
    let launcher = ProcessLauncher::new(programs.clone(), config);
    let end = match asked {
        Asked::Single(node) => {
            let folder = RunFolder::make(&args.run_dir(), &path)?;
            let keys = MasterKeys::read(&loaded.cluster, Some(&folder), &env, &ambient)?;
            let renew = renewal(&path, folder, ambient.clone());
            let single =
                Single::new(loaded.cluster, &node, Box::new(launcher), console.clone(), keys, ambient)?;
            runtime.block_on(supervise_alone(single.renewing(renew)))?
        }
        _ => {
            let run = RunFolder::open(&args.run_dir(), &path, ambient.clock.clone())?;
            let keys = MasterKeys::load(&loaded.cluster, Some(run.path()), &env, &ambient)?;
            let source = source::source(path, programs, env);
            runtime.block_on(cluster(loaded, source, launcher, console.clone(), run, keys, ambient))?
        }
    };
    console.flush();
    match end {
        End::Stopped | End::Detached => Ok(exit::STOPPED),
        End::Forced => Ok(exit::FAILED),
        End::Failed(why) => Err(anyhow::anyhow!(why)),
    }
}

/// The master's log as the config and the command line have it.
fn log_options(log: ffconfig::Log, args: &Args, ambient: &Ambient) -> fftelemetry::Options {
    let ffconfig::Log { file, errors, json, level, rotate_bytes, rotate_daily, keep, quiet_commands: _ } =
        log;
    fftelemetry::Options {
        file,
        errors,
        rotation: fftelemetry::Rotation { bytes_max: rotate_bytes, daily: rotate_daily, keep },
        json: json || args.log_json,
        node: None,
        levels: level,
        colour: args.color,
        ..fftelemetry::Options::new(ambient.clock.clone())
    }
}

/// Faults of the config have an exit code of their own.
fn unsourced(error: SourceError) -> anyhow::Error {
    match error {
        SourceError::Config(error) => error.into(),
        error => error.into(),
    }
}

fn read(path: &Path) -> Result<Loaded, LoadError> {
    ffconfig::load(path, &env)
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Makes a key file, and writes or prints it.
fn key_file(
    cluster: &Cluster,
    node: &str,
    out: Option<&Path>,
    args: &Args,
    config: &Path,
    ambient: &Ambient,
) -> anyhow::Result<u8> {
    let folder = RunFolder::make(&args.run_dir(), config)?;
    ensure!(
        cluster.master.token.is_some() || keys::has_secret(&folder),
        "there is no secret in {}: run this as the master's user, with the master's FF_RUN_DIR, when the master has run once",
        folder.display()
    );
    let keys = MasterKeys::read(cluster, Some(&folder), &env, ambient)?;
    let text = keys::key_file(cluster, node, &keys, ambient)?;
    match out {
        Some(path) => private_file::create(path, &text).with_context(|| path.display().to_string())?,
        None => fftelemetry::print(&text)?,
    }
    Ok(exit::STOPPED)
}

async fn cluster(
    loaded: Loaded,
    source: Source,
    launcher: ProcessLauncher,
    console: Console,
    run: RunFolder,
    keys: MasterKeys,
    ambient: Ambient,
) -> anyhow::Result<End> {
    let signals = Signals::new().context("no signals")?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let config = loaded.cluster.clone();
    let setup = Setup {
        descriptors: raised_limit(),
        cluster: loaded.cluster,
        source,
        launcher: Box::new(launcher),
        console,
        run: Some(run),
        audit: Some(config.data_dir.join(format!("{}.audit", config.name))),
        keys,
        versions: Versions::told(env(SPEAK_ENV).as_deref()).context(SPEAK_ENV)?,
        ambient,
    };
    let running = master::start(setup).await?;
    let signals = tokio::spawn(signals.obey(running.handle(), manager()));
    let of_nodes = running.handle();
    tokio::spawn(signals::reopen_logs(move || of_nodes.order_about_logs(None, &LogOrder::Reopen)));
    tokio::spawn(teach(running.handle(), config));
    if let Some(manager) = manager() {
        tokio::spawn(tell_manager(running.handle(), manager));
    }
    let end = running.ended().await;
    signals.abort();
    match end {
        End::Stopped => info!("the cluster has stopped"),
        End::Detached => info!("this master leaves; the nodes run on, and the next master adopts them"),
        End::Failed(_) | End::Forced => {}
    }
    Ok(end)
}

/// As many descriptors as this process may have.
fn raised_limit() -> Shares {
    let (shares, raised) = descriptors::raise();
    if let Err(error) = raised {
        warn!("the limit of open files cannot be raised: {error}");
    }
    shares
}

async fn supervise_alone(single: Single) -> anyhow::Result<End> {
    raised_limit();
    // The node notices by itself that its files were moved.
    tokio::spawn(signals::reopen_logs(|| 0));
    Ok(single.run(Signals::new().context("no signals")?).await)
}

/// Reads of a config again what a start needs, as it is then.
fn renewal(
    config: &Path,
    folder: PathBuf,
    ambient: Ambient,
) -> impl Fn() -> Result<Renewed, String> + Send + 'static {
    let config = config.to_owned();
    move || {
        let cluster = read(&config).map_err(|error| error.to_string())?.cluster;
        let keys = MasterKeys::read(&cluster, Some(&folder), &env, &ambient);
        let keys = keys.map_err(|error| fftelemetry::chain(&error))?;
        Ok(Renewed { keys, appmain: cluster.appmain })
    }
}

/// The service manager that has started this program, or `master dev`.
fn manager() -> Option<Notifier> {
    let at = std::env::var(notify::ENV).ok()?;
    Notifier::to(&at).inspect_err(|e| warn!("{}={at}: {e}", notify::ENV)).ok()
}

/// Once the cluster is up: says so to the manager.
async fn tell_manager(handle: Handle, manager: Notifier) {
    if handle.up().await && !manager.say(&Word::Ready) {
        warn!("{}: the service manager does not listen", notify::ENV);
    }
}

/// Once the cluster is up: how to try it.
async fn teach(handle: Handle, config: Cluster) {
    if !handle.up().await {
        return;
    }
    let reach = |mut at: std::net::SocketAddr| {
        if at.ip().is_unspecified() {
            at.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        at
    };
    let web = reach(config.master.webport);
    let scheme = if config.master.tls.is_some() { "https" } else { "http" };
    // On this host its own user needs no token; who listens elsewhere alone is reached with one.
    let token = if web.ip().is_loopback() { "" } else { " -H \"Authorization: Bearer TOKEN\"" };
    let view = handle.view();
    if let Some(net) = view.nodes.iter().find_map(|node| node.listens.net) {
        // The test client is beside this program in a checkout, and not where a cluster is installed.
        let client = std::env::args_os().next().map(|own| Path::new(&own).with_file_name("client"));
        if let Some(client) = client.filter(|client| client.is_file()) {
            info!("  a client  {} {}", client.display(), reach(net));
        }
    }
    info!("  look      curl{token} {scheme}://{web}/status   (or open {scheme}://{web}/)");
    info!("  stop      Ctrl-C, or: curl -X POST{token} {scheme}://{web}/stop");
}
