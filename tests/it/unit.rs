//! The systemd unit: what it forbids, and that a cluster needs nothing of it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::bins;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::wait;

fn unit() -> PathBuf {
    bins::root().join("master/game.service")
}

/// What a program says; `None`, and why, where it is not installed.
fn said(program: &str, arguments: &[&str]) -> Result<Option<String>> {
    let output = match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => {
            tests::skip::lacks_server(&format!("it needs `{program}`: {error}"));
            return Ok(None);
        }
    };
    let both = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&both).into_owned();
    ensure!(output.status.success(), "{program} {arguments:?}: {text}");
    Ok(Some(text))
}

#[test]
fn the_unit_in_the_docs_is_the_one_that_is_judged() -> Result<()> {
    let docs = std::fs::read_to_string(bins::root().join("docs/operations.md"))?;
    let shown =
        docs.split_once("```ini\n").and_then(|(_, rest)| rest.split_once("```")).context("no unit")?.0;
    assert_eq!(shown, std::fs::read_to_string(unit())?);
    Ok(())
}

/// 9.2 is what a unit has that forbids nothing.
#[test]
fn systemd_scores_the_unit_below_three() -> Result<()> {
    let file = unit().display().to_string();
    let judged = said("systemd-analyze", &["security", "--offline=yes", "--threshold=30", &file])?;
    let Some(judged) = judged else { return Ok(()) };
    assert!(judged.contains("Overall exposure level for game.service"), "{judged}");
    Ok(())
}

/// The system calls that the unit's filter lets through, by the groups that systemd has.
struct Filter(BTreeSet<String>);

impl Filter {
    /// As the unit says it: names and groups, line after line; `~` takes away.
    fn of(unit: &str) -> Result<Option<Self>> {
        let mut allowed = BTreeSet::new();
        for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
            let (takes_away, names) = line.strip_prefix('~').map_or((false, line), |names| (true, names));
            for name in names.split(' ') {
                let Some(calls) = Self::calls(name)? else { return Ok(None) };
                match takes_away {
                    true => allowed.retain(|call| !calls.contains(call)),
                    false => allowed.extend(calls),
                }
            }
        }
        Ok(Some(Self(allowed)))
    }

    /// The calls of a group, or the call of that name.
    fn calls(name: &str) -> Result<Option<BTreeSet<String>>> {
        let mut calls = BTreeSet::new();
        let mut names = vec![name.to_owned()];
        while let Some(name) = names.pop() {
            if !name.starts_with('@') {
                calls.insert(name);
                continue;
            }
            let Some(text) = said("systemd-analyze", &["syscall-filter", &name])? else { return Ok(None) };
            let inner =
                text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            names.extend(inner.map(str::to_owned));
        }
        Ok(Some(calls))
    }

    /// What was called and is not let through.
    fn refused<'t>(&self, trace: &'t str) -> BTreeSet<&'t str> {
        trace
            .lines()
            .filter_map(called)
            .map(|(name, _)| name)
            .filter(|name| !self.0.contains(*name))
            .collect()
    }
}

/// The name and the arguments of the call that a line of strace begins: `PID NAME(ARGUMENTS…`.
fn called(line: &str) -> Option<(&str, &str)> {
    let (_, call) = line.trim_start().split_once(' ')?;
    let (name, arguments) = call.trim_start().split_once('(')?;
    let is_name =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    is_name.then_some((name, arguments))
}

/// The paths that a trace changes: files that are opened for writing, made, renamed, linked, removed or given other modes, and
/// sockets that are bound to one.
fn written(trace: &str) -> BTreeSet<&Path> {
    const CHANGES: [&str; 19] = [
        "creat",
        "mkdir",
        "mkdirat",
        "mknod",
        "mknodat",
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "symlink",
        "symlinkat",
        "unlink",
        "unlinkat",
        "rmdir",
        "chmod",
        "fchmodat",
        "truncate",
        "utimensat",
    ];
    let mut paths = BTreeSet::new();
    for (name, arguments) in trace.lines().filter_map(called) {
        let opens = matches!(name, "open" | "openat" | "openat2");
        let writes = opens && ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| arguments.contains(flag));
        if writes || CHANGES.contains(&name) {
            // The texts among the arguments are paths.
            paths.extend(arguments.split('"').skip(1).step_by(2).map(Path::new));
        }
        // An abstract socket has no path: `sun_path=@"…"`.
        let bound = (name == "bind").then(|| arguments.split_once("sun_path=\"")).flatten();
        paths.extend(bound.and_then(|(_, path)| path.split_once('"')).map(|(path, _)| Path::new(path)));
    }
    paths
}

#[test]
fn a_call_that_is_refused_and_a_path_that_is_elsewhere_are_found() -> Result<()> {
    let trace = "12  openat(AT_FDCWD, \"/etc/passwd\", O_RDONLY) = 3\n12  swapon(\"/dev/sda\", 0) = -1 EPERM\n\
                 13  openat(AT_FDCWD, \"/srv/x\", O_WRONLY|O_CREAT, 0600) = 4\n13  rename(\"/a\", \"/b\" <unfinished ...>\n\
                 13  <... rename resumed>) = 0\n12  bind(5, {sa_family=AF_UNIX, sun_path=\"/srv/s\"}, 9) = 0\n\
                 12  bind(6, {sa_family=AF_UNIX, sun_path=@\"door\"}, 7) = 0\n12  bind(7, {sa_family=AF_INET, \
                 sin_port=htons(0), sin_addr=inet_addr(\"127.0.0.1\")}, 16) = 0\n12  +++ exited with 0 +++\n";
    assert_eq!(written(trace), ["/a", "/b", "/srv/s", "/srv/x"].map(Path::new).into());
    let Some(filter) = Filter::of("SystemCallFilter=@file-system rename bind\nSystemCallFilter=~rename\n")?
    else {
        return Ok(());
    };
    assert_eq!(filter.refused(trace), ["rename", "swapon"].into());
    Ok(())
}

