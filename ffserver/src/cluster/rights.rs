//! The rights of the other nodes at this one, as the config says them: what each may do to this node's sessions, which of
//! its methods each may call, and which clients' messages each may send. A pure table, made once.
//!
//! | right | has it, if `rights` in the config does not say otherwise |
//! | --- | --- |
//! | see, push, set, close, move | who handles this node's sessions |
//! | broadcast | the same, and every net node |
//! | claim, send commands, have sessions | net nodes |
//! | call | everybody; on behalf of a session who handles it, or may do anything to it |
//!
//! Who handles a net node's sessions: the nodes that its routes lead to, also over the routes of those; and what lies above
//! it, or above them: it carries their messages anyway. A net node without a route gives its sessions away by calls, of
//! which no config says whom they reach: then it is everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ffconfig::{Cluster, Nets, Node};
use ffproto::relay::{Envelope, Op};
use ffproto::{CommandId, NodeName};

/// A right over sessions of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// To be told of a session's state.
    See,
    /// To send its client a message.
    Push,
    /// To change its user, attributes or groups.
    Set,
    /// To end it.
    Close,
    /// To have it go on at another node.
    Move,
    /// To send many clients a message.
    Broadcast,
    /// To end it because its user has logged in elsewhere.
    Claim,
    /// To have sessions of its own.
    Own,
}

impl Right {
    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The right that an envelope takes at the node that it is for. `None` takes none: a call is for its method to judge,
    /// and the others do nothing.
    pub(crate) fn of(envelope: &Envelope<'_>) -> Option<Self> {
        match envelope.op? {
            // What carries a session's messages handles it, so it may ask by Ways.
            Op::Touch | Op::Check | Op::Ways => Some(Self::See),
            Op::Push => Some(Self::Push),
            Op::Set | Op::Join | Op::Leave => Some(Self::Set),
            Op::Close => Some(Self::Close),
            Op::Move => Some(Self::Move),
            Op::Broadcast => Some(Self::Broadcast),
            Op::Claim => Some(Self::Claim),
            // Of the writer's own sessions, as is checked before.
            Op::State | Op::Ended | Op::Enter | Op::Left | Op::NotMoved => Some(Self::Own),
            Op::Call | Op::Fence => None,
        }
    }

    /// The right by its key under `rights` in the config, for who reads why something was refused.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::See | Self::Push => "`push`",
            Self::Set => "`set`",
            Self::Close => "`close`",
            Self::Move => "`move`",
            Self::Broadcast => "`broadcast`",
            Self::Claim => "`claim`",
            Self::Own => "a session of its own",
        }
    }
}

/// Some rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RightSet(u8);

impl RightSet {
    pub(crate) fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    fn with(self, right: Right, has: bool) -> Self {
        if has { Self(self.0 | right.bit()) } else { self }
    }

    /// The set as a number, for who keeps it in a word.
    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    /// The set of [`RightSet::bits`].
    pub(crate) fn of_bits(bits: u8) -> Self {
        Self(bits)
    }
}

/// What one node may do at this one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NodeRights {
    /// Over this node's sessions.
    pub(crate) sessions: RightSet,
    /// The methods that it may call; `None` is all.
    pub(crate) methods: Option<BTreeSet<String>>,
    /// The commands of its clients.
    pub(crate) commands: Commands,
    /// The net nodes to whose sessions the config lets it do something.
    given: Vec<Nets>,
}

/// The commands of a node's clients that this node takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Commands {
    /// The node has no clients.
    #[default]
    None,
    /// All.
    All,
    /// Those between each pair, which are disjoint and sorted.
    Some(Vec<(CommandId, CommandId)>),
}

impl Commands {
    fn common(self, other: &Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::All, other) => other.clone(),
            (these, Self::All) => these,
            (Self::Some(these), Self::Some(others)) => {
                let both = |a: &(CommandId, CommandId), b: &(CommandId, CommandId)| {
                    let (first, last) = (a.0.max(b.0), a.1.min(b.1));
                    (first <= last).then_some((first, last))
                };
                Self::Some(these.iter().flat_map(|a| others.iter().filter_map(move |b| both(a, b))).collect())
            }
        }
    }

    /// Whether a command is among them.
    pub(crate) fn has(&self, command: CommandId) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(spans) => {
                let at = spans.partition_point(|(_, last)| *last < command);
                spans.get(at).is_some_and(|(first, _)| *first <= command)
            }
        }
    }
}

