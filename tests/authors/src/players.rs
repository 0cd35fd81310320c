//! An argument and a reply of an author's own: the player behind a session, and comma-separated values.

use std::collections::BTreeMap;

use ffserver::handler::{CheckContext, FromBody, FromRequest, IntoReply, Outcome, Request};
use ffserver::prelude::*;
use parking_lot::Mutex;

/// The points of all players, by user: a state of the app.
#[derive(Default)]
struct Points(Mutex<BTreeMap<String, i64>>);

/// The player behind a session: its user, and the points that it has when its message is handled.
struct Player {
    name: String,
    points: i64,
}

impl FromRequest for Player {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        let user = request.session()?.user();
        let name = user.ok_or_else(|| HandlerError::bad_request("nobody has logged in"))?;
        let points = request.state::<Points>()?.0.lock().get(&name).copied().unwrap_or_default();
        Ok(Self { name, points })
    }

    fn check(facts: &CheckContext<'_>) -> Result<(), String> {
        facts.need_session();
        State::<Points>::check(facts)
    }
}

/// What a request says of itself, without its body being taken.
struct Label(String);

impl FromRequest for Label {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        let (caller, command) = (request.caller(), request.command().map(|command| command.0));
        let left = request.deadline().saturating_duration_since(tokio::time::Instant::now());
        let bytes = request.body().map(Bytes::len);
        let (here, in_time) = (request.node().name(), !left.is_zero());
        Ok(Self(format!("{here} for {}, {command:?}, {bytes:?} bytes, in time: {in_time}", caller.node)))
    }
}

/// Rows of comma-separated values, as a body and as a reply.
struct Csv(Vec<Vec<String>>);

impl FromBody for Csv {
    fn from_body(body: Bytes) -> Result<Self, String> {
        let text = std::str::from_utf8(&body).map_err(|e| format!("the body is no UTF-8 text: {e}"))?;
        Ok(Self(text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()))
    }
}

impl FromRequest for Csv {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        Csv::from_body(request.take_body()?).map_err(HandlerError::bad_request)
    }
}

impl IntoReply for Csv {
    fn into_reply(self) -> Outcome {
        let lines = self.0.iter().map(|row| row.join(",") + "\n");
        lines.collect::<String>().into_reply()
    }
}

#[net_handle(1)]
async fn log_in(session: Session, Body(user): Body<String>) -> Result<(), HandlerError> {
    session.bind(user).await.map_err(|error| HandlerError::new(error.to_string()))
}

/// Every row is a number; they are added to the player's points.
#[net_handle(1000)]
async fn score(player: Player, points: State<Points>, rows: Csv) -> Result<Csv, HandlerError> {
    let sum = rows.0.iter().flatten().map(|number| number.parse::<i64>()).sum::<Result<i64, _>>()?;
    points.0.lock().insert(player.name.clone(), player.points + sum);
    Ok(Csv(vec![vec![player.name, (player.points + sum).to_string()]]))
}

#[net_handle(1003)]
async fn standing(player: Player) -> Csv {
    Csv(vec![vec![player.name, player.points.to_string()]])
}

#[net_handle(1001)]
async fn label(Label(label): Label, Body(rows): Body<Csv>) -> String {
    format!("{label}, {} rows", rows.0.len())
}

#[net_handle(1002)]
async fn two_bodies(_first: Csv, _second: Body<Csv>) {}

/// The net node, the gate, and the game with the points.
pub fn apps() -> Vec<App> {
    let game = App::new("game").handlers(handlers![score, standing, label, two_bodies]);
    vec![
        App::new("net").handlers(handlers![log_in]),
        App::new("gate"),
        game.state(Points::default()).state_may_be_lost(),
    ]
}

/// The game without the state that its handlers' player needs.
pub fn without_points() -> App {
    App::new("game").handlers(handlers![standing])
}
