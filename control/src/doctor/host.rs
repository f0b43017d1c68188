//! What weft needs of the host: privileges, the kernel, TAP devices, nftables, a clock.

use super::{Agent, Facts, Finding};

/// The kernel that UDP segmentation over TAP came with.
const FULL_SPEED: (u32, u32) = (6, 2);

/// What this process may do.
#[derive(Debug, Clone, Default)]
pub struct Privileges {
    /// Whether it runs as root.
    pub root: bool,
    /// Capabilities an agent started from here would lack.
    pub lacking: Vec<&'static str>,
}

/// The kernel.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    /// Release, such as 6.1.0-18-amd64.
    pub release: String,
    /// Major and minor number.
    pub version: (u32, u32),
    /// Whether UDP sockets take and give super-frames.
    pub udp_offload: bool,
    /// Why no bridge can be made; absent where it was not tried.
    pub bridge: Option<Result<(), String>>,
}

/// TAP devices.
#[derive(Debug, Clone)]
pub enum Tun {
    /// One could be made, with the header for super-frames.
    Works,
    /// The driver has what is needed; making one was not tried.
    Untried,
    /// There is no `/dev/net/tun`.
    Missing,
    /// This process may not open it.
    Forbidden,
    /// Something else, in words.
    Fails(String),
}

/// The `nft` command.
#[derive(Debug, Clone)]
pub enum Nft {
    /// There is none.
    Missing,
    /// It did what weft asks of it.
    Works(String),
    /// Its version; loading a table was not tried.
    Untried(String),
    /// It did not, in words.
    Fails(String),
}

pub(super) fn privileges(facts: &Facts) -> Finding {
    const CHECK: &str = "privileges";
    let Privileges { root, lacking } = &facts.privileges;
    if !root {
        return Finding::warning(CHECK, "this is not run as root")
            .because("making a TAP, loading a table and other users' processes could not be looked at")
            .remedy("run 'weft doctor' as root");
    }
    if lacking.is_empty() {
        return Finding::ok(CHECK, "root, with every capability an agent needs");
    }
    let found = format!("{} missing", lacking.join(", "));
    let (why, remedy) = (
        "an agent started from here cannot make namespaces, links or TAP devices",
        "in a container: --cap-add NET_ADMIN --cap-add SYS_ADMIN --cap-add DAC_OVERRIDE; in a systemd unit: \
         CapabilityBoundingSet=",
    );
    match facts.agent {
        Agent::Answers { .. } => Finding::ok(CHECK, format!("{found} here; the agent that runs has its own")),
        Agent::Silent(_) => Finding::problem(CHECK, found).because(why).remedy(remedy),
    }
}

pub(super) fn kernel(kernel: &Kernel) -> Finding {
    const CHECK: &str = "kernel";
    let Kernel { release, version, udp_offload, bridge } = kernel;
    if let Some(Err(fault)) = bridge {
        return Finding::problem(CHECK, format!("{release}: {fault}"))
            .because("the sandboxes of a network on one host hang on a bridge")
            .remedy("'modprobe bridge', or a kernel that has it");
    }
    if !udp_offload {
        return Finding::problem(CHECK, format!("{release}: UDP sockets take no super-frames"))
            .because("weft sends and receives runs of packets by UDP_SEGMENT and UDP_GRO (Linux 5.0)")
            .remedy("run a newer kernel");
    }
    if *version < FULL_SPEED {
        return Finding::warning(CHECK, release.clone())
            .because(
                "UDP inside networks is slower before Linux 6.2, which brought its segmentation over TAP",
            )
            .remedy("run Linux 6.2 or newer where that matters");
    }
    Finding::ok(CHECK, format!("{release}, with all that full speed takes"))
}

pub(super) fn tun(tun: &Tun, root: bool) -> Finding {
    const CHECK: &str = "TAP devices";
    let why = "every overlay network enters and leaves a host by a TAP";
    match tun {
        Tun::Works => Finding::ok(CHECK, "/dev/net/tun makes TAPs with headers for super-frames"),
        Tun::Untried => Finding::ok(CHECK, "/dev/net/tun has what is needed; making a TAP takes root"),
        Tun::Missing => Finding::problem(CHECK, "there is no /dev/net/tun")
            .because(why)
            .remedy("'modprobe tun'; in a container: --device /dev/net/tun"),
        Tun::Forbidden if !root => Finding::ok(CHECK, "there is a /dev/net/tun; opening it takes root"),
        Tun::Forbidden => Finding::problem(CHECK, "/dev/net/tun may not be opened")
            .because(why)
            .remedy("in a container: --device /dev/net/tun; in a systemd unit: DeviceAllow=/dev/net/tun rw"),
        Tun::Fails(fault) => Finding::problem(CHECK, fault.clone())
            .because(why)
            .remedy("'modprobe tun'; in a container: --device /dev/net/tun and --cap-add NET_ADMIN"),
    }
}

pub(super) fn nft(nft: &Nft) -> Finding {
    const CHECK: &str = "nftables";
    let why = "bridge networks, published ports, the way out of sandboxes and checks against forged addresses are \
               tables of nftables";
    match nft {
        Nft::Works(version) => Finding::ok(CHECK, format!("{version} loads weft's tables")),
        Nft::Untried(version) => Finding::ok(CHECK, format!("{version}; loading a table takes root")),
        Nft::Missing => Finding::problem(CHECK, "there is no nft here, nor /usr/sbin/nft")
            .because(why)
            .remedy("install nftables ('apt install nftables'); no service of it needs to run"),
        Nft::Fails(fault) => Finding::problem(CHECK, fault.clone())
            .because(why)
            .remedy("'modprobe nf_tables nft_chain_nat nft_masq', or a kernel and an nft that know them"),
    }
}

/// Frames between sandboxes of one host that the host's IP firewall sees besides.
pub(super) fn bridge_filtering(filtering: [Option<bool>; 2]) -> Option<Finding> {
    filtering.contains(&Some(true)).then(|| {
        Finding::warning("bridge filtering", "frames on bridges pass iptables (net.bridge.bridge-nf-call-iptables = 1)")
            .because(
                "that costs time for every frame between sandboxes of a bridge network, and rules meant for routed \
                 packets may drop them",
            )
            .remedy(
                "'sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0', unless \
                 Kubernetes or a Docker network with enable_icc=false needs it",
            )
    })
}

pub(super) fn clock(kept: Option<bool>) -> Finding {
    const CHECK: &str = "clock";
    match kept {
        Some(true) => Finding::ok(CHECK, "kept by NTP, or by whoever adjusts the kernel's clock"),
        Some(false) => Finding::warning(
            CHECK,
            "nothing keeps the clock (the kernel calls it not synchronised)",
        )
        .because(
            "tokens and certificates have dates: a host whose clock is hours off cannot join, or drops out",
        )
        .remedy("run systemd-timesyncd, chrony or ntpd; on a virtual machine the host's clock may do"),
        None => Finding::warning(CHECK, "the kernel does not say whether the clock is kept")
            .because("tokens and certificates have dates")
            .remedy("compare 'date -u' between the hosts"),
    }
}
