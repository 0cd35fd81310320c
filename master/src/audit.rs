//! The audit: who has commanded the cluster, from where, and what became of it; and who was refused.

mod files;
mod refusals;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use ffambient::Clock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};

use self::files::Files;
use self::refusals::Refusals;
use crate::admin::Source;
use crate::utc::utc;

/// Entries that are kept in memory, for the page.
const SHOWN_MAX: usize = 500;
/// Entries that wait for the disk.
const QUEUE: usize = 1024;
/// How long an end waits for the disk.
const END_MAX: Duration = Duration::from_secs(2);
/// The most characters of a request's path in an entry.
const WHAT_CHARS_MAX: usize = 200;

/// One entry of the audit, as it stands in its file: one line of JSON, in which control characters are escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// When it ended (UTC).
    pub(crate) at: String,
    /// Who: an operator's name, `owner`, `root`, `signal`; `-` is a stranger.
    pub(crate) who: String,
    /// What that one may do; a stranger nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) role: Option<String>,
    /// From where: an address, or the signal.
    pub(crate) from: String,
    /// The method of the request, or `signal`.
    pub(crate) method: String,
    /// The command: the path of the request.
    pub(crate) what: String,
    /// The status of the answer; 0 where there is no answer.
    pub(crate) status: u16,
    /// What became of it, in words.
    pub(crate) result: String,
    /// How long it took, in milliseconds.
    pub(crate) ms: u64,
    /// Refusals from there that have no entry of their own, since the last one that has.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub(crate) more: u64,
    /// Entries before this one that were lost, for the disk was too slow.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub(crate) lost: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Who gives a command, from where, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub(crate) who: String,
    pub(crate) role: Option<String>,
    pub(crate) from: String,
    pub(crate) method: String,
    pub(crate) what: String,
}

impl Caller {
    /// A signal to the master's process: only its own user and root can send one.
    pub fn signal(name: &str, what: &str) -> Self {
        Self {
            who: "signal".into(),
            role: None,
            from: name.into(),
            method: "signal".into(),
            what: what.into(),
        }
    }
}

/// The audit of a running master. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Audit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    state: Mutex<State>,
    /// To the thread that writes; none where nothing is written.
    writer: Option<SyncSender<Work>>,
}

#[derive(Debug, Default)]
struct State {
    /// The latest last.
    shown: VecDeque<Entry>,
    refusals: Refusals<Source>,
    lost: u64,
}

/// What the writing thread is to do.
#[derive(Debug)]
enum Work {
    /// A line for the file of commands, or for that of refusals.
    Line { line: String, refused: bool },
    /// Say so when everything before is written.
    Flush(SyncSender<()>),
}

impl Audit {
    /// Goes on with the files at `base` (`BASE.jsonl`, `BASE-refused.jsonl`), which begin with the first entry; without a base nothing
    /// is written.
    pub(crate) fn open(base: Option<PathBuf>, clock: Clock) -> Self {
        let mut state = State::default();
        let writer = base.and_then(|base| {
            let files = Files::new(base);
            state.shown = files.last(SHOWN_MAX);
            let (work, todo) = mpsc::sync_channel(QUEUE);
            let spawned = thread::Builder::new().name("audit".into()).spawn(move || write(files, &todo));
            spawned.map_err(|e| warn!("the audit is not written: {e}")).ok().map(|_| work)
        });
        Self(Arc::new(Shared { clock, state: Mutex::new(state), writer }))
    }

    /// A command has ended, which took `took`.
    pub(crate) fn command(&self, caller: &Caller, status: u16, result: String, took: Duration) {
        info!("{} from {}: {} {}: {status}, {result}", caller.who, caller.from, caller.method, caller.what);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.keep(Entry { ms, status, result, ..self.entry(caller) }, false);
    }

    /// A request was refused. Of those from one source only a few a minute have an entry; the next one says how many had none.
    pub(crate) fn refused(
        &self,
        caller: &Caller,
        source: Option<Source>,
        status: u16,
        why: &str,
        now: Instant,
    ) {
        let Some(more) = self.0.state.lock().refusals.seen(source, now) else { return };
        self.keep(Entry { status, result: why.into(), more, ..self.entry(caller) }, true);
    }

    /// Writes how many refusals had no entry, where nothing more has come since.
    pub(crate) fn sweep(&self, now: Instant) {
        let ended = self.0.state.lock().refusals.ended(now);
        if ended > 0 {
            let caller = Caller { from: "-".into(), ..Caller::stranger("-", "-") };
            let result = "refused without entries of their own".into();
            self.keep(Entry { result, more: ended, ..self.entry(&caller) }, true);
        }
    }

    fn entry(&self, caller: &Caller) -> Entry {
        let Caller { who, role, from, method, what } = caller.clone();
        let what = what.chars().take(WHAT_CHARS_MAX).collect();
        let at = utc(self.0.clock.now_ms());
        Entry { at, who, role, from, method, what, status: 0, result: String::new(), ms: 0, more: 0, lost: 0 }
    }

