//! The programs of a cluster: those of the build, or what a test has put into the cluster's folder.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

use super::{APPMAIN, MASTER, MISBEHAVES, RAN, RUN};
use crate::bins;

/// A link of that name to the program, put there by renaming it.
pub(super) fn install(folder: &Path, name: &str, program: &Path) -> Result<()> {
    let (link, at) = (folder.join(format!("{name}.new")), folder.join(name));
    std::os::unix::fs::symlink(program, &link).with_context(|| link.display().to_string())?;
    std::fs::rename(link, &at).with_context(|| at.display().to_string())
}

/// The program that runs the nodes of a config, when the test has none of its own.
pub(super) fn program_of(config: &str) -> Result<PathBuf> {
    Ok(bins::folder()?.join(bins::node_program(config)))
}

pub(super) fn spawn_master(folder: &Path, manager: Option<&str>, descriptors: Option<u32>) -> Result<Child> {
    let log = std::fs::File::create(folder.join("master.log"))?;
    let own = |name| Some(folder.join(name)).filter(|path| path.exists());
    let program = match own(MASTER) {
        Some(own) => own,
        None => bins::folder()?.join("master"),
    };
    let mut command = match descriptors {
        None => Command::new(&program),
        Some(limit) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("ulimit -n {limit} && exec \"$@\"")).arg("sh").arg(&program);
            shell
        }
    };
    let config = std::fs::read_to_string(folder.join("config.json"))?;
    if !bins::names_program(&config) {
        command.env("FF_APPMAIN", own(APPMAIN).map_or_else(|| program_of(&config), Ok)?);
    }
    if let Some(manager) = manager {
        command.env(ffnet::notify::ENV, manager);
    }
    command
        .arg(folder.join("config.json"))
        .env("FF_TRIAL_RAN", folder.join(RAN))
        .env("FF_RUN_DIR", folder.join(RUN))
        .env("FF_TRIAL_MISBEHAVES", folder.join(MISBEHAVES))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| program.display().to_string())
}
