//! What the log of a process does as a whole: events in, lines out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{debug, error, info, warn};

use super::*;

const HOSTILE: &str = "ann\r\n2026-11-30T00:00:00.000000Z ERROR all is lost\x1b[2J";

/// A terminal that keeps what is written.
#[derive(Clone, Default)]
struct Terminal(Arc<Mutex<Vec<u8>>>);

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn options() -> Options {
    Options::new(Clock::starting_at(Duration::from_secs(1_796_012_592)))
}

/// What the log writes of what is logged meanwhile.
fn written(options: Options, log_it: impl FnOnce(&Log)) -> String {
    let terminal = Terminal::default();
    let (guard, layers, fault) = start(options, None, terminal.clone()).unwrap();
    assert!(fault.is_none());
    tracing::dispatcher::with_default(&layers.into(), || log_it(guard.log()));
    drop(guard);
    let text = String::from_utf8(terminal.0.lock().clone()).unwrap();
    let acts = |c: char| c.is_control() && c != '\n';
    assert!(!text.contains(acts), "{text:?}");
    text
}

/// The sum of what lines say in `field=N`.
fn sum(text: &str, field: &str) -> u64 {
    let values = text.split_whitespace().filter_map(|word| word.strip_prefix(field)?.strip_prefix('='));
    values.map(|n| n.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_line_has_time_level_message_fields_and_from_warn_up_its_place() {
    let text = written(options(), |_| {
        info!(session = 7, name = "ann", peer = %"gate", "hello");
        warn!("late");
        debug!("not shown");
    });
    let line = line!() - 3;
    // The clock goes on meanwhile.
    let text = text.lines().map(|line| format!("{}Z{}\n", &line[..20], &line[27..])).collect::<String>();
    assert_eq!(
        text,
        format!(
            "2026-11-30T04:23:12.Z  INFO hello session=7 name=\"ann\" peer=gate\n\
             2026-11-30T04:23:12.Z  WARN late at=crates/fftelemetry/src/tests.rs:{line}\n"
        )
    );
}

fn poll(future: impl Future<Output = ()>) {
    let _ = std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop()));
}

#[test]
fn a_line_has_the_tag_of_the_future_that_writes_it_and_of_who_has_spawned_that() {
    let log_it = |_: &Log| {
        info!("before");
        poll(tagged_as("gate", async {
            info!(n = 1, "of the gate");
            poll(tagged_as("net", async { info!("of net") }));
            info!("of the gate again");
            let spawned = tagged(async { warn!("spawned") });
            poll(tagged_as("net", spawned));
        }));
        poll(tagged(async { info!("behind") }));
    };
    let text = written(options(), log_it);
    // Without their times.
    let lines: Vec<&str> = text.lines().map(|line| line[27..].trim_start()).collect();
    let place = lines[4].strip_prefix("WARN spawned at=crates/fftelemetry/src/tests.rs:").unwrap();
    assert!(place.ends_with(" node=gate"), "{text}");
    assert_eq!(
        [&lines[..4], &lines[5..]].concat(),
        [
            "INFO before",
            "INFO of the gate n=1 node=gate",
            "INFO of net node=net",
            "INFO of the gate again node=gate",
            "INFO behind"
        ]
    );
    let text = written(Options { json: true, ..options() }, log_it);
    let values = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let nodes: Vec<_> = values.map(|value| value["node"].as_str().map(str::to_owned)).collect();
    let nodes: Vec<_> = nodes.iter().map(Option::as_deref).collect();
    assert_eq!(nodes, [None, Some("gate"), Some("net"), Some("gate"), Some("gate"), None]);
}

#[test]
fn nodes_of_a_process_have_limits_of_their_own_and_what_was_suppressed_says_whose_it_was() {
    let refused = || warn!(peer = "192.0.2.7:1", "client refused");
    let text = written(options(), |_| {
        poll(tagged_as("gate", async { (0..50).for_each(|_| refused()) }));
        poll(tagged_as("net", async { refused() }));
    });
    assert!(
        text.lines().any(|line| line.contains("WARN client refused") && line.ends_with(" node=net")),
        "{text}"
    );
    assert!(
        text.lines().any(|line| line.contains("suppressed=30") && line.ends_with(" node=gate")),
        "{text}"
    );
}

