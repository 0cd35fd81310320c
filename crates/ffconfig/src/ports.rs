//! Which port is whose: no two listeners on one address.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use crate::fields::Fields;
use crate::nodes::Draft;
use crate::report::{Place, Report};

/// The keys that open a port, at the master and at nodes.
pub(crate) const LISTENING: [&str; 3] = ["netport", "rootport", "webport"];

struct Claim<'f> {
    listen: SocketAddr,
    place: &'f Place,
    /// ` (of game.2)`.
    of_node: String,
}

/// Reports every pair of keys whose ports meet, and every port that `count` drives over the edge.
pub(crate) fn check(master: Option<&Fields>, drafts: &[Draft<'_>], report: &mut Report<'_>) {
    let mut claims: BTreeMap<(&str, u16), Vec<Claim<'_>>> = BTreeMap::new();
    for key in ["rootport", "webport"] {
        if let Some((fields, listen)) = master.and_then(|fields| Some((fields, fields.listen(key)?))) {
            let claim = Claim { listen, place: fields.place_of(key), of_node: String::new() };
            claims.entry(("", listen.port())).or_default().push(claim);
        }
    }
    for draft in drafts {
        let Some(fields) = draft.fields else { continue };
        let host = own_host(fields).unwrap_or_default();
        for key in LISTENING.into_iter().filter(|key| fields.listen(key).is_some()) {
            let place = fields.place_of(key);
            for (index, name) in draft.names.iter().enumerate() {
                let Some(listen) = draft.listen(key, index) else {
                    report.fault(place, format!("`count` makes the port of `{name}` larger than 65535"));
                    break;
                };
                let claim = Claim { listen, place, of_node: draft.of_node(index) };
                claims.entry((host, listen.port())).or_default().push(claim);
            }
        }
    }
    report_meetings(claims, report);
}

/// The host of a node that does not run beside the master.
pub(crate) fn own_host(fields: &Fields) -> Option<&str> {
    fields.text("host").filter(|host| !matches!(*host, "localhost" | "127.0.0.1" | "::1"))
}

fn report_meetings(claims: BTreeMap<(&str, u16), Vec<Claim<'_>>>, report: &mut Report<'_>) {
    let mut rivals: Vec<Vec<Claim<'_>>> = claims.into_values().filter(|claims| claims.len() > 1).collect();
    // By port: of two counted keys the first meeting is shown, the others follow from it.
    rivals.sort_by_key(|claims| claims.first().map(|claim| claim.listen.port()));
    let mut shown: HashSet<(usize, usize)> = HashSet::new();
    for mut claims in rivals {
        claims.sort_by_key(|claim| claim.place.at);
        for (index, claim) in claims.iter().enumerate() {
            let meeting = claims[..index].iter().find(|other| meet(claim.listen, other.listen));
            let Some(other) = meeting else { continue };
            if shown.insert((claim.place.at, other.place.at)) {
                let (port, of, by, of_other) =
                    (claim.listen.port(), &claim.of_node, &other.place.path, &other.of_node);
                let line = report.line(other.place);
                report.fault(
                    claim.place,
                    format!("port {port}{of} is taken by `{by}`{of_other} on line {line}"),
                );
            }
        }
    }
}

/// Two addresses with one port meet when they are the same, or one of them is all addresses.
fn meet(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified()
}
