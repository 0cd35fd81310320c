//! The pushes that wait to be taken: bounded, the oldest lost and counted when there is no room.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{Closed, PushError};
use crate::fault::Fault;
use crate::message::Message;
use crate::options::Options;

/// What comes without a call.
#[derive(Debug)]
pub(crate) enum Event {
    Push(Message),
    Fault(Fault),
}

impl Event {
    fn bytes(&self) -> usize {
        match self {
            Event::Push(message) => message.body.len(),
            Event::Fault(fault) => fault.message.len(),
        }
    }
}

/// The queue between a client's task and who takes its pushes.
#[derive(Debug)]
pub(crate) struct Pushes {
    queue: Mutex<Queue>,
    changed: Notify,
    events_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    bytes: usize,
    lost: u64,
    closed: Option<Closed>,
}

impl Pushes {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            queue: Mutex::default(),
            changed: Notify::new(),
            events_max: options.pushes_max,
            bytes_max: options.pushes_bytes_max,
        }
    }

    pub(crate) fn add(&self, event: Event) {
        let mut queue = self.queue.lock();
        queue.bytes += event.bytes();
        queue.events.push_back(event);
        while queue.events.len() > self.events_max || queue.bytes > self.bytes_max {
            queue.drop_oldest();
        }
        drop(queue);
        self.changed.notify_waiters();
    }

    /// Nothing more comes. What waits can still be taken.
    pub(crate) fn close(&self, why: Closed) {
        self.queue.lock().closed.get_or_insert(why);
        self.changed.notify_waiters();
    }

    /// Why nothing more comes, once it is so.
    pub(crate) fn closed(&self) -> Option<Closed> {
        self.queue.lock().closed.clone()
    }

    /// The next push. Cancel-safe.
    pub(crate) async fn next(&self) -> Result<Message, PushError> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // What comes between the look and the wait ends the wait.
            changed.as_mut().enable();
            if let Some(next) = self.queue.lock().next() {
                return next;
            }
            changed.await;
        }
    }
}

impl Queue {
    fn drop_oldest(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.bytes();
            self.lost += 1;
        }
    }

    fn next(&mut self) -> Option<Result<Message, PushError>> {
        if self.lost > 0 {
            return Some(Err(PushError::Lagged(std::mem::take(&mut self.lost))));
        }
        match self.events.pop_front() {
            Some(event) => {
                self.bytes -= event.bytes();
                Some(match event {
                    Event::Push(message) => Ok(message),
                    Event::Fault(fault) => Err(PushError::Fault(fault)),
                })
            }
            None => self.closed.clone().map(|why| Err(why.into())),
        }
    }
}
