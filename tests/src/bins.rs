//! The programs under test: built once per run, found beside this test binary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// What users run for a node.
const APPMAIN: &str = "appmain";
/// The same with the apps of the tests: [`testapps`].
const TESTNODE: &str = "testnode";

/// Where `master` and the programs that run nodes are.
///
/// # Errors
/// They cannot be built.
pub fn folder() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|e| format!("{e:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    // target/PROFILE/deps/it-… → target/PROFILE
    let me = std::env::current_exe()?;
    let mut folder = me.parent().context("no folder")?.to_owned();
    if folder.ends_with("deps") {
        folder.pop();
    }
    // `cargo test` does not build the programs of other packages; this takes a moment when they are new.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--workspace", "--bins"]);
    if folder.ends_with("release") {
        // The programs of the crate `authors` are for the tests, and take minutes to link there.
        cargo.arg("--release");
    } else {
        cargo.args(["--features", "authors/programs"]);
    }
    let status = cargo.current_dir(root()).status().context("cargo")?;
    ensure!(status.success(), "cargo build --workspace --bins: {status}");
    Ok(folder)
}

/// The checkout.
pub fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Which program runs the nodes of a config: what users run, unless the config names an app of the tests.
#[must_use]
pub fn node_program(config: &str) -> &'static str {
    let names = |app: &ffserver::App| ["", "app."].map(|before| format!("\"{before}{}\"", app.name()));
    let of_tests = testapps::own().iter().flat_map(names).any(|name| config.contains(&name));
    if of_tests { TESTNODE } else { APPMAIN }
}

/// Whether a config says itself which program runs its nodes.
#[must_use]
pub fn names_program(config: &str) -> bool {
    config.contains("\"appmain\":")
}

/// Whether a process that was started by this path runs a node.
#[must_use]
pub fn runs_nodes(program: &[u8]) -> bool {
    let name = program.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    [APPMAIN, TESTNODE].iter().any(|known| known.as_bytes() == name)
}

/// What `appmain NODE config.json --check` prints for the config in a folder, and its exit code.
///
/// # Errors
/// The program cannot be started.
pub fn check(node: &str, folder: &Path) -> Result<(String, Option<i32>)> {
    let config = folder.join("config.json");
    let program = node_program(&std::fs::read_to_string(&config)?);
    let output = Command::new(self::folder()?.join(program))
        .arg(node)
        .arg(config)
        .arg("--check")
        .output()
        .context(program)?;
    let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    Ok((text, output.status.code()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Fixture;

    #[test]
    fn a_config_of_the_sample_runs_what_users_run() -> Result<()> {
        assert_eq!(node_program(&Fixture::demo()?.text), APPMAIN);
        assert_eq!(node_program(&Fixture::trial()?.text), TESTNODE);
        assert_eq!(node_program(&Fixture::hall()?.text.replace("hallnet", "app.hallnet")), TESTNODE);
        Ok(())
    }

    #[test]
    fn a_process_of_a_node_is_known_by_its_program() {
        assert!(runs_nodes(b"/a/appmain") && runs_nodes(b"target/debug/testnode") && runs_nodes(b"appmain"));
        assert!(!runs_nodes(b"/a/appmain.1") && !runs_nodes(b"/appmain/master") && !runs_nodes(b""));
    }
}
