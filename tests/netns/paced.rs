//! Numbered datagrams at a steady rate, so that a single one lost is seen.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::rig::Sandbox;

/// Longest that a datagram is under way.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// Enough for what comes while this process does not run.
const BUFFER: usize = 8 << 20;

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) sent: u64,
    /// Numbers that never arrived.
    pub(crate) lost: Vec<u64>,
    /// Datagrams that arrived more than once.
    pub(crate) doubled: u64,
}

/// Sends `rate` datagrams a second, each of a number and `payload`, between two sandboxes while `during` runs.
pub(crate) fn while_sending<T>(
    (from, to): (&Sandbox<'_>, &Sandbox<'_>),
    rate: u32,
    payload: &[u8],
    during: impl FnOnce() -> T,
) -> (T, Delivery) {
    let server = to.namespace.enter(|| UdpSocket::bind((to.ip4(), 0))).expect("bound");
    let client = from.namespace.enter(|| UdpSocket::bind((from.ip4(), 0))).expect("bound");
    client.connect(server.local_addr().expect("bound")).expect("connected");
    server.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout set");
    socket2::SockRef::from(&server).set_recv_buffer_size(BUFFER).expect("buffer set");
    let (sending, receiving) = (AtomicBool::new(true), AtomicBool::new(true));
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&client, rate, payload, &sending));
        let receiver = scope.spawn(|| receive(&server, payload, &receiving));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
        sending.store(false, Ordering::Relaxed);
        let sent = sender.join().expect("sent");
        std::thread::sleep(STRAGGLERS);
        receiving.store(false, Ordering::Relaxed);
        let (numbers, doubled) = receiver.join().expect("received");
        let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let lost = (0..sent).filter(|number| !numbers.contains(number)).collect();
        (result, Delivery { sent, lost, doubled })
    })
}

fn send(client: &UdpSocket, rate: u32, payload: &[u8], going_on: &AtomicBool) -> u64 {
    let (start, pause) = (Instant::now(), Duration::from_secs(1) / rate);
    let mut number = 0u64;
    while going_on.load(Ordering::Relaxed) {
        let datagram = [&number.to_be_bytes()[..], payload].concat();
        // one that the sandbox's own kernel refuses is lost like any other
        let _ = client.send(&datagram);
        number += 1;
        let next = start + pause * u32::try_from(number).expect("a short stream");
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    number
}

fn receive(server: &UdpSocket, payload: &[u8], going_on: &AtomicBool) -> (BTreeSet<u64>, u64) {
    let (mut numbers, mut doubled, mut buffer) = (BTreeSet::new(), 0, vec![0; 2048]);
    while going_on.load(Ordering::Relaxed) {
        let Ok(length) = server.recv(&mut buffer) else { continue };
        let (number, rest) = buffer[..length].split_at(8);
        assert_eq!(rest, payload, "what arrives is what was sent");
        doubled += u64::from(!numbers.insert(u64::from_be_bytes(number.try_into().expect("eight octets"))));
    }
    (numbers, doubled)
}
