//! The journal's file and the thread that writes it. An entry is in the file before its write is answered, so `kill -9`
//! of the node loses nothing of it; it is on the disk at most a second later.
//!
//! A node's file is locked for as long as the node lives. One that nobody locks has been left by a node that
//! died, and is written to the database by whoever finds it (see `recover`). It becomes shorter by being
//! written anew from what still matters, and by a rename.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::rows::journal::{Entry, Head, Table};
use crate::rows::{Live, RowId};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{error, warn};

use super::RecordError;

/// The end of a journal's file name.
pub(crate) const EXTENSION: &str = "journal";
/// The file is not written anew before it is this much longer than twice what still matters.
const SLACK: u64 = 64 * 1024 * 1024;
/// At most this long is what was written not yet on the disk.
const SYNC: Duration = Duration::from_secs(1);

/// The journal of one node's start.
pub(crate) struct Journal {
    shared: Arc<JournalShared>,
}

struct JournalShared {
    id: Arc<str>,
    head: Head,
    folder: PathBuf,
    bytes_max: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// About what the entries that still matter take.
    live: AtomicUsize,
    leases: AtomicU64,
    /// Appends whose callers wait.
    appending: AtomicUsize,
}

/// One append that somebody waits for.
struct Appending<'a>(&'a AtomicUsize);

impl Drop for Appending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Queue {
    tables: Vec<Table>,
    waiting: Vec<WriterOp>,
    /// Of what waits.
    bytes: usize,
    thread: Option<JoinHandle<()>>,
    closed: bool,
}

type Done = oneshot::Sender<Result<(), Arc<io::Error>>>;

enum WriterOp {
    Append(Entry, Option<Done>),
    Written(RowId, i64),
    Released(RowId, u64),
}

