//! The programs under test: built once per run, found beside this test binary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// Where `master` and `appmain` are.
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
        cargo.arg("--release");
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

/// What `appmain NODE config.json --check` prints for the config in a folder, and its exit code.
///
/// # Errors
/// The program cannot be started.
pub fn check(node: &str, folder: &Path) -> Result<(String, Option<i32>)> {
    let output = Command::new(self::folder()?.join("appmain"))
        .arg(node)
        .arg(folder.join("config.json"))
        .arg("--check")
        .output()
        .context("appmain")?;
    let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    Ok((text, output.status.code()))
}
