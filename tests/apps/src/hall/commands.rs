//! Commands of the app, which operators run: on halls and their gate.

use std::time::Duration;

use ffserver::Route;
use ffserver::prelude::*;
use rocket::serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(crate = "rocket::serde")]
struct Greeting {
    user: String,
    #[serde(default)]
    times: u32,
}

#[derive(Serialize)]
#[serde(crate = "rocket::serde")]
struct Greeted {
    node: NodeName,
    by: NodeName,
    text: String,
}

/// Greets a user,
/// as often as is said.
///
/// What stands here is for who reads the code.
#[admin_handle("greet")]
async fn greet(
    node: Node,
    caller: Caller,
    Json(Greeting { user, times }): Json<Greeting>,
) -> Result<Json<Greeted>, HandlerError> {
    if user.is_empty() {
        return Err(HandlerError::new("nobody to greet"));
    }
    let text = vec![format!("hello {user}"); times as usize].join(", ");
    Ok(Json(Greeted { node: node.name().clone(), by: caller.node, text }))
}

#[derive(Deserialize)]
#[serde(crate = "rocket::serde")]
struct Wait {
    ms: u64,
}

/// Waits, and says that it has.
#[admin_handle]
async fn waits(Json(Wait { ms }): Json<Wait>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    "waited"
}

#[admin_handle("panic")]
async fn panics() {
    panic!("as asked");
}

/// Replaces all commands by one that greets otherwise.
#[admin_handle("turn")]
async fn turns(handlers: Handlers) -> Result<(), HandlerError> {
    let key = ffserver::handler::Key::Admin("greet".into());
    let route = Route::new(key, "greet of a script", |_| {
        Box::pin(async { Ok(Some(Bytes::from_static(b"{\"text\":\"otherwise\"}"))) })
    });
    handlers.replace(vec![route.described("Greets otherwise.", vec!["whom"])])?;
    Ok(())
}

pub(super) fn all() -> Vec<Route> {
    handlers![greet, waits, panics, turns]
}
