//! The log of a process: events become lines here, are limited where they repeat, and are written by a thread of their own.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::Duration;

use ffambient::Clock;
use parking_lot::Mutex;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::colour;
use crate::escape::readable;
use crate::files::LogFile;
use crate::levels::{Levels, LevelsError};
use crate::limit::{self, From, Limiter, Limits, Suppressed};
use crate::line::{At, Draft, Format, LIMITED_BY, MESSAGE_BYTES_MAX, Pick};
use crate::queue::{Dropped, Line, Queue, Writer};
use crate::request::{self, RequestId};
use crate::tag::{self, Tag};

/// The field with the address or name of a peer, by which an event is limited.
const PEER: &str = "peer";
/// Events that are counted each at a time. Kinds may be texts of an app: further ones are of one kind.
const EVENTS_MAX: usize = 1024;
/// The bytes of a message that says what was suppressed.
const FIRST_BYTES_MAX: usize = 200;

/// The log of this process, for what changes it while it runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    format: Format,
    levels: Levels,
    queue: Queue,
    limiter: Mutex<Limiter<Place>>,
    panics: Mutex<Limiter<()>>,
}

/// An event: all that is logged at one place in the sources, and is of one kind there (`limited_by`).
#[derive(Debug, Clone, Copy)]
struct Place {
    metadata: &'static Metadata<'static>,
    /// The kind's hash; 0 without one.
    kind: u64,
    /// The node of a process of several: one's flood takes nothing from another's lines.
    tag: Tag,
}

impl Place {
    fn new(metadata: &'static Metadata<'static>, kind: Option<&str>) -> Self {
        let mut hasher = DefaultHasher::new();
        kind.hash(&mut hasher);
        Self { metadata, kind: kind.map_or(0, |_| hasher.finish()), tag: tag::current() }
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.tag) == (other.kind, other.tag)
            && self.metadata.callsite() == other.metadata.callsite()
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.metadata.callsite(), self.kind, self.tag).hash(state);
    }
}

impl Log {
    pub(crate) fn new(clock: Clock, format: Format, levels: Levels) -> Self {
        let (limiter, panics) = (Limiter::new(Limits::default()), Limiter::new(Limits::default()));
        let (limiter, panics, queue) = (Mutex::new(limiter), Mutex::new(panics), Queue::default());
        Self(Arc::new(Inner { clock, format, levels, queue, limiter, panics }))
    }

    /// Shows these levels from now on, in the syntax of `FF_LOG`; an empty text is what was shown at the start.
    ///
    /// # Errors
    /// The text is not understood; nothing changes then.
    pub fn set_levels(&self, text: &str) -> Result<(), LevelsError> {
        self.0.levels.set(text)
    }

    /// The levels that are shown.
    #[must_use]
    pub fn levels(&self) -> String {
        self.0.levels.now()
    }

    /// Has the files opened again, soon: somebody has moved them.
    pub fn reopen(&self) {
        self.0.queue.reopen();
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.0.queue
    }

