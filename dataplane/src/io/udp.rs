//! Underlay sockets: some per worker to receive on the VXLAN port, a pool to send from.
//!
//! A UDP socket has one source port, and RFC 7348 §5 wants the source port to be a hash of the inner flow, so
//! that NICs and the peer's workers spread flows. Hence a small pool of sockets, each on its own port. All
//! workers share it: the port must depend on the flow alone. If it told the sending worker too, the peer's
//! choice of worker would follow ours, ours would follow the peer's (a TAP answers on the queue it was written
//! by), and some flows would swap workers, and their order, with every round trip.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::turns::per_worker;
use super::{DataplaneError, sys};

/// Send buffer of a socket, octets: 64 super-frames, counted by the kernel at about twice their payload.
const SEND_BUFFER: i32 = 8 << 20;
/// Receive buffer of a socket, octets: a quarter of that, as a worker has several.
const RECEIVE_BUFFER: i32 = 2 << 20;

/// First port of the range RFC 7348 §5 recommends for the source.
const SOURCE_PORT_MIN: u16 = 49152;
const SOURCE_PORTS: u16 = u16::MAX - SOURCE_PORT_MIN + 1;

/// The sockets of one worker.
#[derive(Debug)]
pub(crate) struct Underlay {
    /// Bound to the VXLAN port, which they and the other workers' share by SO_REUSEPORT.
    pub(crate) inbound: Arc<[Socket]>,
    /// Send only, each on a source port of its own; the same for all workers.
    pub(crate) outbound: Arc<[Socket]>,
}

/// Opens the sockets of `workers` workers in the calling thread's network namespace; port 0 picks one.
///
/// # Errors
/// The address is not this host's, or the port is taken; then the error says by whom, where it can be told.
pub(crate) fn open(
    bind: IpAddr,
    port: u16,
    workers: usize,
    source_ports: usize,
) -> Result<(SocketAddr, Vec<Underlay>), DataplaneError> {
    let refused = |source| DataplaneError::Socket { bind, source };
    // Without SO_REUSEPORT first: with it, a second agent would silently join the group and take half the
    // datagrams.
    let probe = bound(bind, port, false).map_err(|source| bind_error(bind, port, source))?;
    let address = local_address(&probe).map_err(refused)?;
    let outbound = pool(bind, source_ports).map_err(refused)?;
    // A process that is just being started holds a copy of the probe until it runs its program.
    probe.set_reuse_port(true).map_err(refused)?;
    drop(probe);
    let underlay = |_| {
        let inbound =
            (0..per_worker(workers)).map(|_| inbound(bind, address.port())).collect::<Result<_, _>>()?;
        Ok(Underlay { inbound, outbound: Arc::clone(&outbound) })
    };
    Ok((address, (0..workers).map(underlay).collect::<Result<_, _>>()?))
}

/// One of the sockets that share a port.
fn inbound(bind: IpAddr, port: u16) -> Result<Socket, DataplaneError> {
    let socket = bound(bind, port, true).map_err(|source| bind_error(bind, port, source))?;
    prepare_inbound(&socket).map_err(|source| DataplaneError::Socket { bind, source })?;
    Ok(socket)
}

/// Sockets on `source_ports` free ports of the range; other agents of this host may hold some.
fn pool(bind: IpAddr, source_ports: usize) -> io::Result<Arc<[Socket]>> {
    let mut next = 0;
    (0..source_ports).map(|_| outbound(bind, &mut next)).collect()
}

fn socket(bind: IpAddr) -> io::Result<Socket> {
    let domain = if bind.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if bind.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bound(bind: IpAddr, port: u16, share: bool) -> io::Result<Socket> {
    let socket = socket(bind)?;
    socket.set_reuse_port(share)?;
    socket.bind(&SocketAddr::new(bind, port).into())?;
    Ok(socket)
}

fn prepare_inbound(socket: &Socket) -> io::Result<()> {
    let fd = socket.as_fd();
    set_buffer(socket, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)?;
    sys::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    if is_v6(socket)? {
        // Peers may send IPv6 datagrams without checksum (RFC 6935).
        sys::set_option(fd, libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, 1)?;
    }
    Ok(())
}

fn outbound(bind: IpAddr, next: &mut u16) -> io::Result<Socket> {
    let socket = socket(bind)?;
    bind_source_port(&socket, bind, next)?;
    set_buffer(&socket, libc::SO_SNDBUFFORCE, SEND_BUFFER)?;
    forbid_fragments(&socket, bind.is_ipv4())?;
    // Nothing is read from these sockets: a filter that accepts no octet keeps strays out of their queues.
    const RETURN: u16 = 0x06;
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
    Ok(socket)
}

/// Datagrams that `sockets` had no room for.
pub(crate) fn drops(sockets: &[Socket]) -> u64 {
    sockets.iter().filter_map(|socket| sys::socket_drops(socket.as_fd()).ok()).map(u64::from).sum()
}

/// Has the socket send whole packets only: DF on every one, checked against the device's MTU and not against path MTUs
/// that anybody may forge.
///
/// # Errors
/// The kernel's.
pub fn forbid_fragments(socket: &impl AsFd, ipv4: bool) -> io::Result<()> {
    let (level, option, probe) = if ipv4 {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
    };
    sys::set_option(socket.as_fd(), level, option, probe)
}

/// Whether UDP sockets of this kernel take and give runs of packets (Linux 5.0).
#[must_use]
pub fn udp_offload() -> bool {
    let offers = |socket: &Socket| {
        let set = |option, value| sys::set_option(socket.as_fd(), libc::SOL_UDP, option, value).is_ok();
        set(libc::UDP_SEGMENT, 1400) && set(libc::UDP_GRO, 1)
    };
    Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP)).is_ok_and(|socket| offers(&socket))
}

