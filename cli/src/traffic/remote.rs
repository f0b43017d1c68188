//! A far end on another host: it is asked over TCP, one connection per measurement.
//!
//! A line of JSON asks ([`Request`]), a line tells the port that listens, a last line tells what was seen. Both sides
//! may be anybody in the network: lines are short, work is bounded, and nothing is believed but figures.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use socket2::{SockRef, TcpKeepalive};
use weft_control::io::namespace::Namespace;

use super::listening::{End, Listening};
use super::{Arrivals, PATIENCE, Station, Throughput};

/// Where an end is asked.
pub const PORT: u16 = 7947;
/// Most streams of one measurement.
pub const STREAMS_MAX: usize = 256;
/// Longest line, octets.
const LINE_MAX: u64 = 1024;
/// Measurements at once: round trips beside a load are two.
const SERVED_MAX: usize = 4;
/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// After so long a silence the other side is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// What an end is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Request {
    Tcp { streams: usize },
    Udp,
    Echo,
}

/// An end on another host, where `weft bench --serve` runs.
#[derive(Debug)]
pub struct Remote {
    at: SocketAddr,
    /// From where it is asked.
    from: Namespace,
}

impl Remote {
    /// An end at an address that is reached from a namespace.
    #[must_use]
    pub fn new(address: IpAddr, from: Namespace) -> Self {
        Self { at: SocketAddr::new(address, PORT), from }
    }

    /// Whether somebody listens there.
    ///
    /// # Errors
    /// The kernel's: refused where nobody does.
    pub fn check(&self) -> io::Result<()> {
        self.connect().map(drop)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let connect = || TcpStream::connect_timeout(&self.at, CONNECT_LIMIT);
        let stream = self.from.run(connect).map_err(io::Error::other)??;
        SockRef::from(&stream)
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
        Ok(stream)
    }

    fn ask<T: DeserializeOwned + Send + 'static>(&self, request: Request) -> Result<Listening<T>> {
        let asked = || {
            let mut stream = self.connect()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            tell(&mut stream, &request)?;
            let mut lines = BufReader::new(stream);
            let port: u16 = hear(&mut lines)?;
            // From here on it takes as long as the measurement does.
            lines.get_ref().set_read_timeout(None)?;
            Ok::<_, io::Error>((port, lines))
        };
        let (port, mut lines) = asked().with_context(|| format!("ask the far end at {}", self.at))?;
        let at = SocketAddr::new(self.at.ip(), port);
        Ok(Listening { at, outcome: thread::spawn(move || hear(&mut lines)) })
    }
}

impl End for Remote {
    fn address(&self) -> IpAddr {
        self.at.ip()
    }

    fn station(&self) -> Option<&Station> {
        None
    }

    fn listen_tcp(&self, streams: usize) -> Result<Listening<Throughput>> {
        self.ask(Request::Tcp { streams })
    }

    fn listen_udp(&self) -> Result<Listening<Arrivals>> {
        self.ask(Request::Udp)
    }

    fn listen_echo(&self) -> Result<Listening<()>> {
        self.ask(Request::Echo)
    }
}

/// Serves whoever asks inside a namespace, until the process ends.
///
/// # Errors
/// The port is taken, or the namespace is not to be entered.
pub fn serve(namespace: &Namespace) -> Result<()> {
    let any = SocketAddr::from(([0_u16; 8], PORT));
    let listen = || TcpListener::bind(any).or_else(|_| TcpListener::bind(("0.0.0.0", PORT)));
    let listener =
        namespace.run(listen)?.with_context(|| format!("listen on TCP port {PORT} of the sandbox"))?;
    let namespace = namespace.try_clone()?;
    thread::spawn(move || accept_all(&listener, &namespace));
    Ok(())
}

fn accept_all(listener: &TcpListener, namespace: &Namespace) {
    let busy = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let (Ok(stream), Ok(namespace)) = (stream, namespace.try_clone()) else {
            // Out of descriptors; some come back.
            thread::sleep(CONNECT_LIMIT / 50);
            continue;
        };
        if busy.fetch_add(1, Ordering::Relaxed) >= SERVED_MAX {
            busy.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let busy = Arc::clone(&busy);
        thread::spawn(move || {
            // Whoever asked sees the connection end.
            let _ = answer(stream, namespace);
            busy.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn answer(mut stream: TcpStream, namespace: Namespace) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // The address it was asked at is the one to measure to; of an IPv4 client it is mapped.
    let station = Station::new(namespace, stream.local_addr()?.ip().to_canonical(), None, None);
    let request = hear(&mut BufReader::new(&stream))?;
    match request {
        Request::Tcp { streams } => report(&mut stream, station.listen_tcp(streams.clamp(1, STREAMS_MAX))?),
        Request::Udp => report(&mut stream, station.listen_udp()?),
        Request::Echo => report(&mut stream, station.listen_echo()?),
    }
}

fn report<T: Serialize>(stream: &mut TcpStream, listening: Listening<T>) -> Result<()> {
    tell(stream, &listening.at.port())?;
    Ok(tell(stream, &listening.finish()?)?)
}

fn tell<T: Serialize>(stream: &mut TcpStream, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn hear<T: DeserializeOwned>(lines: &mut impl BufRead) -> io::Result<T> {
    let mut line = Vec::new();
    lines.take(LINE_MAX).read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other end hung up, or says too much"));
    }
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_must_be_whole() {
        let heard = |text: &str| hear::<Request>(&mut text.as_bytes());
        assert_eq!(heard("{\"Tcp\":{\"streams\":3}}\nmore").expect("a request"), Request::Tcp { streams: 3 });
        assert!(heard("\"Udp\"").is_err(), "cut short");
        assert!(heard("\"Flood\"\n").is_err(), "unknown");
        assert!(heard(&format!("{}\"Udp\"\n", " ".repeat(2000))).is_err(), "too long");
    }
}