impl Journal {
    /// A journal that has no file before the first append. `id` is unlike that of any other start; `salt` stops outsiders from
    /// forging entries, and without one the unsalted format is written.
    pub(crate) fn new(id: Arc<str>, folder: PathBuf, bytes_max: usize, salt: Option<u64>) -> Self {
        let queue = Mutex::default();
        let (live, leases) = (AtomicUsize::new(0), AtomicU64::new(0));
        let head = Head { id: id.to_string(), boot: boot(), salt };
        let (wake, appending) = (Condvar::new(), AtomicUsize::new(0));
        let shared = JournalShared { id, head, folder, bytes_max, queue, wake, live, leases, appending };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn id(&self) -> &Arc<str> {
        &self.shared.id
    }

    /// The number of appends that somebody waits for.
    pub(crate) fn appending(&self) -> usize {
        self.shared.appending.load(Ordering::Relaxed)
    }

    /// The number of the next lease.
    pub(crate) fn next_lease(&self) -> u64 {
        self.shared.leases.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The number of a table in this journal.
    pub(crate) fn table(&self, table: Table) -> u32 {
        let mut queue = self.shared.queue.lock();
        queue.tables.push(table.clone());
        let number = queue.tables.len() as u32;
        if queue.thread.is_some() {
            queue.waiting.push(WriterOp::Append(Entry::Table { number, table }, None));
        }
        number
    }

    /// Appends; returns when it is in the file. When the future is dropped it may be there or not.
    ///
    /// # Errors
    /// It is not in the file: [`RecordError::Journal`], [`Closed`](RecordError::Closed), or too much waits.
    pub(crate) async fn append(&self, entry: Entry) -> Result<(), RecordError> {
        let bytes = size(&entry);
        let (done, is_done) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            if queue.closed {
                return Err(RecordError::Closed);
            }
            let waiting = queue.bytes + bytes;
            // What is held costs a little as well, beside the bound of what is dirty.
            if waiting + self.shared.live.load(Ordering::Relaxed) > 2 * self.shared.bytes_max {
                return Err(RecordError::Backlog { records: queue.waiting.len(), bytes: waiting });
            }
            if queue.thread.is_none() {
                queue.thread = Some(self.start().map_err(journal)?);
            }
            queue.bytes = waiting;
            queue.waiting.push(WriterOp::Append(entry, Some(done)));
        }
        self.shared.wake.notify_one();
        self.shared.appending.fetch_add(1, Ordering::Relaxed);
        let _appending = Appending(&self.shared.appending);
        match is_done.await {
            Ok(written) => written.map_err(|source| RecordError::Journal { source }),
            Err(_ended) => Err(RecordError::Closed),
        }
    }

    /// The database has this version of a row.
    pub(crate) fn written(&self, row: RowId, version: i64) {
        self.tell(WriterOp::Written(row, version));
    }

    /// The lease of that number has ended in the database.
    pub(crate) fn released(&self, row: RowId, number: u64) {
        self.tell(WriterOp::Released(row, number));
    }

    /// Only shortens the file, so nobody waits for it.
    fn tell(&self, op: WriterOp) {
        let mut queue = self.shared.queue.lock();
        if queue.thread.is_some() {
            queue.waiting.push(op);
            drop(queue);
            self.shared.wake.notify_one();
        }
    }

    fn start(&self) -> io::Result<JoinHandle<()>> {
        let shared = self.shared.clone();
        let name = format!("journal {}", shared.id);
        std::thread::Builder::new().name(name).spawn(move || Writer::new(shared).run())
    }

    /// Writes what waits, and ends. The file is gone when nothing in it matters.
    pub(crate) async fn close(&self) {
        let thread = {
            let mut queue = self.shared.queue.lock();
            queue.closed = true;
            queue.thread.take()
        };
        self.shared.wake.notify_one();
        if let Some(thread) = thread {
            // A thread that panicked has said so itself.
            let _ended = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

fn journal(error: io::Error) -> RecordError {
    RecordError::Journal { source: Arc::new(error) }
}

fn size(entry: &Entry) -> usize {
    const HEAD: usize = 32;
    match entry {
        Entry::Rows { rows } => rows
            .iter()
            .map(|(row, _, columns)| {
                HEAD + row.key.len() + columns.iter().map(crate::db::Value::size).sum::<usize>()
            })
            .sum(),
        Entry::Lease { row, .. } => HEAD + row.key.len(),
        Entry::Table { .. } => HEAD,
    }
}

/// The thread's own.
struct Writer {
    shared: Arc<JournalShared>,
    path: PathBuf,
    file: Option<File>,
    /// Of the file; whatever is behind it was never answered.
    len: u64,
    live: Live,
    unsynced: Option<Instant>,
    /// Whether the file, or the disk, may have something else than it should: then the file is written anew before
    /// anything else.
    damaged: bool,
}

impl Writer {
    fn new(shared: Arc<JournalShared>) -> Self {
        let path = shared.folder.join(format!("{}.{EXTENSION}", shared.id));
        Self { shared, path, file: None, len: 0, live: Live::default(), unsynced: None, damaged: false }
    }

    fn run(mut self) {
        while let Some(ops) = self.next() {
            self.take(ops);
            self.shared.live.store(self.live.bytes(), Ordering::Relaxed);
            self.sync_when_due();
        }
        if self.live.is_empty() {
            if self.file.is_some()
                && let Err(e) = std::fs::remove_file(&self.path)
            {
                warn!("the journal {} cannot be removed: {e}", self.path.display());
            }
        } else if let Some(file) = &self.file
            && let Err(e) = file.sync_data()
        {
            error!("the journal {} cannot be written to the disk: {e}", self.path.display());
        }
    }

    /// The operations that wait; `None` at the end. Empty when it is time to look at the disk.
    fn next(&self) -> Option<Vec<WriterOp>> {
        let mut queue = self.shared.queue.lock();
        if queue.waiting.is_empty() && !queue.closed {
            match self.unsynced {
                None => self.shared.wake.wait(&mut queue),
                Some(since) => {
                    let left = SYNC.saturating_sub(since.elapsed());
                    let _timed_out = self.shared.wake.wait_for(&mut queue, left);
                }
            }
        }
        if queue.waiting.is_empty() && queue.closed {
            return None;
        }
        queue.bytes = 0;
        Some(std::mem::take(&mut queue.waiting))
    }

    /// All that waits in one write.
    fn take(&mut self, ops: Vec<WriterOp>) {
        let mut bytes = Vec::new();
        for op in &ops {
            if let WriterOp::Append(entry, ..) = op {
                entry.write(&self.shared.head, &mut bytes);
            }
        }
        let written = if bytes.is_empty() { Ok(()) } else { self.write(&bytes).map_err(Arc::new) };
        if let Err(e) = &written {
            error!("the journal {} cannot be written: {e}", self.path.display());
        }
        for op in ops {
            match op {
                WriterOp::Append(entry, done) => {
                    // Nobody appends a table again: it comes with the file that is written anew.
                    let is_table = matches!(entry, Entry::Table { .. });
                    self.damaged |= is_table && written.is_err();
                    if written.is_ok() || is_table {
                        self.live.apply(&entry);
                    }
                    if let Some(done) = done {
                        // Who waited for it may be gone.
                        let _gone = done.send(written.clone());
                    }
                }
                WriterOp::Written(row, version) => self.live.written(&row, version),
                WriterOp::Released(row, number) => self.live.released(&row, number),
            }
        }
        if self.len > 2 * self.live.bytes() as u64 + SLACK
            && let Err(e) = self.write_anew()
        {
            warn!("the journal {} cannot be written anew: {e}", self.path.display());
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.begin()?;
        } else if self.damaged {
            self.write_anew()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if let Err(e) = file.write_all(bytes) {
            // A part of it may be there: the next write must not come behind it.
            self.damaged = file.set_len(self.len).is_err();
            return Err(e);
        }
        self.len += bytes.len() as u64;
        self.unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        std::fs::create_dir_all(&self.shared.folder)?;
        let tables = self.shared.queue.lock().tables.clone();
        for (table, number) in tables.into_iter().zip(1..) {
            self.live.apply(&Entry::Table { number, table });
        }
        self.write_anew()
    }

    /// Replaces the file by a shorter one. The new one is locked before it has the name, so at no time does
    /// an unlocked file have it.
    fn write_anew(&mut self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        // What is left of a failed one would only fill the disk.
        self.replace_by(&new).inspect_err(|_| drop(std::fs::remove_file(&new)))
    }

    fn replace_by(&mut self, new: &Path) -> io::Result<()> {
        let bytes = self.live.snapshot(&self.shared.head);
        // Appending, so that a write that was cut off and taken back leaves no hole.
        let mut file = File::options().create(true).append(true).open(new)?;
        file.set_len(0)?;
        file.lock()?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        std::fs::rename(new, &self.path)?;
        // From here on this file has the name, and must stay locked, whatever else fails.
        (self.file, self.len, self.unsynced, self.damaged) = (Some(file), bytes.len() as u64, None, false);
        if let Err(e) = sync_folder(&self.shared.folder) {
            warn!("the folder {} cannot be written to the disk: {e}", self.shared.folder.display());
        }
        Ok(())
    }

    fn sync_when_due(&mut self) {
        let due = self.unsynced.is_some_and(|since| since.elapsed() >= SYNC);
        if due && let Some(file) = &self.file {
            match file.sync_data() {
                Ok(()) => self.unsynced = None,
                // The kernel has given those pages up, and would call the next try a success.
                Err(e) => {
                    error!("the journal {} cannot be written to the disk: {e}", self.path.display());
                    self.damaged = true;
                    // Tried again then, not at once.
                    self.unsynced = Some(Instant::now());
                    if let Err(e) = self.write_anew() {
                        warn!("the journal {} cannot be written anew: {e}", self.path.display());
                    }
                }
            }
        }
    }
}

/// The boot of this host; empty when the system does not tell. A file that was written in an earlier boot may have lost
/// what was not yet on the disk.
pub(crate) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |id| id.trim().into())
}

/// Syncs a folder, so that a file's name survives a power cut, too.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
