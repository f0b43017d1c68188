//! Who has the ports that weft uses.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use super::super::holding::{self, port_holder};
use crate::doctor::{Holder, Port, Transport};

/// The three ports. An agent that answers has them by its own word.
pub(super) fn ports(data: u16, gossip: u16, agent: bool) -> Vec<Port> {
    let of = |number, transport, purpose, flag| {
        let holder = if agent { Holder::Agent } else { holder(number, transport) };
        Port { number, transport, purpose, flag, holder }
    };
    vec![
        of(data, Transport::Udp, "data", "--data-port"),
        of(gossip, Transport::Udp, "gossip", "--gossip-port"),
        of(gossip, Transport::Tcp, "gossip", "--gossip-port"),
    ]
}

/// Tries to have the port for a moment, at every address of each family.
fn holder(port: u16, transport: Transport) -> Holder {
    let anywhere = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    for address in anywhere.map(|ip| SocketAddr::new(ip, port)) {
        match bind(address, transport) {
            Err(fault) if fault.kind() == io::ErrorKind::AddrInUse => return process(port, transport),
            Err(fault) if address.is_ipv4() => return Holder::Untold(fault.to_string()),
            // A kernel without IPv6 is none of the port's faults.
            _ => {}
        }
    }
    Holder::Nobody
}

fn bind(address: SocketAddr, transport: Transport) -> io::Result<()> {
    match transport {
        Transport::Udp => UdpSocket::bind(address).map(drop),
        Transport::Tcp => TcpListener::bind(address).map(drop),
    }
}

fn process(port: u16, transport: Transport) -> Holder {
    let transport = match transport {
        Transport::Udp => holding::Transport::Udp,
        Transport::Tcp => holding::Transport::Tcp,
    };
    let Some(pid) = port_holder(transport, port) else { return Holder::Hidden };
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Holder::Process(pid, name.trim().to_owned())
}