impl NodeRights {
    /// Whether the node may call a method of this one.
    pub(crate) fn may_call(&self, method: &str) -> bool {
        self.methods.as_ref().is_none_or(|all| all.contains(method) || all.contains(ANY))
    }

    /// What both have: of a node that no config names, only what every node of its kind may is known.
    fn common(self, other: &Self) -> Self {
        let methods = match (self.methods, &other.methods) {
            (None, methods) => methods.clone(),
            (methods, None) => methods,
            (Some(these), Some(others)) => {
                let has = |all: &BTreeSet<String>, method: &String| all.contains(method) || all.contains(ANY);
                let both = these.union(others).filter(|method| has(&these, method) && has(others, method));
                Some(both.cloned().collect())
            }
        };
        Self {
            sessions: RightSet(self.sessions.0 & other.sessions.0),
            methods,
            commands: self.commands.common(&other.commands),
            given: if self.given == other.given { self.given } else { Vec::new() },
        }
    }
}

/// Stands for every node, or every method, in `rights.call`.
const ANY: &str = "*";

/// The rights of all nodes at this one.
#[derive(Debug, Default)]
pub(crate) struct RightsTable {
    named: BTreeMap<NodeName, NodeRights>,
    /// Of nodes that no config names.
    kinds: BTreeMap<String, NodeRights>,
    /// Who handles the sessions of the net nodes, by their names, and by the kinds of those that no config names.
    handling: BTreeMap<NodeName, Arc<Handling>>,
    handling_of_kinds: BTreeMap<String, Arc<Handling>>,
    /// Whether some node may not call everything.
    restricts_calls: bool,
    time_left_ms_max: u32,
    none: NodeRights,
}

impl RightsTable {
    /// The rights at the node `me` of a config.
    pub(crate) fn of(cluster: &Cluster, me: &Node) -> Self {
        let mut table = Self::default();
        table.note_handling(cluster);
        let handling = table.handling.get(&me.name).cloned();
        for node in &cluster.nodes {
            let handles = handling.as_ref().is_some_and(|handling| handling.has(&node.name, &node.kind));
            let rights = node_rights(node, me, handles || node.name == me.name);
            let of_kind = table.kinds.get(&node.kind).cloned();
            let of_kind = of_kind.map_or_else(|| rights.clone(), |known| known.common(&rights));
            table.kinds.insert(node.kind.clone(), of_kind);
            table.named.insert(node.name.clone(), rights);
        }
        table.restricts_calls = table.named.values().any(|rights| rights.methods.is_some());
        let timeouts = cluster.nodes.iter().map(|node| node.limits.call_timeout);
        let timeout_max = timeouts.fold(me.limits.peer_timeout_max, Ord::max);
        table.time_left_ms_max = u32::try_from(timeout_max.as_millis()).unwrap_or(u32::MAX);
        table
    }

    fn note_handling(&mut self, cluster: &Cluster) {
        // The nodes of one key have the same route and the same parents.
        let mut of_keys: BTreeMap<&str, Arc<Handling>> = BTreeMap::new();
        for node in cluster.nodes.iter().filter(|node| node.netport.is_some()) {
            let handling = of_keys.entry(&node.key).or_insert_with(|| Arc::new(Handling::of(cluster, node)));
            self.handling.insert(node.name.clone(), handling.clone());
            self.handling_of_kinds.entry(node.kind.clone()).or_insert_with(|| handling.clone());
        }
    }

    /// Whether a node may have handlers run on behalf of the sessions of a net node: it is that one, handles its sessions,
    /// or the config lets it do something to them.
    pub(crate) fn acts_for(&self, node: (&NodeName, &str), net: (&NodeName, &str)) -> bool {
        let handling = self.handling.get(net.0).or_else(|| self.handling_of_kinds.get(net.1));
        node.0 == net.0
            || handling.is_some_and(|handling| handling.has(node.0, node.1))
            || self.of_node(node.0, node.1).given.iter().any(|nets| nets.has(net.1))
    }

