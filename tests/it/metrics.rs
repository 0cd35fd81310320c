//! Metrics: what a node counts, what the master shows of all of them, and what Prometheus thinks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fftelemetry::metrics::exposition::Exposition;
use nix::sys::signal::Signal;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::servers::{self, Prometheus};
use tests::{bins, http, wait};
use tokio::time::Instant;

/// Every series of a text, as it is written, with its value.
type Series = BTreeMap<String, f64>;

fn series(text: &str) -> Series {
    Exposition::parse(text).families.into_values().flat_map(|family| family.series).collect()
}

async fn scrape(cluster: &Cluster) -> Result<Series> {
    let answer = cluster.admin("GET", "/metrics").await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(series(&answer.body))
}

/// Waits until a series of the master's `/metrics` has that value.
async fn until(cluster: &Cluster, name: &str, wanted: impl Fn(f64) -> bool) -> Result<f64> {
    wait::until(name, async || {
        let all = scrape(cluster).await.map_err(|e| format!("{e:#}"))?;
        match all.get(name) {
            Some(value) if wanted(*value) => Ok(*value),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn what_has_not_happened_yet_is_shown_as_zero() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    for zero in [
        "ff_park_full_total{node=\"net\"}",
        "ff_logins_refused_total{node=\"net\"}",
        "ff_late_replies_total{node=\"gate\"}",
        "ff_calls_full_total{node=\"game1\"}",
        "ff_handler_requests_total{node=\"net\",handler=\"net_handle_300\",message=\"command 300\"}",
        "ff_handler_errors_total{node=\"game1\",code=\"panic\"}",
        "ff_node_restarts_total{node=\"gate\"}",
        "ff_commands_total{node=\"master\",command=\"reload\",outcome=\"failed\"}",
    ] {
        assert_eq!(until(&cluster, zero, |_| true).await?, 0.0, "{zero}");
    }
    // What is not zero is in /status, under the names that it had there; zeros are not.
    let node = cluster.node("net").await?;
    assert_eq!(node["counters"], serde_json::json!({}), "{node}");
    cluster.stop().await
}

#[tokio::test]
async fn requests_failures_and_latency_of_each_handler_are_counted() -> Result<()> {
    let cluster = Cluster::processes(Fixture::trial()?).await?;
    let mut client = cluster.client().await?;
    for n in 0..5 {
        client.call(3, n.to_string().as_bytes()).await?;
    }
    client.call_error(4, b"on purpose").await?;
    client.call_error(2, b"on purpose").await?;
    client.call(1000, b"1").await.ok();
    let of = |name: &str, handler: &str, command: u32| {
        format!("{name}{{node=\"net\",handler=\"{handler}\",message=\"command {command}\"}}")
    };
    until(&cluster, &of("ff_handler_requests_total", "waits", 3), |n| n == 5.0).await?;
    until(&cluster, &of("ff_handler_seconds_count", "waits", 3), |n| n == 5.0).await?;
    let all = scrape(&cluster).await?;
    assert_eq!(all[&of("ff_handler_failures_total", "waits", 3)], 0.0);
    assert_eq!(all[&of("ff_handler_failures_total", "fails", 4)], 1.0);
    assert_eq!(all[&of("ff_handler_failures_total", "panics", 2)], 1.0);
    assert_eq!(all["ff_handler_errors_total{node=\"net\",code=\"handler\"}"], 1.0);
    assert_eq!(all["ff_handler_errors_total{node=\"net\",code=\"panic\"}"], 1.0);
    // 0 + 1 + 2 + 3 + 4 ms.
    assert!(all[&of("ff_handler_seconds_sum", "waits", 3)] >= 0.010);
    assert_eq!(all["ff_forwarded_total{node=\"net\",target=\"game\"}"], 1.0);
    assert_eq!(all["ff_forwarded_total{node=\"gate\",target=\"game\"}"], 1.0);
    // Seven replies and two error frames among them, and a forwarded one; the websocket has nothing to say.
    let firefly = |what: &str, way: &str| {
        all[&format!("ff_client_{what}_total{{node=\"net\",protocol=\"firefly\",direction=\"{way}\"}}")]
    };
    assert_eq!((firefly("frames", "in"), firefly("frames", "out")), (8.0, 8.0));
    assert!(firefly("bytes", "in") > 8.0 * 8.0 && firefly("bytes", "out") > 8.0 * 8.0);
    assert_eq!(all["ff_client_frames_total{node=\"net\",protocol=\"websocket-json\",direction=\"in\"}"], 0.0);
    assert_eq!(all["ff_sessions{node=\"net\"}"], 1.0);
    assert_eq!(all["ff_link_up{node=\"net\",peer=\"gate\",side=\"parent\"}"], 1.0);
    assert!(all["ff_process_resident_memory_bytes{node=\"gate\"}"] > 1e6);
    assert!(all["ff_process_open_fds{node=\"gate\"}"] > 3.0);
    until(&cluster, "ff_loop_lag_seconds_count{node=\"game.1\"}", |n| n > 1.0).await?;
    until(&cluster, "ff_link_round_trip_seconds{node=\"gate\",peer=\"game.1\",side=\"child\"}", |s| s > 0.0)
        .await?;
    cluster.stop().await
}

#[tokio::test]
async fn what_an_app_counts_and_times_is_shown_with_the_rest() -> Result<()> {
    let cluster = Cluster::processes(Fixture::trial()?).await?;
    let mut client = cluster.client().await?;
    for _ in 0..3 {
        client.call(29, b"far").await?;
    }
    until(&cluster, "app_paths_total{node=\"net\"}", |n| n == 3.0).await?;
    let all = scrape(&cluster).await?;
    assert_eq!(all["app_longest_path{node=\"net\"}"], 3.0);
    assert_eq!(all["app_path_seconds_count{node=\"net\"}"], 3.0);
    let section = |what: &str| all[&format!("ff_section_{what}{{node=\"net\",section=\"pathfinding\"}}")];
    assert_eq!(section("calls_total"), 3.0);
    assert!(
        section("min_seconds") <= section("mean_seconds")
            && section("mean_seconds") <= section("max_seconds")
    );
    assert!(section("seconds_total") >= section("max_seconds"));
    assert_eq!(all["ff_objects{node=\"net\",kind=\"monster\"}"], 0.0, "none lives any more");
    cluster.stop().await
}

#[tokio::test]
async fn the_master_answers_while_a_node_stands_still_and_says_so() -> Result<()> {
    let cluster = Cluster::processes(Fixture::trial()?).await?;
    let mut client = cluster.client().await?;
    client.call(1, b"counted").await?;
    let counted = "ff_handler_requests_total{node=\"net\",handler=\"echo\",message=\"command 1\"}";
    until(&cluster, counted, |n| n == 1.0).await?;
    until(&cluster, "ff_node_up{node=\"net\"}", |up| up == 1.0).await?;
    cluster.signal("net", Signal::SIGSTOP).await?;
    let begun = Instant::now();
    let all = scrape(&cluster).await?;
    // A quarter of a second, on a machine that may be busy.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!((all["ff_node_up{node=\"net\"}"], all["ff_node_up{node=\"gate\"}"]), (0.0, 1.0));
    assert_eq!(all[counted], 1.0, "as it was seen last");
    assert_eq!(all.get("ff_sessions{node=\"net\"}"), None, "nobody knows how it is");
    assert!(all["ff_scrape_late_processes_total{node=\"master\"}"] >= 1.0);
    cluster.signal("net", Signal::SIGCONT).await?;
    until(&cluster, "ff_node_up{node=\"net\"}", |up| up == 1.0).await?;
    cluster.stop().await
}

#[tokio::test]
async fn counters_go_on_when_a_node_is_killed_and_when_all_are_replaced() -> Result<()> {
    let cluster = Cluster::processes(Fixture::replaced()?).await?;
    let mut client = cluster.client().await?;
    let counted = "ff_handler_requests_total{node=\"net\",handler=\"echo\",message=\"command 1\"}";
    for _ in 0..10 {
        client.call(1, b"x").await?;
    }
    until(&cluster, counted, |n| n == 10.0).await?;
    let at = cluster.at("admin");
    let reload = tokio::spawn(async move { http::request(at, "POST", "/reload", &[]).await });
    let (mut before, mut calls) = (scrape(&cluster).await?, 10);
    while !reload.is_finished() {
        client.call(1, b"x").await?;
        calls += 1;
        let now = scrape(&cluster).await?;
        for (name, value) in before.iter().filter(|(name, _)| grows(name)) {
            let now = now.get(name).with_context(|| format!("{name} has gone"))?;
            assert!(now >= value, "{name} went from {value} to {now}");
        }
        before = now;
    }
    assert_eq!(reload.await??.status, 200);
    until(&cluster, counted, |n| n == f64::from(calls)).await?;
    until(&cluster, "ff_replacement_stage_seconds_count{node=\"master\",stage=\"handing_over\"}", |n| {
        n >= 4.0
    })
    .await?;
    until(&cluster, "ff_commands_total{node=\"master\",command=\"reload\",outcome=\"ok\"}", |n| n == 1.0)
        .await?;
    let old = cluster.kill_hard("net").await?;
    cluster.until_back("net", old).await?;
    until(&cluster, counted, |n| n == f64::from(calls)).await?;
    cluster.client().await?.call(1, b"x").await?;
    until(&cluster, counted, |n| n == f64::from(calls + 1)).await?;
    until(&cluster, "ff_node_restarts_total{node=\"net\"}", |n| n == 1.0).await?;
    cluster.stop().await
}

/// Whether a series is a counter's or a histogram's.
fn grows(series: &str) -> bool {
    let name = series.split('{').next().unwrap_or_default();
    ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end))
}

/// An address of this host that is not loopback, if it has one.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only says which address it would send from.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|at| at.ip()).filter(|ip| !ip.is_loopback())
}

