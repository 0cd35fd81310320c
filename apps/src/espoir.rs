//! obEspoir's demo: a proxy that holds the clients and handles nothing, a route that handles some commands and
//! knows who handles the others, and a service. Same commands, same texts; docs/routing.md.

use ffserver::prelude::*;
use ffserver::tracing::info;
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct Answer<T> {
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<T>,
}

impl<T> Answer<T> {
    fn ok(data: T) -> Json<Self> {
        Json(Self { code: 200, data: Some(data) })
    }
}

#[derive(Deserialize)]
struct Login {
    name: String,
    passwd: String,
}

#[derive(Serialize)]
struct LoggedIn {
    user_id: u32,
    desc: &'static str,
}

/// obEspoir answered nothing to a login without a name; here its client reads why.
#[net_handle(1000)]
async fn login(Json(Login { name, passwd }): Json<Login>) -> Result<Json<Answer<LoggedIn>>, HandlerError> {
    if name.is_empty() || passwd.is_empty() {
        return Err(HandlerError::new("name and passwd are expected"));
    }
    info!("login: {name}");
    Ok(Answer::ok(LoggedIn { user_id: 10, desc: "恭喜，登录接口测试通过~" }))
}

#[derive(Deserialize)]
struct EnterRank {
    user_id: u32,
}

#[derive(Serialize)]
struct Entered {
    desc: &'static str,
}

#[net_handle(20000)]
async fn enter_rank(Json(EnterRank { user_id }): Json<EnterRank>) -> Json<Answer<Entered>> {
    info!("enter rank: user {user_id}");
    Answer::ok(Entered { desc: "恭喜，进入排位场房间接口测试通过~" })
}

#[net_handle(10000)]
async fn heart_beat() -> Json<Answer<()>> {
    Json(Answer { code: 200, data: None })
}

/// What a client says that leaves; one that says nothing is noticed all the same, see [`told_of_ends`].
#[net_handle(100_130)]
async fn offline(caller: Caller) {
    info!("offline: {:?}", caller.session);
}

/// obEspoir sent command 999 to some route, and no service heard of it.
fn told_of_ends(app: App) -> App {
    app.on_session_closed(|_, session| async move { info!("session {} is gone", session.id()) })
}

#[rocket::get("/")]
fn index() -> &'static str {
    "hello"
}

/// The demo's client posts.
#[rocket::post("/")]
fn posted() -> &'static str {
    "hello"
}

fn app(name: &'static str) -> App {
    App::new(name).web("/", rocket::routes![index, posted])
}

pub(crate) fn proxy() -> App {
    app("espoirproxy")
}

pub(crate) fn route() -> App {
    told_of_ends(app("espoirroute")).handlers(handlers![login, heart_beat, offline])
}

pub(crate) fn service() -> App {
    told_of_ends(app("espoirservice")).handlers(handlers![enter_rank])
}
