//! A sandbox's sockets, and how packets to port 53 come to them.
//!
//! A table of nftables in the sandbox's namespace rewrites the port, on the way there and back, packet by packet and
//! without connection tracking: nothing fills up, nothing expires, and two questions from one port never meet.
//!
//! Docker has a resolver of its own in each container, at the same address and behind a NAT of its own. The table comes
//! before that, and lets pass what is marked: so weft asks Docker's resolver what weft does not know.

use std::io;
use std::net::{TcpListener, UdpSocket};

use crate::io::namespace::{Namespace, NamespaceError};
use crate::io::nft::{self, NftError};
use crate::io::server::explain;
use crate::names::SERVER;

/// The table, in the sandbox's namespace.
const TABLE: &str = "ip weft-dns";
/// The port resolvers ask at.
pub(super) const PORT: u16 = 53;
/// Mark of packets for the resolver behind the table: `weft` in ASCII.
pub(super) const BEHIND: u32 = 0x7765_6674;

/// Whose the address is besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Nobody's.
    Nobody,
    /// Docker's: what is marked is its.
    Engine,
}

/// How questions reach the sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum How {
    /// Port 53 is rewritten, and free.
    Redirected,
    /// The sockets have port 53 themselves, because of this.
    Direct(String),
}

/// Why a sandbox has no names.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorsError {
    /// The namespace is gone.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// No sockets.
    #[error("cannot listen at {SERVER}")]
    Listen(#[source] io::Error),
    /// The only way in where somebody else has the address, too.
    #[error("port {PORT} cannot be redirected: {0}")]
    Redirect(String),
    /// Neither way in: what nft says, and the system.
    #[error("port {PORT} cannot be redirected ({0}) and is not free ({1})")]
    Neither(String, io::Error),
}

/// The sockets of a sandbox.
pub(super) struct Doors {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    pub(super) how: How,
}

/// Opens the sockets and the way to them.
///
/// # Errors
/// There is no way; nothing is left.
pub(super) fn open(namespace: &Namespace, beside: Beside) -> Result<Doors, DoorsError> {
    let (udp, tcp) = bind(namespace, 0)?.map_err(DoorsError::Listen)?;
    let ports = udp.local_addr().and_then(|udp| Ok((udp.port(), tcp.local_addr()?.port())));
    let (to_udp, to_tcp) = ports.map_err(DoorsError::Listen)?;
    match nft::apply(namespace, &table(to_udp, to_tcp, beside)) {
        Ok(()) => Ok(Doors { udp, tcp, how: How::Redirected }),
        Err(NftError::Namespace(fault)) => Err(fault.into()),
        Err(fault) if beside == Beside::Engine => Err(DoorsError::Redirect(explain(&fault))),
        Err(fault) => direct(namespace, explain(&fault)),
    }
}

fn direct(namespace: &Namespace, reason: String) -> Result<Doors, DoorsError> {
    match bind(namespace, PORT)? {
        Ok((udp, tcp)) => Ok(Doors { udp, tcp, how: How::Direct(reason) }),
        Err(fault) => Err(DoorsError::Neither(reason, fault)),
    }
}

fn bind(namespace: &Namespace, port: u16) -> Result<io::Result<(UdpSocket, TcpListener)>, NamespaceError> {
    namespace.run(|| {
        let (udp, tcp) = (UdpSocket::bind((SERVER, port))?, TcpListener::bind((SERVER, port))?);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok((udp, tcp))
    })
}

/// Takes the table away; one that is not there is no fault.
pub(super) fn withdraw(namespace: &Namespace) {
    if let Err(fault) = nft::apply(namespace, &cleared()) {
        tracing::debug!(fault = explain(&fault), "a table for names is left in a sandbox");
    }
}

/// Deleting what may not be there takes making it first.
fn cleared() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

/// The batch that makes the table, or makes it anew.
fn table(udp: u16, tcp: u16, beside: Beside) -> String {
    let there = |protocol: &str, port: u16| {
        format!("  ip daddr {SERVER} {protocol} dport {PORT} notrack {protocol} dport set {port}\n")
    };
    let back = |protocol: &str, port: u16| {
        format!("  ip saddr {SERVER} {protocol} sport {port} notrack {protocol} sport set {PORT}\n")
    };
    let behind = match beside {
        Beside::Nobody => String::new(),
        Beside::Engine => format!("  ip daddr {SERVER} meta mark {BEHIND:#x} accept\n"),
    };
    let rules = [behind, there("udp", udp), there("tcp", tcp), back("udp", udp), back("tcp", tcp)].concat();
    let chain =
        format!(" chain output {{\n  type filter hook output priority raw; policy accept;\n{rules} }}\n");
    format!("{}table {TABLE} {{\n{chain}}}\n", cleared())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_replaces_itself_and_rewrites_both_ways() {
        let text = table(40_001, 40_002, Beside::Nobody);
        assert!(
            text.starts_with("add table ip weft-dns\ndelete table ip weft-dns\ntable ip weft-dns {"),
            "{text}"
        );
        for rule in [
            "ip daddr 127.0.0.11 udp dport 53 notrack udp dport set 40001\n",
            "ip saddr 127.0.0.11 tcp sport 40002 notrack tcp sport set 53\n",
        ] {
            assert!(text.contains(rule), "{text}");
        }
    }

    #[test]
    fn what_is_marked_for_dockers_resolver_passes_before_it_is_rewritten() {
        let text = table(40_001, 40_002, Beside::Engine);
        let passes = text.find("ip daddr 127.0.0.11 meta mark 0x77656674 accept\n").expect("a rule");
        assert!(passes < text.find("notrack").expect("others"), "{text}");
    }
}
