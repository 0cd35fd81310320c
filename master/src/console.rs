//! The terminal: lines go through a bounded queue to a thread of their own, so that a stopped terminal
//! or a full pipe can never block the supervisor.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use fftelemetry::Colour;

/// Lines that may wait for the terminal; what does not fit is dropped and counted.
const LINES_MAX: usize = 8 * 1024;
/// How long the last lines may take at the end.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Where lines of nodes and for people go. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Console {
    queue: Option<SyncSender<Item>>,
    lost: Arc<AtomicU64>,
    colour: bool,
}

#[derive(Debug)]
enum Item {
    Line(String),
    Flush(SyncSender<()>),
}

impl Console {
    /// Standard output, in colours when it may have them.
    pub fn stdout(colour: Colour) -> Self {
        let mut console = Self::to(io::stdout());
        console.colour = colour.on_stdout();
        console
    }

    /// Anything that can be written to.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        let (queue, lines) = sync_channel(LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let thread = std::thread::Builder::new().name("console".into());
        // Without a thread there is no console, and everything else still works.
        let started = thread.spawn(move || write_all(out, &lines, &counted)).is_ok();
        Self { queue: started.then_some(queue), lost, colour: false }
    }

    /// Nowhere: for nodes whose lines are only kept.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether lines may have colours.
    pub fn has_colour(&self) -> bool {
        self.colour
    }

    /// Writes a line, soon. Never waits.
    pub fn line(&self, text: String) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_)) = queue.try_send(Item::Line(text)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, but not for ever.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if let Some(queue) = &self.queue
            && queue.try_send(Item::Flush(done)).is_ok()
        {
            let _ = wait.recv_timeout(FLUSH_MAX);
        }
    }
}

fn write_all(mut out: impl Write, lines: &Receiver<Item>, lost: &AtomicU64) {
    // A closed terminal is no reason to stop anything: its lines go nowhere from then on.
    for item in lines {
        match item {
            Item::Line(mut text) => {
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    text = format!("({lost} lines were lost: the terminal does not keep up)\n{text}");
                }
                text.push('\n');
                let _ = out.write_all(text.as_bytes());
            }
            Item::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Pipe(mpsc::Sender<String>, mpsc::Receiver<()>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.recv();
            let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stopped_terminal_blocks_nobody_and_what_is_lost_is_counted() {
        let (written, lines) = mpsc::channel();
        let (go, gate) = mpsc::channel();
        let console = Console::to(Pipe(written, gate));
        let sent = LINES_MAX + 100;
        for n in 0..sent {
            console.line(format!("line {n}"));
        }
        drop((go, console));
        let text: String = lines.iter().collect();
        // Told once or twice: the terminal may stop while lines are lost.
        let told = text.lines().filter_map(|line| line.strip_prefix('(')?.split_once(" lines were lost"));
        let lost: usize = told.map(|(lost, _)| lost.parse::<usize>().unwrap()).sum();
        assert!(lost > 0);
        assert_eq!(text.matches("line ").count() + lost, sent);
        assert!(text.contains("line 0\n"));
    }
}
