//! A client: calls from any number of places at a time, and pushes beside them, over one connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ffproto::CommandId;
use parking_lot::Mutex;
use tokio::net::ToSocketAddrs;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::calls::{Calls, Waiting};
use crate::connection::Connection;
use crate::error::{CallError, CloseError, Closed, ConnectError, LoginError, PushError, SendError};
use crate::fault::Fault;
use crate::half::{ReadHalf, WriteHalf};
use crate::message::Message;
use crate::options::Options;
use crate::pushes::{Event, Pushes};
use crate::websocket::WebSocket;

/// A connection to a cluster, with a task that reads and writes it. Dropping it closes the connection.
#[derive(Debug)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
    /// One permit for each call that may wait for its reply.
    permits: Arc<Semaphore>,
    options: Options,
    task: AbortOnDrop,
}

/// What the client and its task know together.
#[derive(Debug)]
struct Shared {
    calls: Mutex<Calls>,
    pushes: Pushes,
    error_command: CommandId,
}

/// A request on its way to the task.
#[derive(Debug)]
struct Request {
    command: CommandId,
    body: Vec<u8>,
    /// The caller, unless nobody waits for a reply.
    call: Option<Waiting>,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Connects to a netport with firefly frames.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(address: impl ToSocketAddrs, options: Options) -> Result<Self, ConnectError> {
        Ok(Connection::connect(address, options).await?.into())
    }

    /// Connects to a netport with WebSocket.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect_websocket(
        address: impl ToSocketAddrs,
        options: Options,
    ) -> Result<Self, ConnectError> {
        Ok(WebSocket::connect(address, options).await?.into())
    }

    /// Logs in: a call of the cluster's login command, whose reply is the greeting.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn login(&self, command: CommandId, body: &[u8]) -> Result<Bytes, LoginError> {
        Ok(self.call(command, body).await?)
    }

    /// Sends a request and waits for its reply, at most [`call_timeout`](Options::call_timeout).
    ///
    /// A handler that answers nothing leaves its call without a reply: use [`send`](Self::send) for such commands.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(&self, command: CommandId, body: &[u8]) -> Result<Bytes, CallError> {
        self.call_within(command, body, self.options.call_timeout).await
    }

    /// Sends a request and waits for its reply, at most `max`.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call_within(
        &self,
        command: CommandId,
        body: &[u8],
        max: Duration,
    ) -> Result<Bytes, CallError> {
        if !self.options.fits(body) {
            return Err(CallError::TooLong);
        }
        let deadline = Instant::now() + max;
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| CallError::Overloaded)?;
        let (reply, replied) = oneshot::channel();
        let call = Some(Waiting { reply, _permit: permit });
        let late = |_| CallError::Timeout(max);
        let queued = self.requests.send(Request { command, body: body.to_vec(), call });
        timeout_at(deadline, queued).await.map_err(late)?.map_err(|_| self.closed())?;
        timeout_at(deadline, replied).await.map_err(late)?.map_err(|_| self.closed())?
    }

    /// Sends a request without waiting for a reply. A reply is then a push, and an error frame a
    /// [`PushError::Fault`], unless a call of the same command is under way.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, command: CommandId, body: &[u8]) -> Result<(), SendError> {
        if !self.options.fits(body) {
            return Err(SendError::TooLong);
        }
        let max = self.options.send_timeout;
        let queued = self.requests.send(Request { command, body: body.to_vec(), call: None });
        let queued = timeout(max, queued).await.map_err(|_| SendError::Timeout(max))?;
        Ok(queued.map_err(|_| self.closed())?)
    }

    /// The next push, however long it takes. Cancel-safe.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn push(&self) -> Result<Message, PushError> {
        self.shared.pushes.next().await
    }

    /// Closes the connection in good order: what was sent is answered, then the server closes its side.
    ///
    /// # Errors
    /// [`CloseError`].
    pub async fn close(self) -> Result<(), CloseError> {
        let Self { requests, shared, options, mut task, .. } = self;
        // The task writes what waits, and then its end.
        drop(requests);
        let max = options.close_timeout;
        let ended = timeout(max, &mut task.0).await.map_err(|_| CloseError::Timeout(max))?;
        match shared.pushes.closed() {
            Some(Closed::ByClient | Closed::ByServer) if ended.is_ok() => Ok(()),
            Some(why) => Err(CloseError::Broken(why)),
            None => Err(CloseError::Broken(Closed::Broken("the client's task ended".to_owned()))),
        }
    }

    fn start(reader: impl ReadHalf, writer: impl WriteHalf, options: Options) -> Self {
        let (requests, queued) = mpsc::channel(options.requests_max.max(1));
        let shared = Arc::new(Shared {
            calls: Mutex::default(),
            pushes: Pushes::new(&options),
            error_command: options.error_command,
        });
        let permits = Arc::new(Semaphore::new(options.calls_max));
        let task = AbortOnDrop(tokio::spawn(drive(reader, writer, queued, shared.clone())));
        Self { requests, shared, permits, options, task }
    }

    fn closed(&self) -> Closed {
        self.shared.pushes.closed().unwrap_or(Closed::ByClient)
    }
}

