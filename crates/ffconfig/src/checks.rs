//! What keys of different places say about each other, beside ports and parents.

use std::net::SocketAddr;

use ffproto::NodeName;

use crate::fields::Fields;
use crate::limits;
use crate::logs;
use crate::nodes::Draft;
use crate::report::Report;
use crate::value::Entry;
use crate::{database, operators, ports};

/// Checks everything that no single key can say.
pub(crate) fn check(root: &Fields, drafts: &[Draft<'_>], report: &mut Report<'_>) {
    let master = root.section("master");
    ports::check(master, drafts, report);
    check_token(master, drafts, report);
    if let Some(master) = master {
        operators::check(master, report);
        check_https(master, report);
    }
    logs::check(master, drafts, report);
    check_encrypt(master, drafts, report);
    check_memcached(root, drafts, report);
    if let Some(db) = root.section("db") {
        database::check(db, report);
    }
    for entry in root.map("databases") {
        check_database(entry, report);
    }
    if let Some(restart) = master.and_then(|master| master.section("restart")) {
        check_waits(restart, report);
    }
    drafts.iter().filter_map(|draft| draft.fields).for_each(|fields| check_login(fields, report));
    let own = drafts.iter().filter_map(|draft| draft.fields?.section("client"));
    root.section("client").into_iter().chain(own).for_each(|client| limits::check_protocols(client, report));
    let top = root.section("limits");
    limits::check(top, None, report);
    for own in drafts.iter().filter_map(|draft| draft.fields?.section("limits")) {
        limits::check(top, Some(own), report);
    }
}

/// Whoever reaches a rootport or a webport can command nodes: beyond loopback that takes a token.
fn check_token(master: Option<&Fields>, drafts: &[Draft<'_>], report: &mut Report<'_>) {
    if let Some(master) = master.filter(|master| master.given("token")) {
        let keys = |place: &Fields| ["file", "credential"].iter().filter(|key| place.given(key)).count();
        if let Some(place) = master.section("token").filter(|place| keys(place) != 1) {
            report.fault(&place.place, "it is a text, or has one of the keys `file` and `credential`");
        }
        return;
    }
    let nodes = drafts.iter().filter_map(|draft| draft.fields);
    for fields in master.into_iter().chain(nodes) {
        for key in ["rootport", "webport"] {
            if let Some(listen) = fields.listen(key).filter(|listen| is_beyond_loopback(*listen)) {
                let message = format!("{listen} is beyond loopback: that needs a `master.token`");
                report.fault(fields.place_of(key), message);
            }
        }
    }
}

/// A token that is sent in the clear is everybody's on the way.
fn check_https(master: &Fields, report: &mut Report<'_>) {
    let Some(listen) = master.listen("webport").filter(|listen| is_beyond_loopback(*listen)) else { return };
    let (place, encrypts) = (master.place_of("webport"), master.given("tls"));
    if !encrypts && master.bool("plain_http") != Some(true) {
        let message = format!(
            "{listen} is beyond loopback: that needs `master.tls`, or `\"plain_http\": true` behind something that encrypts"
        );
        report.fault(place, message);
    } else if !encrypts {
        let message = format!("{listen} speaks HTTP: who is on the way to it reads the operators' tokens");
        report.warn(master.place_of("plain_http"), message);
    }
}

/// Below `never` something else has to keep others from reading along.
fn check_encrypt(master: Option<&Fields>, drafts: &[Draft<'_>], report: &mut Report<'_>) {
    let Some(master) = master.filter(|master| master.text("encrypt") == Some("never")) else { return };
    let nodes = drafts.iter().filter_map(|draft| draft.fields);
    let rootports = std::iter::once(master).chain(nodes).filter_map(|fields| fields.listen("rootport"));
    if let Some(listen) = { rootports }.find(|listen| is_beyond_loopback(*listen)) {
        let message = format!("who is on the way to {listen} reads and changes what nodes say to each other");
        report.warn(master.place_of("encrypt"), message);
    }
}

pub(crate) fn is_beyond_loopback(listen: SocketAddr) -> bool {
    !listen.ip().to_canonical().is_loopback()
}

/// A node that asked for the shared cache and silently got its own would lose what the others wrote.
fn check_memcached(root: &Fields, drafts: &[Draft<'_>], report: &mut Report<'_>) {
    if root.given("memcached") {
        return;
    }
    for fields in drafts.iter().filter_map(|draft| draft.fields) {
        if fields.bool("mem") == Some(true) {
            report.fault(fields.place_of("mem"), "there is no `memcached` at the top of the config");
        }
    }
}

/// Without a URL it would be the file of the nameless one.
fn check_database(entry: &Entry, report: &mut Report<'_>) {
    if let Err(bad) = NodeName::try_from(entry.key.as_str()) {
        report.fault(&entry.key_place, bad.to_string());
    }
    let Some(fields) = entry.item.fields() else { return };
    database::check(fields, report);
    if !["url", "user", "db"].into_iter().any(|key| fields.given(key)) {
        report.fault(&fields.place, "a named database needs a `url`");
    }
}

/// Without clients there is nobody to log in.
fn check_login(fields: &Fields, report: &mut Report<'_>) {
    if fields.given("login") && !fields.given("netport") {
        report.fault(fields.place_of("login"), "a login needs a `netport`: this node has no clients");
    }
}

fn check_waits(restart: &Fields, report: &mut Report<'_>) {
    let default = crate::model::Backoff::default();
    let min = restart.number("wait_ms_min").unwrap_or(default.min.as_millis() as u64);
    let max = restart.number("wait_ms_max").unwrap_or(default.max.as_millis() as u64);
    if min > max {
        report.fault(&restart.place, format!("`wait_ms_min` ({min}) is more than `wait_ms_max` ({max})"));
    }
}