    /// What says in one line why a thread has panicked: the text may be a peer's.
    pub(crate) fn write_panic(&self, about: &PanicHookInfo<'_>, mut to: impl Write) {
        let place = about.location().map_or_else(String::new, ToString::to_string);
        if !self.may_say_panic(&place) {
            return;
        }
        let thread = std::thread::current();
        let name = readable(thread.name().unwrap_or("<unnamed>"), FIRST_BYTES_MAX).into_owned();
        let text = readable(about.payload_as_str().unwrap_or("(no text)"), MESSAGE_BYTES_MAX);
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("stack backtrace:\n{backtrace}"),
            _ => String::new(),
        };
        // Without a standard error there is nobody to tell.
        let _ = to.write_all(format!("thread '{name}' panicked at {place}: {text}\n{backtrace}").as_bytes());
    }

    fn may_say_panic(&self, place: &str) -> bool {
        // It is held where this very thread has panicked in it.
        let Some(mut panics) = self.0.panics.try_lock() else { return true };
        let mut told = vec![];
        let passes = panics.pass((), place, self.0.clock.now(), String::new, &mut told);
        drop(panics);
        told.iter().for_each(|told| self.0.queue.push(self.panics_suppressed(told)));
        passes
    }

    fn panics_suppressed(&self, told: &Suppressed<()>) -> Line {
        let text = format!("{} more suppressed: panics", told.lines);
        let fields = suppressed_fields(told, "at");
        self.line(Level::ERROR, &text, &fields)
    }

    /// A line of the log about itself.
    fn line(&self, level: Level, text: &str, fields: &[(&str, String)]) -> Line {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
        let text = self.0.format.line(self.0.clock.now(), level, text, &fields);
        Line { text, is_warning: level <= Level::WARN }
    }

    fn suppressed(&self, told: &Suppressed<Place>) -> Line {
        let metadata = told.event.metadata;
        let mut draft = self.0.format.begin(self.0.clock.now(), *metadata.level());
        draft.value("message", format_args!("{} more suppressed: {}", told.lines, told.first));
        for (name, value) in suppressed_fields(told, PEER) {
            draft.value(name, format_args!("{value}"));
        }
        let text = draft.end(At::of(metadata), metadata.target(), &[], told.event.tag);
        Line { text, is_warning: *metadata.level() <= Level::WARN }
    }

    /// The lines about what was suppressed, of windows that have ended; at the end of all.
    fn told(&self, is_end: bool) -> Vec<Line> {
        let now = self.0.clock.now();
        let (mut told, mut of_panics) = (vec![], vec![]);
        {
            let (mut limiter, mut panics) = (self.0.limiter.lock(), self.0.panics.lock());
            if is_end {
                limiter.end_all(&mut told);
                panics.end_all(&mut of_panics);
            } else {
                limiter.end_windows(now, &mut told);
                panics.end_windows(now, &mut of_panics);
            }
        }
        let lines = told.iter().map(|told| self.suppressed(told));
        lines.chain(of_panics.iter().map(|told| self.panics_suppressed(told))).collect()
    }

    /// Whether the event may be written; what the window before has suppressed is written then.
    fn passes(&self, event: &Event<'_>, now: Duration) -> bool {
        let metadata = event.metadata();
        if ![PEER, LIMITED_BY].iter().any(|name| metadata.fields().field(name).is_some()) {
            return true;
        }
        let value_of = |name| {
            let mut value = Pick::new(name);
            event.record(&mut value);
            value.found
        };
        let (peer, kind) = (value_of(PEER), value_of(LIMITED_BY));
        let address = peer.as_deref().map(limit::address).unwrap_or_default();
        let first = || readable(&value_of("message").unwrap_or_default(), FIRST_BYTES_MAX).into_owned();
        let mut told = vec![];
        let passes = {
            let mut limiter = self.0.limiter.lock();
            let kind = kind.as_deref().filter(|_| limiter.events() < EVENTS_MAX);
            limiter.pass(Place::new(metadata, kind), &address, now, first, &mut told)
        };
        told.iter().for_each(|told| self.0.queue.push(self.suppressed(told)));
        passes
    }
}

fn suppressed_fields<E>(told: &Suppressed<E>, address: &'static str) -> Vec<(&'static str, String)> {
    let from = match &told.from {
        // What has no peer has one limit.
        From::Address(text) if text.is_empty() => None,
        From::Address(text) => Some((address, text.clone())),
        From::Others(n) => Some(("others", n.to_string())),
    };
    from.into_iter().chain([("suppressed", told.lines.to_string())]).collect()
}

/// What the log hears of the program.
pub(crate) struct LogLayer(pub(crate) Log);

