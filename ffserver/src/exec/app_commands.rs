//! The commands of the app: which ones there are, and a run of one for an operator.

use std::time::Duration;

use bytes::Bytes;
use ffproto::question::{Answer, AppCommand, RESULT_BYTES_MAX, TEXT_BYTES_MAX, cut};
use serde::de::IgnoredAny;
use tokio::time::Instant;
use tracing::info;

use crate::app::handler::{Outcome, Request, Sender};
use crate::app::route::{Key, Route};
use crate::exec::current_tables::CurrentTables;
use crate::exec::execution::{Execution, log_error, until};
use crate::node::Node;

/// The commands that the app of a node has now, by name.
pub(crate) fn list(node: &Node) -> Vec<AppCommand> {
    let tables = node.state::<CurrentTables>().map(|tables| tables.get());
    let command = |route: &Route| match &route.key {
        Key::Admin(name) => Some(AppCommand {
            name: name.to_string(),
            help: cut(&route.help, TEXT_BYTES_MAX).to_owned(),
            arguments: route.fields.iter().map(|field| (*field).to_owned()).collect(),
        }),
        _ => None,
    };
    let mut commands: Vec<_> =
        tables.iter().flat_map(|tables| tables.all()).filter_map(|route| command(route)).collect();
    commands.sort();
    commands
}

/// Runs a command of the app: in the task that polls this, within the time given and `limits.call_timeout_ms`.
pub(crate) async fn run(node: Node, name: String, arguments: Bytes, time: Duration) -> Answer {
    let tables = node.state::<CurrentTables>().map(|tables| tables.get());
    let Some(route) = tables.as_ref().and_then(|tables| tables.command(&name)) else {
        return Answer::NoCommand;
    };
    info!("an operator runs `{name}`");
    let deadline = Instant::now() + time.min(node.identity().limits().call_timeout);
    let request = Request {
        node: node.clone(),
        from: Sender::Operator,
        client: None,
        deadline,
        // Without arguments a type whose fields may all be missing is whole.
        body: Some(if arguments.is_empty() { Bytes::from_static(b"{}") } else { arguments }),
    };
    let outcome = until(deadline, Execution::new(route, request)).await;
    if let Err(error) = &outcome {
        log_error(&format!("`{name}` for an operator"), error);
    }
    answer(outcome)
}

/// The answer for the outcome of a command.
fn answer(outcome: Outcome) -> Answer {
    let failed = |text: String| Answer::Failed(cut(&text, TEXT_BYTES_MAX).to_owned());
    let result = match outcome {
        // Operators may read the log as well, where the cause stands.
        Err(error) => return failed(format!("{}: {}", error.code(), error.log_text())),
        Ok(result) => result.unwrap_or_default(),
    };
    if result.len() > RESULT_BYTES_MAX {
        return failed(format!("the result has {} bytes, and {RESULT_BYTES_MAX} are the most", result.len()));
    }
    match std::str::from_utf8(&result) {
        Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => Answer::Ran(text.to_owned()),
        // Only a route that is written by hand can do that.
        _ => failed("the result is not JSON".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Json;
    use crate::error::HandlerError;
    use crate::handler::IntoResult;

    fn failure(outcome: Outcome) -> String {
        match answer(outcome) {
            Answer::Failed(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_result_is_json_whatever_the_handler_returns() {
        let ran = |text: &str| Answer::Ran(text.to_owned());
        assert_eq!(answer(().into_result()), ran("null"));
        assert_eq!(answer("3".into_result()), ran("\"3\""));
        assert_eq!(answer(Json(vec![1, 2]).into_result()), ran("[1,2]"));
        assert_eq!(answer(Ok::<_, HandlerError>(String::from("done")).into_result()), ran("\"done\""));
        assert_eq!(failure(Ok(Some(Bytes::from_static(b"no json")))), "the result is not JSON");
        assert_eq!(failure(Ok(Some(Bytes::from_static(b"\xff")))), "the result is not JSON");
    }

    #[test]
    fn a_failure_says_its_code_and_its_cause_and_a_result_has_a_bound() {
        let error: HandlerError = std::io::Error::other("the disk is full").into();
        assert_eq!(failure(Err(error)), "handler: the handler failed: the disk is full");
        assert_eq!(failure(Err(HandlerError::new("x".repeat(5000)))).len(), TEXT_BYTES_MAX);
        let long = Bytes::from(vec![b'1'; RESULT_BYTES_MAX + 1]);
        assert_eq!(failure(Ok(Some(long))), "the result has 262145 bytes, and 262144 are the most");
    }
}
