//! Clients that speak WebSocket on netport: the same handlers, order and bounds as firefly clients.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::websocket::{REQUEST, WebClient, frame, raw};
use tokio_tungstenite::tungstenite::Message;

fn greets() -> Result<Fixture> {
    Ok(Fixture::solo("")?.replace("trialsolo", "trialgreets"))
}

#[tokio::test]
async fn a_websocket_and_a_firefly_client_are_served_on_the_same_port() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut plain = cluster.client().await?;
    let mut web = WebClient::connect(cluster.at("net")).await?;
    for (command, text) in
        [(100, "netHandle_100 completed"), (200, "gateHandle Completed"), (300, "game1Handle completed")]
    {
        web.send(command, b"msgdata").await?;
        assert_eq!(web.receive().await?, (command, text.into()));
        assert_eq!(plain.call(command, b"msgdata").await?, text);
    }
    web.close().await?;
    cluster.until_logged("client logged out: closed by the client").await?;
    plain.call(100, b"still here").await?;
    cluster.stop().await
}

#[tokio::test]
async fn text_messages_are_json_both_ways_with_errors_and_bytes_of_their_own_form() -> Result<()> {
    let cluster = Cluster::processes(Fixture::trial()?).await?;
    let mut web = WebClient::connect(cluster.at("net")).await?;
    for (asked, answered) in [
        (json!({"command": 1, "body": "hé\n"}), json!({"command": 1, "body": "hé\n"})),
        (json!({"command": 1, "body": {"a": [1, null]}}), json!({"command": 1, "body": r#"{"a":[1,null]}"#})),
        (json!({"command": 1}), json!({"command": 1, "body": ""})),
        (json!({"command": 1, "base64": "AP8="}), json!({"command": 1, "base64": "AP8="})),
        (json!({"command": 12, "body": [20, 22]}), json!({"command": 12, "body": "42"})),
        (json!({"command": 1500}), json!({"command": 1500, "body": "game.1"})),
        (
            json!({"command": 4, "body": "no luck"}),
            json!({"command": 4, "error": {"code": "handler", "message": "no luck", "executed": "unknown"}}),
        ),
        (
            json!({"command": 4711}),
            json!({"command": 4711, "error": {
                "code": "no_route", "message": "no handler and no route for command 4711", "executed": "no"
            }}),
        ),
    ] {
        let mut got = web.call_json(&asked).await?;
        if got["body"] == "game.2" {
            got["body"] = json!("game.1");
        }
        assert_eq!(got, answered, "{asked}");
    }
    cluster.stop().await
}

#[tokio::test]
async fn answers_take_the_form_of_the_first_message_and_both_forms_are_understood() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo("")?).await?;
    let mut binary = WebClient::connect(cluster.at("net")).await?;
    binary.send(1, b"first").await?;
    assert_eq!(binary.receive().await?, (1, "first".into()));
    binary.send_json(&json!({"command": 1, "body": "second"})).await?;
    assert_eq!(binary.receive().await?, (1, "second".into()));
    let mut text = WebClient::connect(cluster.at("net")).await?;
    text.call_json(&json!({"command": 1, "body": "first"})).await?;
    text.send(1, b"second").await?;
    assert_eq!(text.receive_json().await?, json!({"command": 1, "body": "second"}));
    text.send(4711, b"").await?;
    assert_eq!(text.receive_json().await?["error"]["code"], "no_route");
    cluster.stop().await
}

#[tokio::test]
async fn what_a_node_says_first_waits_until_it_is_known_what_the_client_speaks() -> Result<()> {
    let cluster = Cluster::processes(greets()?).await?;
    let mut silent = cluster.client().await?;
    let mut web = WebClient::connect(cluster.at("net")).await?;
    assert_eq!(web.receive().await?, (9, "welcome".into()), "in a binary message");
    assert_eq!(silent.receive().await?, (9, "welcome".into()), "without a word of the client");
    silent.call(1, b"x").await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_websocket_split_at_every_byte_is_understood() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo("")?).await?;
    let mut client = cluster.client().await?;
    let text = br#"{"command":1,"body":"x"}"#;
    for byte in [REQUEST.as_bytes(), &frame(0x81, text), &frame(0x89, b"p"), &frame(0x81, text)].concat() {
        client.send_bytes(&[byte]).await?;
    }
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        response.extend(client.receive_bytes(1).await?);
    }
    let answer = [&[0x81, text.len() as u8], &text[..]].concat();
    let want = [&answer[..], &[0x8a, 1, b'p'], &answer].concat();
    assert_eq!(client.receive_bytes(want.len()).await?, want);
    cluster.stop().await
}

