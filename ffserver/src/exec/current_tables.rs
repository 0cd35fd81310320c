//! The current handler tables of a node, which others may take the place of between two messages. Who reads them for each
//! message takes no lock: a look at the tables in use tells whether they are still the current ones.

use std::sync::Arc;

use ffnet::Link;
use ffproto::relay::METHODS;
use parking_lot::Mutex;

use crate::cluster::payload::encode;
use crate::exec::methods::Methods;
use crate::exec::tables::{Audience, CheckedRoutes, HandlerContext, HandlerTables, NoNumbers};
use crate::identity::watchdog::Watchdog;
use crate::transit::Transit;

/// The current handler tables of a node, and what it takes to make the next ones.
pub(crate) struct CurrentTables {
    current: Mutex<Arc<HandlerTables>>,
    pub(crate) hooks_need_sessions: bool,
    pub(crate) watchdog: Arc<Watchdog>,
}

impl CurrentTables {
    pub(crate) fn new(first: Arc<HandlerTables>, hooks_need_sessions: bool, watchdog: Arc<Watchdog>) -> Self {
        Self { current: Mutex::new(first), hooks_need_sessions, watchdog }
    }

    /// The current tables, by a lock. Who handles messages takes it once for each read, see [`TablesInUse`].
    pub(crate) fn get(&self) -> Arc<HandlerTables> {
        self.current.lock().clone()
    }

    /// Makes tables of these handlers the current ones. Every message that a node takes up after this is handled by them; one
    /// that was taken up before keeps the tables that it began with. The neighbours are told of methods that have come and
    /// gone, behind everything that they have been sent: until it arrives they call what they know.
    ///
    /// # Errors
    /// There are no numbers left for new methods. Nothing has changed then.
    pub(crate) fn replace(
        &self,
        routes: CheckedRoutes,
        context: &HandlerContext<'_>,
        transit: &Transit,
    ) -> Result<(), NoNumbers> {
        let mut current = self.current.lock();
        let before = current.clone();
        *current = Arc::new(before.next(routes, context)?);
        before.set_replaced();
        // Under the lock, so that a link is told of changes in their order, and in order with its beginning.
        for link in transit.children().links() {
            tell(link, Audience::CHILDREN, &before, &current);
        }
        for parent in transit.parents().iter() {
            if let Some(audience) = Audience::parent(context.config, parent.name.as_str(), &parent.group) {
                parent.links().for_each(|link| tell(link, audience, &before, &current));
            }
        }
        drop(current);
        Ok(())
    }

    /// Tells a link, which [`CurrentTables::replace`] sees from now on, what has changed since its handshake.
    pub(crate) fn begin_link(&self, link: &Link, audience: Audience, told: &HandlerTables) {
        let current = self.current.lock();
        tell(link, audience, told, &current);
    }
}

/// Tells the peer of a link which methods have come and gone between two tables.
fn tell(link: &Link, audience: Audience, before: &HandlerTables, now: &HandlerTables) {
    let none = Methods::default();
    let (before, now) = (before.methods(audience).unwrap_or(&none), now.methods(audience).unwrap_or(&none));
    let change = now.change_since(before);
    if change.add.is_empty() && change.remove.is_empty() {
        return;
    }
    if link.notify_of_link(METHODS, &encode(&change)).is_err() {
        // The next handshake tells everything.
        link.close("the change of its methods cannot be told on this link");
    }
}

/// The tables in use for what one read has brought: got once, and again when others have taken their place meanwhile. Nobody
/// keeps them for longer: a client that says nothing for a day does not keep the handlers of yesterday.
#[derive(Default)]
pub(crate) struct TablesInUse(Option<Arc<HandlerTables>>);

