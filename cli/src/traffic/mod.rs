//! Makes traffic and measures it: TCP throughput, UDP packet rate, round trips, and a `ping` of our own.
//!
//! Sockets are arguments, so that a measurement can run between any two namespaces from one process. The same code
//! measures weft and what it is compared with.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::SockRef;

mod ends;
mod latency;
mod listening;
mod ping;
mod processor;
mod remote;
mod station;
mod tcp;
mod udp;

pub use ends::{Delivery, Ends};
pub use latency::{RoundTrips, echo, ping_pong};
pub use listening::{End, Listening};
pub use ping::Pinger;
pub use processor::ProcessorTime;
pub use remote::{PORT as REMOTE_PORT, Remote, STREAMS_MAX, serve};
pub use station::Station;
pub use tcp::{Throughput, congestion, drain, drain_all, pump, pump_all};
pub use udp::{Arrivals, Departures, UdpLoad, count_arrivals, send_load};

/// Smallest IP packets of a load, and payload of what is sent back and forth, octets.
pub const UDP_SIZE: usize = 64;
/// Buffers of UDP sockets, octets: room for some 20 ms of small datagrams at 500,000 per second.
const SOCKET_BUFFER: usize = 8 << 20;
/// A sink that has heard nothing for so long takes the measurement for over.
const SILENCE: Duration = Duration::from_millis(500);
/// How long a sink waits for the first octet.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a UDP socket with room for bursts.
///
/// # Errors
/// The kernel's: no such address here, or the port is taken.
pub fn udp_socket(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    let options = SockRef::from(&socket);
    // Past net.core.rmem_max only root may go; less room only means more loss, which is reported.
    let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &SOCKET_BUFFER);
    options.set_send_buffer_size(SOCKET_BUFFER)?;
    Ok(socket)
}

/// A rate per second.
fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

/// The middle of some figures (of an even number the upper one of the two); 0 of none.
#[must_use]
pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

/// Whether the error says that a timeout of the socket ran out.
fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Time between two instants that may be missing.
fn span(first: Option<Instant>, last: Option<Instant>) -> Duration {
    first.zip(last).map_or(Duration::ZERO, |(first, last)| last.saturating_duration_since(first))
}

#[cfg(test)]
mod tests;
