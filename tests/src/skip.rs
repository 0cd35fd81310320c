//! A test that cannot run here says so, whatever the test harness captures.

use std::fs::OpenOptions;
use std::io::Write;

/// Where `tests/run` collects what was skipped, to say it once more at the end.
const COLLECTED: &str = "FF_TEST_SKIPPED";

/// The test does not run: a server or program is missing that `tests/run` brings. Never in CI, where that script is what
/// runs the tests.
///
/// # Panics
/// In CI.
pub fn lacks_server(reason: &str) {
    assert!(std::env::var("CI").is_err(), "{reason}");
    say(reason);
}

/// The test does not run: the system does not let this process do what the test needs.
pub fn lacks_privilege(reason: &str) {
    say(reason);
}

fn say(reason: &str) {
    let thread = std::thread::current();
    let line = format!("skipped: {}: {}\n", thread.name().unwrap_or("a test"), reason.trim());
    // The harness captures what the macros print, and shows it of failed tests only.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os(COLLECTED)
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = file.write_all(line.as_bytes());
    }
}
