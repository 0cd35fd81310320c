//! The output of nodes: passed through with the node's name, and the last lines of each kept.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ffproto::{Incarnation, NodeName};
use fftelemetry::colour;
use parking_lot::Mutex;

use crate::console::Console;

/// Lines that are kept of each node.
pub const LINES_KEPT: usize = 200;
/// The last of them that a crash report has.
pub const LINES_OF_END: usize = 20;
/// A panic's message may have so many lines.
const MESSAGE_LINES_MAX: usize = 20;
/// The lines of one backtrace that are kept: its end is the program's start, and what stands before it says more.
const FRAMES_KEPT: usize = 40;
/// A longer line is cut: with this and [`LINES_KEPT`] a node costs at most 800 KiB.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// The last lines of every node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Logs {
    nodes: Arc<Mutex<HashMap<NodeName, KeptLines>>>,
    console: Console,
}

type KeptLines = Arc<Mutex<Lines>>;

/// The last lines of one node: of all its processes, each with which start of it printed it.
#[derive(Debug, Default)]
struct Lines {
    last: VecDeque<(Incarnation, Arc<str>)>,
    /// Lines of a backtrace in a row, up to now.
    frames: usize,
    /// All that were kept, those that are kept no more as well.
    printed: u64,
}

impl Logs {
    /// Logs that also go to that console.
    pub fn new(console: Console) -> Self {
        Self { nodes: Arc::default(), console }
    }

    /// The last lines of a node, oldest first.
    pub fn last(&self, node: &str) -> Vec<String> {
        self.last_of(node).0
    }

    /// The same, and how many lines the node has printed in all: who has seen so many knows which are new.
    pub fn last_of(&self, node: &str) -> (Vec<String>, u64) {
        let kept = self.nodes.lock().get(node).cloned();
        let Some(kept) = kept else { return (Vec::new(), 0) };
        let kept = kept.lock();
        (kept.last.iter().map(|(_, line)| line.to_string()).collect(), kept.printed)
    }

    /// The lines that are kept of one process of a node, oldest first.
    pub fn of_life(&self, node: &NodeName, incarnation: Incarnation) -> Vec<String> {
        let Some(kept) = self.nodes.lock().get(node).cloned() else { return Vec::new() };
        let kept = kept.lock();
        let of_life = kept.last.iter().filter(|(of, _)| *of == incarnation);
        of_life.map(|(_, line)| line.to_string()).collect()
    }

    /// Where the lines of a process of a node go; `width` is the length of the longest name.
    pub fn of(&self, node: &NodeName, incarnation: Incarnation, width: usize) -> NodeOutput {
        self.of_process(node, std::slice::from_ref(node), incarnation, width)
    }

    /// Where the lines of a process of that name go, which runs these nodes: each of them has them.
    pub fn of_process(
        &self,
        process: &NodeName,
        nodes: &[NodeName],
        incarnation: Incarnation,
        width: usize,
    ) -> NodeOutput {
        let mut all = self.nodes.lock();
        let kept = nodes.iter().map(|node| Arc::clone(all.entry(node.clone()).or_default()));
        NodeOutput {
            incarnation,
            prefix: prefix(process, width, self.console.has_colour()),
            kept: kept.collect(),
            console: self.console.clone(),
        }
    }
}