#[tokio::test]
async fn a_request_and_everything_after_it_in_one_packet_is_understood() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo("")?).await?;
    let mut client = cluster.client().await?;
    let glued =
        [REQUEST.as_bytes(), &frame(0x81, br#"{"command":1,"body":"x"}"#), &frame(0x88, b"")].concat();
    client.send_bytes(&glued).await?;
    let mut all = Vec::new();
    while let Ok(byte) = client.receive_bytes(1).await {
        all.extend(byte);
    }
    let end = [&[0x81, 24], &br#"{"command":1,"body":"x"}"#[..], &[0x88, 0]].concat();
    ensure!(all.ends_with(&end), "{}", String::from_utf8_lossy(&all));
    cluster.stop().await
}

#[tokio::test]
async fn a_message_in_fragments_is_one_message_and_pings_between_them_are_answered_at_once() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo("")?).await?;
    let mut client = raw(cluster.at("net")).await?;
    client.send_bytes(&frame(0x01, br#"{"command":1,"#)).await?;
    client.send_bytes(&frame(0x89, b"are you there")).await?;
    assert_eq!(client.receive_bytes(15).await?, [&[0x8a, 13], &b"are you there"[..]].concat());
    client.send_bytes(&frame(0x00, b"\"body\":\"\xc3")).await?;
    client.send_bytes(&frame(0x8a, b"unasked")).await?;
    client.send_bytes(&frame(0x80, b"\xa9\"}")).await?;
    let answer = r#"{"command":1,"body":"é"}"#.as_bytes();
    assert_eq!(client.receive_bytes(27).await?, [&[0x81, 25], answer].concat());
    cluster.stop().await
}

#[tokio::test]
async fn what_rfc_6455_forbids_closes_that_connection_with_its_code_and_a_logged_reason() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo(r#""frame_bytes_max": 1000"#)?).await?;
    let mut good = cluster.client().await?;
    let wrong_head = [1; 17];
    let large = vec![b'x'; 1014];
    for (bytes, code, reason) in [
        (b"\x81\x05Hello".to_vec(), 1002, "a frame without a mask"),
        (frame(0xc1, b"x"), 1002, "a reserved bit is set"),
        (frame(0x83, b""), 1002, "opcode 3 is reserved"),
        (vec![0x81, 0xfe, 0, 1, 0, 0, 0, 0, b'x'], 1002, "more bytes than it needs"),
        (frame(0x09, b""), 1002, "a control frame that is a fragment"),
        (frame(0x89, &[0; 126]), 1002, "a control frame that is a fragment or longer than 125 bytes"),
        (frame(0x80, b"x"), 1002, "a continuation without a message"),
        ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), 1002, "before the end of the last one"),
        (frame(0x88, b"\x03"), 1002, "half a code or an illegal one"),
        (frame(0x81, b"\xc3\x28"), 1007, "a text that is no UTF-8"),
        (frame(0x81, b"hello"), 1007, "no message in JSON"),
        (frame(0x81, br#"{"command":1,"boby":"x"}"#), 1007, "unknown field `boby`"),
        (frame(0x82, &wrong_head), 1007, "wrong head"),
        (frame(0x82, b"\0\0\0"), 1007, "not exactly one frame"),
        (frame(0x82, &large), 1009, "above limits.frame_bytes_max"),
        ([frame(0x01, &large[..600]), frame(0x80, &large[..600])].concat(), 1009, "1200 bytes or more"),
    ] {
        let mut bad = raw(cluster.at("net")).await?;
        bad.send_bytes(&bytes).await?;
        let head = bad.receive_bytes(4).await?;
        assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, code), "{reason}");
        let said = bad.receive_bytes(usize::from(head[1]) - 2).await?;
        let said = String::from_utf8(said)?;
        ensure!(said.contains(reason) || said.len() > 100, "{said:?} instead of {reason:?}");
        bad.until_closed().await?;
        cluster.until_logged(reason).await?;
    }
    good.call(1, b"still here").await?;
    cluster.stop().await
}

#[tokio::test]
async fn an_http_request_that_asks_for_no_websocket_is_told_what_the_port_is_for() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo("")?).await?;
    let mut curl = cluster.client().await?;
    curl.send_bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n")
        .await?;
    let answer = String::from_utf8(curl.receive_bytes(200).await?)?;
    ensure!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{answer}");
    cluster.until_logged("an HTTP request that asks for no WebSocket").await?;
    let mut endless = cluster.client().await?;
    endless.send_bytes(format!("GET /{}", "x".repeat(9000)).as_bytes()).await?;
    let answer = String::from_utf8(endless.receive_bytes(50).await?)?;
    ensure!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    cluster.stop().await
}

