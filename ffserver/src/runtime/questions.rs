//! The questions that the master asks a node for an operator, answered: at once, or by a task where authors' code runs.

use std::time::Duration;

use ffproto::Version;
use ffproto::control::{ControlMessage, ToMaster};
use ffproto::question::{Answer, Question};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::info;

use crate::exec::app_commands;
use crate::identity::lifecycle::Phase;
use crate::node::Node;
use crate::session::inspection::Reached;

/// Answers that may wait for the control connection.
pub(super) const ANSWERS_MAX: usize = 16;

/// Answers a question, or begins what will answer it over `later`.
pub(super) fn answer(
    node: Option<&Node>,
    ask: u64,
    question: Question,
    later: &mpsc::Sender<ToMaster>,
) -> Option<ToMaster> {
    let Some(node) = node else {
        return Some(fitting(ask, Answer::Failed("the node is starting".into())));
    };
    let Question::Run { name, arguments, time_ms } = question else {
        return Some(fitting(ask, answer_at_once(node, question)));
    };
    let why = match node.phase() {
        Phase::Ready => None,
        Phase::Starting => Some("the node is starting"),
        Phase::HandedOver => Some("the node is being replaced: run it again"),
        Phase::Stopping => Some("the node is stopping"),
    };
    if let Some(why) = why {
        return Some(fitting(ask, Answer::Failed(why.into())));
    }
    let (run, later) = (node.clone(), later.clone());
    drop(node.identity().tasks().calls().spawn(async move {
        let answer = app_commands::run(run, name, arguments.into(), Duration::from_millis(time_ms)).await;
        // Nobody waits any more when the connection has ended meanwhile.
        let _ = later.send(fitting(ask, answer)).await;
    }));
    None
}

fn answer_at_once(node: &Node, question: Question) -> Answer {
    let (sessions, now) = (node.all_sessions(), Instant::now());
    match question {
        Question::Sessions { filter, after, rows_max } => {
            let (rows, more) = sessions.list(&filter, after, rows_max, now);
            Answer::Sessions { rows, more }
        }
        Question::Session { session } => Answer::Session(sessions.view(session, now).map(Box::new)),
        Question::Close { filter, reason } => {
            let done = sessions.dismiss(&filter, &reason, now);
            if done != Reached::default() {
                info!("an operator closes sessions here: {}, with the reason {reason:?}", done.reached);
            }
            done_answer(done)
        }
        Question::Notice { filter, command, body } => {
            let done = sessions.notice(&filter, command, &body, now);
            info!("an operator sends command {command} to sessions here: {}", done.reached);
            done_answer(done)
        }
        Question::Commands => Answer::Commands(app_commands::list(node)),
        // Begun before.
        Question::Run { .. } => Answer::NoCommand,
    }
}

fn done_answer(Reached { reached, missed }: Reached) -> Answer {
    Answer::Done { reached, missed }
}

/// The answer as a message that the connection takes: one that is too long would end it.
fn fitting(ask: u64, answer: Answer) -> ToMaster {
    let message = ToMaster::Answer { ask, answer };
    match message.to_bytes(Version::QUESTIONS) {
        Some(_) => message,
        None => ToMaster::Answer { ask, answer: Answer::Failed("the answer is too long".into()) },
    }
}

#[cfg(test)]
mod tests {
    use ffproto::question::AppCommand;

    use super::*;

    #[test]
    fn an_answer_that_is_too_long_is_said_to_be_and_does_not_end_the_connection() {
        let command = AppCommand { name: "x".repeat(2 << 20), help: String::new(), arguments: vec![] };
        let failed = Answer::Failed("the answer is too long".into());
        assert_eq!(fitting(7, Answer::Commands(vec![command])), ToMaster::Answer { ask: 7, answer: failed });
        let short = Answer::Commands(vec![]);
        assert_eq!(fitting(8, short.clone()), ToMaster::Answer { ask: 8, answer: short });
    }
}
