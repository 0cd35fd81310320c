//! The toolchain that builds a game: what is missing of it, said with how to get it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest Rust that builds the framework.
const NEEDED: &str = env!("CARGO_PKG_RUST_VERSION");

/// Something that is missing of what builds a game.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolchainFault {
    /// There is no such program of Rust's.
    #[error("there is no {0}: a game is built by Rust {NEEDED} or newer, which rustup installs:\n  {RUSTUP}")]
    Missing(String),
    /// The program is there, and fails.
    #[error("{program} does not run: {said}")]
    Fails {
        /// The program.
        program: String,
        /// What it said.
        said: String,
    },
    /// The program is too old.
    #[error(
        "{found} is too old: a game is built by Rust {NEEDED} or newer. `rustup update` brings it; where there is no rustup:\n  {RUSTUP}"
    )]
    Old {
        /// What the program says of itself.
        found: String,
    },
    /// There is no C compiler.
    #[error(
        "there is no `cc` in PATH: it links programs, and compiles the C parts of SQLite and others. On Debian or Ubuntu:\n  \
         apt install gcc libc6-dev"
    )]
    NoCompiler,
    /// The C library cannot be linked.
    #[error("`cc` finds no C library to link (crt1.o). On Debian or Ubuntu:\n  apt install libc6-dev")]
    NoLibrary,
}

const RUSTUP: &str =
    "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh     (see https://rustup.rs)";

/// Everything that is missing, a line or more each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolchainFaults(pub Vec<ToolchainFault>);

impl fmt::Display for ToolchainFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join("\n"))
    }
}

impl std::error::Error for ToolchainFaults {}

/// The program that cargo's own environment names, or `cargo` in PATH.
pub(super) fn cargo(env: &dyn Fn(&str) -> Option<OsString>) -> OsString {
    env("CARGO").filter(|named| !named.is_empty()).unwrap_or_else(|| "cargo".into())
}

/// Looks for what builds a game in that folder; `env` is the environment.
///
/// # Errors
/// Everything that is missing.
pub fn check(folder: &Path, env: &dyn Fn(&str) -> Option<OsString>) -> Result<(), ToolchainFaults> {
    let rustc = env("RUSTC").filter(|named| !named.is_empty()).unwrap_or_else(|| "rustc".into());
    let mut faults: Vec<ToolchainFault> =
        [cargo(env), rustc].iter().filter_map(|program| of_rust(program, folder).err()).collect();
    // Both come together.
    faults.truncate(1);
    faults.extend(linker(folder, env).err());
    if faults.is_empty() { Ok(()) } else { Err(ToolchainFaults(faults)) }
}

/// A program of Rust's: there, and new enough.
fn of_rust(program: &OsStr, folder: &Path) -> Result<(), ToolchainFault> {
    let name = program.to_string_lossy().into_owned();
    // In the folder: rustup chooses a toolchain by that.
    let folder = if folder.is_dir() { folder } else { Path::new(".") };
    let output = match Command::new(program).arg("--version").current_dir(folder).output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(&name)),
        Err(error) => return Err(ToolchainFault::Fails { program: name, said: error.to_string() }),
    };
    let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    if !output.status.success() {
        let said = fftelemetry::colour::visible(said.trim()).into_owned();
        return Err(ToolchainFault::Fails { program: name, said });
    }
    match (version(&said), version(&format!("rust {NEEDED}"))) {
        (Some(found), Some(needed)) if found < needed => {
            Err(ToolchainFault::Old { found: said.lines().next().unwrap_or_default().trim().to_owned() })
        }
        // What does not say its version as Rust's programs do is somebody's own.
        _ => Ok(()),
    }
}

fn missing(name: &str) -> ToolchainFault {
    let place = if name.contains('/') { "" } else { " in PATH" };
    ToolchainFault::Missing(format!("{name}{place}"))
}

