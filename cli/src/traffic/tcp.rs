//! One TCP stream, as fast as it goes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{PATIENCE, per_second, span};

/// Octets per `write` and `read`, as iperf3's default.
const BLOCK: usize = 128 << 10;

/// What one end of a TCP stream saw.
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
}

/// Writes for `time`, then closes the sending side.
///
/// # Errors
/// The connection broke.
pub fn pump(mut stream: TcpStream, time: Duration) -> io::Result<Throughput> {
    let block = vec![0x5a; BLOCK];
    stream.set_write_timeout(Some(PATIENCE))?;
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
