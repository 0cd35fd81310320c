//! The decision over one message of a client, at its edge of the cluster: a pure function of the login's stage, the handler
//! tables and the route.

use std::sync::Arc;

use ffconfig::RouteRule;
use ffproto::CommandId;

use crate::app::route::Route;
use crate::exec::tables::HandlerTables;
use crate::session::local::Stage;

/// What becomes of a client's message. With `is_login` the message is the login, which is asked for from now on.
pub(super) enum Decision<'t> {
    /// A handler of this node runs.
    Handle { route: &'t Arc<Route>, is_login: bool },
    /// The message goes to another node.
    Forward { rule: &'t RouteRule, is_login: bool },
    /// Nobody handles the command.
    NoRoute,
    /// The message is not accepted.
    Refuse(MessageRefusal),
}

/// Why a message is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum MessageRefusal {
    /// The client has logged in already.
    LoggedIn,
    /// The client's login, which is this command, comes first and alone.
    NotLoggedIn(CommandId),
}

/// Decides over a message of a client whose login, if the node asks for one, is the command `login`.
pub(super) fn decide(
    login: Option<CommandId>,
    stage: Stage,
    command: CommandId,
    tables: &HandlerTables,
) -> Decision<'_> {
    let is_login = match admit(login, stage, command) {
        Ok(is_login) => is_login,
        Err(refusal) => return Decision::Refuse(refusal),
    };
    if let Some(route) = tables.net(command) {
        return Decision::Handle { route, is_login };
    }
    match tables.route(command) {
        Some(rule) => Decision::Forward { rule, is_login },
        None => Decision::NoRoute,
    }
}

/// Whether a message is accepted, and whether it is the login.
fn admit(login: Option<CommandId>, stage: Stage, command: CommandId) -> Result<bool, MessageRefusal> {
    let Some(login) = login else { return Ok(false) };
    match (stage, command == login) {
        (Stage::In, false) => Ok(false),
        (Stage::In, true) => Err(MessageRefusal::LoggedIn),
        (Stage::Awaited, true) => Ok(true),
        (Stage::Awaited | Stage::Asked, _) => Err(MessageRefusal::NotLoggedIn(login)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::app::route::Key;
    use crate::cluster::configured_routes::ConfiguredRoutes;
    use crate::exec::tables::HandlerContext;
    use crate::identity::metrics::NodeMetrics;
    use crate::identity::watchdog::Watchdog;

    const LOGIN: CommandId = CommandId(1);
    const MOVE: CommandId = CommandId(2);

    #[test]
    fn without_a_login_every_message_is_accepted() {
        for stage in [Stage::In, Stage::Awaited, Stage::Asked] {
            assert_eq!(admit(None, stage, MOVE), Ok(false));
        }
    }

    #[test]
    fn the_login_comes_first_and_alone_and_once() {
        let admit = |stage, command| admit(Some(LOGIN), stage, command);
        assert_eq!(admit(Stage::Awaited, LOGIN), Ok(true));
        assert_eq!(admit(Stage::Awaited, MOVE), Err(MessageRefusal::NotLoggedIn(LOGIN)));
        assert_eq!(admit(Stage::Asked, LOGIN), Err(MessageRefusal::NotLoggedIn(LOGIN)));
        assert_eq!(admit(Stage::Asked, MOVE), Err(MessageRefusal::NotLoggedIn(LOGIN)));
        assert_eq!(admit(Stage::In, MOVE), Ok(false));
        assert_eq!(admit(Stage::In, LOGIN), Err(MessageRefusal::LoggedIn));
    }

    #[test]
    fn a_command_without_handler_and_route_is_nobodys() {
        let tables = HandlerTables::default();
        let decided = decide(None, Stage::In, MOVE, &tables);
        assert!(matches!(decided, Decision::NoRoute));
        let decided = decide(Some(MOVE), Stage::Awaited, MOVE, &tables);
        assert!(matches!(decided, Decision::NoRoute));
    }

    /// Tables with a handler of the login, and a route of the login and of `MOVE`.
    fn tables() -> HandlerTables {
        let config = r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": {
            "net": { "netport": 3, "app": "net", "route": { "range": { "game": [[1, 2]] } }, "remoteport": [{ "rootname": "gate", "rootport": 4 }] },
            "gate": { "rootport": 4, "app": "gate" },
            "game": { "app": "game", "remoteport": [{ "rootname": "gate", "rootport": 4 }] } } }"#;
        let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
        let login = Route::new(Key::Net(LOGIN.0), "login", |_| Box::pin(async { Ok(None) }));
        let config = cluster.node("net").unwrap();
        let context = HandlerContext {
            config,
            targets: &ConfiguredRoutes::of(&cluster, config),
            has_state: &|_| false,
            hooks_need_sessions: false,
            watchdog: &Watchdog::new(),
            metrics: &NodeMetrics::new(),
        };
        HandlerTables::build(vec![login], &context).unwrap()
    }

    #[test]
    fn a_handler_of_this_node_comes_before_a_route() {
        let tables = tables();
        let decided = |stage, command| decide(Some(LOGIN), stage, command, &tables);
        assert!(matches!(decided(Stage::Awaited, LOGIN), Decision::Handle { is_login: true, .. }));
        assert!(matches!(decided(Stage::In, MOVE), Decision::Forward { is_login: false, .. }));
    }

    #[test]
    fn a_login_without_a_handler_here_is_sent_on_as_such() {
        let tables = tables();
        let decided = decide(Some(MOVE), Stage::Awaited, MOVE, &tables);
        assert!(matches!(decided, Decision::Forward { is_login: true, .. }));
        let decided = decide(None, Stage::In, LOGIN, &tables);
        assert!(matches!(decided, Decision::Handle { is_login: false, .. }));
    }
}
