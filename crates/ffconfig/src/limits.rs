//! `limits` and `client`: the node's own keys over the cluster's over the defaults.

use std::net::SocketAddr;
use std::time::Duration;

use ffproto::CommandId;

use crate::checks::is_beyond_loopback;
use crate::fields::Fields;
use crate::model::{ClientFraming, Limits, SlowClient};
use crate::report::Report;
use crate::value::{Placed, Value};

/// Client connections from one address where clients come from other hosts and no config says how many.
const CONNECTIONS_PER_ADDRESS: u32 = 256;

/// The bounds of a node whose clients connect to `netport`.
pub(crate) fn limits(top: Option<&Fields>, own: Option<&Fields>, netport: Option<SocketAddr>) -> Limits {
    let is_public = netport.is_some_and(is_beyond_loopback);
    let connections_per_address = is_public.then_some(CONNECTIONS_PER_ADDRESS);
    let mut limits = Limits { connections_per_address, ..Limits::default() };
    for fields in [top, own].into_iter().flatten() {
        overlay(&mut limits, fields);
    }
    limits
}

fn overlay(limits: &mut Limits, fields: &Fields) {
    set(&mut limits.frame_bytes_max, fields.number("frame_bytes_max"));
    set(&mut limits.link_frame_bytes_max, fields.number("link_frame_bytes_max"));
    set(&mut limits.call_timeout, fields.number("call_timeout_ms").map(Duration::from_millis));
    set(&mut limits.peer_timeout_max, fields.number("peer_timeout_ms_max").map(Duration::from_millis));
    set(&mut limits.outbox_bytes_max, fields.number("outbox_bytes_max"));
    set(&mut limits.link_outbox_bytes_max, fields.number("link_outbox_bytes_max"));
    set(&mut limits.calls_max, fields.number("calls_max"));
    set(&mut limits.sessions_max, fields.number("sessions_max"));
    set(&mut limits.start, fields.number("start_s").map(Duration::from_secs));
    set(&mut limits.heartbeat, fields.number("heartbeat_ms").map(Duration::from_millis));
    set(&mut limits.session_calls_max, fields.number("session_calls_max"));
    set(&mut limits.session_queue_max, fields.number("session_queue_max"));
    set(&mut limits.session_queue_bytes_max, fields.number("session_queue_bytes_max"));
    set(&mut limits.latest_bytes_max, fields.number("latest_bytes_max"));
    set(&mut limits.hops_max, fields.number("hops_max"));
    set(&mut limits.park, fields.number("park_ms").map(Duration::from_millis));
    set(&mut limits.park_max, fields.number("park_max"));
    set(&mut limits.park_bytes_max, fields.number("park_bytes_max"));
    set(&mut limits.prove, fields.number("prove_ms").map(Duration::from_millis));
    set(&mut limits.hang, or_none(fields, "hang_s").map(|s| s.map(Duration::from_secs)));
    set(&mut limits.session_state_bytes_max, fields.number("session_state_bytes_max"));
    set(&mut limits.session_groups_max, fields.number("session_groups_max"));
    set(&mut limits.net_lost, fields.number("net_lost_ms").map(Duration::from_millis));
    set(&mut limits.idle, or_none(fields, "idle_s").map(|s| s.map(Duration::from_secs)));
    set(&mut limits.first_message, or_none(fields, "first_message_s").map(|s| s.map(Duration::from_secs)));
    set(&mut limits.requests_per_s, or_none(fields, "requests_per_s"));
    set(&mut limits.connections_per_address, or_none(fields, "connections_per_address"));
    set(&mut limits.web_connections_max, fields.number("web_connections_max"));
    set(&mut limits.web_head, fields.number("web_head_s").map(Duration::from_secs));
    set(&mut limits.web_idle, fields.number("web_idle_s").map(Duration::from_secs));
    set(&mut limits.cache_bytes_max, fields.number("cache_bytes_max"));
    set(&mut limits.records_bytes_max, fields.number("records_bytes_max"));
    set(&mut limits.dirty_records_max, fields.number("dirty_records_max"));
    set(&mut limits.dirty_bytes_max, fields.number("dirty_bytes_max"));
    set(&mut limits.record_idle, fields.number("record_idle_s").map(Duration::from_secs));
    set(&mut limits.record_fresh, fields.number("record_fresh_ms").map(Duration::from_millis));
    set(&mut limits.slow_client, fields.text("slow_client").map(slow_client));
}

/// A number of which 0 means that there is no such bound.
fn or_none<N: TryFrom<u64> + Default + PartialEq>(fields: &Fields, key: &str) -> Option<Option<N>> {
    fields.number(key).map(|number| Some(number).filter(|number| *number != N::default()))
}

/// The two texts that the schema lets through.
fn slow_client(text: &str) -> SlowClient {
    if text == "drop" { SlowClient::Drop } else { SlowClient::Disconnect }
}

/// The constants of a node's client framing.
pub(crate) fn client(top: Option<&Fields>, own: Option<&Fields>) -> ClientFraming {
    let mut client = ClientFraming::default();
    for fields in [top, own].into_iter().flatten() {
        for (byte, key) in client.head.iter_mut().zip(["head_0", "head_1", "head_2", "head_3"]) {
            set(byte, fields.number(key));
        }
        if fields.given("protocols") {
            client.protocols = Some(fields.list("protocols").iter().filter_map(protocol).collect());
        }
        set(&mut client.proto_version, fields.number("proto_version"));
        set(&mut client.server_version, fields.number("server_version"));
        set(&mut client.error_command, fields.number("error_command").map(CommandId));
    }
    client
}

fn protocol(name: &Placed) -> Option<String> {
    match &name.value {
        Value::Text(name) => Some(name.clone()),
        _ => None,
    }
}

/// A list of protocols names one at least, and none twice.
pub(crate) fn check_protocols(client: &Fields, report: &mut Report<'_>) {
    if !client.given("protocols") {
        return;
    }
    let names: Vec<_> = client.list("protocols").iter().filter_map(protocol).collect();
    let twice = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
    let fault = match twice {
        Some((_, name)) => format!("`{name}` stands there twice"),
        None if names.is_empty() => {
            "no protocol is left for clients: name one, or leave the key out".to_owned()
        }
        None => return,
    };
    report.fault(client.place_of("protocols"), fault);
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// What must fit into what: a frame that its own queue refuses could never be sent.
pub(crate) fn check(top: Option<&Fields>, own: Option<&Fields>, report: &mut Report<'_>) {
    let Some(place) = own.or(top).map(|fields| &fields.place) else { return };
    let limits = limits(top, own, None);
    let frame = ("frame_bytes_max", limits.frame_bytes_max as usize);
    let link_frame = ("link_frame_bytes_max", limits.link_frame_bytes_max as usize);
    let outbox = ("outbox_bytes_max", limits.outbox_bytes_max);
    let link_outbox = ("link_outbox_bytes_max", limits.link_outbox_bytes_max);
    let queue = ("session_queue_bytes_max", limits.session_queue_bytes_max);
    let pairs = [(frame, link_frame), (frame, outbox), (frame, queue), (link_frame, link_outbox)];
    for ((small, less), (large, more)) in pairs {
        if less > more {
            report.fault(place, format!("`{small}` ({less}) does not fit into `{large}` ({more})"));
        }
    }
}
