//! The model out of checked keys: every default applied, every `count` written out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ffproto::encrypt::Encrypt;
use ffproto::{ClusterName, CommandId, NodeName};

use crate::conf::Conf;
use crate::database::database;
use crate::fields::Fields;
use crate::limits;
use crate::logs;
use crate::model::{
    Backoff, Cluster, Login, Master, Memcached, Node, Operator, OperatorRole, Parent, Restart, SecondLogin,
    Tls, Token,
};
use crate::nodes::Draft;
use crate::parents::Link;
use crate::ports::own_host;
use crate::report::Report;
use crate::value::{Placed, Value};
use crate::{operators, rights, routes};

/// The cluster of a config without faults; `None` when it has one.
pub(crate) fn cluster(
    root: &Fields,
    drafts: &[Draft<'_>],
    links: &[Vec<Link<'_>>],
    path: &Path,
    report: &Report<'_>,
) -> Option<Cluster> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = ClusterName::try_from(root.text("cluster").unwrap_or("cluster")).ok()?;
    let mut nodes = Vec::new();
    for (draft, links) in drafts.iter().zip(links) {
        let conf = conf(draft, report);
        for index in 0..draft.names.len() {
            nodes.push(node(root, draft, index, parents(links, drafts), conf.clone(), folder)?);
        }
    }
    let uses_db = root.given("db") || nodes.iter().any(|node| node.db);
    Some(Cluster {
        path: path.to_owned(),
        master: master(root.section("master")?, folder)?,
        db: uses_db.then(|| database(root.section("db"), folder, &name)),
        databases: root
            .map("databases")
            .iter()
            .map(|entry| (entry.key.clone(), database(entry.item.fields(), folder, &name)))
            .collect(),
        memcached: root.section("memcached").map(|fields| memcached(fields, &name)),
        appmain: appmain(root, folder),
        second_login: match root.text("second_login") {
            Some("refuse_new") => SecondLogin::RefuseNew,
            _ => SecondLogin::KickOld,
        },
        data_dir: folder.join(root.text("data_dir").unwrap_or("data")),
        name,
        nodes,
    })
}

pub(crate) fn appmain(root: &Fields, folder: &Path) -> Option<PathBuf> {
    root.text("appmain").map(|program| folder.join(program))
}

fn master(fields: &Fields, folder: &Path) -> Option<Master> {
    Some(Master {
        rootport: fields.listen("rootport")?,
        webport: fields.listen("webport")?,
        roothost: fields.text("roothost").unwrap_or("localhost").to_owned(),
        token: token(fields, folder),
        operators: fields.list("operators").iter().filter_map(operator).collect(),
        tls: fields.section("tls").and_then(|fields| tls(fields, folder)),
        plain_http: fields.bool("plain_http").unwrap_or(false),
        encrypt: match fields.text("encrypt") {
            Some("always") => Encrypt::Always,
            Some("never") => Encrypt::Never,
            _ => Encrypt::Auto,
        },
        log: logs::log(fields, folder),
        restart: fields.section("restart").map(restart).unwrap_or_default(),
    })
}

fn token(fields: &Fields, folder: &Path) -> Option<Token> {
    if let Some(text) = fields.text("token") {
        return Some(Token::Text(text.to_owned()));
    }
    let place = fields.section("token")?;
    let file = place.text("file").map(|file| Token::File(folder.join(file)));
    file.or_else(|| place.text("credential").map(|name| Token::Credential(name.to_owned())))
}

fn operator(placed: &Placed) -> Option<Operator> {
    let fields = placed.fields()?;
    let role = if fields.text("role")? == "operate" { OperatorRole::Operate } else { OperatorRole::Read };
    Some(Operator {
        name: fields.text("name")?.to_owned(),
        role,
        hash: operators::hash(fields.text("hash")?)?,
    })
}

fn tls(fields: &Fields, folder: &Path) -> Option<Tls> {
    Some(Tls { cert: folder.join(fields.text("cert")?), key: folder.join(fields.text("key")?) })
}

fn restart(fields: &Fields) -> Restart {
    let default = Restart::default();
    Restart {
        backoff: Backoff {
            min: fields.number("wait_ms_min").map_or(default.backoff.min, Duration::from_millis),
            max: fields.number("wait_ms_max").map_or(default.backoff.max, Duration::from_millis),
        },
        healthy: fields.number("healthy_s").map_or(default.healthy, Duration::from_secs),
        crash_loop: fields.number("crash_loop").unwrap_or(default.crash_loop),
        max: fields.number("max").map_or(default.max, |max| (max > 0).then_some(max)),
    }
}

fn memcached(fields: &Fields, cluster: &ClusterName) -> Memcached {
    let urls = fields.list("urls").iter().filter_map(|url| match &url.value {
        Value::Text(url) => Some(url.clone()),
        _ => None,
    });
    Memcached {
        urls: urls.collect(),
        prefix: fields.text("hostname").unwrap_or(cluster.as_str()).to_owned(),
        timeout: Duration::from_millis(fields.number("timeout_ms").unwrap_or(1000)),
    }
}

fn conf(draft: &Draft<'_>, report: &Report<'_>) -> Conf {
    match draft.fields.and_then(|fields| fields.get("conf")).map(|conf| &conf.value) {
        Some(Value::Free(conf)) => Conf::given(conf.clone()),
        _ => Conf::none(draft.key_place, report),
    }
}

fn node(
    root: &Fields,
    draft: &Draft<'_>,
    index: usize,
    parents: Vec<Parent>,
    conf: Conf,
    folder: &Path,
) -> Option<Node> {
    let fields = draft.fields?;
    let app = fields.text("app")?.to_owned();
    Some(Node {
        name: draft.names.get(index)?.clone(),
        key: draft.key.to_owned(),
        kind: draft.kind()?.to_owned(),
        app,
        conf,
        host: own_host(fields).map(str::to_owned),
        netport: draft.listen("netport", index),
        rootport: draft.listen("rootport", index),
        webport: draft.listen("webport", index),
        parents,
        db: fields.bool("db").unwrap_or(false),
        databases: match fields.bool("db") {
            Some(true) => root.map("databases").iter().map(|entry| entry.key.clone()).collect(),
            _ => Vec::new(),
        },
        mem: fields.bool("mem").unwrap_or(false),
        log: logs::log(fields, folder),
        process: match fields.text("process") {
            Some(process) => Some(NodeName::try_from(process).ok()?),
            None => None,
        },
        cpu: fields.cpus("cpu").map(<[usize]>::to_vec),
        reload: fields.text("reload").map(str::to_owned),
        threads: fields.number("threads").unwrap_or(1),
        drain: Duration::from_secs(fields.number("drain_s").unwrap_or(10)),
        client: limits::client(root.section("client"), fields.section("client")),
        limits: limits::limits(
            root.section("limits"),
            fields.section("limits"),
            draft.listen("netport", index),
        ),
        login: fields.section("login").and_then(login),
        rights: fields.section("rights").map(rights::rights).unwrap_or_default(),
        route: fields.section("route").map(routes::route).unwrap_or_default(),
    })
}

fn login(fields: &Fields) -> Option<Login> {
    let command = CommandId(fields.command("command")?);
    Some(Login { command, timeout: Duration::from_secs(fields.number("timeout_s").unwrap_or(10)) })
}

fn parents(links: &[Link<'_>], drafts: &[Draft<'_>]) -> Vec<Parent> {
    let mut parents = Vec::new();
    for link in links {
        let Some(draft) = drafts.get(link.draft) else { continue };
        for index in link.nodes.clone() {
            if let (Some(name), Some(listen)) = (draft.names.get(index), draft.listen("rootport", index)) {
                parents.push(Parent {
                    name: name.clone(),
                    key: draft.key.to_owned(),
                    host: link.host.map(str::to_owned),
                    port: listen.port(),
                });
            }
        }
    }
    parents
}