#[tokio::test]
async fn a_nodes_metrics_are_for_its_host_and_for_operators_and_not_for_strangers() -> Result<()> {
    let Some(outer) = outer_address() else {
        tests::skip::lacks_privilege("this host has no address but loopback");
        return Ok(());
    };
    let fixture = Fixture::trial()?;
    let port = fixture.at("web").port();
    let operators = format!(
        r#""operators": [{{ "name": "bob", "role": "read", "hash": "{}" }}]"#,
        tests::operators::hash("ffop-of-bob")
    );
    let fixture = fixture
        .replace(&format!("\"webport\": {port}"), &format!("\"webport\": \"0.0.0.0:{port}\""))
        .replace(
            "\"master\": {",
            &format!("\"master\": {{ \"token\": \"a-secret-of-sixteen\", {operators},"),
        );
    let cluster = Cluster::processes(fixture).await?;
    let (inner, outer) = (SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from((outer, port)));
    let status = async |at, headers: &[(&str, &str)]| {
        anyhow::Ok(http::request(at, "GET", "/metrics", headers).await?.status)
    };
    assert_eq!(status(inner, &[]).await?, 200);
    assert_eq!(status(outer, &[]).await?, 403);
    assert_eq!(status(outer, &[("Authorization", "Bearer a-secret-of-sixteen")]).await?, 403);
    assert_eq!(status(outer, &[("Authorization", "Bearer ffop-of-bob")]).await?, 200);
    // What a stranger says of himself counts for nothing, nor does a page in a browser on this host.
    let claims = [("X-Real-IP", "127.0.0.1"), ("X-Forwarded-For", "127.0.0.1"), ("Host", "127.0.0.1")];
    assert_eq!(status(outer, &claims).await?, 403);
    assert_eq!(status(inner, &[("Host", "evil.example")]).await?, 403);
    let refused = http::request(outer, "GET", "/metrics", &[]).await?;
    assert!(!refused.body.contains("ff_"), "{refused:?}");
    let health = http::request(outer, "GET", "/healthz", &[]).await?;
    assert_eq!(
        (health.status, health.json()?),
        (200, serde_json::json!({ "node": "net", "phase": "ready" })),
        "for everybody"
    );
    assert!(http::request(inner, "GET", "/healthz", &[]).await?.json()?["parents"].is_object());
    let own = series(&http::request(inner, "GET", "/metrics", &[]).await?.body);
    assert_eq!(own["ff_link_up{peer=\"gate\",side=\"parent\"}"], 1.0);
    cluster.stop().await
}

