//! Gossip over TCP: sealed messages, each behind its length.
//!
//! ```text
//! length (32 bit, network order, 1 to 1 MiB) | sealed message
//! ```
//!
//! A connection carries messages one way; an answer comes over one of the other side's. Nothing is written back and
//! little is kept for a peer that has not proved itself: it has a seat among the strangers, little time for its first
//! message, and is closed at the first one that does not open. Connections, octets in flight and time per message are
//! bounded, and a message takes memory only as it arrives. A connection that begins with another octet than zero is
//! not gossip and goes to whoever takes [`Guest`]s.

mod seats;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

pub use self::seats::Seat;
pub(crate) use self::seats::Seats;
use crate::gossip::frame_length;

/// Most connections kept open to others.
const MAX_OUT: usize = 64;
/// Messages waiting for one connection.
const QUEUE: usize = 16;
/// Octets of messages being received or waiting to be opened, over all connections of members, and of strangers.
const IN_FLIGHT: usize = 8 << 20;
const STRANGERS_IN_FLIGHT: usize = 4 << 20;
/// Longest a connection is set up, a message written, or one received once it has begun.
const PATIENCE: Duration = Duration::from_secs(2);
const RECEIVE_PATIENCE: Duration = Duration::from_secs(5);
/// Longest a connection is silent at first, and a stranger takes for its first message.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
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
    verdict: oneshot::Sender<bool>,
    _room: OwnedSemaphorePermit,
}

impl Received {
    /// Says whether the message opened; if not, or if nothing is ever said, its connection is closed.
    pub(crate) fn judge(self, opened: bool) {
        // The connection may have ended meanwhile.
        let _ = self.verdict.send(opened);
    }
}

/// What went wrong, counted.
#[derive(Debug, Default)]
pub(crate) struct StreamCounters {
    /// Connections not accepted, for there were too many.
    pub(crate) refused: AtomicU64,
    /// Connections closed for what they said, for slowness, or for want of room.
    pub(crate) broken: AtomicU64,
    /// Messages not sent, for the other side did not take them.
    pub(crate) unsent: AtomicU64,
    /// Whoever wanted to join, or have keys or a certificate, and was told no.
    pub(crate) not_admitted: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
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

/// A connection that begins with an octet no gossip message begins with; whoever takes it answers for it.
#[derive(Debug)]
pub struct Guest {
    /// The octet, read already.
    pub first: u8,
    /// The connection behind it.
    pub stream: TcpStream,
    /// Who is at the other end; not proved.
    pub from: SocketAddr,
    /// To be kept as long as the connection.
    pub seat: Seat,
}

/// Where accepted connections lead.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    /// For messages of gossip.
    pub(crate) inbox: mpsc::Sender<Received>,
    /// For connections that are not gossip; without it they are closed.
    pub(crate) guests: Option<mpsc::Sender<Guest>>,
    /// Who may sit how long.
    pub(crate) seats: Arc<Seats>,
    /// What went wrong.
    pub(crate) counters: Arc<StreamCounters>,
}

/// Room for messages of members, and for first messages of anybody else.
#[derive(Debug)]
struct Rooms {
    members: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

/// Accepts connections for good, and hands over what they say.
pub(crate) async fn accept(listener: TcpListener, doors: Doors) {
    let room = |octets| Arc::new(Semaphore::new(octets));
    let rooms = Arc::new(Rooms { members: room(IN_FLIGHT), strangers: room(STRANGERS_IN_FLIGHT) });
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // Out of descriptors: what is open may end meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let Some(seat) = doors.seats.take(from.ip()) else {
            count(&doors.counters.refused);
            continue;
        };
        let (doors, rooms) = (doors.clone(), Arc::clone(&rooms));
        tokio::spawn(async move {
            if welcome(stream, from, seat, &doors, &rooms).await.is_err() {
                count(&doors.counters.broken);
            }
        });
    }
}