fn bind_source_port(socket: &Socket, bind: IpAddr, next: &mut u16) -> io::Result<()> {
    for _ in 0..SOURCE_PORTS {
        let port = SOURCE_PORT_MIN + *next;
        *next = (*next + 1) % SOURCE_PORTS;
        match socket.bind(&SocketAddr::new(bind, port).into()) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Beyond the system's limit where we may (CAP_NET_ADMIN), else as far as it goes.
fn set_buffer(socket: &Socket, force: i32, octets: i32) -> io::Result<()> {
    if sys::set_option(socket.as_fd(), libc::SOL_SOCKET, force, octets).is_ok() {
        return Ok(());
    }
    let plain = if force == libc::SO_RCVBUFFORCE { libc::SO_RCVBUF } else { libc::SO_SNDBUF };
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, plain, octets)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn is_v6(socket: &Socket) -> io::Result<bool> {
    Ok(local_address(socket)?.is_ipv6())
}

fn bind_error(bind: IpAddr, port: u16, source: io::Error) -> DataplaneError {
    if source.kind() == io::ErrorKind::AddrInUse {
        DataplaneError::PortInUse { bind, port, holder: holder_of(port), source }
    } else {
        DataplaneError::Bind { bind, port, source }
    }
}

/// Who holds UDP `port` in this network namespace, for a person to read.
fn holder_of(port: u16) -> String {
    let Some(inode) = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .find_map(|table| inode_of(&table, port))
    else {
        return "another socket".to_owned();
    };
    match process_with_socket(inode) {
        Some((pid, name)) => format!("process {pid} ({name})"),
        None => "the kernel, probably a VXLAN device (`ip -d link show type vxlan`), or a process that \
                 is hidden from us"
            .to_owned(),
    }
}

/// The inode of the socket bound to `port` in the text of /proc/net/udp (man 5 proc_net).
fn inode_of(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?.rsplit_once(':')?.1;
        let inode = fields.nth(7)?.parse().ok()?;
        (u16::from_str_radix(local, 16).ok()? == port).then_some(inode)
    })
}

fn process_with_socket(inode: u64) -> Option<(u32, String)> {
    let link = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut descriptors = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        descriptors.find(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))?;
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        Some((pid, name.trim_end().to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_taken_port_names_the_process_that_holds_it() {
        let (address, _held) = open(LOOPBACK, 0, 2, 1).expect("loopback has free ports");
        let error = open(LOOPBACK, address.port(), 2, 1).expect_err("the port is held");
        let text = error.to_string();
        assert!(text.contains(&address.port().to_string()), "{text}");
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    }

    #[test]
    fn a_foreign_address_is_refused_by_name() {
        let foreign = "203.0.113.77".parse().expect("address");
        let error = open(foreign, 0, 1, 1).expect_err("documentation addresses are nobody's");
        assert!(error.to_string().contains("203.0.113.77"), "{error}");
    }

    #[test]
    fn source_ports_are_distinct_in_the_recommended_range_and_the_same_for_all_workers() {
        let (_, underlays) = open(LOOPBACK, 0, 2, 4).expect("loopback has free ports");
        let ports_of = |underlay: &Underlay| -> Vec<u16> {
            underlay.outbound.iter().map(|socket| local_address(socket).expect("bound").port()).collect()
        };
        let mut ports = ports_of(&underlays[0]);
        assert_eq!(ports, ports_of(&underlays[1]));
        assert!(ports.iter().all(|&port| port >= SOURCE_PORT_MIN), "{ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 4);
    }

    #[test]
    fn an_ipv6_underlay_opens_too() {
        let (address, _held) = open("::1".parse().expect("address"), 0, 1, 1).expect("IPv6 loopback");
        assert!(address.is_ipv6());
    }
}
