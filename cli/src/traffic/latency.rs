//! Round trips: one datagram at a time, sent when the last came back.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{PATIENCE, SILENCE, timed_out};

/// An echo that has not come for so long is lost.
const LOST_AFTER: Duration = Duration::from_millis(200);

/// Round trips of a measurement, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RoundTrips {
    /// Round trips made.
    pub count: u64,
    /// Datagrams that did not come back within 200 ms.
    pub lost: u64,
    /// Half of them took at most this.
    pub p50: f64,
    /// 99 of 100 took at most this.
    pub p99: f64,
    /// 999 of 1,000 took at most this.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// Sends every datagram back to where it came from until none has come for half a second; waits 10 s for the first.
///
/// # Errors
/// The kernel's.
pub fn echo(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 65_535];
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut heard = false;
    loop {
        match socket.recv_from(&mut buffer) {
            // A datagram that can't be sent back counts as lost at the other end.
            Ok((count, from)) => drop(socket.send_to(&buffer[..count], from)),
            Err(error) if timed_out(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        if !heard {
            heard = true;
            socket.set_read_timeout(Some(SILENCE))?;
        }
    }
}

/// Sends datagrams of `size` octets over a connected socket for `time`, each after the echo of the one before.
///
/// # Errors
/// The kernel's, except that the far end has no listener.
pub fn ping_pong(socket: &UdpSocket, size: usize, time: Duration) -> io::Result<RoundTrips> {
    let mut datagram = vec![0; size.max(8)];
    let mut times = Vec::new();
    let mut lost = 0;
    socket.set_read_timeout(Some(LOST_AFTER))?;
    let start = Instant::now();
    for number in 0u64.. {
        if start.elapsed() >= time {
            break;
        }
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        match round_trip(socket, &datagram)? {
            Some(taken) => times.push(taken),
            None => lost += 1,
        }
    }
    Ok(summary(times, lost))
}

/// The time until the echo of this very datagram; late echoes of others are passed over.
fn round_trip(socket: &UdpSocket, datagram: &[u8]) -> io::Result<Option<Duration>> {
    let mut answer = [0; 65_535];
    let start = Instant::now();
    if socket.send(datagram).is_err() {
        std::thread::sleep(LOST_AFTER);
        return Ok(None);
    }
    while start.elapsed() < LOST_AFTER {
        match socket.recv(&mut answer) {
            Ok(count) if answer[..count] == *datagram => return Ok(Some(start.elapsed())),
            Ok(_) => {}
            Err(error) if timed_out(&error) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::thread::sleep(LOST_AFTER / 10);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn summary(mut times: Vec<Duration>, lost: u64) -> RoundTrips {
    times.sort_unstable();
    let at = |per_mille: usize| percentile(&times, per_mille).as_secs_f64() * 1e6;
    RoundTrips { count: times.len() as u64, lost, p50: at(500), p99: at(990), p999: at(999), max: at(1000) }
}

/// The smallest value that so many of a thousand do not exceed (nearest rank); zero of none.
fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let times: Vec<_> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!(percentile(&times, 500), Duration::from_micros(100));
        assert_eq!(percentile(&times, 990), Duration::from_micros(198));
        assert_eq!(percentile(&times, 1000), Duration::from_micros(200));
        assert_eq!(percentile(&[], 500), Duration::ZERO);
    }
}
