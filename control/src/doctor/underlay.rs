//! The way to other hosts: ports, whoever else has them, packet sizes.

use std::net::IpAddr;

use super::{Facts, Finding, overhead};

/// Smallest packet that IPv6 asks of a link (RFC 8200 §5).
const IPV6_MIN: u16 = 1280;

/// Transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl Transport {
    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// A port that weft uses.
#[derive(Debug, Clone)]
pub struct Port {
    /// Number.
    pub number: u16,
    /// Transport.
    pub transport: Transport,
    /// What weft has it for.
    pub purpose: &'static str,
    /// Flag of the agent that sets it.
    pub flag: &'static str,
    /// Who has it.
    pub holder: Holder,
}

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// The agent that answers.
    Agent,
    /// A process: number and name.
    Process(u32, String),
    /// Somebody without a process: the kernel itself, or a process that cannot be seen from here.
    Hidden,
    /// It could not be tried.
    Untold(String),
}

/// A VXLAN device of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanDevice {
    /// Name.
    pub name: String,
    /// UDP port it receives on.
    pub port: u16,
    /// Where it is: empty for this namespace, else the path of another.
    pub place: String,
}

/// The address others reach this host by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Address.
    pub address: IpAddr,
    /// Its interface.
    pub interface: String,
    /// Largest IP packet, octets.
    pub mtu: u16,
}

/// What a path to another host carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMtu {
    /// As much as the underlay's interface.
    Whole,
    /// Packets of so many octets and no larger ones.
    Only(u16),
    /// Nothing answers ICMP there.
    Silent,
    /// It could not be tried.
    Untried,
}

/// The path to another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPath {
    /// Name of the node.
    pub name: String,
    /// Underlay address.
    pub address: IpAddr,
    /// `alive`, `suspect` or `dead`, as the agent sees it.
    pub state: String,
    /// What the path carries.
    pub mtu: PathMtu,
}

pub(super) fn port(facts: &Facts, port: &Port) -> Finding {
    const CHECK: &str = "port";
    let Port { number, transport, purpose, flag, holder } = port;
    let what = format!("{number}/{} ({purpose})", transport.name());
    let held = |by: String| {
        let whose = if *transport == Transport::Udp { kernel_vxlan(facts, *number) } else { None };
        Finding::problem(CHECK, format!("{what} is held by {}", whose.unwrap_or(by)))
            .because("no agent can start while somebody else has its port")
            .remedy(format!("end what holds it, or give the agents of all hosts another port with {flag}"))
    };
    match holder {
        Holder::Nobody => Finding::ok(CHECK, format!("{what} is free")),
        Holder::Agent => Finding::ok(CHECK, format!("{what} is the agent's")),
        Holder::Process(pid, name) if name == "weft" => held(format!("another agent of weft (pid {pid})"))
            .remedy("name that agent's socket with --socket, or end it"),
        Holder::Process(pid, name) => held(format!("{name} (pid {pid})")),
        Holder::Hidden => held("the kernel, or a process that cannot be seen from here".to_owned()),
        Holder::Untold(fault) => Finding::warning(CHECK, format!("{what} could not be tried: {fault}"))
            .because("no agent can start while somebody else has its port")
            .remedy("run 'weft doctor' as root in the host's network namespace"),
    }
}

/// The devices of the kernel's own VXLAN that have the port; Swarm's are in namespaces of Docker's.
fn kernel_vxlan(facts: &Facts, port: u16) -> Option<String> {
    let devices: Vec<_> = facts.vxlan.iter().filter(|device| device.port == port).collect();
    let first = devices.first()?;
    let swarm = devices.iter().any(|device| device.place.contains("docker"));
    let of = if swarm { "Docker Swarm's overlay" } else { "the kernel" };
    let place = if first.place.is_empty() { String::new() } else { format!(" in {}", first.place) };
    let more = if devices.len() > 1 { format!(" and {} more", devices.len() - 1) } else { String::new() };
    Some(format!("a VXLAN device of {of}: {}{place}{more}", first.name))
}

