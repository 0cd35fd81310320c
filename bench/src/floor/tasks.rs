//! A relay on tokio's current_thread runtime: a task per connection that reads, and a writer task per
//! outbox, woken when the outbox stops being empty, that swaps the buffer and writes it once.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use super::{Role, logic};

/// What a link's task reads at once, and a client's.
const LINK_READ_BYTES: usize = 256 * 1024;
const CLIENT_READ_BYTES: usize = 4 * 1024;

struct Outbox {
    socket: OwnedWriteHalf,
    bytes: Mutex<Vec<u8>>,
    filled: Notify,
    closed: AtomicBool,
}

impl Outbox {
    /// Takes the connection apart: an outbox with its writer task, and the reading half.
    fn open(stream: tokio::net::TcpStream) -> anyhow::Result<(Arc<Self>, OwnedReadHalf)> {
        stream.set_nodelay(true)?;
        let (read, socket) = stream.into_split();
        let outbox =
            Arc::new(Self { socket, bytes: Mutex::default(), filled: Notify::new(), closed: false.into() });
        tokio::spawn(Self::write_until_closed(outbox.clone()));
        Ok((outbox, read))
    }

    /// Lets `fill` append, and wakes the writer if there was nothing before.
    fn push(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = lock(&self.bytes);
        let was_empty = bytes.is_empty();
        fill(&mut bytes);
        if was_empty && !bytes.is_empty() {
            self.filled.notify_one();
        }
    }

    /// Ends the writer task, and with it the connection.
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.filled.notify_one();
    }

    async fn write_until_closed(self: Arc<Self>) {
        let mut writing = Vec::new();
        while !self.closed.load(Ordering::Relaxed) {
            self.filled.notified().await;
            loop {
                std::mem::swap(&mut writing, &mut lock(&self.bytes));
                if writing.is_empty() {
                    break;
                }
                if self.write_all(&writing).await.is_err() {
                    return;
                }
                writing.clear();
            }
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.try_write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.socket.writable().await?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads until the end and gives every batch to `batch`, which returns how many bytes it used.
///
/// `read` and not `readable` with `try_read`: only the former takes a short read for "drained" and saves the
/// `recv` that ends in EAGAIN.
async fn pump(
    mut read: OwnedReadHalf,
    capacity: usize,
    mut batch: impl FnMut(&[u8]) -> anyhow::Result<usize>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; capacity];
    let mut have = 0;
    loop {
        match read.read(&mut buffer[have..]).await? {
            0 => return Ok(()),
            n => have += n,
        }
        let used = batch(&buffer[..have])?;
        buffer.copy_within(used..have, 0);
        have -= used;
        if have == buffer.len() {
            buffer.resize(have * 2, 0);
        }
    }
}

/// Runs the relay until the one behind it ends.
pub(super) fn run(role: Role, listener: TcpListener, up: Option<TcpStream>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let up = match up {
            Some(stream) => {
                stream.set_nonblocking(true)?;
                Some(Outbox::open(tokio::net::TcpStream::from_std(stream)?)?)
            }
            None => None,
        };
        match (role, up) {
            (Role::Game, _) => game(listener).await,
            (Role::Gate, up) => gate(listener, up.context("gate needs --up")?).await,
            (Role::Net, up) => net(listener, up.context("net needs --up")?).await,
            (Role::Broadcast, _) => anyhow::bail!("this floor is for epoll only"),
        }
    })
}

async fn game(listener: tokio::net::TcpListener) -> anyhow::Result<()> {
    loop {
        let (outbox, read) = Outbox::open(listener.accept().await?.0)?;
        tokio::spawn(pump(read, LINK_READ_BYTES, move |bytes| {
            let mut used = Ok(0);
            outbox.push(|out| used = logic::echoes(bytes, out));
            used
        }));
    }
}

type Up = (Arc<Outbox>, OwnedReadHalf);