impl TablesInUse {
    /// The current tables.
    #[inline]
    pub(crate) fn current(&mut self, of: &CurrentTables) -> &Arc<HandlerTables> {
        if self.0.as_ref().is_some_and(|tables| tables.is_replaced()) {
            self.0 = None;
        }
        self.0.get_or_insert_with(|| of.get())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use ffnet::handshake::Peer;
    use ffnet::link::Driver;
    use ffproto::link::Kind;
    use ffproto::relay::MethodsChange;
    use ffproto::{CommandId, Incarnation, NodeName, link};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;
    use crate::app::handler::FromRequest;
    use crate::app::route::{Key, Route};
    use crate::cluster::payload::decode;
    use crate::cluster::side::{PeerKey, Side};
    use crate::exec::executor::Executor;
    use crate::exec::handlers::{Handlers, ReplaceError};
    use crate::ops::inbound::Inbound;
    use crate::ops::link_service::LinkService;
    use crate::runtime::server::bare;

    /// A gate without handlers that nobody runs.
    fn gate() -> Arc<Executor> {
        let config = r#"{ "master": { "rootport": 1, "webport": 2 },
                          "servers": { "gate": { "rootport": 3, "app": "gate" } } }"#;
        let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
        let executor = bare(&cluster, "gate").unwrap();
        // The reserved methods have their numbers from the start: 0 to 4.
        replace(&executor, vec![]).unwrap();
        executor
    }

    fn route(key: Key) -> Route {
        Route::new(key, "handler", |_| Box::pin(async { Ok(None) }))
    }

    fn root(method: &str) -> Route {
        route(Key::Root(method.into()))
    }

    fn replace(executor: &Executor, routes: Vec<Route>) -> Result<(), ReplaceError> {
        Handlers::of(&executor.node).unwrap().replace(routes)
    }

    /// A link to a child that knows these methods.
    fn child(executor: &Executor, methods: &[&str]) -> Link {
        let peer = Peer {
            name: NodeName::try_from("game").unwrap(),
            kind: "game".into(),
            incarnation: Incarnation(1),
            pid: 1,
            program: String::new(),
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            version: ffproto::Versions::OURS.max,
            root: ffproto::credential::PublicKey([0; 32]),
        };
        executor.node.transit().new_link(peer)
    }