    /// The rights of a node. One that no config names has those that all of its kind have, and one of a kind that no config
    /// names may do nothing but call.
    pub(crate) fn of_node(&self, name: &NodeName, kind: &str) -> &NodeRights {
        self.named.get(name).or_else(|| self.kinds.get(kind)).unwrap_or(&self.none)
    }

    /// Whether a node that is linked may call a method of this one.
    #[inline]
    pub(crate) fn may_call(&self, name: &NodeName, kind: &str, method: impl Fn() -> String) -> bool {
        !self.restricts_calls || self.of_node(name, kind).may_call(&method())
    }

    /// How long others may let what they call here run.
    #[inline]
    pub(crate) fn time_left_ms_max(&self) -> u32 {
        self.time_left_ms_max
    }
}

fn node_rights(node: &Node, me: &Node, handles: bool) -> NodeRights {
    let (rights, is_net) = (&node.rights, node.netport.is_some());
    let over =
        |nets: &Option<Nets>, otherwise: bool| nets.as_ref().map_or(otherwise, |nets| nets.has(&me.kind));
    let push = over(&rights.push, handles);
    let broadcast = over(&rights.broadcast, if rights.push.is_some() { push } else { handles } || is_net);
    let of_one = [
        (Right::Push, push),
        (Right::Set, over(&rights.set, handles)),
        (Right::Close, over(&rights.close, handles)),
        (Right::Move, over(&rights.moves, handles)),
    ];
    // Who may do anything to a session has to know it.
    let see = handles || of_one.iter().any(|(_, has)| *has);
    let of_many = [
        (Right::See, see),
        (Right::Broadcast, broadcast),
        (Right::Claim, is_net && rights.claim.unwrap_or(true)),
        (Right::Own, is_net),
    ];
    let all = of_one.into_iter().chain(of_many);
    let commands = match &rights.commands {
        _ if !is_net => Commands::None,
        None => Commands::All,
        Some(spans) => Commands::Some(spans.clone()),
    };
    NodeRights {
        sessions: all.fold(RightSet::default(), |set, (right, has)| set.with(right, has)),
        methods: rights.call.as_ref().map(|call| {
            let mine =
                |callee: &str| callee == ANY || callee == me.key || callee == me.kind || me.name == *callee;
            let lists = call.iter().filter(|(callee, _)| mine(callee));
            lists.flat_map(|(_, methods)| methods.iter().cloned()).collect()
        }),
        commands,
        given: [&rights.push, &rights.set, &rights.close, &rights.moves]
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
    }
}

/// Who handles the sessions of some net nodes.
#[derive(Debug, Default)]
struct Handling {
    names: BTreeSet<NodeName>,
    /// The kinds of which every node does.
    kinds: BTreeSet<String>,
}

impl Handling {
    fn of(cluster: &Cluster, net: &Node) -> Self {
        let names: BTreeSet<NodeName> = if net.route.is_empty() {
            // The config does not say, so it is everybody whom it names.
            cluster.nodes.iter().map(|node| node.name.clone()).collect()
        } else {
            handling(cluster, net).into_iter().cloned().collect()
        };
        let lacking = cluster.nodes.iter().filter(|node| !names.contains(&node.name));
        let lacking: BTreeSet<&str> = lacking.map(|node| node.kind.as_str()).collect();
        let kinds = cluster.nodes.iter().map(|node| &node.kind);
        let kinds = kinds.filter(|kind| !lacking.contains(kind.as_str())).cloned().collect();
        Self { names, kinds }
    }

    fn has(&self, name: &NodeName, kind: &str) -> bool {
        self.names.contains(name) || self.kinds.contains(kind)
    }
}