/// A cluster on SQLite whose master, and all that it starts, is traced into its folder.
async fn traced() -> Result<Option<Cluster>> {
    if said("strace", &["-V"])?.is_none() {
        return Ok(None);
    }
    let migrations = json!(bins::root().join("examples/accounts/migrations"));
    let fixture = Fixture::new(&format!(
        r#"{{ "master": {{ "rootport": @master, "webport": @admin }},
             "db": {{ "url": "sqlite:data/accounts.sqlite", "migrations": {migrations} }},
             "servers": {{
               "gate": {{ "rootport": @gate, "app": "app.gateserver" }},
               "net": {{ "netport": @net, "remoteport": [{{ "rootname": "gate" }}], "app": "app.netserver" }},
               "game1": {{ "remoteport": [{{ "rootname": "gate" }}], "app": "app.game1server" }},
               "accounts": {{ "netport": @accounts, "webport": @web, "app": "accounts", "db": true }} }} }}"#
    ))?;
    let programs = bins::folder()?;
    let script = tempfile::NamedTempFile::new()?;
    // With -D the tracer stands aside: what is killed is the master.
    let text = format!(
        "#!/bin/sh\nexec strace -D -f -qq -o \"$FF_RUN_DIR.$$.trace\" {} \"$@\"\n",
        programs.join("master").display()
    );
    std::fs::write(script.path(), text)?;
    let path = script.into_temp_path();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
    let cluster = Cluster::installed(fixture, &path, &programs.join("testnode")).await?;
    // The link to it stays, for the next master.
    let kept = cluster.folder().join("master.sh");
    std::fs::copy(&path, &kept)?;
    cluster.install_master(&kept)?;
    Ok(Some(cluster))
}

/// Waits until the tracers that write into the folder have seen the end of all that they trace, and gives what they have written.
async fn all_of_the_trace(folder: &Path) -> Result<String> {
    wait::until("no tracer writes any more", async || {
        for process in std::fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten() {
            // One that has just ended has none.
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.starts_with("strace ") && line.contains(&folder.display().to_string()) {
                return Err(line);
            }
        }
        Ok(())
    })
    .await?;
    let mut trace = String::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|ending| ending == "trace") {
            trace.push_str(&String::from_utf8_lossy(&std::fs::read(path)?));
        }
    }
    Ok(trace)
}

#[tokio::test]
async fn from_start_to_stop_a_cluster_makes_no_call_that_the_filter_refuses_and_writes_nowhere_else()
-> Result<()> {
    let unit = std::fs::read_to_string(unit())?;
    let Some(filter) = Filter::of(&unit)? else { return Ok(()) };
    let Some(mut cluster) = traced().await? else { return Ok(()) };
    let mut client = cluster.client().await?;
    client.call(300, b"traced").await?;
    let address = cluster.at("accounts");
    let mut accounts = tests::client::Client::connect(address).await?;
    accounts
        .call(400, json!({"name": "ann", "password": "x", "guild": "reds"}).to_string().as_bytes())
        .await?;
    assert_eq!(cluster.admin("POST", "/reload").await?.status, 200);
    let old = cluster.kill_hard("game1").await?;
    cluster.until_back("game1", old).await?;
    cluster.kill_master().await?;
    cluster.start_master_again().await?;
    client.call(300, b"after the adoption").await?;

    let log = cluster.log();
    assert!(log.contains("is adopted"), "{log}");
    let kept = cluster.stop_and_keep().await?.context("no folder")?;
    let folder = kept.path();
    let trace = all_of_the_trace(folder).await?;
    for call in ["pidfd_open", "accept4", "rename", "execve", "bind"] {
        ensure!(trace.lines().filter_map(called).any(|(name, _)| name == call), "nobody has called {call}");
    }
    let mut refused = filter.refused(&trace);
    // SQLite gives its files to the owner of the database, as root. The unit's user is not root.
    if nix::unistd::geteuid().is_root() {
        refused.remove("fchown");
    }
    assert_eq!(refused, BTreeSet::new());
    // The run folder, the state of the service, and its own /tmp and /dev.
    let allowed = [folder.join("run"), folder.join("data"), "/dev/null".into(), "/dev/tty".into()];
    let elsewhere: Vec<_> =
        written(&trace).into_iter().filter(|path| !allowed.iter().any(|a| path.starts_with(a))).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    // At the end of a stop the run folder is nobody's any more.
    let gives_up =
        |(name, arguments): (&str, &str)| name.starts_with("unlink") && arguments.contains("/lock\"");
    ensure!(trace.lines().filter_map(called).any(gives_up), "the stop is not in the trace");
    Ok(())
}