/// Which link each session came on, and the links.
#[derive(Default)]
struct Owners {
    of_slot: Vec<Option<usize>>,
    links: Vec<Arc<Outbox>>,
}

async fn gate(listener: tokio::net::TcpListener, (up, from_up): Up) -> anyhow::Result<()> {
    let owners = Arc::new(Mutex::new(Owners::default()));
    let back = owners.clone();
    let answers = tokio::spawn(pump(from_up, LINK_READ_BYTES, move |bytes| {
        let owners = lock(&back);
        let owner = |slot| owners.of_slot.get(slot).copied().flatten();
        logic::runs(bytes, owner, |to, run| owners.links[to].push(|out| out.extend_from_slice(run)))
    }));
    let accepting = async {
        loop {
            let (outbox, read) = Outbox::open(listener.accept().await?.0)?;
            let id = lock(&owners).links.len();
            lock(&owners).links.push(outbox);
            tokio::spawn(pump(read, LINK_READ_BYTES, up_to_game(owners.clone(), id, up.clone())));
        }
    };
    tokio::select! { ended = answers => ended?, failed = accepting => failed }
}

fn up_to_game(
    owners: Arc<Mutex<Owners>>,
    id: usize,
    up: Arc<Outbox>,
) -> impl FnMut(&[u8]) -> anyhow::Result<usize> {
    move |bytes| {
        let mut owners = lock(&owners);
        let used = logic::frames(bytes, |slot, _, _| {
            if slot >= owners.of_slot.len() {
                owners.of_slot.resize(slot + 1, None);
            }
            owners.of_slot[slot] = Some(id);
        })?;
        up.push(|out| out.extend_from_slice(&bytes[..used]));
        Ok(used)
    }
}

/// The clients of net by slot, and the slots of those that left.
#[derive(Default)]
struct Clients {
    outboxes: Vec<Option<Arc<Outbox>>>,
    free: Vec<usize>,
}

async fn net(listener: tokio::net::TcpListener, (up, from_up): Up) -> anyhow::Result<()> {
    let clients = Arc::new(Mutex::new(Clients::default()));
    let back = clients.clone();
    let answers = tokio::spawn(pump(from_up, LINK_READ_BYTES, move |bytes| {
        let clients = lock(&back);
        logic::frames(bytes, |slot, frame, _| {
            if let Some(Some(client)) = clients.outboxes.get(slot) {
                client.push(|out| logic::answer(frame, out));
            }
        })
    }));
    // Shared by the clients' tasks, which run on one thread.
    let call = Arc::new(Mutex::new(0));
    let accepting = async {
        loop {
            let (outbox, read) = Outbox::open(listener.accept().await?.0)?;
            tokio::spawn(client(read, outbox, clients.clone(), up.clone(), call.clone()));
        }
    };
    tokio::select! { ended = answers => ended?, failed = accepting => failed }
}

async fn client(
    read: OwnedReadHalf,
    outbox: Arc<Outbox>,
    clients: Arc<Mutex<Clients>>,
    up: Arc<Outbox>,
    call: Arc<Mutex<u32>>,
) {
    let slot = {
        let mut clients = lock(&clients);
        let slot = clients.free.pop().unwrap_or(clients.outboxes.len());
        if slot == clients.outboxes.len() {
            clients.outboxes.push(None);
        }
        clients.outboxes[slot] = Some(outbox);
        slot
    };
    let session = logic::session_of(slot);
    let ended = pump(read, CLIENT_READ_BYTES, |bytes| {
        let mut used = Ok(0);
        up.push(|out| used = logic::calls(bytes, session, &mut lock(&call), out));
        used
    });
    if let Err(error) = ended.await {
        eprintln!("relay: {error}");
    }
    let mut clients = lock(&clients);
    if let Some(outbox) = clients.outboxes[slot].take() {
        outbox.close();
    }
    clients.free.push(slot);
}