impl From<Connection> for Client {
    fn from(connection: Connection) -> Self {
        let (reader, writer, options) = connection.into_halves();
        Self::start(reader, writer, options)
    }
}

impl From<WebSocket> for Client {
    fn from(socket: WebSocket) -> Self {
        let (reader, writer, options) = socket.into_halves();
        Self::start(reader, writer, options)
    }
}

/// The client's task: reads and writes until one of both ends, and ends the calls that are left.
async fn drive(
    mut reader: impl ReadHalf,
    mut writer: impl WriteHalf,
    mut requests: mpsc::Receiver<Request>,
    shared: Arc<Shared>,
) {
    let why = {
        let mut reading = std::pin::pin!(read(&mut reader, &shared));
        tokio::select! {
            why = &mut reading => why,
            written = write(&mut writer, &mut requests, &shared) => match written {
                Ok(()) => after_the_last_request(reading.await),
                Err(why) => why,
            },
        }
    };
    // Calls that wait, are queued or come now find no answer, and the reason here.
    shared.pushes.close(why);
    drop(requests);
    *shared.calls.lock() = Calls::default();
}

/// The end of a connection that this client has ended first.
fn after_the_last_request(why: Closed) -> Closed {
    match why {
        Closed::ByServer => Closed::ByClient,
        Closed::WithReason { code: 1000, .. } => Closed::ByClient,
        other => other,
    }
}

/// Takes the server's messages, until there are no more.
async fn read(reader: &mut impl ReadHalf, shared: &Shared) -> Closed {
    loop {
        let taken = match reader.receive().await {
            Ok(message) => shared.take(message),
            Err(why) => Err(why),
        };
        if let Err(why) = taken {
            return why;
        }
    }
}

/// Writes requests until no more can come, and then the end.
async fn write(
    writer: &mut impl WriteHalf,
    requests: &mut mpsc::Receiver<Request>,
    shared: &Shared,
) -> Result<(), Closed> {
    while let Some(Request { command, body, call }) = requests.recv().await {
        if let Some(call) = call {
            // A caller that has given up before its request was written does not want it to run.
            if call.reply.is_closed() {
                continue;
            }
            shared.calls.lock().add(command, call);
        }
        writer.send(command, &body).await.map_err(unsent)?;
    }
    writer.finish().await.map_err(unsent)
}

fn unsent(error: SendError) -> Closed {
    match error {
        SendError::Closed(why) => why,
        other => Closed::Broken(other.to_string()),
    }
}

impl Shared {
    fn take(&self, message: Message) -> Result<(), Closed> {
        if message.command == self.error_command {
            let fault = Fault::read(&message.body)?;
            match self.calls.lock().take(fault.command) {
                Some(call) => drop(call.reply.send(Err(fault.into()))),
                None => self.pushes.add(Event::Fault(fault)),
            }
            return Ok(());
        }
        match self.calls.lock().take(message.command) {
            Some(call) => drop(call.reply.send(Ok(message.body))),
            None => self.pushes.add(Event::Push(message)),
        }
        Ok(())
    }
}
