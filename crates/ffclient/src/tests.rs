//! The client against servers that do what the test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ffproto::frame::Firefly;
use ffproto::{Code, CommandId, Executed};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message as Web;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::{
    CallError, Client, CloseError, Closed, ConnectError, Connection, LoginError, Options, PushError,
    SendError,
};

const LOGIN: CommandId = CommandId(1);
const ASK: CommandId = CommandId(7);
const NEWS: CommandId = CommandId(9);
const ERROR: CommandId = CommandId(u32::MAX);

/// The server's end of a connection. It speaks the same frames, so it is a [`Connection`], too.
struct Server(Connection);

impl Server {
    async fn accept(listener: &TcpListener) -> Result<Self> {
        Ok(Self(Connection::from_stream(listener.accept().await?.0, Options::default())?))
    }

    async fn takes(&mut self, command: CommandId) -> Result<String> {
        let message = self.0.receive().await?;
        ensure!(message.command == command, "{message:?}");
        Ok(String::from_utf8(message.body.to_vec())?)
    }

    async fn says(&mut self, command: CommandId, body: &str) -> Result<()> {
        Ok(self.0.send(command, body.as_bytes()).await?)
    }

    async fn fails(&mut self, command: CommandId, code: &str) -> Result<()> {
        self.says(ERROR, &error(command, code)).await
    }
}

fn error(command: CommandId, code: &str) -> String {
    format!(r#"{{"command":{command},"code":"{code}","message":"because","executed":"no"}}"#)
}

async fn listener() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn pair(options: Options) -> Result<(Client, Server)> {
    let (listener, address) = listener().await?;
    let client = Client::connect(address, options).await?;
    Ok((client, Server::accept(&listener).await?))
}

fn fault(error: CallError) -> Result<(Code, Executed)> {
    match error {
        CallError::Fault(fault) => Ok((fault.code, fault.executed)),
        other => Err(other.into()),
    }
}

#[tokio::test]
async fn a_reply_ends_the_call_of_its_command_and_other_frames_are_pushes() -> Result<()> {
    let (client, mut server) = pair(Options::default()).await?;
    let serve = async {
        assert_eq!(server.takes(ASK).await?, "who?");
        server.says(NEWS, "first").await?;
        server.says(ASK, "you").await?;
        server.says(ASK, "nobody asked").await
    };
    let (reply, served) = tokio::join!(client.call(ASK, b"who?"), serve);
    served?;
    assert_eq!(reply?, "you");
    let pushed = client.push().await?;
    assert_eq!((pushed.command, &pushed.body[..]), (NEWS, &b"first"[..]));
    let pushed = client.push().await?;
    assert_eq!((pushed.command, &pushed.body[..]), (ASK, &b"nobody asked"[..]));
    Ok(())
}

#[tokio::test]
async fn calls_of_one_command_are_answered_in_order_and_an_error_is_one_of_the_answers() -> Result<()> {
    let (client, mut server) = pair(Options::default()).await?;
    let serve = async {
        for want in ["a", "b", "c"] {
            assert_eq!(server.takes(ASK).await?, want);
        }
        server.says(ASK, "A").await?;
        server.fails(ASK, "overloaded").await?;
        server.says(ASK, "C").await
    };
    let calls =
        async { tokio::join!(client.call(ASK, b"a"), client.call(ASK, b"b"), client.call(ASK, b"c")) };
    let ((a, b, c), served) = tokio::join!(calls, serve);
    served?;
    assert_eq!((a?, c?), ("A".into(), "C".into()));
    assert_eq!(fault(b.unwrap_err())?, (Code::Overloaded, Executed::No));
    Ok(())
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_not_taken_for_the_next_ones() -> Result<()> {
    let (client, mut server) = pair(Options::default()).await?;
    let late = client.call_within(ASK, b"1", Duration::from_millis(50)).await;
    let late = late.unwrap_err();
    assert!(matches!(late, CallError::Timeout(_)), "{late}");
    assert_eq!(late.executed(), Executed::Unknown);
    let serve = async {
        assert_eq!(server.takes(ASK).await?, "1");
        assert_eq!(server.takes(ASK).await?, "2");
        server.says(ASK, "one").await?;
        server.says(ASK, "two").await
    };
    let (reply, served) = tokio::join!(client.call(ASK, b"2"), serve);
    served?;
    assert_eq!(reply?, "two");
    Ok(())
}

#[tokio::test]
async fn a_call_above_the_bound_is_refused_at_once_and_has_not_run() -> Result<()> {
    let (client, mut server) = pair(Options { calls_max: 1, ..Options::default() }).await?;
    let client = Arc::new(client);
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.call(ASK, b"1").await }
    });
    assert_eq!(server.takes(ASK).await?, "1");
    let second = client.call(ASK, b"2").await.unwrap_err();
    assert!(matches!(second, CallError::Overloaded), "{second}");
    assert_eq!(second.executed(), Executed::No);
    server.says(ASK, "one").await?;
    assert_eq!(first.await??, "one");
    let (third, served) = tokio::join!(client.call(ASK, b"3"), async {
        assert_eq!(server.takes(ASK).await?, "3");
        server.says(ASK, "three").await
    });
    served?;
    assert_eq!(third?, "three");
    Ok(())
}

