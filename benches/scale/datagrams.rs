//! Datagrams of many pairs at a rate that is the same for all, counted one by one.

use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use weft::traffic::{Station, udp_socket};

use crate::networks::Pair;

/// Payload of a datagram, octets.
const PAYLOAD: usize = 200;
/// How long the sinks go on after the last datagram: longer than any queue holds one.
const AFTER: Duration = Duration::from_secs(1);
/// How often the sinks are emptied.
const LOOK: Duration = Duration::from_millis(2);

/// What all pairs together sent and received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) seconds: f64,
}

/// Sends `rate` datagrams per second from one end of each pair to the other for `time`.
pub(crate) fn send(pairs: &[Pair], rate: u32, time: Duration) -> Result<Delivery> {
    let (mut sources, mut sinks) = (Vec::new(), Vec::new());
    for [near, far] in pairs {
        let (source, sink) = (open(near)?, open(far)?);
        source.connect(sink.local_addr()?)?;
        sink.set_nonblocking(true)?;
        sources.push(source);
        sinks.push(sink);
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let counting = scope.spawn(|| count(&sinks, &over));
        let start = Instant::now();
        let sent = pace(&sources, rate, time);
        let seconds = start.elapsed().as_secs_f64();
        thread::sleep(AFTER);
        over.store(true, Ordering::Relaxed);
        let received = counting.join().map_err(|_| anyhow!("the sinks panicked"))?;
        Ok(Delivery { sent: sent?, received: received?, seconds })
    })
}

fn open(station: &Station) -> Result<UdpSocket> {
    let opened = station.namespace.run(|| udp_socket((station.address, 0).into()))?;
    opened.context("open a socket in a sandbox")
}

/// One datagram of each socket at a time, so many times a second; what is late is not made up for.
fn pace(sources: &[UdpSocket], rate: u32, time: Duration) -> io::Result<u64> {
    let (interval, start) = (Duration::from_secs(1) / rate.max(1), Instant::now());
    let (mut sent, mut due) = (0, start);
    while start.elapsed() < time {
        for source in sources {
            source.send(&[0x5a; PAYLOAD])?;
            sent += 1;
        }
        due += interval;
        match due.checked_duration_since(Instant::now()) {
            Some(rest) => thread::sleep(rest),
            None => due = Instant::now(),
        }
    }
    Ok(sent)
}

fn count(sinks: &[UdpSocket], over: &AtomicBool) -> io::Result<u64> {
    let (mut received, mut buffer) = (0, [0; PAYLOAD]);
    loop {
        let last = over.load(Ordering::Relaxed);
        for sink in sinks {
            loop {
                match sink.recv(&mut buffer) {
                    Ok(_) => received += 1,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        if last {
            return Ok(received);
        }
        thread::sleep(LOOK);
    }
}