/// A span as it stands in lines: its name and fields.
struct SpanText(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let fields = Draft::fields(|draft| attributes.record(draft));
            let fields = if fields.is_empty() { fields } else { format!("{{{fields}}}") };
            span.extensions_mut().insert(SpanText(format!("{}{fields}", span.name())));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanText(text)) = span.extensions_mut().get_mut()
        {
            let fields = Draft::fields(|draft| values.record(draft));
            match text.pop() {
                Some('}') => text.push(' '),
                last => text.extend(last.into_iter().chain(['{'])),
            }
            text.push_str(&fields);
            text.push('}');
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let (log, now) = (&self.0, self.0.0.clock.now());
        if !log.passes(event, now) {
            return;
        }
        let scope = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let text = |extensions: tracing_subscriber::registry::Extensions<'_>| {
            extensions.get().map(|SpanText(text)| text.clone())
        };
        let spans: Vec<String> = scope.filter_map(|span| text(span.extensions())).collect();
        let metadata = event.metadata();
        let mut draft = log.0.format.begin(now, *metadata.level());
        draft.spans(&spans);
        event.record(&mut draft);
        if let Some(RequestId { session, command }) = request::current() {
            let has = |name| metadata.fields().field(name).is_some();
            if !has("session") {
                draft.value("session", format_args!("{session:x}"));
            }
            if !has("command") {
                draft.value("command", format_args!("{command}"));
            }
        }
        let text = draft.end(At::of(metadata), metadata.target(), &spans, tag::current());
        log.0.queue.push(Line { text, is_warning: *metadata.level() <= Level::WARN });
    }
}

/// The outputs of a process: the terminal, and the files. One that fails (a closed pipe, a full disk) is passed over, because a
/// log must not end what it describes; what a file did not take is counted, and said when it takes lines again.
pub(crate) struct Outputs<T> {
    pub(crate) log: Log,
    pub(crate) terminal: T,
    pub(crate) has_colour: bool,
    pub(crate) file: Option<Output>,
    pub(crate) errors: Option<Output>,
}

/// A file, and how many lines it did not take.
pub(crate) struct Output {
    file: LogFile,
    lost: u64,
}

impl Output {
    pub(crate) fn new(file: LogFile) -> Self {
        Self { file, lost: 0 }
    }

    fn write(&mut self, line: &Line, log: &Log) {
        let now = log.0.clock.now();
        if self.lost > 0 {
            let text = format!("{} lines could not be written to {}", self.lost, self.file.path().display());
            let told = log.line(Level::WARN, &text, &[("lost", self.lost.to_string())]);
            if self.file.write(told.text.as_bytes(), now).is_ok() {
                self.lost = 0;
            }
        }
        if self.file.write(line.text.as_bytes(), now).is_err() {
            self.lost += 1;
        }
    }
}

impl<T: Write + Send + 'static> Writer for Outputs<T> {
    fn write(&mut self, line: &Line) {
        let text = Cow::Borrowed(&*line.text);
        let shown = if self.has_colour { colour::by_level(&line.text) } else { text };
        let _ = self.terminal.write_all(shown.as_bytes());
        if let Some(file) = &mut self.file {
            file.write(line, &self.log);
        }
        if let Some(errors) = self.errors.as_mut().filter(|_| line.is_warning) {
            errors.write(line, &self.log);
        }
    }

    fn say_dropped(&mut self, dropped: Dropped) {
        let Dropped { warnings, others } = dropped;
        let text = format!("{} lines were dropped: the log's queue was full", warnings + others);
        let counts = [("warnings", warnings.to_string()), ("others", others.to_string())];
        let line = self.log.line(Level::WARN, &text, &counts);
        self.write(&line);
    }

    fn reopen(&mut self) {
        self.file.iter_mut().chain(&mut self.errors).for_each(|output| output.file.reopen());
    }

    fn tick(&mut self) {
        self.log.told(false).iter().for_each(|line| self.write(line));
        // A file that was moved is let go, also when nothing is logged.
        for output in self.file.iter_mut().chain(&mut self.errors) {
            output.file.follow_path();
        }
    }

    fn end(&mut self) {
        self.log.told(true).iter().for_each(|line| self.write(line));
        let _ = self.terminal.flush();
    }
}