#[tokio::test]
async fn of_pushes_that_nobody_takes_the_oldest_are_lost_and_counted() -> Result<()> {
    for options in [
        Options { pushes_max: 2, ..Options::default() },
        Options { pushes_bytes_max: 8, ..Options::default() },
    ] {
        let (client, mut server) = pair(options).await?;
        for body in ["push", "push", "pu 3", "pu 4"] {
            server.says(NEWS, body).await?;
        }
        // The pushes are there when the reply behind them is.
        let (reply, served) = tokio::join!(client.call(ASK, b""), async {
            server.takes(ASK).await?;
            server.says(ASK, "").await
        });
        served?;
        reply?;
        let lagged = client.push().await.unwrap_err();
        assert!(matches!(lagged, PushError::Lagged(2)), "{lagged}");
        assert_eq!(client.push().await?.body, "pu 3");
        assert_eq!(client.push().await?.body, "pu 4");
    }
    Ok(())
}

#[tokio::test]
async fn a_login_is_greeted_or_refused_or_may_be_tried_again() -> Result<()> {
    let (client, mut server) = pair(Options::default()).await?;
    let serve = async {
        server.takes(LOGIN).await?;
        server.fails(LOGIN, "no_node").await?;
        server.takes(LOGIN).await?;
        server.says(LOGIN, "hi").await?;
        server.takes(LOGIN).await?;
        server.fails(LOGIN, "refused").await
    };
    let logins = async {
        let again = client.login(LOGIN, b"ann").await.unwrap_err();
        assert!(matches!(&again, LoginError::Fault(fault) if !fault.is_last()), "{again}");
        assert_eq!(client.login(LOGIN, b"ann").await?, "hi");
        let refused = client.login(LOGIN, b"ann").await.unwrap_err();
        assert!(matches!(&refused, LoginError::Refused(fault) if fault.is_last()), "{refused}");
        anyhow::Ok(())
    };
    let (served, logged_in) = tokio::join!(serve, logins);
    served?;
    logged_in
}

#[tokio::test]
async fn a_connection_that_ends_ends_its_calls_and_tells_the_last_word_before() -> Result<()> {
    let (client, mut server) = pair(Options::default()).await?;
    let serve = async move {
        server.takes(ASK).await?;
        server.fails(CommandId(0), "kicked").await
    };
    let (call, served) = tokio::join!(client.call(ASK, b""), serve);
    served?;
    let call = call.unwrap_err();
    assert!(matches!(call, CallError::Closed(Closed::ByServer)), "{call}");
    let last = client.push().await.unwrap_err();
    assert!(matches!(&last, PushError::Fault(fault) if fault.code == Code::Kicked), "{last}");
    let end = client.push().await.unwrap_err();
    assert!(matches!(end, PushError::Closed(Closed::ByServer)), "{end}");
    let sent = client.send(ASK, b"").await.unwrap_err();
    assert!(matches!(sent, SendError::Closed(Closed::ByServer)), "{sent}");
    Ok(())
}