/// Looks at the first octet of a connection: a length of a gossip message begins with zero.
async fn welcome(
    mut stream: TcpStream,
    from: SocketAddr,
    seat: Seat,
    doors: &Doors,
    rooms: &Rooms,
) -> io::Result<()> {
    let Ok(first) = timeout(FIRST_PATIENCE, stream.read_u8()).await else {
        return Err(io::ErrorKind::TimedOut.into());
    };
    let first = match first {
        Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        first => first?,
    };
    if first == 0 {
        return listen(stream, from, seat, doors, rooms).await;
    }
    let guests = doors.guests.as_ref().ok_or(io::ErrorKind::InvalidData)?;
    guests.try_send(Guest { first, stream, from, seat }).map_err(|_| io::ErrorKind::WouldBlock.into())
}

/// Reads messages until the other side ends, misbehaves, or says something that does not open.
async fn listen(
    mut stream: TcpStream,
    from: SocketAddr,
    mut seat: Seat,
    doors: &Doors,
    rooms: &Rooms,
) -> io::Result<()> {
    let mut started = true;
    loop {
        let mut length = [0; 4];
        // The first octet of the first length was read to tell whose connection it is.
        let rest = &mut length[usize::from(started)..];
        let wait = if started { FIRST_PATIENCE } else { IDLE };
        match timeout(wait, stream.read_exact(rest)).await {
            Ok(Err(fault)) if fault.kind() == io::ErrorKind::UnexpectedEof && !started => return Ok(()),
            Ok(read) => drop(read?),
            Err(_) if started => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => return Ok(()),
        }
        let length = frame_length(length).ok_or(io::ErrorKind::InvalidData)?;
        let (room, patience) = match seat.is_known() {
            true => (&rooms.members, RECEIVE_PATIENCE),
            false => (&rooms.strangers, FIRST_PATIENCE),
        };
        let received = timeout(patience, receive(&mut stream, length, room)).await;
        let (message, kept) = received.map_err(io::Error::other)??;
        let (verdict, opened) = oneshot::channel();
        if doors.inbox.send(Received { from, message, verdict, _room: kept }).await.is_err() {
            return Ok(());
        }
        if !opened.await.unwrap_or(false) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        seat.prove();
        started = false;
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
        let (address, received, _, counters) = server_with_guests().await;
        (address, received, counters)
    }

    async fn server_with_guests()
    -> (SocketAddr, mpsc::Receiver<Received>, mpsc::Receiver<Guest>, Arc<StreamCounters>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let ((inbox, received), (guests, guests_in)) = (mpsc::channel(4), mpsc::channel(4));
        let counters = Arc::new(StreamCounters::default());
        let seats = Arc::new(Seats::default());
        let doors = Doors { inbox, guests: Some(guests), seats, counters: Arc::clone(&counters) };
        tokio::spawn(accept(listener, doors));
        (address, received, guests_in, counters)
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
            got.judge(true);
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
    async fn strangers_that_say_nothing_lose_their_seats() {
        let (address, _received, counters) = server().await;
        let mut silent = Vec::new();
        while counters.refused.load(Ordering::Relaxed) == 0 {
            silent.push(TcpStream::connect(address).await.expect("connected"));
            tokio::task::yield_now().await;
        }
        for stream in &mut silent {
            assert!(hung_up(stream).await);
        }
        let mut later = TcpStream::connect(address).await.expect("connected");
        later.write_all(&[0, 0, 0, 1]).await.expect("written");
        let still_there = timeout(Duration::from_millis(100), later.read(&mut [0])).await;
        assert!(still_there.is_err(), "it has a seat");
    }

    #[tokio::test]
    async fn the_first_message_that_does_not_open_ends_the_connection() {
        let (address, mut received, counters) = server().await;
        let mut stream = TcpStream::connect(address).await.expect("connected");
        for opens in [true, true, false] {
            stream.write_all(&[0, 0, 0, 1, 7]).await.expect("written");
            received.recv().await.expect("it was sent").judge(opens);
        }
        assert!(hung_up(&mut stream).await);
        assert_eq!(counters.broken.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn another_first_octet_is_another_protocol() {
        let (address, _received, mut guests, counters) = server_with_guests().await;
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(&[0x21, 1, 2, 3]).await.expect("written");
        let mut guest = guests.recv().await.expect("it came");
        let mut rest = [0; 3];
        guest.stream.read_exact(&mut rest).await.expect("the rest is there");
        assert_eq!((guest.first, rest), (0x21, [1, 2, 3]));
        assert_eq!(counters.broken.load(Ordering::Relaxed), 0);
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