#[test]
fn a_hostile_text_is_one_line_wherever_it_stands_also_in_json() {
    for json in [false, true] {
        let text = written(Options { json, ..options() }, |_| {
            let span = tracing::info_span!("of", name = %HOSTILE, late = tracing::field::Empty);
            span.record("late", HOSTILE);
            let _in = span.enter();
            warn!("no child: {HOSTILE}");
            info!(name = %HOSTILE, debug = ?HOSTILE, text = HOSTILE, "x");
            error!(peer = HOSTILE, error = &io::Error::other(HOSTILE) as &dyn std::error::Error, "x");
        });
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().all(|line| line.contains("of{name=ann") && line.contains("late=")), "{text}");
    }
}

#[test]
fn an_event_that_repeats_is_limited_by_its_peer_and_the_counts_add_up() {
    let refused = |peer: SocketAddr| warn!(%peer, "client refused: {HOSTILE}");
    let text = written(options(), |_| {
        for n in 0..5_000u16 {
            refused(SocketAddr::from(([127, 0, 0, 1], n)));
            if n % 10 == 0 {
                refused(SocketAddr::from(([127, 0, 0, 2], n)));
            }
            if n == 2_500 {
                warn!("the disk is nearly full");
            }
        }
        info!(peer = %"127.0.0.1:1", "another event");
    });
    assert!(text.contains("the disk is nearly full") && text.contains("another event"), "{text}");
    let passed = text.lines().filter(|line| line.contains("WARN client refused")).count() as u64;
    assert_eq!((passed, passed + sum(&text, "suppressed")), (40, 5_500), "{text}");
    assert!(text.contains("WARN 4980 more suppressed: client refused: ann\\r\\n2026"), "{text}");
    assert!(text.contains(" peer=127.0.0.1 suppressed=4980 at="), "{text}");
}

#[test]
fn an_event_is_limited_by_what_is_no_peer_and_is_not_shown() {
    let text = written(options(), |_| {
        (0..50).for_each(|_| warn!(limited_by = "a", "handler a fails"));
        warn!(limited_by = "b", "handler b fails");
    });
    assert_eq!(text.matches("WARN handler a fails").count() as u64 + sum(&text, "suppressed"), 50);
    assert!(text.contains("handler b fails at=") && !text.contains("limited_by"), "{text}");
    assert!(text.contains("WARN 30 more suppressed: handler a fails suppressed=30 at="), "{text}");
    // Many kinds cost no memory, and nothing is lost.
    let text = written(options(), |_| {
        for n in 0..3_000 {
            info!(peer = %"127.0.0.1", limited_by = n, "of kind {n}");
        }
    });
    assert_eq!(text.matches("INFO of kind ").count() as u64 + sum(&text, "suppressed"), 3_000);
    assert!(text.lines().count() < 1_200, "{}", text.lines().count());
}

#[test]
fn lines_of_a_request_say_its_session_and_command_also_after_a_panic_in_it() {
    let text = written(options(), |_| {
        let id = |session| Some(request::RequestId { session, command: 300 });
        request::during(id(0x1f), || {
            info!("one");
            request::during(id(0x20), || info!("two"));
            let panicked = std::panic::catch_unwind(|| request::during(id(0x21), || panic!("on purpose")));
            assert!(panicked.is_err());
            info!(session = 7, "three");
        });
        info!("four");
    });
    let lines: Vec<&str> = text.lines().map(|line| &line[34..]).collect();
    assert_eq!(
        lines,
        ["one session=1f command=300", "two session=20 command=300", "three session=7 command=300", "four"]
    );
}

#[test]
fn levels_change_while_the_process_runs_and_come_back() {
    let text = written(options(), |log| {
        debug!("one");
        log.set_levels("fftelemetry=debug").unwrap();
        debug!("two");
        assert!(log.set_levels("fftelemetry=loud").is_err());
        debug!("three");
        assert!(log.levels().ends_with(",fftelemetry=debug"), "{}", log.levels());
        log.set_levels("warn").unwrap();
        info!("four");
        log.set_levels("").unwrap();
        info!("five");
    });
    let said = ["one", "two", "three", "four", "five"].map(|word| text.contains(word));
    assert_eq!(said, [false, true, true, false, true], "{text}");
    let wrong = Options { levels: Some("a=loud".into()), ..options() };
    assert!(matches!(start(wrong, None, io::sink()), Err(InitError::Levels(_))));
    let (guard, _, fault) = start(options(), Some("a=loud"), io::sink()).unwrap();
    assert!(fault.unwrap().to_string().contains("a=loud"));
    drop(guard);
}