/// A cluster in which every metric of the runtime has something to say: links, routes, a node with records.
fn whole() -> Result<Fixture> {
    let migrations = bins::root().join("examples/accounts/migrations");
    let text = r#"{
  "master": { "rootport": @master, "webport": @admin },
  "db": { "url": "sqlite:data/accounts.sqlite", "migrations": MIGRATIONS },
  "servers": {
    "gate": { "rootport": @gate, "app": "trialgate" },
    "net":  { "netport": @net, "remoteport": [{ "rootname": "gate" }], "app": "trialnet",
              "route": { "range": { "game": [[1000, 1999]] } } },
    "game": { "type": "game", "remoteport": [{ "rootname": "gate" }], "app": "trialgame" },
    "accounts": { "netport": @accounts, "app": "accounts", "db": true }
  }
}"#;
    Fixture::new(&text.replace("MIGRATIONS", &serde_json::json!(migrations).to_string()))
}

#[tokio::test]
async fn the_page_lists_every_metric_that_a_run_exports_and_no_other() -> Result<()> {
    let cluster = Cluster::processes(whole()?).await?;
    // Those of links come with the first heartbeat, those of databases with the first answer.
    until(&cluster, "ff_link_round_trip_seconds{node=\"gate\",peer=\"net\",side=\"child\"}", |_| true)
        .await?;
    until(&cluster, "ff_db_answer_seconds{node=\"accounts\",db=\"db\"}", |_| true).await?;
    cluster.client().await?.call(29, b"section").await?;
    let exported = Exposition::parse(&cluster.admin("GET", "/metrics").await?.body);
    let rows = exported.families.iter().filter(|(name, _)| name.starts_with("ff_")).map(|(name, family)| {
        let labels: BTreeSet<&str> = family.series.iter().flat_map(|(series, _)| labels(series)).collect();
        let labels: Vec<&str> = labels.into_iter().filter(|label| *label != "le").collect();
        format!(
            "| `{name}` | {} | {} | {} |",
            family.kind,
            labels.join(", "),
            family.help.trim_end_matches('.')
        )
    });
    let table: Vec<String> = rows.collect();
    let page = std::fs::read_to_string(bins::root().join("docs/metrics.md"))?;
    let written: Vec<&str> = page.lines().filter(|line| line.starts_with("| `ff_")).collect();
    assert!(written == table, "docs/metrics.md must have these rows:\n{}", table.join("\n"));
    cluster.stop().await
}

