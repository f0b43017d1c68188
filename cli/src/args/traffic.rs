//! `weft traffic …`: the measuring verbs of the demo and the benchmarks, hidden from the help.

use std::net::SocketAddr;

use clap::{Args, Subcommand};

/// One end of a measurement; prints its result as one line of JSON.
#[derive(Debug, Subcommand)]
pub(crate) enum TrafficVerb {
    /// Accept one TCP connection and read it to its end
    TcpSink(SinkArgs),
    /// Open one TCP connection and write for some seconds
    TcpSend(SendArgs),
    /// Count UDP datagrams until none comes for a second
    UdpSink(SinkArgs),
    /// Send UDP datagrams of one size for some seconds
    UdpSend(UdpSendArgs),
    /// Send every UDP datagram back
    Echo(SinkArgs),
    /// Send a UDP datagram, wait for its echo, send the next; round trips as percentiles
    PingPong(PingPongArgs),
}

/// Where a receiving end listens.
#[derive(Debug, Args)]
pub(crate) struct SinkArgs {
    /// Address and port
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
}

/// What a TCP sender does.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Address and port of the sink
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) to: SocketAddr,
    /// How long
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
}

/// What a UDP sender does.
#[derive(Debug, Args)]
pub(crate) struct UdpSendArgs {
    #[command(flatten)]
    pub(crate) send: SendArgs,
    /// Payload, octets (at least 8: a sequence number)
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..))]
    pub(crate) size: u16,
    /// Datagrams per second; 0 = as many as go
    #[arg(long, default_value_t = 0)]
    pub(crate) rate: u64,
}

/// What a latency probe does.
#[derive(Debug, Args)]
pub(crate) struct PingPongArgs {
    #[command(flatten)]
    pub(crate) send: SendArgs,
    /// Payload, octets
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..))]
    pub(crate) size: u16,
}
