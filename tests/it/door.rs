//! Who commands a cluster over HTTP: its own user and operators, and no other user, page or name.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::browser::{Browser, Tab};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::{http, operators, skip, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

/// Commands that another user sends.
const COMMANDS: usize = 200;

/// The entries of the audit, the latest first.
async fn audit(cluster: &Cluster) -> Result<Vec<Value>> {
    let answer = cluster.admin("GET", "/audit?limit=500").await?.json()?;
    Ok(answer["entries"].as_array().context("no entries")?.clone())
}

/// How often each of these was answered, as the audit has it: who, method, path, status.
fn count(entries: &[Value], what: (&str, &str, &str, u16)) -> usize {
    let (who, method, path, status) = what;
    let is = |entry: &&Value| {
        entry["who"] == who && entry["method"] == method && entry["what"] == path && entry["status"] == status
    };
    entries.iter().filter(is).count()
}

/// What the audit calls the user of this process and of its masters.
fn own_user() -> &'static str {
    if nix::unistd::geteuid().is_root() { "root" } else { "owner" }
}

/// The status that `curl` prints, when it is started by these words.
async fn curl(words: &[&str], arguments: &[&str]) -> Result<String> {
    let all: Vec<&str> =
        words.iter().copied().chain(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"]).collect();
    let output = Command::new(all[0]).args(&all[1..]).args(arguments).current_dir("/").output().await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn has(program: &str) -> bool {
    let found = std::process::Command::new(program).arg("--version").stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Words that run a program as nobody.
const AS_NOBODY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

#[tokio::test]
async fn another_user_commands_nothing_also_when_he_hangs_up_at_once() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        skip::lacks_privilege("it needs root, to be somebody else");
        return Ok(());
    }
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let (at, before) = (cluster.at("admin"), cluster.pids().await?);
    // A socket that is closed is listed as root's: without an inode. One in twenty waits for its answer, so that it is seen that they
    // are refused; the others hang up at once, or some milliseconds later.
    let script = format!(
        "for n in $(seq {COMMANDS}); do exec 3<>/dev/tcp/{}/{}; \
         printf 'POST /nodes/game1/stop HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nContent-Length: 0\\r\\n\\r\\n' >&3; \
         if [ $((n % 20)) = 0 ]; then read -r -u 3 line; echo \"$line\"; \
         else read -r -t 0.00$((n % 10)) -u 3 line; fi; exec 3>&-; done",
        at.ip(),
        at.port()
    );
    let run = Command::new(AS_NOBODY[0])
        .args(&AS_NOBODY[1..])
        .args(["bash", "-c", &script])
        .current_dir("/")
        .output();
    let output = run.await?;
    ensure!(output.status.success(), "{output:?}");
    let answers = String::from_utf8(output.stdout)?;
    let refused = answers.lines().filter(|line| line.starts_with("HTTP/1.1 401 ")).count();
    assert_eq!(refused, COMMANDS / 20, "{answers}");
    wait::until("the refusals are in the audit", async || {
        let entries = audit(&cluster).await.map_err(|e| format!("{e:#}"))?;
        if count(&entries, ("-", "POST", "/nodes/game1/stop", 401)) > 0 {
            Ok(())
        } else {
            Err(format!("{entries:?}"))
        }
    })
    .await?;
    let entries = audit(&cluster).await?;
    ensure!(entries.iter().all(|entry| entry["who"] == "-"), "{entries:?}");
    assert_eq!(cluster.pids().await?, before, "nobody was stopped");
    ensure!(!cluster.log().contains("guard"), "strangers write into the log: {}", cluster.log());
    if has("curl") {
        let url = |path: &str| format!("http://{at}{path}");
        assert_eq!(curl(&AS_NOBODY, &[&url("/status")]).await?, "401");
        assert_eq!(curl(&AS_NOBODY, &["-X", "POST", &url("/stop")]).await?, "401");
        assert_eq!(curl(&AS_NOBODY, &[&url("/healthz")]).await?, "200");
        assert_eq!(cluster.pids().await?, before);
        let own = ["env"];
        assert_eq!(curl(&own, &[&url("/status")]).await?, "200");
        assert_eq!(curl(&own, &["-X", "POST", &url("/nodes/game1/restart")]).await?, "200");
        assert_eq!(curl(&own, &[&url("/nodes/game1/restart")]).await?, "200", "firefly's way");
        assert_eq!(curl(&own, &["-H", "Host: evil.example", &url("/status")]).await?, "403");
        assert_eq!(curl(&own, &["-H", "X-Forwarded-For: 192.0.2.1", &url("/status")]).await?, "401");
    }
    cluster.stop().await
}

/// A page of somebody else, which makes a browser send commands in every way that needs no leave.
const FOREIGN: &str = r#"<!doctype html><title>foreign</title><iframe name=post></iframe><iframe id=get></iframe><script>
async function attack(target) {
  const url = target + '/nodes/game1/stop';
  const image = new Image();
  image.referrerPolicy = 'no-referrer';
  const shown = new Promise(done => image.onload = image.onerror = done);
  image.src = url;
  const form = document.createElement('form');
  Object.assign(form, { method: 'post', action: url, target: 'post' });
  document.body.append(form);
  form.submit();
  const sent = { mode: 'no-cors', credentials: 'include', referrerPolicy: 'no-referrer' };
  await Promise.allSettled([shown, fetch(url, { ...sent, method: 'POST' }), fetch(url, sent)]);
  return true;
}
// Browsers of today send a log-in with nothing that a foreign page embeds, but with the page that one leads to.
function lead(target, method) {
  const form = document.createElement('form');
  Object.assign(form, { method, action: target + '/nodes/game1/stop' });
  document.body.append(form);
  form.submit();
  return true;
}
</script>"#;

/// Serves that page to everybody; where.
async fn foreign_page() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 8192]).await;
                let head = format!(
                    "Content-Type: text/html\r\nContent-Length: {}\r\nConnection: close",
                    FOREIGN.len()
                );
                let _ =
                    stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{FOREIGN}").as_bytes()).await;
            });
        }
    });
    Ok(at)
}