/// The name of a node, or of a process of several, before each of its lines; each name has its colour.
fn prefix(node: &NodeName, width: usize, colour: bool) -> String {
    let sum = node.as_str().bytes().fold(0u32, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    // 31 to 36 are the colours that are neither black nor white.
    if colour {
        format!("\x1b[{}m{node:<width$} |\x1b[0m ", 31 + sum % 6)
    } else {
        format!("{node:<width$} | ")
    }
}

/// Where the lines of one process go.
#[derive(Debug, Clone)]
pub struct NodeOutput {
    incarnation: Incarnation,
    prefix: String,
    /// Of each node of the process.
    kept: Vec<KeptLines>,
    console: Console,
}

impl NodeOutput {
    /// Keeps and shows one line: escape codes that it brings are readable and do nothing, and its level has its colour
    /// where lines have colours.
    pub fn line(&self, text: &str) {
        let text = colour::visible(text);
        let shown = if self.console.has_colour() { colour::by_level(&text) } else { Cow::Borrowed(&*text) };
        self.console.line(format!("{}{shown}", self.prefix));
        let text: Arc<str> = text.into();
        for kept in &self.kept {
            kept.lock().keep(self.incarnation, Arc::clone(&text));
        }
    }
}

impl Lines {
    fn keep(&mut self, of: Incarnation, line: Arc<str>) {
        if of_backtrace(&line) {
            self.frames += 1;
            if self.frames > FRAMES_KEPT {
                return;
            }
        } else {
            let more = self.frames.saturating_sub(FRAMES_KEPT);
            self.frames = 0;
            if more > 0 {
                self.push(of, format!("  note: {more} more lines of the backtrace are in the log").into());
            }
        }
        self.push(of, line);
    }

    fn push(&mut self, of: Incarnation, line: Arc<str>) {
        if self.last.len() == LINES_KEPT {
            self.last.pop_front();
        }
        self.last.push_back((of, line));
        self.printed += 1;
    }
}

/// Why a process has ended, as far as its lines say: the last one, or what it panicked with, which stands before the
/// backtrace and the notes of Rust's panic hook.
pub(crate) fn last_words(lines: &[String]) -> Option<String> {
    let last = lines.iter().rposition(|line| !of_backtrace(line))?;
    let said = lines.get(..=last)?;
    let message_lines = said.iter().rev().take(MESSAGE_LINES_MAX).position(|line| begins_panic(line));
    let begin = message_lines.filter(|_| last + 1 < lines.len()).map_or(last, |lines| last - lines);
    Some(said.get(begin..)?.join(" "))
}

/// Whether a line is one of a backtrace, or of the notes beside it.
fn of_backtrace(line: &str) -> bool {
    let line = line.trim_start();
    let frame = line.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    frame
        || line.is_empty()
        || line.starts_with("at ")
        || line.starts_with("note: ")
        || line == "stack backtrace:"
}

/// Whether a line is as Rust's panic hook begins: `thread 'main' (42) panicked at src/main.rs:7:9:`, and then the message. A second
/// panic on the way of a first one stands behind that, without a thread.
fn begins_panic(line: &str) -> bool {
    line.starts_with("thread '") && line.contains(" panicked at ") || line.starts_with("panicked at ")
}

/// What a process that aborts has panicked with just before, and where, as far as its lines say: the first panic of several.
pub(crate) fn last_panic(lines: &[String]) -> Option<String> {
    let said: Vec<&String> = lines.iter().filter(|line| !of_backtrace(line)).collect();
    let end = said.get(said.len().saturating_sub(MESSAGE_LINES_MAX)..)?;
    let begin = end.iter().position(|line| begins_panic(line))?;
    let panic = end.get(begin..)?;
    // What was noted of one that was to be caught has its message in the same line.
    let message = panic.get(1).filter(|next| !begins_panic(next) && panic[0].ends_with(':'));
    Some(panic[0].to_string() + &message.map_or_else(String::new, |message| format!(" {message}")))
}

/// Makes lines out of whatever a pipe gives: long ones are cut, broken UTF-8 is replaced.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    line: Vec<u8>,
    cut: bool,
}

