//! UDP datagrams of one size: offered at a rate or as many as go, counted where they arrive.
//!
//! Datagrams go out in batches by `sendmmsg` but each on its own (no `UDP_SEGMENT`): what is measured is the cost
//! of a packet. Each begins with its sequence number, eight octets in network order; the end is said by a number that no
//! sender reaches.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};
use serde::{Deserialize, Serialize};

use super::{PATIENCE, SILENCE, per_second, span, timed_out};

/// Datagrams per system call.
const BATCH: usize = 64;
/// How long a sender that is ahead of its rate sleeps: 35 datagrams at 350,000 per second.
const NAP: Duration = Duration::from_micros(100);
/// Number of the datagrams that say that no more come.
const END: u64 = u64::MAX;
/// How many say so, and how long before each: what came before them may fill all queues.
const FAREWELLS: usize = 5;
const FAREWELL_PAUSE: Duration = Duration::from_millis(10);
/// Longest datagram counted, octets.
const MAX_SIZE: usize = 2048;

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpLoad {
    /// IP packet, octets; of smaller ones than hold 8 octets of payload those.
    pub size: usize,
    /// Datagrams per second; 0 = as many as go.
    pub rate: u64,
    /// How long.
    pub time: Duration,
}

/// What a sender sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Departures {
    /// Datagrams the kernel took.
    pub sent: u64,
    /// Times it had no room.
    pub refused: u64,
    /// How long it took.
    pub seconds: f64,
    /// Datagrams per second.
    pub rate: f64,
}

/// What a sink counted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Datagrams that arrived.
    pub received: u64,
    /// Highest sequence number seen plus one: so many were sent at least.
    pub expected: u64,
    /// Time from the first to the last.
    pub seconds: f64,
    /// Datagrams per second.
    pub rate: f64,
}

/// Sends a load over a connected socket.
///
/// # Errors
/// The kernel's, except that it has no room or that the far end has no listener.
pub fn send_load(socket: &UdpSocket, load: UdpLoad) -> io::Result<Departures> {
    let payload = load.size.saturating_sub(headers(socket.local_addr()?)).max(8);
    let mut datagrams = vec![vec![0; payload]; BATCH];
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    let (mut sent, mut refused) = (0u64, 0);
    let start = Instant::now();
    loop {
        let elapsed = start.elapsed();
        if elapsed >= load.time {
            break;
        }
        let due = due(load.rate, elapsed, sent);
        if due == 0 {
            thread::sleep(NAP);
            continue;
        }
        match send_batch(socket, &mut datagrams[..due], &mut headers, sent) {
            Ok(count) => sent += count,
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::ECONNREFUSED) => refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    let time = start.elapsed();
    say_farewell(socket, payload);
    Ok(Departures { sent, refused, seconds: time.as_secs_f64(), rate: per_second(sent, time) })
}

/// Octets of an IP header (RFC 791, RFC 8200) and a UDP header (RFC 768).
fn headers(local: SocketAddr) -> usize {
    if local.is_ipv4() { 20 + 8 } else { 40 + 8 }
}

/// Where all of it is lost the sink ends by the silence.
fn say_farewell(socket: &UdpSocket, payload: usize) {
    let mut datagram = vec![0; payload];
    datagram[..8].copy_from_slice(&END.to_be_bytes());
    for _ in 0..FAREWELLS {
        thread::sleep(FAREWELL_PAUSE);
        let _ = socket.send(&datagram);
    }
}

/// How many datagrams of the next batch may go at once.
fn due(rate: u64, elapsed: Duration, sent: u64) -> usize {
    if rate == 0 {
        return BATCH;
    }
    let allowed = u128::from(rate) * elapsed.as_nanos() / 1_000_000_000;
    usize::try_from(allowed.saturating_sub(u128::from(sent))).unwrap_or(BATCH).min(BATCH)
}

fn send_batch(
    socket: &UdpSocket,
    datagrams: &mut [Vec<u8>],
    headers: &mut MultiHeaders<()>,
    first: u64,
) -> nix::Result<u64> {
    for (number, datagram) in (first..).zip(datagrams.iter_mut()) {
        datagram[..8].copy_from_slice(&number.to_be_bytes());
    }
    let slices: Vec<[IoSlice<'_>; 1]> = datagrams.iter().map(|datagram| [IoSlice::new(datagram)]).collect();
    let no_addresses = [None; BATCH];
    sendmmsg(socket.as_raw_fd(), headers, &slices, no_addresses, [], MsgFlags::empty())
        .map(|sent| sent.count() as u64)
}

/// Counts datagrams until the sender says that it was the last, or none has come for half a second; waits 10 s for the
/// first.
///
/// # Errors
/// The kernel's.
pub fn count_arrivals(socket: &UdpSocket) -> io::Result<Arrivals> {
    let mut buffers = vec![[0; MAX_SIZE]; BATCH];
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    let (mut received, mut expected, mut first, mut last) = (0, 0, None, None);
    socket.set_read_timeout(Some(PATIENCE))?;
    loop {
        let count = match receive_batch(socket, &mut buffers, &mut headers) {
            Err(error) if timed_out(&error) => break,
            other => other?,
        };
        if first.is_none() {
            first = Some(Instant::now());
            socket.set_read_timeout(Some(SILENCE))?;
        }
        let (mut over, now) = (false, Instant::now());
        for datagram in &buffers[..count] {
            match number_of(datagram) {
                END => over = true,
                number => {
                    received += 1;
                    expected = expected.max(number.saturating_add(1));
                    last = Some(now);
                }
            }
        }
        if over {
            break;
        }
    }
    let time = span(first, last);
    Ok(Arrivals { received, expected, seconds: time.as_secs_f64(), rate: per_second(received, time) })
}

fn receive_batch(
    socket: &UdpSocket,
    buffers: &mut [[u8; MAX_SIZE]],
    headers: &mut MultiHeaders<()>,
) -> io::Result<usize> {
    let mut slices: Vec<[IoSliceMut<'_>; 1]> =
        buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let received = recvmmsg(socket.as_raw_fd(), headers, &mut slices, MsgFlags::MSG_WAITFORONE, None)?;
    Ok(received.count())
}

fn number_of(datagram: &[u8; MAX_SIZE]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&datagram[..8]);
    u64::from_be_bytes(number)
}
