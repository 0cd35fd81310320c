//! obEspoir's demo, as docs/routing.md shows it: the same commands and texts, over proxy, route and service.

use std::process::Command;

use anyhow::Result;
use tests::bins;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;

/// What test_frame.py printed.
const PRINTED: &str = "\
test_http_web_proxy: 200 hello
成功发送登录请求消息(ID:1000): {\"name\":\"jamon\",\"passwd\":\"test\"}
收到登录回应:  {\"code\":200,\"data\":{\"user_id\":10,\"desc\":\"恭喜，登录接口测试通过~\"}}
成功发送'进入游戏排位'场消息(ID:20000): {\"user_id\":10}
收到进入游戏排位场 消息回应: {\"code\":200,\"data\":{\"desc\":\"恭喜，进入排位场房间接口测试通过~\"}}
";

fn config() -> Result<Fixture> {
    let text = std::fs::read_to_string(bins::root().join("examples/espoir/config.json"))?;
    let ports = [
        ("21999", "@master"),
        ("21998", "@admin"),
        ("21002", "@root"),
        ("21001", "@routeweb"),
        ("20000", "@net"),
        ("20001", "@web"),
        ("22001", "@serviceweb"),
    ];
    Fixture::new(&ports.iter().fold(text, |text, (port, name)| text.replace(port, name)))
}

#[tokio::test]
async fn the_example_says_what_the_original_said() -> Result<()> {
    let cluster = Cluster::processes(config()?).await?;
    let program = bins::folder()?.join("espoir");
    let (net, web) = (cluster.at("net").to_string(), cluster.at("web").to_string());
    let output =
        tokio::task::spawn_blocking(move || Command::new(program).args([net, web]).output()).await??;
    assert_eq!(String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?, PRINTED);
    // The end of the client is told to the route and the service, once each.
    for node in ["route", "service"] {
        tests::wait::until("the end of the session is told", async || {
            let log = cluster.log();
            let told = log.lines().filter(|line| line.contains(node) && line.contains("is gone")).count();
            if told == 1 { Ok(()) } else { Err(format!("{told} times at {node}:\n{log}")) }
        })
        .await?;
    }
    cluster.stop().await
}

#[tokio::test]
async fn who_has_a_handler_answers_and_others_follow_their_route() -> Result<()> {
    let cluster = Cluster::processes(config()?).await?;
    let mut client = cluster.client().await?;
    // Within the range that the route has for services, but it has a handler of its own.
    assert_eq!(client.call(10_000, b"").await?, r#"{"code":200}"#);
    let error = client.call_error(1000, br#"{"name":"","passwd":"x"}"#).await?;
    assert_eq!((error.code.as_str(), error.message.as_str()), ("handler", "name and passwd are expected"));
    let error = client.call_error(20_000, b"{}").await?;
    assert_eq!(error.code, "bad_request", "{error:?}");
    // Nobody has one: the last in the row says so.
    let error = client.call_error(30_000, b"").await?;
    assert_eq!((error.code.as_str(), error.executed.as_str()), ("no_route", "no"));
    assert_eq!(error.message, "`service` has no handler for command 30000");
    let error = client.call_error(1_000_001, b"").await?;
    assert_eq!(error.message, "no handler and no route for command 1000001");

    // The service is killed: its messages wait for it, the route's own do not.
    let old = cluster.kill_hard("service").await?;
    assert_eq!(client.call(10_000, b"").await?, r#"{"code":200}"#);
    let entered = loop {
        client.send(20_000, br#"{"user_id":10}"#).await?;
        let (command, body) = client.receive().await?;
        if command == 20_000 {
            break body;
        }
        assert_eq!(tests::client::parse_error(&body)?.code, "link_lost");
    };
    assert!(entered.starts_with(br#"{"code":200,"#), "{entered:?}");
    cluster.until_back("service", old).await?;
    cluster.stop().await
}
