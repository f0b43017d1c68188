//! The measurements between two ends.

use std::io;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::listening::{End, Listening};
use super::{
    Arrivals, Departures, RoundTrips, Station, Throughput, UDP_SIZE, UdpLoad, ping_pong, processor, pump_all,
    send_load,
};
use crate::interrupt::Interrupt;

/// How long streams run before and after what is measured beside them.
const LEAD: Duration = Duration::from_millis(300);

/// Two ends and what joins them.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    /// Where traffic starts.
    pub from: &'a Station,
    /// Where it goes.
    pub to: &'a dyn End,
    /// What ends it early.
    pub interrupt: &'a Interrupt,
}

/// A load of datagrams, as both ends saw it.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// At the sender.
    pub departures: Departures,
    /// At the receiver.
    pub arrivals: Arrivals,
}

impl Delivery {
    /// Datagrams per second that arrived, over the time they were sent in.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.arrivals.received as f64 / self.departures.seconds
    }

    /// The part of what was sent that did not arrive; none where a far end says that more arrived.
    #[must_use]
    pub fn loss(&self) -> f64 {
        (1.0 - self.arrivals.received as f64 / self.departures.sent.max(1) as f64).max(0.0)
    }
}

impl Ends<'_> {
    /// So many TCP streams at once, as fast as they go for `time`; what arrived of all together.
    ///
    /// # Errors
    /// No connection, or one broke.
    pub fn tcp(&self, streams: usize, time: Duration) -> Result<Throughput> {
        Self::tcp_at_once(&[*self], streams, time)?.pop().context("there are no ends")
    }

    /// Datagrams of one size at a rate (0: as many as go) for `time`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn udp(&self, load: UdpLoad) -> Result<Delivery> {
        let sink = self.to.listen_udp()?;
        let source = self.from.connect_udp(sink.at)?;
        let measured = self.interrupt.unless_interrupted(move || {
            processor::stay_on_one_of_many(processor::Role::Source);
            let departures = send_load(&source, load)?;
            Ok::<_, io::Error>(Delivery { departures, arrivals: sink.finish()? })
        })?;
        measured.context("send datagrams")
    }

    /// Round trips of one datagram at a time for `time`, the ends on different processors where there are two.
    ///
    /// # Errors
    /// The kernel's.
    pub fn round_trips(&self, time: Duration) -> Result<RoundTrips> {
        let echo = self.to.listen_echo()?;
        let source = self.from.connect_udp(echo.at)?;
        let measured = self.interrupt.unless_interrupted(move || {
            processor::stay_on(processor::PING);
            // The echo ends by itself, when it hears nothing any more.
            ping_pong(&source, UDP_SIZE, time)
        })?;
        measured.context("send round trips")
    }

    /// As [`Ends::round_trips`], while so many TCP streams run.
    ///
    /// # Errors
    /// The kernel's; no connection, or one broke.
    pub fn round_trips_under_load(&self, streams: usize, time: Duration) -> Result<RoundTrips> {
        let sink = self.to.listen_tcp(streams)?;
        let sources = self.from.connect_tcp(sink.at, streams)?;
        let load = thread::spawn(move || pump_all(sources, LEAD + time + LEAD));
        self.interrupt.pause(LEAD)?;
        let trips = self.round_trips(time)?;
        let ended = self.interrupt.unless_interrupted(move || {
            load.join().map_err(|_| io::Error::other("the load panicked"))??;
            sink.finish()
        })?;
        ended.context("send TCP streams")?;
        Ok(trips)
    }

    /// So many TCP streams of each pair of ends, all at the same time, as fast as they go for `time`; what arrived of each
    /// pair.
    ///
    /// # Errors
    /// No connection, or one broke.
    pub fn tcp_at_once(pairs: &[Self], streams: usize, time: Duration) -> Result<Vec<Throughput>> {
        let interrupt = pairs.first().context("there are no ends")?.interrupt;
        let (mut sinks, mut sources) = (Vec::new(), Vec::new());
        for pair in pairs {
            let sink = pair.to.listen_tcp(streams)?;
            sources.append(&mut pair.from.connect_tcp(sink.at, streams)?);
            sinks.push(sink);
        }
        let measured = interrupt.unless_interrupted(move || {
            pump_all(sources, time)?;
            sinks.into_iter().map(Listening::finish).collect::<io::Result<_>>()
        })?;
        measured.context("send TCP streams")
    }

    /// One ping, repeated until it is answered; `None` where it was not within `limit`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ping(&self, limit: Duration) -> Result<Option<Duration>> {
        self.from.ping(self.to.address(), limit, self.interrupt)
    }
}
