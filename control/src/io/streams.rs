//! Gossip over TCP: sealed messages, each behind its length.
//!
//! ```text
//! length (32 bit, network order, 1 to 1 MiB) | sealed message
//! ```
//!
//! A connection carries messages one way; an answer comes over one of the other side's. Nothing is written back and
//! little is kept for a peer that has not proved itself: connections, octets in flight and time per message are
//! bounded, and a message takes memory only as it arrives.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use crate::gossip::Via;

/// Most connections kept open to others.
const MAX_OUT: usize = 64;
/// Messages waiting for one connection.
const QUEUE: usize = 16;
/// Most connections accepted, and of them from one address.
const MAX_IN: usize = 128;
const MAX_IN_PER_HOST: usize = 8;
/// Octets of messages being received or waiting to be opened, over all connections.
const IN_FLIGHT: usize = 8 << 20;
/// Longest a connection is set up, a message written, or one received once it has begun.
const PATIENCE: Duration = Duration::from_secs(2);
const RECEIVE_PATIENCE: Duration = Duration::from_secs(5);
/// Longest a connection says nothing; the writing side ends it first, so that no message is written into a
/// connection the reading side is just closing.
const IDLE: Duration = Duration::from_secs(30);
const IDLE_OUT: Duration = Duration::from_secs(20);
/// Read at once, and the least a message may take before it has arrived.
const CHUNK: usize = 16 << 10;

/// A message as it came, sealed.
#[derive(Debug)]
pub(crate) struct Received {
    /// Who is at the other end; not proved.
    pub(crate) from: SocketAddr,
    /// The message.
    pub(crate) message: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// What went wrong, counted.
#[derive(Debug, Default)]
pub(crate) struct StreamCounters {
    /// Connections not accepted, for there were too many.
    pub(crate) refused: AtomicU64,
    /// Connections closed for an impossible length, slowness, or want of room.
    pub(crate) broken: AtomicU64,
    /// Messages not sent, for the other side did not take them.
    pub(crate) unsent: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Connections to others, the longest unused one given up where there are too many.
#[derive(Debug)]
pub(crate) struct Outgoing {
    local: IpAddr,
    lines: BTreeMap<SocketAddr, Line>,
    uses: u64,
    counters: Arc<StreamCounters>,
}

#[derive(Debug)]
struct Line {
    queue: mpsc::Sender<Vec<u8>>,
    used: u64,
}

impl Outgoing {
    /// Connections that come from the address `local`.
    pub(crate) fn new(local: IpAddr, counters: Arc<StreamCounters>) -> Self {
        Self { local, lines: BTreeMap::new(), uses: 0, counters }
    }

    /// Sends a message sooner or later, or counts it as unsent.
    pub(crate) fn send(&mut self, to: SocketAddr, message: Vec<u8>) {
        self.uses += 1;
        self.lines.retain(|_, line| !line.queue.is_closed());
        if !self.lines.contains_key(&to) {
            self.make_room();
            let (queue, messages) = mpsc::channel(QUEUE);
            tokio::spawn(carry(self.local, to, messages, Arc::clone(&self.counters)));
            self.lines.insert(to, Line { queue, used: 0 });
        }
        let Some(line) = self.lines.get_mut(&to) else { return };
        line.used = self.uses;
        if line.queue.try_send(message).is_err() {
            count(&self.counters.unsent);
        }
    }