#[tokio::test]
async fn a_client_that_closes_still_gets_what_it_asked_for_and_its_close_is_answered() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo("")?).await?;
    let mut web = WebClient::connect(cluster.at("net")).await?;
    web.send_json(&json!({"command": 3, "body": "200"})).await?;
    web.close().await?;
    assert_eq!(web.receive_json().await?, json!({"command": 3, "body": "200"}));
    assert_eq!(web.closed().await?, (1000, String::new()));
    cluster.stop().await
}

#[tokio::test]
async fn a_websocket_is_told_why_the_server_closes_it() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo(r#""idle_s": 1"#)?).await?;
    let mut idle = WebClient::connect(cluster.at("net")).await?;
    idle.call_json(&json!({"command": 1})).await?;
    assert_eq!(idle.closed().await?, (1000, "idle: limits.idle_s".to_owned()));
    let mut web = WebClient::connect(cluster.at("net")).await?;
    web.call_json(&json!({"command": 1})).await?;
    let (stopped, closed) = tokio::join!(cluster.stop(), web.closed());
    assert_eq!(closed?, (1001, "the node is stopping".to_owned()));
    stopped
}

#[tokio::test]
async fn pings_alone_are_no_first_message_but_keep_a_client_alive_that_has_spoken() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo(r#""idle_s": 2, "first_message_s": 2"#)?).await?;
    let mut spoken = WebClient::connect(cluster.at("net")).await?;
    spoken.call_json(&json!({"command": 1})).await?;
    let mut pings = WebClient::connect(cluster.at("net")).await?;
    let mut every = tokio::time::interval(Duration::from_millis(200));
    let closed = loop {
        every.tick().await;
        let _ = spoken.send_message(Message::Ping("a".into())).await;
        assert_eq!(spoken.receive_message().await?, Message::Pong("a".into()));
        if pings.send_message(Message::Ping("b".into())).await.is_err() {
            break None;
        }
        if let Message::Close(closed) = pings.receive_message().await? {
            break closed;
        }
    };
    if let Some(closed) = closed {
        assert_eq!(closed.reason, "no first message: limits.first_message_s");
    }
    cluster.until_logged("no first message: limits.first_message_s").await?;
    spoken.call_json(&json!({"command": 1})).await?;
    cluster.stop().await
}

#[tokio::test]
async fn pipelined_messages_of_a_websocket_run_in_order_on_the_game_node() -> Result<()> {
    let cluster = Cluster::processes(Fixture::trial()?).await?;
    let mut web = WebClient::connect(cluster.at("net")).await?;
    let mut glued = Vec::new();
    for n in 1..=600u32 {
        let wait = if n % 100 == 0 { 5 } else { 0 };
        glued.push(Message::text(json!({"command": 1000, "body": format!("{n} {wait}")}).to_string()));
    }
    for message in glued {
        web.send_message(message).await?;
    }
    for n in 1..=600u32 {
        let answer = web.receive_json().await?;
        let body = answer["body"].as_str().unwrap_or_default();
        ensure!(body.starts_with(&format!("{n} ok ")), "{n}: {answer}");
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_websocket_that_does_not_read_is_cut_at_its_bound_also_by_its_own_pings() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo(r#""outbox_bytes_max": 100000"#)?).await?;
    let mut slow = raw(cluster.at("net")).await?;
    let pings: Vec<u8> = (0..1000).flat_map(|_| frame(0x89, &[b'p'; 125])).collect();
    let flood = async { while slow.send_bytes(&pings).await.is_ok() {} };
    let flooded = tokio::time::timeout(Duration::from_secs(20), flood).await;
    ensure!(flooded.is_ok(), "a client whose pongs it does not read is served for ever");
    cluster.until_logged("slow reader: limits.outbox_bytes_max").await?;
    Client::connect(cluster.at("net")).await?.call(1, b"others are served").await?;
    cluster.stop().await
}

/// What an idle client costs, its session and its lines in the log included: less than one buffer of 4 KiB would.
#[tokio::test]
async fn an_idle_websocket_owns_no_buffer() -> Result<()> {
    const CLIENTS: u64 = 500;
    const BYTES_EACH_MAX: u64 = 5 * 1024;
    let cluster = Cluster::processes(Fixture::solo("")?).await?;
    let mut first = WebClient::connect(cluster.at("net")).await?;
    first.call_json(&json!({"command": 1, "body": "x"})).await?;
    let before = cluster.memory("net").await?;
    let mut idle = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = WebClient::connect(cluster.at("net")).await?;
        client.call_json(&json!({"command": 1, "body": "x"})).await?;
        idle.push(client);
    }
    let after = cluster.memory("net").await?;
    let each = after.now.saturating_sub(before.now) / CLIENTS;
    println!("an idle WebSocket costs {each} bytes");
    ensure!(each <= BYTES_EACH_MAX, "{each} bytes each: {before:?} to {after:?}");
    cluster.stop().await
}