    fn keep(&self, entry: Entry, refused: bool) {
        let mut state = self.0.state.lock();
        let entry = Entry { lost: state.lost, ..entry };
        state.lost = 0;
        if let Some(writer) = &self.0.writer {
            // Nothing in it can fail to be JSON.
            let line = serde_json::to_string(&entry).unwrap_or_default() + "\n";
            if let Err(TrySendError::Full(_)) = writer.try_send(Work::Line { line, refused }) {
                state.lost = entry.lost + 1;
            }
        }
        if state.shown.len() >= SHOWN_MAX {
            state.shown.pop_front();
        }
        state.shown.push_back(entry);
    }

    /// The last entries, the latest first.
    pub(crate) fn last(&self, limit: usize) -> Vec<Entry> {
        self.0.state.lock().shown.iter().rev().take(limit).cloned().collect()
    }

    /// Waits until everything is written, briefly. Blocks.
    pub(crate) fn flush(&self) {
        let Some(writer) = &self.0.writer else { return };
        let (done, is_done) = mpsc::sync_channel(1);
        if writer.send(Work::Flush(done)).is_ok()
            && let Err(RecvTimeoutError::Timeout) = is_done.recv_timeout(END_MAX)
        {
            warn!("the audit is not written within {} s", END_MAX.as_secs());
        }
    }
}

impl Caller {
    /// Somebody whom nobody knows.
    pub(crate) fn stranger(method: &str, what: &str) -> Self {
        Self { who: "-".into(), role: None, from: "unknown".into(), method: method.into(), what: what.into() }
    }
}

/// Writes until nobody has anything to write any more. A disk that fails is said once; each entry tries again.
fn write(mut files: Files, todo: &mpsc::Receiver<Work>) {
    let mut fails = false;
    for work in todo {
        match work {
            Work::Line { line, refused } => {
                let written = files.append(&line, refused);
                match &written {
                    Err(e) if !fails => warn!("the audit is not written: {}: {e}", files.base().display()),
                    Ok(()) if fails => info!("the audit is written again"),
                    _ => {}
                }
                fails = written.is_err();
            }
            Work::Flush(done) => drop(done.try_send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn source(client: &str) -> Source {
        Source::of(&format!("{client}:1 192.0.2.1:9998 - http direct").parse().unwrap())
    }

    #[test]
    fn every_command_is_a_line_for_its_owner_alone_and_the_next_master_shows_it() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("data/cluster.audit");
        let audit = Audit::open(Some(base.clone()), Clock::system());
        audit.command(
            &Caller::signal("SIGHUP", "reload"),
            0,
            "ok\u{1b}[2J\n".into(),
            Duration::from_millis(7),
        );
        let stranger = Caller { from: "192.0.2.7".into(), ..Caller::stranger("POST", "/stop") };
        audit.refused(&stranger, Some(source("192.0.2.7")), 401, "no token", Instant::now());
        audit.flush();
        let (file, refused) =
            (base.with_extension("audit.jsonl"), base.with_extension("audit-refused.jsonl"));
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.contains(r#""who":"signal","from":"SIGHUP","method":"signal","what":"reload""#),
            "{text}"
        );
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
        for file in [&file, &refused] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let data = fs::metadata(folder.path().join("data")).unwrap();
        assert_eq!(data.permissions().mode() & 0o777, 0o700);
        let next = Audit::open(Some(base), Clock::system());
        let whats = |audit: &Audit| -> Vec<String> {
            let mut whats: Vec<_> = audit.last(9).into_iter().map(|entry| entry.what).collect();
            whats.sort();
            whats
        };
        assert_eq!(whats(&next), ["/stop", "reload"]);
        assert_eq!(whats(&audit), whats(&next));
    }

    #[test]
    fn a_flood_of_refusals_is_a_few_entries_and_their_counts_add_up() {
        let (audit, now) = (Audit::open(None, Clock::system()), Instant::now());
        for n in 0..10_000u64 {
            let client = format!("10.0.{}.{}", n % 40, n % 7);
            let stranger = Caller { from: client.clone(), ..Caller::stranger("GET", "/status") };
            audit.refused(&stranger, Some(source(&client)), 401, "no token", now + Duration::from_millis(n));
        }
        let entries = audit.last(usize::MAX);
        assert!(entries.len() < 200, "{}", entries.len());
        audit.sweep(now + Duration::from_secs(3_600));
        let entries = audit.last(usize::MAX);
        let own = entries.iter().filter(|entry| entry.who == "-" && entry.status == 401).count() as u64;
        let more: u64 = entries.iter().map(|entry| entry.more).sum();
        assert_eq!(own + more, 10_000);
    }
}
