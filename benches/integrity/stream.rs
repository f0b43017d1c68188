//! Two TCP streams, one each way, each hashed where it is sent and where it arrives.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};
use socket2::SockRef;
use weft::interrupt::Interrupt;
use weft::traffic::{Station, congestion};

/// Octets that are made, sent and hashed at a time: they stay in a processor's cache.
const BLOCK: usize = 256 << 10;
/// So often there is a number that is nowhere else in the stream: in every packet.
const NUMBERED: usize = 1024;
/// Longest silence on a connection that works.
const SILENCE: Duration = Duration::from_secs(30);

/// What became of one stream.
#[derive(Debug)]
pub(crate) struct Passage {
    sent: Seen,
    arrived: Seen,
    /// From the first octet sent to the last one received.
    pub(crate) seconds: f64,
}

/// What one end saw.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    octets: u64,
    /// The first octets of the hash, in hexadecimal.
    hash: String,
}

impl Passage {
    /// Whether so many octets arrived as they were sent.
    pub(crate) fn is_whole(&self, octets: u64) -> bool {
        self.sent == self.arrived && self.arrived.octets == octets
    }

    /// 10⁹ bits per second.
    pub(crate) fn gigabits(&self) -> f64 {
        self.arrived.octets as f64 * 8.0 / 1e9 / self.seconds
    }
}

/// Sends so many octets from each end to the other at the same time.
///
/// # Errors
/// No connection, or one broke; or interrupted.
pub(crate) fn both_ways(ends: &[Station; 2], octets: u64, interrupt: &Interrupt) -> Result<[Passage; 2]> {
    let [near, far] = ends;
    let ways = [connection(near, far)?, connection(far, near)?];
    let passing = [1, 2].into_iter().zip(ways).map(|(seed, way)| Passing::start(way, octets, seed));
    let passing: Vec<_> = passing.collect();
    let passages = interrupt.unless_interrupted(move || {
        passing.into_iter().map(Passing::finish).collect::<io::Result<Vec<_>>>()
    })?;
    passages.context("send octets")?.try_into().map_err(|_| anyhow!("two ways"))
}

/// A connection: the end that sends, and the end that receives.
fn connection(from: &Station, to: &Station) -> Result<[TcpStream; 2]> {
    let listener = to.namespace.run(|| TcpListener::bind((to.address, 0)))??;
    let at = listener.local_addr()?;
    let sender = from.namespace.run(|| TcpStream::connect_timeout(&at, SILENCE))??;
    let (receiver, _) = listener.accept()?;
    SockRef::from(&sender).set_tcp_congestion(congestion().as_bytes())?;
    sender.set_write_timeout(Some(SILENCE))?;
    receiver.set_read_timeout(Some(SILENCE))?;
    Ok([sender, receiver])
}

/// A stream on its way.
struct Passing {
    start: Instant,
    sender: JoinHandle<io::Result<Seen>>,
    receiver: JoinHandle<io::Result<(Seen, Instant)>>,
}

impl Passing {
    fn start([sender, receiver]: [TcpStream; 2], octets: u64, seed: u64) -> Self {
        Self {
            start: Instant::now(),
            sender: thread::spawn(move || send(sender, octets, seed)),
            receiver: thread::spawn(move || receive(receiver)),
        }
    }

    fn finish(self) -> io::Result<Passage> {
        let panicked = |_| io::Error::other("an end panicked");
        let (arrived, end) = self.receiver.join().map_err(panicked)??;
        let sent = self.sender.join().map_err(panicked)??;
        Ok(Passage { sent, arrived, seconds: (end - self.start).as_secs_f64() })
    }
}

fn send(mut stream: TcpStream, octets: u64, seed: u64) -> io::Result<Seen> {
    let (mut block, mut hash, mut sent) = (noise(seed), Sha256::new(), 0);
    while sent < octets {
        number(&mut block, sent);
        let length = usize::try_from(octets - sent).unwrap_or(BLOCK).min(BLOCK);
        hash.update(&block[..length]);
        stream.write_all(&block[..length])?;
        sent += length as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(Seen::new(sent, hash))
}

fn receive(mut stream: TcpStream) -> io::Result<(Seen, Instant)> {
    let (mut block, mut hash, mut received) = (vec![0; BLOCK], Sha256::new(), 0);
    loop {
        let count = stream.read(&mut block)?;
        if count == 0 {
            return Ok((Seen::new(received, hash), Instant::now()));
        }
        hash.update(&block[..count]);
        received += count as u64;
    }
}

impl Seen {
    fn new(octets: u64, hash: Sha256) -> Self {
        let hash = hash.finalize().iter().take(8).map(|octet| format!("{octet:02x}")).collect();
        Self { octets, hash }
    }
}

/// A block of octets without order (SplitMix64), other ones for each seed.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    (0..BLOCK / 8).flat_map(|_| next().to_be_bytes()).collect()
}

/// Writes into a block which octets of the stream it is: what arrives in another order is not the same.
fn number(block: &mut [u8], sent: u64) {
    for (place, at) in block.chunks_exact_mut(NUMBERED).zip((sent..).step_by(NUMBERED)) {
        place[..8].copy_from_slice(&at.to_be_bytes());
    }
}