/// The names of a series' labels; values of the runtime's metrics have no `="` in them.
fn labels(series: &str) -> Vec<&str> {
    let inside = series.split_once('{').map_or("", |(_, rest)| rest);
    let names = inside.split("=\"").map(|part| part.rsplit([',', '{']).next().unwrap_or_default());
    let mut names: Vec<&str> = names.collect();
    names.pop();
    names
}

#[tokio::test]
async fn promtool_has_nothing_to_say_against_the_metrics() -> Result<()> {
    let cluster = Cluster::processes(whole()?).await?;
    cluster.client().await?.call(29, b"section").await?;
    let text = cluster.admin("GET", "/metrics").await?;
    assert!(
        text.head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"),
        "{}",
        text.head
    );
    if let Some(said) = servers::lint(&text.body).await? {
        assert_eq!(said, "");
    }
    cluster.stop().await
}

#[tokio::test]
async fn prometheus_scrapes_through_a_reload_without_a_gap_and_no_counter_goes_back() -> Result<()> {
    let operators = format!(
        r#""master": {{ "operators": [{{ "name": "prometheus", "role": "read", "hash": "{}" }}],"#,
        tests::operators::hash("ffop-of-prometheus")
    );
    let cluster = Cluster::processes(Fixture::replaced()?.replace("\"master\": {", &operators)).await?;
    let started = Prometheus::start(cluster.at("admin"), "ffop-of-prometheus").await?;
    let Some(prometheus) = started else { return cluster.stop().await };
    let mut client = cluster.client().await?;
    let scrapes = async |client: &mut tests::client::Client, more: usize| {
        let count = async || {
            let up = prometheus.query("count_over_time(up[10m])").await?;
            let count = up.first().and_then(|up| up["value"][1].as_str()).unwrap_or("0");
            anyhow::Ok(count.parse::<usize>()?)
        };
        let wanted = count().await.unwrap_or(0) + more;
        wait::until("prometheus has scraped", async || {
            client.call(1, b"x").await.map_err(|e| format!("{e:#}"))?;
            let count = count().await.map_err(|e| format!("{e:#}"))?;
            if count >= wanted { Ok(()) } else { Err(format!("{count} of {wanted}")) }
        })
        .await
    };
    scrapes(&mut client, 3).await?;
    assert_eq!(cluster.admin("POST", "/reload").await?.status, 200);
    scrapes(&mut client, 3).await?;
    let up = prometheus.query("up[10m]").await?;
    assert_eq!(up.len(), 1, "{up:?}");
    let values = |series: &serde_json::Value| -> Vec<f64> {
        let samples = series["values"].as_array().cloned().unwrap_or_default();
        samples.iter().filter_map(|sample| sample[1].as_str()?.parse().ok()).collect()
    };
    assert!(values(&up[0]).iter().all(|up| *up == 1.0), "{up:?}");
    let counters = prometheus.query("{__name__=~\"ff_.+(_total|_bucket|_count|_sum)\"}[10m]").await?;
    assert!(counters.len() > 500, "{} counters", counters.len());
    for counter in &counters {
        let values = values(counter);
        assert!(values.is_sorted(), "{} went back: {values:?}", counter["metric"]);
    }
    let requests = prometheus.query("ff_handler_requests_total{node=\"net\",handler=\"echo\"}[10m]").await?;
    let (requests, scrapes) = (values(&requests[0]), values(&up[0]).len());
    assert!(requests.len() + 1 >= scrapes, "{} of {scrapes} scrapes have it", requests.len());
    cluster.stop().await
}
