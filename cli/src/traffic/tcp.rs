//! TCP streams, as fast as they go.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use super::{PATIENCE, per_second, span};

/// Octets per `write` and `read`, as iperf3's default.
const BLOCK: usize = 128 << 10;

/// Linux's own congestion control. BBR, the default of some systems, sends at a pace that it guesses; the rate of one
/// stream is then that guess and not what the path carries.
const CONGESTION: &str = "cubic";

/// Congestion control that streams have: cubic, or the system's default where it lacks that.
#[must_use]
pub fn congestion() -> String {
    let setting = |name| fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_{name}")).unwrap_or_default();
    let has_it = setting("available_congestion_control").split_whitespace().any(|name| name == CONGESTION);
    if has_it { CONGESTION.to_owned() } else { setting("congestion_control").trim().to_owned() }
}

/// What one end of TCP streams saw.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Octets that passed.
    pub octets: u64,
    /// Time from the first to the last of them.
    pub seconds: f64,
    /// Octets times 8 per second.
    pub bits_per_second: f64,
}

impl Throughput {
    fn new(octets: u64, time: Duration) -> Self {
        Self { octets, seconds: time.as_secs_f64(), bits_per_second: per_second(octets, time) * 8.0 }
    }

    /// Streams that ran at the same time, as one.
    fn together(streams: &[Self]) -> Self {
        Self {
            octets: streams.iter().map(|stream| stream.octets).sum(),
            seconds: streams.iter().map(|stream| stream.seconds).fold(0.0, f64::max),
            bits_per_second: streams.iter().map(|stream| stream.bits_per_second).sum(),
        }
    }
}

/// Writes for `time`, then closes the sending side.
///
/// # Errors
/// The connection broke.
pub fn pump(mut stream: TcpStream, time: Duration) -> io::Result<Throughput> {
    let block = vec![0x5a; BLOCK];
    stream.set_write_timeout(Some(PATIENCE))?;
    // Where it lacks that, the system's default stays.
    let _ = SockRef::from(&stream).set_tcp_congestion(CONGESTION.as_bytes());
    let start = Instant::now();
    let mut octets = 0;
    while start.elapsed() < time {
        octets += stream.write(&block)? as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(Throughput::new(octets, start.elapsed()))
}

/// Reads to the end of the stream.
///
/// # Errors
/// The connection broke, or fell silent for 10 s.
pub fn drain(mut stream: TcpStream) -> io::Result<Throughput> {
    let mut block = vec![0; BLOCK];
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut octets, mut first, mut last) = (0, None, None);
    loop {
        let count = stream.read(&mut block)?;
        if count == 0 {
            return Ok(Throughput::new(octets, span(first, last)));
        }
        octets += count as u64;
        last = Some(Instant::now());
        first = first.or(last);
    }
}

/// Writes to all streams at once for `time`.
///
/// # Errors
/// A connection broke.
pub fn pump_all(streams: Vec<TcpStream>, time: Duration) -> io::Result<Throughput> {
    at_once(streams, move |stream| pump(stream, time))
}

/// Accepts so many connections, each within 10 s, and reads all to their ends.
///
/// # Errors
/// One does not come, broke, or fell silent for 10 s.
pub fn drain_all(listener: &TcpListener, streams: usize) -> io::Result<Throughput> {
    let streams = (0..streams).map(|_| accept(listener)).collect::<io::Result<_>>()?;
    at_once(streams, drain)
}

fn at_once(
    streams: Vec<TcpStream>,
    run: impl Fn(TcpStream) -> io::Result<Throughput> + Copy + Send + 'static,
) -> io::Result<Throughput> {
    let ends: Vec<_> = streams.into_iter().map(|stream| thread::spawn(move || run(stream))).collect();
    let ended = ends.into_iter().map(|end| end.join().map_err(|_| io::Error::other("an end panicked"))?);
    Ok(Throughput::together(&ended.collect::<io::Result<Vec<_>>>()?))
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    if poll(&mut ready, limit)? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody connected"));
    }
    Ok(listener.accept()?.0)
}