/// Chains of others that may drop what other hosts send. Whoever hears from another member is not cut off.
pub(super) fn firewall(facts: &Facts) -> Option<Finding> {
    let heard = facts.paths.iter().any(|path| path.state == "alive");
    let first = facts.closed_chains.first().filter(|_| !heard)?;
    let udp: Vec<_> = facts.ports.iter().filter(|port| port.transport == Transport::Udp).collect();
    let ports = udp.iter().map(|port| port.number.to_string()).collect::<Vec<_>>().join(", ");
    let tcp = facts.ports.iter().find(|port| port.transport == Transport::Tcp).map_or(0, |port| port.number);
    Some(
        Finding::warning("firewall", format!("{first} drops what comes in by default and names no port of weft's"))
            .because("other hosts cannot reach this one")
            .remedy(format!(
                "accept udp dport {{ {ports} }} and tcp dport {tcp} from the other hosts there, with whatever made \
                 that chain"
            )),
    )
}

pub(super) fn address(underlay: &Result<Underlay, String>) -> Finding {
    const CHECK: &str = "underlay";
    let Underlay { address, interface, mtu } = match underlay {
        Ok(underlay) => underlay,
        Err(fault) => {
            return Finding::problem(CHECK, fault.clone())
                .because("other hosts reach this one by an address that it advertises")
                .remedy("give the agent --advertise ADDRESS or --advertise INTERFACE");
        }
    };
    let [clear, sealed] = overhead(*address).map(|octets| mtu.saturating_sub(octets));
    let found = format!(
        "{address} on {interface}, MTU {mtu}: {clear} inside networks, {sealed} inside encrypted ones"
    );
    if sealed < IPV6_MIN {
        return Finding::warning(CHECK, found)
            .because(format!("IPv6 needs {IPV6_MIN} octets inside a network"))
            .remedy(format!("raise the MTU of {interface}, or use IPv4 inside networks"));
    }
    Finding::ok(CHECK, found)
}

/// One finding for all members whose path is well, one for each other.
pub(super) fn paths(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "peer";
    let mut findings: Vec<_> = facts.paths.iter().filter_map(|path| trouble(facts, path)).collect();
    let well = facts.paths.len() - findings.len();
    if facts.paths.is_empty() {
        return facts
            .answers()
            .map(|_| Finding::ok(CHECK, "no other members yet; 'weft token create' lets one in"))
            .into_iter()
            .collect();
    }
    let silent =
        facts.paths.iter().filter(|path| path.mtu == PathMtu::Silent && path.state == "alive").count();
    let silent = if silent > 0 {
        format!("; {silent} of all answer no ICMP, their path MTU is not known")
    } else {
        String::new()
    };
    let checked = format!("{well} of {} members alive, whole packets pass{silent}", facts.paths.len());
    findings.insert(0, Finding::ok(CHECK, checked));
    findings
}

fn trouble(facts: &Facts, path: &PeerPath) -> Option<Finding> {
    const CHECK: &str = "peer";
    let PeerPath { name, address, state, mtu } = path;
    if state != "alive" {
        return Some(
            Finding::warning(CHECK, format!("{name} ({address}) is {state}"))
                .because("nothing reaches its sandboxes")
                .remedy(format!(
                    "look at its agent and at firewalls between; 'weft node remove {name}' if it never comes back"
                )),
        );
    }
    let PathMtu::Only(octets) = *mtu else { return None };
    let [clear, sealed] = overhead(*address).map(|less| octets.saturating_sub(less));
    let interface =
        facts.underlay.as_ref().map_or("the underlay's interface", |underlay| &underlay.interface);
    Some(
        Finding::problem(
            CHECK,
            format!("{name} ({address}): packets of more than {octets} octets are lost on the way"),
        )
        .because("small packets pass and large ones vanish: connections come up and hang")
        .remedy(format!(
            "set the MTU of {interface} to {octets} on all hosts, or make networks with -o \
                 com.docker.network.driver.mtu={clear} (encrypted: {sealed})"
        )),
    )
}