impl Splitter {
    /// Takes in bytes and gives out every line that is complete now.
    pub(crate) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = rest.split_at(end);
            self.extend(head);
            self.finish(&mut line);
            rest = tail.get(1..).unwrap_or_default();
        }
        self.extend(rest);
    }

    /// Gives out what stands after the last line break.
    pub(crate) fn end(&mut self, mut line: impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.finish(&mut line);
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX - self.line.len();
        self.cut |= bytes.len() > room;
        self.line.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn finish(&mut self, line: &mut impl FnMut(&str)) {
        let bytes = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        if self.cut {
            text.push_str(" …");
        }
        line(&text);
        self.line.clear();
        self.cut = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::name;

    #[test]
    fn a_long_backtrace_leaves_what_was_said_before_it() {
        let logs = Logs::default();
        let output = logs.of(&name("net"), Incarnation(1), 3);
        output.line("panicked at src/room.rs:7:9: no such seat");
        for frame in 0..LINES_KEPT {
            output.line(&format!("{frame:4}: std::rt::lang_start"));
            output.line("             at /rustc/library/std/src/rt.rs:171:5");
        }
        output.line("thread caused non-unwinding panic. aborting.");
        let kept = logs.last("net");
        assert_eq!(kept.len(), 1 + FRAMES_KEPT + 2);
        assert_eq!(kept[1 + FRAMES_KEPT], "  note: 360 more lines of the backtrace are in the log");
        assert_eq!(last_panic(&kept).as_deref(), Some("panicked at src/room.rs:7:9: no such seat"));
    }

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        for piece in pieces {
            splitter.push(piece, |line| lines.push(line.to_owned()));
        }
        splitter.end(|line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_come_whole_whatever_the_pieces() {
        assert_eq!(split(&[b"a\nb", b"", b"c\r\n", b"\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(split(&[b"caf\xc3", b"\xa9\n\xff!\n"]), ["café", "\u{fffd}!"]);
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let mut splitter = Splitter::default();
        for _ in 0..1_000 {
            splitter.push(&[b'x'; 10_000], |_| panic!("no line yet"));
        }
        assert!(splitter.line.capacity() <= 2 * LINE_BYTES_MAX);
        let mut lines = Vec::new();
        splitter.push(b"\nnext\n", |line| lines.push(line.to_owned()));
        assert!(lines[0].ends_with("xx …") && lines[0].len() < LINE_BYTES_MAX + 10);
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn why_a_process_has_ended_is_its_last_line_or_its_panic() {
        let words = |text: &str| last_words(&text.lines().map(str::to_owned).collect::<Vec<_>>());
        let of = |text: &str| words(text).unwrap();
        assert_eq!(words(""), None);
        assert_eq!(of("one\nservers.gate.db: no such server"), "servers.gate.db: no such server");
        let note = "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace";
        let panic = "thread 'main' (42) panicked at apps/src/gate.rs:7:9:";
        let said = format!("{panic} no config");
        assert_eq!(of(&format!("up\n\n{panic}\nno config\n{note}\n")), said);
        let frames =
            "   0: __rustc::rust_begin_unwind\n             at /rustc/x/panicking.rs:689:5\n  12: main";
        assert_eq!(of(&format!("{panic}\nno config\nstack backtrace:\n{frames}\nnote: Some details")), said);
        assert_eq!(of(&format!("{panic}\nleft: 1\nright: 2\n{note}")), format!("{panic} left: 1 right: 2"));
        // One that was survived is not why.
        assert_eq!(of(&format!("{panic}\nno config\n{note}\nthe disk is full")), "the disk is full");

        let aborted = |text: &str| last_panic(&text.lines().map(str::to_owned).collect::<Vec<_>>());
        let end = "thread caused non-unwinding panic. aborting.";
        let twice = format!("{panic}\nno config\n{note}\n{panic}\npanic in a destructor\n{frames}\n{end}");
        assert_eq!(aborted(&twice), Some(said));
        let noted = format!("panicked at src/room.rs:4:9: no seat\n{panic}\npanic in a destructor\n{end}");
        assert_eq!(aborted(&noted).as_deref(), Some("panicked at src/room.rs:4:9: no seat"));
        assert_eq!(aborted("one\ntwo"), None);
    }

    #[test]
    fn the_last_lines_are_kept_and_the_console_has_them_with_the_name() {
        let (to, from) = std::sync::mpsc::channel();
        struct Sink(std::sync::mpsc::Sender<String>);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.send(String::from_utf8_lossy(bytes).into_owned()).unwrap();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let console = Console::to(Sink(to));
        let logs = Logs::new(console.clone());
        let output = logs.of(&name("net"), Incarnation(1), 5);
        for n in 0..=LINES_KEPT {
            output.line(&format!("line {n}"));
        }
        console.flush();
        assert_eq!(logs.last("net").len(), LINES_KEPT);
        assert_eq!(logs.last("net")[0], "line 1");
        assert_eq!(from.recv().unwrap(), "net   | line 0\n");
        assert!(logs.last("gate").is_empty());
        let successor = logs.of(&name("net"), Incarnation(2), 5);
        assert!(logs.of_life(&name("net"), Incarnation(2)).is_empty(), "it has said nothing yet");
        successor.line("the successor's");
        output.line("the old one's");
        assert_eq!(logs.of_life(&name("net"), Incarnation(2)), ["the successor's"]);
        let old = logs.of_life(&name("net"), Incarnation(1));
        assert_eq!((old.len(), old[old.len() - 1].as_str()), (LINES_KEPT - 1, "the old one's"));
    }
}