/// An address of this host that is not loopback, if it has one.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only says which address it would send from.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|at| at.ip()).filter(|ip| !ip.is_loopback())
}

/// The demo with operators, whose master is reached from everywhere; beyond loopback in the clear.
fn open_to_operators() -> Result<Fixture> {
    let fixture = Fixture::demo()?;
    let port = fixture.at("admin").port();
    let of = |name: &str, role: &str| {
        let hash = operators::hash(&format!("ffop-of-{name}"));
        format!(r#"{{ "name": "{name}", "role": "{role}", "hash": "{hash}" }}"#)
    };
    let keys = format!(
        "\"master\": {{ \"plain_http\": true, \"token\": \"a-secret-of-sixteen\",\n\"operators\": [\n{},\n{} ],",
        of("ann", "operate"),
        of("bob", "read")
    );
    Ok(fixture
        .replace(&format!("\"webport\": {port}"), &format!("\"webport\": \"0.0.0.0:{port}\""))
        .replace("\"master\": {", &keys))
}

/// The foreign page attacks; waits until the audit has its commands, each refused.
async fn attacked(cluster: &Cluster, browser: &mut Browser, page: &Tab, target: &str) -> Result<()> {
    let who = own_user();
    ensure!(browser.eval(page, &format!("attack('{target}')")).await? == true);
    wait::until("its commands are refused", async || {
        let entries = audit(cluster).await.map_err(|e| format!("{e:#}"))?;
        let posts = count(&entries, (who, "POST", "/nodes/game1/stop", 403));
        let gets = count(&entries, (who, "GET", "/nodes/game1/stop", 405));
        if posts > 0 && gets > 0 { Ok(()) } else { Err(format!("{entries:#?}")) }
    })
    .await
}

#[tokio::test]
async fn a_page_of_another_origin_commands_nothing_whether_the_browser_is_logged_in_or_not() -> Result<()> {
    let Some(mut browser) =
        Browser::start_with(&["--host-resolver-rules=MAP evil.example 127.0.0.1"]).await?
    else {
        skip::lacks_server("no browser");
        return Ok(());
    };
    let cluster = Cluster::processes(open_to_operators()?).await?;
    let (at, before) = (cluster.at("admin"), cluster.pids().await?);
    let foreign = format!("http://evil.example:{}/", foreign_page().await?.port());

    let page = browser.open(&foreign).await?;
    browser.until(&page, "document.title == 'foreign'").await?;
    attacked(&cluster, &mut browser, &page, &format!("http://{at}")).await?;

    // By a name that somebody has let point at the master: as its own origin.
    let rebound = browser.open(&format!("http://evil.example:{}/", at.port())).await?;
    browser.until(&rebound, "document.body.innerText.includes('serves its own host only')").await?;
    let post = "fetch('/nodes/game1/stop', { method: 'POST' }).then(answer => answer.status)";
    assert_eq!(browser.eval(&rebound, post).await?, 403);

    if let Some(outer) = outer_address() {
        let outer = SocketAddr::new(outer, at.port());
        let logged_in = browser.open(&format!("http://ann:ffop-of-ann@{outer}/")).await?;
        browser.until(&logged_in, "document.title.startsWith('cluster ')").await?;
        let again = browser.open(&format!("http://{outer}/status")).await?;
        browser
            .until(&again, "document.body.innerText.includes('game1')")
            .await
            .context("it stays logged in")?;
        for (method, refused) in [("POST", 403), ("GET", 405)] {
            let page = browser.open(&foreign).await?;
            browser.until(&page, "document.title == 'foreign'").await?;
            browser.eval(&page, &format!("lead('http://{outer}', '{method}')")).await?;
            wait::until("the command of a browser that is logged in is refused", async || {
                let entries = audit(&cluster).await.map_err(|e| format!("{e:#}"))?;
                let there = count(&entries, ("ann", method, "/nodes/game1/stop", refused)) > 0;
                if there { Ok(()) } else { Err(format!("{entries:#?}")) }
            })
            .await?;
        }
    } else {
        skip::lacks_privilege("this host has no address but loopback: nothing with a log-in");
    }
    assert_eq!(cluster.pids().await?, before, "nobody was stopped");

    // Its own page does what its buttons say.
    let own = browser.open(&format!("http://{at}/")).await?;
    browser.until(&own, "document.title.startsWith('cluster ')").await?;
    let old = cluster.pid("game1").await?;
    browser
        .eval(&own, "document.querySelector('form[action=\"/nodes/game1/restart\"]').requestSubmit()")
        .await?;
    cluster.until_back("game1", old).await?;
    cluster.stop().await
}

#[tokio::test]
async fn an_operator_comes_in_from_elsewhere_until_the_config_has_no_such_name() -> Result<()> {
    let Some(outer) = outer_address() else {
        skip::lacks_privilege("this host has no address but loopback");
        return Ok(());
    };
    let fixture = open_to_operators()?;
    let mut cluster = Cluster::processes(fixture.clone()).await?;
    let outer = SocketAddr::new(outer, cluster.at("admin").port());
    let ask = async |token: &str, method: &str, path: &str| {
        let bearer = format!("Bearer {token}");
        anyhow::Ok(http::request(outer, method, path, &[("Authorization", &bearer)]).await?.status)
    };
    let (ann, bob) = ("ffop-of-ann", "ffop-of-bob");
    assert_eq!(http::request(outer, "GET", "/status", &[]).await?.status, 401);
    assert_eq!(ask("a-secret-of-sixteen", "GET", "/status").await?, 401, "the cluster's own");
    assert_eq!((ask(bob, "GET", "/status").await?, ask(bob, "POST", "/reload").await?), (200, 403));
    assert_eq!(
        (ask(ann, "GET", "/stop").await?, ask(ann, "POST", "/nodes/game1/restart").await?),
        (405, 200)
    );
    let entries = audit(&cluster).await?;
    assert_eq!(count(&entries, ("ann", "POST", "/nodes/game1/restart", 200)), 1, "{entries:?}");
    let from = entries.iter().find(|entry| entry["who"] == "bob").map(|entry| entry["from"].clone());
    assert_eq!(from, Some(outer.ip().to_string().into()));
    let health = http::request(outer, "GET", "/healthz", &[]).await?;
    assert_eq!((health.status, health.json()?), (200, serde_json::json!({ "ok": true })));

    let hash = operators::hash(ann);
    cluster.configure(fixture.replace(&hash, &operators::hash("ffop-of-another")))?;
    assert_eq!(ask(ann, "POST", "/reload").await?, 200);
    assert_eq!(ask(ann, "GET", "/status").await?, 401);
    assert_eq!(ask("ffop-of-another", "GET", "/status").await?, 200);
    // Who was commanded by what is on disk, for its owner alone.
    let file = cluster.folder().join("data/cluster.audit.jsonl");
    wait::until("the file has the reload", async || {
        let text = std::fs::read_to_string(&file).map_err(|e| e.to_string())?;
        if text.contains("\"what\":\"/reload\"") { Ok(()) } else { Err(text) }
    })
    .await?;
    cluster.stop().await
}