#[test]
fn files_have_every_line_the_file_of_errors_those_from_warn_up_and_none_a_colour() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| Some(folder.path().join(name));
    let rotation = Rotation { bytes_max: Some(1_000), daily: false, keep: 50 };
    let options =
        Options { file: at("a.log"), errors: at("e.log"), rotation, colour: Colour::Always, ..options() };
    let terminal = Terminal::default();
    let (guard, layers, _) = start(options, None, terminal.clone()).unwrap();
    tracing::dispatcher::with_default(&layers.into(), || {
        (0..100).for_each(|n| info!("n{n}"));
        (0..50).for_each(|n| warn!("w{n}"));
    });
    drop(guard);
    let all = |of: &str| {
        let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(of));
        files.map(|path| std::fs::read_to_string(path).unwrap()).collect::<Vec<_>>()
    };
    let count =
        |texts: &[String], what: &str| texts.iter().map(|text| text.matches(what).count()).sum::<usize>();
    let (file, errors) = (all("a.log"), all("e.log"));
    assert!(
        file.len() > 5
            && file.iter().chain(&errors).all(|text| text.len() <= 1_000 && !text.contains('\x1b'))
    );
    assert_eq!((count(&file, " INFO n"), count(&file, " WARN w")), (100, 50));
    assert_eq!((count(&errors, " INFO n"), count(&errors, " WARN w")), (0, 50));
    assert!(String::from_utf8_lossy(&terminal.0.lock()).contains("\x1b[33mWARN\x1b[0m w0"));
}

#[test]
fn what_a_full_disk_did_not_take_is_counted_and_said_when_it_takes_lines_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let (guard, layers, _) =
        start(Options { file: Some(path.clone()), ..options() }, None, io::sink()).unwrap();
    tracing::dispatcher::with_default(&layers.into(), || {
        (0..10).for_each(|n| info!("lost {n}"));
        while !guard.log().queue().is_idle() {
            std::thread::yield_now();
        }
        std::fs::remove_file(&path).unwrap();
        guard.log().reopen();
        info!("written");
    });
    drop(guard);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!((text.lines().count(), sum(&text, "lost")), (2, 10), "{text}");
    assert!(text.contains("WARN 10 lines could not be written to "), "{text}");
}

#[test]
fn files_are_moved_and_reopened_under_load_and_written_and_dropped_are_all_that_was_emitted() {
    const THREADS: u64 = 4;
    const LINES: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let rotation = Rotation { bytes_max: Some(100_000), daily: true, keep: 10_000 };
    let options = Options { file: Some(path.clone()), rotation, ..options() };
    let (guard, layers, _) = start(options, None, io::sink()).unwrap();
    let (dispatch, moved): (tracing::Dispatch, _) = (layers.into(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let loggers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let log_it = move || (0..LINES).for_each(|n| info!(peer = %thread, "limited {n}"));
                let log_free = move || (0..LINES).for_each(|n| warn!("free {thread} {n}"));
                let dispatch = dispatch.clone();
                scope.spawn(move || tracing::dispatcher::with_default(&dispatch, || (log_it(), log_free())))
            })
            .collect();
        while loggers.iter().any(|logger| !logger.is_finished()) {
            let n = moved.fetch_add(1, Ordering::Relaxed);
            if std::fs::rename(&path, folder.path().join(format!("moved.{n}"))).is_ok() {
                guard.log().reopen();
            }
            std::thread::yield_now();
        }
    });
    drop(guard);
    let files = std::fs::read_dir(folder.path()).unwrap();
    let text: String = files.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    let (limited, free) =
        (text.matches("INFO limited ").count() as u64, text.matches("WARN free ").count() as u64);
    let dropped = sum(&text, "warnings") + sum(&text, "others");
    assert_eq!(limited + free + sum(&text, "suppressed") + dropped, 2 * THREADS * LINES);
}
