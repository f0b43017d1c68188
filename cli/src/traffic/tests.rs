//! Both ends of each measurement over loopback: they must agree with each other.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::*;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const SHORT: Duration = Duration::from_millis(100);

fn pair() -> (UdpSocket, UdpSocket) {
    let (near, far) = (udp_socket(LOOPBACK).expect("near"), udp_socket(LOOPBACK).expect("far"));
    near.connect(far.local_addr().expect("address")).expect("connect");
    (near, far)
}

#[test]
fn a_tcp_sink_reads_every_octet_that_was_written() {
    let listener = TcpListener::bind(LOOPBACK).expect("listen");
    let stream = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let sink = thread::spawn(move || drain(listener.accept().expect("accept").0));
    let written = pump(stream, SHORT).expect("pump");
    let read = sink.join().expect("no panic").expect("drain");
    assert!(written.octets > 0);
    assert_eq!(read.octets, written.octets);
    assert!(read.bits_per_second > 0.0);
}

#[test]
fn several_streams_count_as_one() {
    let listener = TcpListener::bind(LOOPBACK).expect("listen");
    let address = listener.local_addr().expect("address");
    let sink = thread::spawn(move || drain_all(&listener, 3));
    let streams = (0..3).map(|_| TcpStream::connect(address).expect("connect")).collect();
    let written = pump_all(streams, SHORT).expect("pump");
    let read = sink.join().expect("no panic").expect("drain");
    assert_eq!(read.octets, written.octets);
    assert!(read.octets > 0 && read.bits_per_second > 0.0);
}

#[test]
fn a_udp_sink_counts_what_was_sent_at_a_rate() {
    let (near, far) = pair();
    let sink = thread::spawn(move || count_arrivals(&far));
    let load = UdpLoad { size: 64, rate: 2_000, time: SHORT };
    let departures = send_load(&near, load).expect("send");
    let arrivals = sink.join().expect("no panic").expect("count");
    assert!((1..=200).contains(&departures.sent), "{departures:?}");
    assert_eq!((arrivals.received, arrivals.expected), (departures.sent, departures.sent));
}

#[test]
fn round_trips_are_timed_and_a_silent_far_end_is_loss() {
    let (near, far) = pair();
    let echoing = thread::spawn(move || echo(&far));
    let trips = ping_pong(&near, 64, SHORT).expect("ping");
    echoing.join().expect("no panic").expect("it ends when it hears nothing");
    assert!(
        trips.count > 0 && trips.p50 > 0.0 && trips.p50 <= trips.p99 && trips.p99 <= trips.p999,
        "{trips:?}"
    );

    let (near, _silent) = pair();
    let trips = ping_pong(&near, 64, SHORT).expect("ping");
    assert_eq!((trips.count, trips.lost), (0, 1));
}

#[test]
fn loopback_answers_a_ping() {
    let mut pinger = match Pinger::open(Ipv4Addr::LOCALHOST.into(), 7) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && skipping_is_allowed() => return,
        other => other.expect("raw socket (needs root, or WEFT_ALLOW_SKIP=1)"),
    };
    assert!(pinger.ping(Duration::from_secs(1)).expect("ping").is_some());
}

fn skipping_is_allowed() -> bool {
    std::env::var_os("WEFT_ALLOW_SKIP").is_some_and(|value| value == "1")
}