    fn make_room(&mut self) {
        if self.lines.len() >= MAX_OUT {
            let oldest = self.lines.iter().min_by_key(|(_, line)| line.used).map(|(to, _)| *to);
            oldest.and_then(|to| self.lines.remove(&to));
        }
    }
}

/// Writes one connection's messages until there are none for a while, or the other side takes none.
async fn carry(
    local: IpAddr,
    to: SocketAddr,
    mut messages: mpsc::Receiver<Vec<u8>>,
    counters: Arc<StreamCounters>,
) {
    let mut stream = None;
    while let Ok(Some(message)) = timeout(IDLE_OUT, messages.recv()).await {
        let written = timeout(PATIENCE, async {
            let open = match stream.take() {
                Some(open) => open,
                None => connect(local, to).await?,
            };
            let open = stream.insert(open);
            let length = u32::try_from(message.len()).map_err(io::Error::other)?;
            open.write_all(&length.to_be_bytes()).await?;
            open.write_all(&message).await
        });
        if !matches!(written.await, Ok(Ok(()))) {
            count(&counters.unsent);
            messages.close();
            while messages.try_recv().is_ok() {
                count(&counters.unsent);
            }
        }
    }
}

async fn connect(local: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(local, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Accepts connections for good, and hands over what they say.
pub(crate) async fn accept(
    listener: TcpListener,
    inbox: mpsc::Sender<Received>,
    counters: Arc<StreamCounters>,
) {
    let connections = Arc::new(Semaphore::new(MAX_IN));
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let hosts = Arc::new(Mutex::new(BTreeMap::new()));
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // Out of descriptors: what is open may end meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let seat = Seat::take(&hosts, from.ip().to_canonical());
        let (Some(seat), Ok(permit)) = (seat, Arc::clone(&connections).try_acquire_owned()) else {
            count(&counters.refused);
            continue;
        };
        let (inbox, room, counters) = (inbox.clone(), Arc::clone(&room), Arc::clone(&counters));
        tokio::spawn(async move {
            let _kept = (seat, permit);
            if listen(stream, from, inbox, room).await.is_err() {
                count(&counters.broken);
            }
        });
    }
}

/// One connection's share of its host's.
struct Seat {
    hosts: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    host: IpAddr,
}

impl Seat {
    fn take(hosts: &Arc<Mutex<BTreeMap<IpAddr, usize>>>, host: IpAddr) -> Option<Self> {
        let mut taken = hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let here = taken.entry(host).or_default();
        if *here >= MAX_IN_PER_HOST {
            return None;
        }
        *here += 1;
        Some(Self { hosts: Arc::clone(hosts), host })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&self.host).map_or(0, |here| here.saturating_sub(1));
        if left == 0 {
            taken.remove(&self.host);
        } else {
            taken.insert(self.host, left);
        }
    }
}

/// Reads messages until the other side ends, or misbehaves.
async fn listen(
    mut stream: TcpStream,
    from: SocketAddr,
    inbox: mpsc::Sender<Received>,
    room: Arc<Semaphore>,
) -> io::Result<()> {
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    loop {
        let mut length = [0; 4];
        match timeout(IDLE, stream.read_exact(&mut length)).await {
            Ok(Ok(_)) => {}
            Ok(Err(fault)) if fault.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(fault)) => return Err(fault),
            Err(_) => return Ok(()),
        }
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
        if length == 0 || length > Via::Stream.limit() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let received = timeout(RECEIVE_PATIENCE, receive(&mut stream, length, &room)).await;
        let (message, kept) = received.map_err(io::Error::other)??;
        if inbox.send(Received { from, message, _room: kept }).await.is_err() {
            return Ok(());
        }
    }
}

/// Reads one message; memory and room are taken as it arrives.
async fn receive(
    stream: &mut TcpStream,
    length: usize,
    room: &Arc<Semaphore>,
) -> io::Result<(Vec<u8>, OwnedSemaphorePermit)> {
    let full = || io::Error::from(io::ErrorKind::OutOfMemory);
    let mut kept = Arc::clone(room).try_acquire_many_owned(0).map_err(|_| full())?;
    let mut message = Vec::new();
    while message.len() < length {
        let start = message.len();
        let more = (length - start).min(CHUNK.max(start));
        let permits = u32::try_from(more).map_err(io::Error::other)?;
        kept.merge(Arc::clone(room).try_acquire_many_owned(permits).map_err(|_| full())?);
        message.resize(start + more, 0);
        stream.read_exact(&mut message[start..]).await?;
    }
    Ok((message, kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn server() -> (SocketAddr, mpsc::Receiver<Received>, Arc<StreamCounters>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let (inbox, received) = mpsc::channel(4);
        let counters = Arc::new(StreamCounters::default());
        tokio::spawn(accept(listener, inbox, Arc::clone(&counters)));
        (address, received, counters)
    }

    /// Waits until the other side hangs up.
    async fn hung_up(stream: &mut TcpStream) -> bool {
        matches!(timeout(Duration::from_secs(20), stream.read(&mut [0])).await, Ok(Ok(0) | Err(_)))
    }

    #[tokio::test]
    async fn messages_arrive_whole_and_in_order() {
        let (address, mut received, counters) = server().await;
        let mut outgoing = Outgoing::new("127.0.0.1".parse().expect("an address"), Arc::clone(&counters));
        let messages: Vec<Vec<u8>> = [1, 100_000, 1 << 20].iter().map(|len| vec![7; *len]).collect();
        for message in &messages {
            outgoing.send(address, message.clone());
        }
        for message in &messages {
            let got = received.recv().await.expect("it was sent");
            assert_eq!(got.from.ip(), address.ip());
            assert!(got.message == *message, "{} octets", message.len());
        }
        assert_eq!(outgoing.lines.len(), 1, "one connection carries them all");
        assert_eq!(counters.unsent.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn impossible_lengths_end_the_connection_at_once() {
        let (address, mut received, counters) = server().await;
        for length in [0, (1 << 20) + 1, u32::MAX] {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(&u32::to_be_bytes(length)).await.expect("written");
            assert!(hung_up(&mut stream).await, "length {length}");
        }
        assert_eq!(counters.broken.load(Ordering::Relaxed), 3);
        assert!(received.try_recv().is_err());
    }

    #[tokio::test]
    async fn one_host_cannot_take_every_connection() {
        let (address, _received, counters) = server().await;
        let mut streams = Vec::new();
        for _ in 0..=MAX_IN_PER_HOST {
            streams.push(TcpStream::connect(address).await.expect("connected"));
        }
        let last = streams.last_mut().expect("there are some");
        assert!(hung_up(last).await, "one too many");
        assert_eq!(counters.refused.load(Ordering::Relaxed), 1);
        drop(streams);
    }

    #[tokio::test]
    async fn a_message_that_stops_half_way_is_given_up() {
        let (address, mut received, counters) = server().await;
        let mut slow = TcpStream::connect(address).await.expect("connected");
        slow.write_all(&[0, 0, 1, 0, 1, 2, 3]).await.expect("written");
        assert!(hung_up(&mut slow).await, "it waits no longer than its patience");
        assert_eq!(counters.broken.load(Ordering::Relaxed), 1);
        assert!(received.try_recv().is_err());
    }

    #[tokio::test]
    async fn an_unreachable_peer_costs_only_its_messages() {
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("bound");
        let counters = Arc::new(StreamCounters::default());
        let mut outgoing = Outgoing::new("127.0.0.1".parse().expect("an address"), Arc::clone(&counters));
        outgoing.send(gone, vec![1]);
        while counters.unsent.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(counters.unsent.load(Ordering::Relaxed), 1);
    }
}