/// The nodes that the routes of a net node lead to, and those above them and it.
fn handling<'c>(cluster: &'c Cluster, net: &'c Node) -> BTreeSet<&'c NodeName> {
    let mut found: BTreeSet<&NodeName> = BTreeSet::new();
    let mut open = vec![net];
    while let Some(node) = open.pop() {
        let rules = node.route.rules();
        let led_to = |other: &&Node| rules.iter().any(|rule| rule.to.means(other.name.as_str(), &other.kind));
        open.extend(cluster.nodes.iter().filter(led_to).filter(|other| found.insert(&other.name)));
    }
    let mut open: Vec<&NodeName> = found.iter().copied().chain([&net.name]).collect();
    while let Some(name) = open.pop() {
        let parents = cluster.node(name.as_str()).into_iter().flat_map(|node| &node.parents);
        open.extend(parents.map(|parent| &parent.name).filter(|parent| found.insert(parent)));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// obEspoir's layers, with a chat that no route leads to and a second proxy without a route; `MORE` stands for rights.
    const LAYERS: &str = r#"{"master": {"rootport": 9999, "webport": 9998}, "servers": {
        "top": {"app": "top", "rootport": 10000},
        "route": {"app": "route", "rootport": 10001, "remoteport": [{"rootname": "top"}],
                  "route": {"range": {"service": [[5001, 9999]]}}},
        "proxy": {"app": "proxy", "netport": 20000, "remoteport": [{"rootname": "route"}],
                  "route": {"range": {"route": [[0, 9999]]}}},
        "open": {"app": "open", "netport": 20001, "remoteport": [{"rootname": "route"}]},
        "service": {"app": "service", "count": 2, "remoteport": [{"rootname": "route"}] MORE},
        "chat": {"app": "chat", "remoteport": [{"rootname": "route"}]}
    }}"#;

    fn table(me: &str, more: &str) -> RightsTable {
        let text = LAYERS.replace("MORE", more);
        let cluster = ffconfig::parse(&text, Path::new("config.json"), &|_| None).unwrap().cluster;
        RightsTable::of(&cluster, cluster.node(me).unwrap())
    }

    /// The keys of what a node may do at `me`.
    fn may(me: &str, more: &str, node: (&str, &str)) -> String {
        let all = [
            Right::Own,
            Right::See,
            Right::Push,
            Right::Set,
            Right::Close,
            Right::Move,
            Right::Broadcast,
            Right::Claim,
        ];
        let table = table(me, more);
        let set = table.of_node(&NodeName::try_from(node.0).unwrap(), node.1).sessions;
        assert_eq!(RightSet::of_bits(set.bits()), set);
        let shown = all.into_iter().filter(|right| set.has(*right));
        shown
            .map(|right| if right == Right::See { "see" } else { right.shown().trim_matches('`') })
            .collect::<Vec<_>>()
            .join(" ")
    }

    const ALL_OF_A_HANDLER: &str = "see push set close move broadcast";

    #[test]
    fn those_that_routes_lead_to_and_those_above_them_handle_sessions() {
        for node in ["route", "service.1", "service.2", "top"] {
            assert_eq!(may("proxy", "", (node, "")), ALL_OF_A_HANDLER, "{node}");
        }
        assert_eq!(may("proxy", "", ("chat", "chat")), "");
        assert_eq!(may("proxy", "", ("open", "open")), "a session of its own broadcast claim");
        assert_eq!(
            may("proxy", "", ("proxy", "proxy")),
            "a session of its own see push set close move broadcast claim"
        );
    }

    #[test]
    fn sessions_of_a_node_without_a_route_are_everybodys() {
        assert_eq!(may("open", "", ("chat", "chat")), ALL_OF_A_HANDLER);
    }

    #[test]
    fn a_node_that_no_config_names_has_what_all_of_its_kind_have_and_one_of_no_kind_has_nothing() {
        assert_eq!(may("proxy", "", ("service.9", "service")), ALL_OF_A_HANDLER);
        assert_eq!(may("proxy", "", ("chat.9", "chat")), "");
        assert_eq!(may("open", "", ("stranger", "stranger")), "");
        assert_eq!(
            table("open", "").of_node(&NodeName::try_from("s").unwrap(), "s").commands,
            Commands::None
        );
    }

    #[test]
    fn the_config_takes_rights_and_gives_them() {
        let of = |rights: &str| may("proxy", &format!(r#", "rights": {rights}"#), ("service.1", "service"));
        assert_eq!(of("{}"), ALL_OF_A_HANDLER);
        assert_eq!(
            of(r#"{"push": false}"#),
            "see set close move",
            "who pushes to nobody broadcasts to nobody"
        );
        assert_eq!(of(r#"{"push": false, "broadcast": true}"#), "see set close move broadcast");
        assert_eq!(of(r#"{"close": ["open"], "move": ["proxy"], "set": []}"#), "see push move broadcast");
        let chat = |rights: &str| {
            let more = format!(
                r#"}}, "world": {{"app": "world", "remoteport": [{{"rootname": "top"}}], "rights": {rights}"#
            );
            may("proxy", &more, ("world", "world"))
        };
        assert_eq!(chat("{}"), "");
        assert_eq!(chat(r#"{"push": ["proxy"]}"#), "see push broadcast");
        assert_eq!(chat(r#"{"broadcast": true}"#), "broadcast");
    }

    #[test]
    fn calls_are_restricted_by_node_key_kind_and_method() {
        let call = r#", "rights": {"call": {"chat": ["say", "hear"], "top": ["*"], "service.2": ["greet"], "*": ["ping"]}}"#;
        let may_call = |me: &str, method: &str| {
            let (table, from) = (table(me, call), NodeName::try_from("service.1").unwrap());
            table.may_call(&from, "service", || method.to_owned())
        };
        assert!(may_call("chat", "say") && may_call("chat", "ping") && !may_call("chat", "ban"));
        assert!(
            may_call("top", "whatever") && may_call("service.2", "greet") && !may_call("service.1", "greet")
        );
        let chat = NodeName::try_from("chat").unwrap();
        assert!(table("top", call).may_call(&chat, "chat", || "whatever".into()), "it is not restricted");
    }

    #[test]
    fn commands_are_those_of_net_nodes() {
        let of = |name: &str| {
            table("service.1", "").of_node(&NodeName::try_from(name).unwrap(), "").commands.clone()
        };
        assert_eq!(
            (of("proxy"), of("route"), of("service.2")),
            (Commands::All, Commands::None, Commands::None)
        );
        let spans = Commands::Some(vec![(CommandId(1), CommandId(5)), (CommandId(9), CommandId(9))]);
        let has: Vec<u32> = (0..12).filter(|command| spans.has(CommandId(*command))).collect();
        assert_eq!(has, [1, 2, 3, 4, 5, 9]);
        let others = Commands::Some(vec![(CommandId(4), CommandId(20))]);
        let both = Commands::Some(vec![(CommandId(4), CommandId(5)), (CommandId(9), CommandId(9))]);
        assert_eq!(spans.clone().common(&others), both);
        assert_eq!(spans.clone().common(&Commands::All), spans);
        assert_eq!(spans.common(&Commands::None), Commands::None);
    }

    #[test]
    fn on_behalf_of_a_session_calls_who_handles_it_or_may_do_something_to_it() {
        let acts = |more: &str, node: (&str, &str), net: (&str, &str)| {
            let name = |name: &str| NodeName::try_from(name).unwrap();
            table("top", more).acts_for((&name(node.0), node.1), (&name(net.0), net.1))
        };
        for node in ["proxy", "route", "service.1", "top"] {
            assert!(acts("", (node, ""), ("proxy", "proxy")), "{node}");
        }
        assert!(acts("", ("service.9", "service"), ("proxy.9", "proxy")), "as those of their kinds");
        for node in ["chat", "open", "stranger"] {
            assert!(!acts("", (node, node), ("proxy", "proxy")), "{node}");
        }
        assert!(acts("", ("chat", "chat"), ("open", "open")), "it has no route");
        assert!(!acts("", ("stranger", "stranger"), ("open", "open")));
        assert!(!acts("", ("chat", "chat"), ("service.1", "service")), "it has no sessions");
        let world = r#"}, "world": {"app": "world", "remoteport": [{"rootname": "top"}], "rights": {"close": ["proxy"]}"#;
        assert!(acts(world, ("world", "world"), ("proxy", "proxy")));
        assert!(!acts(world.replace("proxy", "open").as_str(), ("world", "world"), ("proxy", "proxy")));
    }

    #[test]
    fn a_peers_time_is_capped_by_a_limit_that_no_node_of_the_config_is_above() {
        let cap = |more| table("top", more).time_left_ms_max();
        assert_eq!(cap(""), 60_000);
        assert_eq!(cap(r#", "limits": {"call_timeout_ms": 90000}"#), 90_000);
    }
}