/// `cargo 1.95.0 (f2d3ce0bd 2026-03-21)` is (1, 95).
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split_whitespace().nth(1)?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// What links programs and compiles C. Whoever names another one knows what they do.
fn linker(folder: &Path, env: &dyn Fn(&str) -> Option<OsString>) -> Result<(), ToolchainFault> {
    let Some(cc) = in_path("cc", &env("PATH").unwrap_or_default()) else {
        return if env("CC").is_some() || names_linker(folder, env) {
            Ok(())
        } else {
            Err(ToolchainFault::NoCompiler)
        };
    };
    // It answers with the name alone when it knows no such file.
    let asked = Command::new(cc).arg("-print-file-name=crt1.o").output();
    match asked {
        Ok(answer) if answer.stdout.trim_ascii() == b"crt1.o" => Err(ToolchainFault::NoLibrary),
        _ => Ok(()),
    }
}

/// Whether a config of cargo names a linker.
fn names_linker(folder: &Path, env: &dyn Fn(&str) -> Option<OsString>) -> bool {
    let of_home = env("CARGO_HOME").map(PathBuf::from);
    let of_home = of_home.or_else(|| Some(PathBuf::from(env("HOME")?).join(".cargo")));
    let folders = folder.ancestors().map(|folder| folder.join(".cargo")).chain(of_home);
    folders
        .map(|folder| folder.join("config.toml"))
        .any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("linker")))
}

fn in_path(name: &str, path: &OsStr) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|folder| folder.join(name)).find(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_rusts_programs_say_it() {
        assert_eq!(version("cargo 1.95.0 (f2d3ce0bd 2026-03-21)"), Some((1, 95)));
        assert_eq!(version("rustc 1.96.0-nightly (x 2026-04-01)\n"), Some((1, 96)));
        assert_eq!(version("rust 1.94"), Some((1, 94)));
        assert_eq!(version("my own cargo"), None);
    }

    fn script(folder: &Path, name: &str, body: &str) {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What is said where these programs are the only ones. They are named, as PATH is this process's.
    fn said(programs: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        programs.iter().for_each(|(name, body)| script(folder.path(), name, body));
        let at = folder.path().to_owned();
        let env = move |name: &str| match name {
            "PATH" | "HOME" => Some(at.clone().into_os_string()),
            "CARGO" | "RUSTC" => Some(at.join(name.to_lowercase()).into_os_string()),
            _ => None,
        };
        let checked = check(folder.path(), &env).err().map_or_else(String::new, |faults| faults.to_string());
        checked.replace(&folder.path().display().to_string(), "DIR")
    }

    #[test]
    fn all_that_is_missing_is_said_with_how_to_get_it() {
        let (cargo, rustc) = (("cargo", "echo cargo 1.999.0"), ("rustc", "echo rustc 1.999.0"));
        let cc = ("cc", "echo /usr/lib/crt1.o");
        // A fork of another test may still have one of them open for writing.
        let said = |programs: &[(&str, &str)]| loop {
            let said = said(programs);
            if !said.contains("busy") {
                return said;
            }
        };
        assert_eq!(said(&[cargo, rustc, cc]), "");
        let nothing = said(&[]);
        for told in ["no DIR/cargo: ", "sh.rustup.rs | sh", "apt install gcc libc6-dev"] {
            assert!(nothing.contains(told), "{nothing}");
        }
        assert!(said(&[cargo, cc]).starts_with("there is no DIR/rustc: "));
        let old = said(&[("cargo", "echo cargo 1.63.0"), rustc, cc]);
        assert!(
            old.starts_with(&format!("cargo 1.63.0 is too old: a game is built by Rust {NEEDED}")),
            "{old}"
        );
        let library = said(&[cargo, rustc, ("cc", "echo crt1.o")]);
        assert!(library.ends_with("apt install libc6-dev"), "{library}");
        let broken = "echo no toolchain is chosen >&2; exit 1";
        assert_eq!(
            said(&[("cargo", broken), ("rustc", broken), cc]),
            "DIR/cargo does not run: no toolchain is chosen"
        );
    }
}
