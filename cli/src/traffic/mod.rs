//! Makes traffic and measures it: TCP throughput, UDP packet rate, round trips, and a `ping` of our own.
//!
//! Sockets are arguments, so that a measurement can run between any two namespaces from one process; the hidden
//! `weft traffic` verbs run one end each and print one line of JSON. The same code measures weft and what it is
//! compared with.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::args::TrafficVerb;
use crate::failure::Outcome;
use crate::output::Screen;

mod latency;
mod ping;
mod tcp;
mod udp;

pub use latency::{RoundTrips, echo, ping_pong};
pub use ping::Pinger;
pub use tcp::{Throughput, drain, pump};
pub use udp::{Arrivals, Departures, UdpLoad, count_arrivals, send_load};

/// Buffers of UDP sockets, octets: room for some 20 ms of small datagrams at 500,000 per second.
const SOCKET_BUFFER: usize = 8 << 20;
/// A sink that has heard nothing for so long takes the measurement for over.
const SILENCE: Duration = Duration::from_millis(500);
/// How long a sink waits for the first octet.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs one end and prints what it saw.
pub(crate) fn perform(verb: &TrafficVerb, screen: &mut Screen) -> Outcome {
    match verb {
        TrafficVerb::TcpSink(args) => {
            let (stream, _) = TcpListener::bind(args.listen)?.accept()?;
            print(&drain(stream)?, screen)
        }
        TrafficVerb::TcpSend(args) => {
            let stream = TcpStream::connect(args.to)?;
            print(&pump(stream, seconds(args.seconds))?, screen)
        }
        TrafficVerb::UdpSink(args) => print(&count_arrivals(&udp_socket(args.listen)?)?, screen),
        TrafficVerb::UdpSend(args) => {
            let load = UdpLoad { size: args.size.into(), rate: args.rate, time: seconds(args.send.seconds) };
            print(&send_load(&connected(args.send.to)?, load)?, screen)
        }
        TrafficVerb::Echo(args) => Ok(echo(&udp_socket(args.listen)?, || false)?),
        TrafficVerb::PingPong(args) => {
            let (size, time) = (args.size.into(), seconds(args.send.seconds));
            print(&ping_pong(&connected(args.send.to)?, size, time)?, screen)
        }
    }
}

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

fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = udp_socket(any)?;
    socket.connect(to)?;
    Ok(socket)
}

fn print<T: serde::Serialize>(report: &T, screen: &mut Screen) -> Outcome {
    let text = serde_json::to_string(report).map_err(io::Error::from)?;
    Ok(screen.line(&text)?)
}

/// Seconds from the command line; nonsense is no time at all.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
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
