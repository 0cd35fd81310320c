//! The scrape of a node: what is counted where it happens is in the registry already; the rest is read here, when it is asked for.

use std::sync::atomic::{AtomicU64, Ordering};

use ffnet::Link;
use ffstore::db::Db;
use fftelemetry::metrics::process::ProcessMetrics;
use fftelemetry::metrics::{Registry, build_info};

use crate::identity::Identity;
use crate::identity::lifecycle::Phase;
use crate::node::Node;
use crate::session::registry::Registry as Sessions;
use crate::transit::Transit;

/// Neighbours, databases and tables that have series of their own.
const SERIES_MAX: usize = 200;

/// The metrics of a node as Prometheus' text, with those of its stores as soon as they are open.
pub(crate) fn text(transit: &Transit, sessions: &Sessions, node: Option<&Node>) -> String {
    let identity = transit.identity();
    let registry = identity.metrics().registry();
    build_info(registry, env!("CARGO_PKG_VERSION"), env!("FF_COMMIT"));
    ProcessMetrics::new(registry).read();
    read_node(registry, transit, sessions);
    read_links(registry, transit);
    follow_links(registry, identity);
    if identity.config().netport.is_some() {
        follow_clients(registry, identity, sessions);
    }
    if let Some(node) = node {
        read_databases(registry, node);
        read_cache(registry, node);
        read_records(registry, node);
    }
    registry.encode()
}

fn read_node(registry: &Registry, transit: &Transit, sessions: &Sessions) {
    let identity = transit.identity();
    let gauge = |name, help, n: usize| registry.gauge(name, help).set_count(n);
    gauge("ff_sessions", "Clients that are connected to this net node", sessions.len());
    gauge("ff_sessions_routed", "Sessions whose messages a node was chosen for", transit.affinity().len());
    let (messages, bytes) = transit.park().size();
    gauge("ff_parked_messages", "Calls and messages that wait for a neighbour", messages);
    gauge("ff_parked_bytes", "Bytes of calls and messages that wait for a neighbour", bytes);
    let waiting = "Messages that wait behind a running handler of their session";
    gauge("ff_session_queue_messages", waiting, transit.waiting_here());
    let running = "Handlers and hooks that have begun and wait for something";
    gauge("ff_waiting_handlers", running, identity.tasks().running_calls());
    gauge(
        "ff_reachable_nodes",
        "Other nodes that can be reached",
        transit.membership().names::<Vec<_>>().len(),
    );
    let serving = identity.lifecycle().phase() == Phase::Ready;
    gauge("ff_serving", "Whether the node serves, 1 or 0", serving.into());
    let loses = identity.counters().state_without_freeze.get();
    let help = "Whether the app has state that a reload loses, 1 or 0";
    gauge("ff_state_without_freeze", help, loses.min(1) as usize);
}

fn read_links(registry: &Registry, transit: &Transit) {
    const LABELS: &[&str] = &["peer", "side"];
    let gauges = |name, help| registry.gauges(name, help, LABELS, SERIES_MAX);
    let up = gauges("ff_link_up", "Whether the link to a neighbour is there, 1 or 0");
    let waiting = gauges("ff_link_waiting_calls", "Calls over a link that wait for their outcome");
    let queued = gauges("ff_link_queued_bytes", "Bytes that wait to be written to a link");
    let trip = gauges(
        "ff_link_round_trip_seconds",
        "How long the last heartbeat of a link took; a busy one is not asked",
    );
    let mut known = Vec::new();
    let parents = transit
        .parents()
        .iter()
        .map(|peer| (peer.name.clone(), "parent", peer.link().cloned()))
        .collect::<Vec<_>>();
    let children = transit
        .children()
        .iter()
        .map(|peer| (peer.name.clone(), "child", peer.link().cloned()))
        .collect::<Vec<_>>();
    for (name, side, link) in parents.into_iter().chain(children) {
        let labels = [name.as_str(), side];
        let of = |what: fn(&Link) -> usize| link.as_ref().map_or(0, what);
        up.with(&labels).set_count(link.is_some().into());
        waiting.with(&labels).set_count(of(Link::waiting_calls));
        queued.with(&labels).set_count(of(Link::queued_bytes));
        if let Some(took) = link.as_ref().and_then(Link::round_trip) {
            trip.with(&labels).set(took.as_secs_f64());
        }
        known.push(name.to_string());
    }
    // A child that has gone for good, for instance of a config before, is not shown for ever.
    for family in [&up, &waiting, &queued, &trip] {
        family.retain(|labels| labels.first().is_some_and(|peer| known.contains(peer)));
    }
}

