//! The queue of lines and the thread that writes them: a slow terminal, a full pipe or a full disk never blocks who logs. What
//! does not fit is dropped, counted, and said.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Lines that may wait, and their bytes.
const LINES_MAX: usize = 16 * 1024;
const BYTES_MAX: usize = 8 << 20;
/// The part of the places that lines below WARN cannot take, as a divisor.
const PLACES_OF_WARN: usize = 4;
/// How often the thread looks at what time has brought.
const TICK: Duration = Duration::from_secs(1);
/// How long the last lines may take at the end.
const END_MAX: Duration = Duration::from_secs(2);

/// One line with its line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// WARN and ERROR: they have places of their own, and go to the file of errors, too.
    pub(crate) is_warning: bool,
}

/// Lines that were dropped, each counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) warnings: u64,
    pub(crate) others: u64,
}

/// The lines that wait. Pure.
#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Line>,
    bytes: usize,
    dropped: Dropped,
    has_ended: bool,
    /// The thread waits: all that came before is written.
    is_idle: bool,
}

impl Waiting {
    fn push(&mut self, line: Line, lines_max: usize, bytes_max: usize) {
        let part = |max: usize| if line.is_warning { max } else { max - max / PLACES_OF_WARN };
        if self.lines.len() < part(lines_max) && self.bytes + line.text.len() <= part(bytes_max) {
            self.bytes += line.text.len();
            self.lines.push_back(line);
        } else if line.is_warning {
            self.dropped.warnings += 1;
        } else {
            self.dropped.others += 1;
        }
    }

    /// All lines, and what was dropped behind them.
    fn take(&mut self) -> (VecDeque<Line>, Dropped) {
        self.bytes = 0;
        (std::mem::take(&mut self.lines), std::mem::take(&mut self.dropped))
    }
}

/// What the thread does with lines, and with time.
pub(crate) trait Writer: Send + 'static {
    /// Writes one line, or counts that it could not.
    fn write(&mut self, line: &Line);
    /// Says that lines were dropped.
    fn say_dropped(&mut self, dropped: Dropped);
    /// Opens the files again.
    fn reopen(&mut self);
    /// A second has passed.
    fn tick(&mut self);
    /// The last lines; nothing follows.
    fn end(&mut self);
}

/// The queue. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    came: Condvar,
    reopen: AtomicBool,
    ended: Mutex<bool>,
    has_ended: Condvar,
}

impl Queue {
    /// Puts a line behind the others. Never waits for an output.
    pub(crate) fn push(&self, line: Line) {
        let mut waiting = self.0.waiting.lock();
        let was_empty = waiting.lines.is_empty();
        waiting.push(line, LINES_MAX, BYTES_MAX);
        if was_empty {
            self.0.came.notify_one();
        }
    }

    /// Has the files opened again, soon.
    pub(crate) fn reopen(&self) {
        self.0.reopen.store(true, Ordering::Release);
        let _waiting = self.0.waiting.lock();
        self.0.came.notify_one();
    }

    /// Whether the thread has nothing to write.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let waiting = self.0.waiting.lock();
        waiting.is_idle && waiting.lines.is_empty()
    }

    /// Has everything written that waits, but not for ever.
    pub(crate) fn end(&self) {
        self.0.waiting.lock().has_ended = true;
        self.0.came.notify_one();
        let mut ended = self.0.ended.lock();
        if !*ended {
            self.0.has_ended.wait_for(&mut ended, END_MAX);
        }
    }

    /// Writes the lines until the end.
    pub(crate) fn write_all(&self, mut writer: impl Writer) {
        loop {
            let (lines, dropped, has_ended, ticked) = self.next();
            if self.0.reopen.swap(false, Ordering::AcqRel) {
                writer.reopen();
            }
            lines.iter().for_each(|line| writer.write(line));
            if dropped != Dropped::default() {
                writer.say_dropped(dropped);
            }
            if has_ended {
                writer.end();
                break;
            }
            if ticked {
                writer.tick();
            }
        }
        *self.0.ended.lock() = true;
        self.0.has_ended.notify_all();
    }

    /// What there is to do, once there is something.
    fn next(&self) -> (VecDeque<Line>, Dropped, bool, bool) {
        let mut waiting = self.0.waiting.lock();
        let mut ticked = false;
        if waiting.lines.is_empty() && !waiting.has_ended && !self.0.reopen.load(Ordering::Acquire) {
            waiting.is_idle = true;
            ticked = self.0.came.wait_for(&mut waiting, TICK).timed_out();
        }
        waiting.is_idle = false;
        let (lines, dropped) = waiting.take();
        (lines, dropped, waiting.has_ended, ticked)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn line(n: usize, is_warning: bool) -> Line {
        Line { text: format!("line {n}\n"), is_warning }
    }

    #[test]
    fn warnings_have_places_that_others_cannot_take_and_what_is_dropped_is_counted() {
        let mut waiting = Waiting::default();
        (0..10).for_each(|n| waiting.push(line(n, false), 8, 1_000));
        (0..3).for_each(|n| waiting.push(line(n, true), 8, 1_000));
        let (lines, dropped) = waiting.take();
        assert_eq!((lines.len(), dropped), (8, Dropped { warnings: 1, others: 4 }));
        assert_eq!(lines.iter().filter(|line| line.is_warning).count(), 2);
        let long = |is_warning| Line { text: "x".repeat(300), is_warning };
        (0..4).for_each(|n| waiting.push(long(n == 3), 8, 1_000));
        waiting.push(long(true), 8, 1_000);
        let (lines, dropped) = waiting.take();
        assert_eq!((lines.len(), dropped), (3, Dropped { warnings: 1, others: 1 }));
    }

    /// Writes only when it may, and keeps what it has.
    struct Slow {
        may: mpsc::Receiver<()>,
        has: mpsc::Sender<Result<Line, Dropped>>,
    }

    impl Writer for Slow {
        fn write(&mut self, line: &Line) {
            let _ = self.may.recv();
            let _ = self.has.send(Ok(line.clone()));
        }
        fn say_dropped(&mut self, dropped: Dropped) {
            let _ = self.has.send(Err(dropped));
        }
        fn reopen(&mut self) {}
        fn tick(&mut self) {}
        fn end(&mut self) {}
    }

    #[test]
    fn a_stopped_output_blocks_nobody_and_written_and_dropped_are_all_that_was_said() {
        let ((go, may), (has, had)) = (mpsc::channel(), mpsc::channel());
        let queue = Queue::default();
        let thread = std::thread::spawn({
            let queue = queue.clone();
            move || queue.write_all(Slow { may, has })
        });
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                std::thread::spawn(move || (0..3 * LINES_MAX).for_each(|n| queue.push(line(n, n % 10 == 0))))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(go);
        queue.end();
        thread.join().unwrap();
        let (mut written, mut lost) = ([0, 0], Dropped::default());
        for item in had {
            match item {
                Ok(line) => written[usize::from(line.is_warning)] += 1,
                Err(dropped) => {
                    lost.warnings += dropped.warnings;
                    lost.others += dropped.others;
                }
            }
        }
        let warnings = 4 * (0..3 * LINES_MAX as u64).filter(|n| n % 10 == 0).count() as u64;
        assert!(lost.others > 0, "{lost:?}");
        assert_eq!(written[1] + lost.warnings, warnings);
        assert_eq!(written[0] + lost.others, 4 * 3 * LINES_MAX as u64 - warnings);
    }
}
