//! Servers that say who they are and whom they see, and clients that ask them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::namespace::Namespace;

/// Longest that an answer takes which comes at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest that one is waited for that should not come.
pub(crate) const SHORT: Duration = Duration::from_millis(400);

/// A server of TCP and UDP on one port of a namespace; answers `NAME ADDRESS-OF-CLIENT`.
pub(crate) struct Greeter {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Greeter {
    /// Serves on `port` of all addresses of `namespace`.
    pub(crate) fn at(namespace: &Namespace, name: &str, port: u16) -> Self {
        let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, port).into();
        let (tcp, udp) = namespace.enter(|| {
            (TcpListener::bind(any).expect("a free port"), UdpSocket::bind(any).expect("a free port"))
        });
        tcp.set_nonblocking(true).expect("nonblocking");
        udp.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let (name, stopped) = (name.to_owned(), Arc::clone(&stop));
        let (other, also_stopped) = (name.clone(), Arc::clone(&stop));
        let threads = vec![
            std::thread::spawn(move || greet_streams(&tcp, &name, &stopped)),
            std::thread::spawn(move || greet_datagrams(&udp, &other, &also_stopped)),
        ];
        Self { stop, threads }
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn greet_streams(listener: &TcpListener, name: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, from)) => {
                let _ = write!(stream, "{name} {}", from.ip().to_canonical());
            }
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(_) => return,
        }
    }
}

fn greet_datagrams(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let mut datagram = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(format!("{name} {}", from.ip().to_canonical()).as_bytes(), from);
        }
    }
}

/// What a server at `target` says to a TCP client in `namespace`, if anything.
pub(crate) fn ask(namespace: &Namespace, target: impl Into<SocketAddr>) -> Option<String> {
    ask_for(namespace, target, PATIENCE)
}

/// As [`ask`], waiting so long at most.
pub(crate) fn ask_for(
    namespace: &Namespace,
    target: impl Into<SocketAddr>,
    most: Duration,
) -> Option<String> {
    let target = target.into();
    namespace.enter(|| {
        let mut stream = TcpStream::connect_timeout(&target, most).ok()?;
        stream.set_read_timeout(Some(most)).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    })
}

/// What a server at `target` says to a UDP client in `namespace`, if anything.
pub(crate) fn ask_by_datagram(namespace: &Namespace, target: impl Into<SocketAddr>) -> Option<String> {
    let target = target.into();
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = namespace.enter(|| UdpSocket::bind((any, 0))).expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let mut datagram = [0; 64];
    // A datagram may be lost on a busy machine.
    (0..3).find_map(|_| {
        socket.send_to(b"?", target).ok()?;
        let (length, _) = socket.recv_from(&mut datagram).ok()?;
        Some(String::from_utf8_lossy(&datagram[..length]).into_owned())
    })
}