/// The traffic with clients, which is counted by the place of their protocol.
fn follow_clients(registry: &Registry, identity: &Identity, sessions: &Sessions) {
    const LABELS: &[&str] = &["protocol", "direction"];
    let help = "Frames that were read of clients (in) or queued for them (out), by protocol";
    let frames = registry.counters("ff_client_frames", help, LABELS, SERIES_MAX);
    let help = "Bytes of those frames";
    let bytes = registry.counters("ff_client_bytes", help, LABELS, SERIES_MAX);
    for (name, read, queued) in identity.counters().traffic.by_name(sessions.protocols().names()) {
        for (direction, flow) in [("in", read), ("out", queued)] {
            let (frames_total, bytes_total) = flow.totals();
            frames.with(&[name, direction]).follow(frames_total);
            bytes.with(&[name, direction]).follow(bytes_total);
        }
    }
}

/// The counters that the links of a node count themselves.
fn follow_links(registry: &Registry, identity: &Identity) {
    let links = &identity.counters().links;
    let follow = |name, help, counter: &AtomicU64| {
        registry.counter(name, help).follow(counter.load(Ordering::Relaxed));
    };
    follow("ff_late_replies", "Replies that came after their call had ended", &links.late_replies);
    follow(
        "ff_link_outbox_full",
        "Frames refused because link_outbox_bytes_max were queued",
        &links.outbox_full,
    );
    follow("ff_calls_full", "Calls refused because calls_max waited on their link", &links.calls_full);
}

fn read_databases(registry: &Registry, node: &Node) {
    let gauges = |name, help| registry.gauges(name, help, &["db"], SERIES_MAX);
    let up = gauges("ff_db_up", "Whether a database answers, 1 or 0");
    let answer = gauges("ff_db_answer_seconds", "How long the last answer of a database took");
    let open = gauges("ff_db_pool_connections", "Open connections of a database's pool");
    let idle = gauges("ff_db_pool_idle_connections", "Connections of a database's pool that nothing uses");
    for (name, db) in node.databases() {
        up.with(&[name]).set_count(db.health().is_up().into());
        if let Some(took) = db.health().answer() {
            answer.with(&[name]).set(took.as_secs_f64());
        }
        let size = Db::pool_size(db);
        open.with(&[name]).set_count(size.open);
        idle.with(&[name]).set_count(size.idle);
    }
}

fn read_cache(registry: &Registry, node: &Node) {
    let stats = node.cache().stats();
    registry.counter("ff_cache_hits", "Reads of the cache that found a value").follow(stats.hits);
    registry.counter("ff_cache_misses", "Reads of the cache that found none").follow(stats.misses);
    registry.counter("ff_cache_failures", "Reads of the cache that failed").follow(stats.failures);
}

fn read_records(registry: &Registry, node: &Node) {
    let Some(records) = node.records() else { return };
    for (name, total) in records.totals() {
        registry.counter(&format!("ff_{name}"), &record_help(name)).follow(total);
    }
    let (last, longest) = records.flush_times();
    registry
        .gauge("ff_record_flush_seconds", "How long the last write-out of records took")
        .set(last.as_secs_f64());
    let help = "How long the longest write-out of records took";
    registry.gauge("ff_record_flush_max_seconds", help).set(longest.as_secs_f64());
    let (dirty, bytes) = records.dirty();
    registry.gauge("ff_record_dirty", "Records that wait to be written").set_count(dirty);
    registry.gauge("ff_record_dirty_bytes", "Bytes of records that wait to be written").set_count(bytes);
    let gauges = |name, help| registry.gauges(name, help, &["table"], SERIES_MAX);
    let rows = gauges("ff_record_rows", "Records of a table in memory");
    let bytes = gauges("ff_record_rows_bytes", "Bytes of a table's records in memory");
    let held = gauges("ff_record_held", "Rows of a table that this node holds");
    let kept = gauges("ff_record_kept", "Records of a table that are kept for sessions");
    let oldest =
        gauges("ff_record_oldest_dirty_seconds", "How long the oldest record of a table waits to be written");
    let failing =
        gauges("ff_record_flush_failing_seconds", "How long the database has taken no write-out of a table");
    for (table, stats) in records.stats() {
        rows.with(&[table]).set_count(stats.records);
        bytes.with(&[table]).set_count(stats.bytes);
        held.with(&[table]).set_count(stats.held);
        kept.with(&[table]).set_count(stats.kept);
        oldest.with(&[table]).set(stats.oldest_dirty.as_secs_f64());
        failing.with(&[table]).set(stats.failing.as_secs_f64());
    }
}

/// What a counter of records says; docs/data.md says more of each.
fn record_help(name: &str) -> String {
    let help = match name {
        "record_best_effort_lost" => "Best-effort writes that another node's write has overtaken",
        "record_cache_failures" => "Times that memcached could not be told of a write",
        "record_conflicts" => "Updates that began again because another node was first",
        "record_fenced" => "Held records whose lease was taken away by hand",
        "record_flush_failures" => "Write-outs that failed and were tried again",
        "record_flushed" => "Records written behind",
        "record_hits" => "Reads of records from memory",
        "record_misses" => "Reads of records that asked memcached or the database",
        "record_recovered" => "Records of dead nodes that this one has written",
        "record_refused" => "Writes of records refused because too much waited",
        "record_shared_hits" => "Reads of records that memcached answered",
        other => other,
    };
    help.to_owned()
}
