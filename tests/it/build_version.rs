//! What a program says of its version: the build scripts' part of it, and where operators find it.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::bins;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tokio::process::Command;

/// A program that tells what the build scripts tell.
async fn script(folder: &Path) -> Result<()> {
    let told = bins::root().join("build/version.rs");
    let main = format!("#[path = {told:?}]\nmod version;\nfn main() {{ version::tell(); }}\n");
    std::fs::write(folder.join("main.rs"), main)?;
    let compiled =
        Command::new("rustc").args(["--edition", "2024", "main.rs"]).current_dir(folder).output().await?;
    ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    Ok(())
}

/// The line of a variable that a build of 1.2.3 in that folder tells.
async fn told(script: &Path, name: &str, folder: &Path, environment: &[(&str, &str)]) -> Result<String> {
    let mut command = Command::new(script.join("main"));
    command.env("CARGO_PKG_VERSION", "1.2.3").env_remove("FF_COMMIT").env_remove("SOURCE_DATE_EPOCH");
    // A checkout above the folder for temporary files is not meant.
    command.env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap_or(folder)).current_dir(folder);
    let output = command.envs(environment.iter().copied()).output().await?;
    let text = String::from_utf8(output.stdout)?;
    let wanted = format!("cargo:rustc-env={name}=");
    Ok(text.lines().find_map(|line| line.strip_prefix(&wanted)).unwrap_or(&text).to_owned())
}

#[tokio::test]
async fn a_release_names_commit_and_time_the_same_for_the_same_sources_and_a_build_for_developing_neither()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    script(at).await?;
    let (dev, release) = (("PROFILE", "debug"), ("PROFILE", "release"));
    let (commit, epoch) = (("FF_COMMIT", "0123456789abcdef0123"), ("SOURCE_DATE_EPOCH", "1709210096"));
    assert_eq!(told(at, "FF_VERSION", at, &[dev]).await?, "1.2.3");
    assert_eq!(told(at, "FF_COMMIT", at, &[dev]).await?, "unknown");
    let both = [release, commit, epoch];
    assert_eq!(told(at, "FF_VERSION", at, &both).await?, "1.2.3 (0123456789ab, built 2024-02-29T12:34:56Z)");
    assert_eq!(told(at, "FF_RELEASE", at, &both).await?, "1.2.3 (0123456789ab)");
    assert_eq!(told(at, "FF_COMMIT", at, &both).await?, "0123456789abcdef0123");
    // From an archive.
    let unknown = told(at, "FF_VERSION", at, &[release, epoch]).await?;
    assert_eq!(unknown, "1.2.3 (commit unknown, built 2024-02-29T12:34:56Z)");
    assert_eq!(told(at, "FF_RELEASE", at, &[release, epoch]).await?, "1.2.3");
    // From a checkout.
    let git = async |arguments: &[&str]| -> Result<String> {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(arguments).current_dir(at);
        let output = command.output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    git(&["init", "-q"]).await?;
    git(&["commit", "-q", "--allow-empty", "-m", "one"]).await?;
    assert_eq!(told(at, "FF_COMMIT", at, &[release]).await?, git(&["rev-parse", "HEAD"]).await?);
    assert_eq!(told(at, "FF_COMMIT", at, &[dev]).await?, "unknown");
    Ok(())
}

#[tokio::test]
async fn a_version_is_said_by_the_program_by_the_status_and_in_the_log() -> Result<()> {
    let output = Command::new(bins::folder()?.join("master")).arg("--version").output().await?;
    let said = String::from_utf8(output.stdout)?;
    let version = said.trim().strip_prefix("master ").unwrap_or_default().to_owned();
    assert!(version.starts_with(env!("CARGO_PKG_VERSION")), "{said}");
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    assert_eq!(cluster.status().await?["version"], Value::from(version.as_str()));
    cluster.until_logged(&format!("this is master {version}")).await?;
    cluster.until_logged(&format!("version=\"{}", env!("CARGO_PKG_VERSION"))).await?;
    cluster.stop().await
}