    /// The changes that a link has been told, within a moment.
    async fn told(executor: &Arc<Executor>, link: &Link) -> Vec<MethodsChange> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let at = PeerKey::new(Side::Child, link.peer().name.clone());
        let inbound = Arc::new(Inbound::new(executor.clone()));
        let driver = Driver::new(link.clone(), ours, LinkService::new(inbound, at, Audience::CHILDREN));
        let _ = timeout(Duration::from_millis(1), driver).await;
        let (mut bytes, mut changes) = (Vec::new(), Vec::new());
        theirs.read_to_end(&mut bytes).await.unwrap();
        let mut rest = &bytes[..];
        while let Some(frame) = link::read(rest, u32::MAX).unwrap() {
            if frame.head.kind == Kind::Notify && frame.head.method == 0 {
                changes.push(decode(frame.body).unwrap());
            }
            rest = &rest[frame.bytes..];
        }
        changes
    }

    #[test]
    fn a_reader_has_the_tables_of_now_although_another_one_still_uses_those_before() {
        let (executor, mut in_use) = (gate(), TablesInUse::default());
        let before = in_use.current(&executor.tables).clone();
        assert!(Arc::ptr_eq(&before, in_use.current(&executor.tables)));
        replace(&executor, vec![route(Key::Net(1))]).unwrap();
        let now = in_use.current(&executor.tables);
        assert!(now.net(CommandId(1)).is_some() && before.net(CommandId(1)).is_none());
        assert!(Arc::ptr_eq(now, &executor.tables.get()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_has_nothing_to_read_keeps_no_handler_alive() {
        let (executor, script) = (gate(), Arc::new(()));
        let held = script.clone();
        let handler = move |_| -> crate::app::handler::HandlerFuture {
            let _ = &held;
            Box::pin(async { Ok(None) })
        };
        replace(&executor, vec![Route::new(Key::Root("run".into()), "script", handler)]).unwrap();
        let link = child(&executor, &[]);
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let inbound = Arc::new(Inbound::new(executor.clone()));
        let at = PeerKey::new(Side::Child, link.peer().name.clone());
        let mut driver = Driver::new(link.clone(), ours, LinkService::new(inbound, at, Audience::CHILDREN));
        let mut call = Vec::new();
        let head = link::Head { method: 5, call: 9, time_left_ms: 1000, ..link::Head::new(Kind::Call) };
        head.write(b"", &mut call);
        theirs.write_all(&call).await.unwrap();
        let _ = timeout(Duration::from_millis(1), &mut driver).await;
        let mut answer = [0; 16];
        theirs.read_exact(&mut answer).await.unwrap();
        assert_eq!(link::read(&answer, 100).unwrap().unwrap().head.call, 9, "it has run");
        assert_eq!(Arc::strong_count(&script), 2);
        replace(&executor, vec![]).unwrap();
        assert_eq!(Arc::strong_count(&script), 1);
    }

    #[test]
    fn handlers_that_do_not_fit_change_nothing_and_every_fault_is_told() {
        let executor = gate();
        let handlers = Handlers::of(&executor.node).unwrap();
        handlers.replace(vec![root("a")]).unwrap();
        let needs = route(Key::Net(1)).checked_by(crate::State::<u8>::check).at("script", 7);
        let Err(ReplaceError::Faults { faults }) =
            handlers.replace(vec![root("b"), root("b"), needs, root("@"), root("")])
        else {
            panic!("it fits");
        };
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(
            faults[0].contains("is claimed by") && faults[1].contains("(script:7) takes State<u8>"),
            "{faults:?}"
        );
        assert_eq!(format!("{:?}", handlers.list()), "[`handler` (method `a` for children)]");
        assert_eq!(executor.tables.get().names(Audience::CHILDREN)[5..], ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_told_what_has_changed_since_its_handshake_and_then_every_change() {
        let executor = gate();
        replace(&executor, vec![root("a"), root("b")]).unwrap();
        let of_handshake = executor.tables.get();
        replace(&executor, vec![root("b"), root("c")]).unwrap();
        let link = child(&executor, &[METHODS]);
        assert!(executor.node.transit().add_child(link.clone()));
        executor.tables.begin_link(&link, Audience::CHILDREN, &of_handshake);
        replace(&executor, vec![root("c"), root("b")]).unwrap();
        replace(&executor, vec![root("a")]).unwrap();
        let first = MethodsChange { add: vec![(7, "c".into())], remove: vec![5] };
        let last = MethodsChange { add: vec![(5, "a".into())], remove: vec![6, 7] };
        assert_eq!(told(&executor, &link).await, [first, last], "another order is no change");
    }

    #[test]
    fn a_parent_that_no_config_names_may_call_what_is_for_its_key_and_not_what_is_for_one_of_another_name() {
        let config = r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": {
            "gate": { "rootport": 3, "app": "gate", "count": 2 },
            "game": { "app": "game", "remoteport": [{ "rootname": "gate" }] } } }"#;
        let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
        let executor = bare(&cluster, "game").unwrap();
        let remote =
            |parent: &str, method: &str| route(Key::Remote { parent: parent.into(), method: method.into() });
        replace(&executor, vec![remote("gate", "all"), remote("gate.1", "first")]).unwrap();
        let may_call = |name: &str, key: &str| {
            let audience = Audience::parent(executor.node.config(), name, key)?;
            let names = executor.tables.get().names(audience);
            Some(names.into_iter().filter(|name| !name.starts_with('@')).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(may_call("gate.1", "gate").unwrap(), "all first");
        assert_eq!(may_call("gate.2", "gate").unwrap(), "all");
        assert_eq!(may_call("gate.9", "gate").unwrap(), "all");
        assert_eq!(may_call("else", "unheard"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_cannot_be_told_of_changes_is_to_link_anew() {
        let executor = gate();
        let link = child(&executor, &["enter"]);
        assert!(executor.node.transit().add_child(link.clone()));
        replace(&executor, vec![root("a")]).unwrap();
        assert!(link.is_closed());
        assert!(told(&executor, &link).await.is_empty());
    }
}
