//! The version that a program tells: the commit and the time of its build, for the build scripts of `master` and `ffserver`.
//!
//! In a build for developing there is neither, unless the environment tells them: who looked for the commit there would build both
//! crates, and all above them, anew with every commit. A release is built anew then anyway.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the crate `FF_VERSION`, for people (`0.1.0 (1a2b3c4d5e6f, built 2026-01-01T00:00:00Z)`), `FF_RELEASE`, for other programs
/// (`0.1.0 (1a2b3c4d5e6f)`, or `0.1.0` when the commit is not known), and `FF_COMMIT`.
pub(crate) fn tell() {
    for name in ["FF_COMMIT", "SOURCE_DATE_EPOCH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let told = env::var("FF_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(|| is_release.then(of_checkout).flatten());
    let short = commit.as_ref().map(|commit| commit.chars().take(12).collect::<String>());
    let epoch = env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.trim().parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
    let built = epoch.or_else(|| is_release.then(now).flatten()).map(utc);
    let said = match (&short, &built) {
        (Some(commit), Some(built)) => format!(" ({commit}, built {built})"),
        (Some(commit), None) => format!(" ({commit})"),
        (None, Some(built)) => format!(" (commit unknown, built {built})"),
        (None, None) => String::new(),
    };
    let release = short.map_or_else(|| version.clone(), |commit| format!("{version} ({commit})"));
    println!("cargo:rustc-env=FF_VERSION={version}{said}");
    println!("cargo:rustc-env=FF_RELEASE={release}");
    println!("cargo:rustc-env=FF_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// The commit of the checkout; none outside of one. The script runs again when another one is checked out or made.
fn of_checkout() -> Option<String> {
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        // Of a file that is not there the script would run each time.
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Seconds since 1970 as a date and a time.
fn utc(seconds: u64) -> String {
    let (mut day, time) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let days = |year| if leap(year) { 366 } else { 365 };
    while day >= days(year) {
        day -= days(year);
        year += 1;
    }
    let mut month = 0;
    let months = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while day >= months[month] {
        day -= months[month];
        month += 1;
    }
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1, day + 1)
}