#[tokio::test]
async fn what_was_sent_is_written_before_a_close_and_a_server_that_stays_is_told_of() -> Result<()> {
    let (client, mut server) = pair(Options::default()).await?;
    for _ in 0..20 {
        client.send(ASK, b"x").await?;
    }
    let serve = async move {
        for _ in 0..20 {
            server.takes(ASK).await?;
        }
        let end = server.0.receive().await.unwrap_err();
        assert_eq!(end.to_string(), Closed::ByServer.to_string(), "the other end has finished");
        anyhow::Ok(())
    };
    let (closed, served) = tokio::join!(client.close(), serve);
    served?;
    closed?;

    let (client, _server) =
        pair(Options { close_timeout: Duration::from_millis(50), ..Options::default() }).await?;
    let stays = client.close().await.unwrap_err();
    assert!(matches!(stays, CloseError::Timeout(_)), "{stays}");
    Ok(())
}

#[tokio::test]
async fn a_body_above_the_bound_is_not_sent_and_a_frame_above_it_ends_the_connection() -> Result<()> {
    let bounds = Options { request_bytes_max: 8, reply_bytes_max: 8, ..Options::default() };
    let (client, mut server) = pair(bounds).await?;
    let long = client.call(ASK, b"fives").await.unwrap_err();
    assert!(matches!(long, CallError::TooLong), "{long}");
    client.send(ASK, b"four").await?;
    assert_eq!(server.takes(ASK).await?, "four");
    server.says(NEWS, "fives").await?;
    let end = client.push().await.unwrap_err();
    assert!(matches!(end, PushError::Closed(Closed::BadFrame(_))), "{end}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_answers_no_handshake_is_given_up_at_the_deadline() -> Result<()> {
    let (_listener, address) = listener().await?;
    let options = Options { connect_timeout: Duration::from_millis(50), ..Options::default() };
    let error = Client::connect_websocket(address, options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout(_)), "{error}");
    Ok(())
}

/// Takes a WebSocket and answers each request with its body, until one says "bye".
async fn echoes(stream: TcpStream) -> Result<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    let framing = Firefly::default();
    while let Some(message) = socket.next().await {
        let Web::Binary(bytes) = message? else { continue };
        let body = framing.read(&bytes, 1 << 20)?.context("half a frame")?.body;
        if body == b"bye" {
            let reason = CloseFrame { code: 1008.into(), reason: "kicked: enough".into() };
            socket.close(Some(reason)).await?;
            continue;
        }
        socket.send(Web::Ping("are you there".into())).await?;
        socket.send(Web::binary(bytes)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_same_client_speaks_websocket_and_tells_the_code_of_its_end() -> Result<()> {
    let (listener, address) = listener().await?;
    let serve = async {
        for _ in 0..2 {
            echoes(listener.accept().await?.0).await?;
        }
        anyhow::Ok(())
    };
    let play = async {
        let client = Client::connect_websocket(address, Options::default()).await?;
        assert_eq!(client.call(ASK, b"hello").await?, "hello");
        client.close().await?;
        let client = Client::connect_websocket(address, Options::default()).await?;
        let end = client.call(ASK, b"bye").await.unwrap_err();
        let want = Closed::WithReason { code: 1008, reason: "kicked: enough".to_owned() };
        assert!(matches!(&end, CallError::Closed(why) if *why == want), "{end}");
        anyhow::Ok(())
    };
    let (served, played) = tokio::join!(serve, play);
    played?;
    served
}
