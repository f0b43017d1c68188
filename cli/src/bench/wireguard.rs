//! WireGuard in userspace as a contender: a program of somebody else's on either host, its TUN device in a sandbox.
//!
//! The kernel's own WireGuard is not asked: what seals in userspace is compared with what seals in userspace.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use weft_control::io::namespace::Namespace;
use weft_control::io::netlink::Links;

use super::contender::Contender;
use super::installed::is_installed;
use crate::args::ContenderName;
use crate::rig::{Host, Rig};
use crate::sys::{self, Birth};
use crate::traffic::Station;

/// What configures it (`wireguard-tools`).
const TOOL: &str = "wg";
/// Of the first one; each has its own, as several may run on one host.
const PORT: u16 = 51820;
/// What fits an underlay of 1,500 octets: 80 of IPv6, UDP and WireGuard come around a packet.
const MTU: u32 = 1420;
/// Where programs put the socket that the tool speaks to.
const SOCKETS: &str = "/var/run/wireguard";
/// How long one may take to start, and to stop.
const LIMIT: Duration = Duration::from_secs(5);

/// A program that speaks WireGuard.
#[derive(Debug)]
struct Implementation {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// Letter of its devices' names.
    letter: char,
    /// Third octet of its sandboxes' addresses.
    subnet: u8,
    install: &'static str,
}

impl Implementation {
    const WIREGUARD_GO: Self = Self {
        name: "wireguard-go",
        program: "wireguard-go",
        arguments: &["-f"],
        letter: 'g',
        subnet: 1,
        install: "Debian's packages wireguard-go and wireguard-tools",
    };
    const BORINGTUN: Self = Self {
        name: "boringtun",
        program: "boringtun-cli",
        arguments: &["--foreground", "--disable-drop-privileges"],
        letter: 'b',
        subnet: 2,
        install: "'cargo install boringtun-cli' and Debian's package wireguard-tools",
    };

    const GOTATUN: Self = Self {
        name: "gotatun",
        program: "gotatun",
        arguments: &["--foreground", "--disable-drop-privileges"],
        letter: 't',
        subnet: 3,
        install: "'cargo install gotatun-cli' and Debian's package wireguard-tools",
    };

    fn of(name: ContenderName) -> Option<&'static Self> {
        match name {
            ContenderName::WireguardGo => Some(&Self::WIREGUARD_GO),
            ContenderName::Boringtun => Some(&Self::BORINGTUN),
            ContenderName::Gotatun => Some(&Self::GOTATUN),
            _ => None,
        }
    }
}

/// Looks for the programs that contenders need, before anything is made.
///
/// # Errors
/// One is not there.
pub(super) fn check_installed(contenders: &[ContenderName]) -> Result<()> {
    for implementation in contenders.iter().filter_map(|name| Implementation::of(*name)) {
        let Implementation { name, program, install, .. } = implementation;
        ensure!(
            [program, TOOL].into_iter().all(is_installed),
            "--contender {name} needs the programs '{program}' and '{TOOL}': install {install}, or leave it out"
        );
    }
    Ok(())
}

/// A program that carries traffic; dropping it ends it.
#[derive(Debug)]
pub(super) struct Tunnel {
    child: Child,
    socket: PathBuf,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Fails only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// One end before it is configured.
struct Peer<'r> {
    host: &'r Host,
    sandbox: Namespace,
    device: String,
    address: IpAddr,
    port: u16,
    private_key: PathBuf,
    public_key: String,
}

/// Two sandboxes, one on each host, joined by it.
///
/// # Errors
/// The program does not start, or the tool refuses.
pub(super) fn contender(name: ContenderName, rig: &Rig) -> Result<Contender> {
    let implementation = Implementation::of(name).context("it does not speak WireGuard")?;
    let [near, far] = rig.hosts() else { bail!("a tunnel joins two hosts") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let peers = [peer(implementation, near, 1, rig)?, peer(implementation, far, 2, rig)?];
    let mut tunnels = Vec::new();
    for peer in &peers {
        tunnels.push(start(implementation, peer, rig)?);
    }
    let [near, far] = &peers;
    join(near, far, &runtime)?;
    join(far, near, &runtime)?;
    let [near, far] = peers.map(|peer| Station::new(peer.sandbox, peer.address, None, None));
    let contender = Contender::new(implementation.name, Some("ChaCha20-Poly1305"), near, far);
    Ok(contender.carried_by(tunnels, version(implementation.program)))
}

/// What a program says of itself: the last word of its first line.
fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.lines().next().and_then(|line| line.split_whitespace().last()).unwrap_or("of no version").to_owned()
}

fn peer<'r>(
    Implementation { letter, subnet, .. }: &Implementation,
    host: &'r Host,
    number: u8,
    rig: &Rig,
) -> Result<Peer<'r>> {
    let device = format!("wf{letter}{}{number}", std::process::id());
    let private_key = rig.directory().join(&device);
    let key = tool(&["genkey"], "")?;
    fs::write(&private_key, &key).context("write a key")?;
    Ok(Peer {
        host,
        sandbox: Namespace::create()?,
        device,
        address: Ipv4Addr::new(10, 253, *subnet, number).into(),
        port: PORT + u16::from(*subnet),
        private_key,
        public_key: tool(&["pubkey"], &key)?,
    })
}

/// Starts the program on a host and waits until it can be configured.
fn start(implementation: &Implementation, peer: &Peer<'_>, rig: &Rig) -> Result<Tunnel> {
    let Implementation { name, program, arguments, .. } = implementation;
    let mut command = Command::new(program);
    command.args(*arguments).arg(&peer.device).env("LOG_LEVEL", "error");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let namespace = Some(peer.host.namespace.try_clone()?);
    let mask = rig.interrupt().mask_before();
    sys::in_session_of_its_own(&mut command);
    sys::prepare(&mut command, Birth { parent: Pid::this(), mask, namespace, descriptors: Vec::new() });
    let child = command.spawn().with_context(|| format!("start {program}"))?;
    let socket = Path::new(SOCKETS).join(format!("{}.sock", peer.device));
    let tunnel = Tunnel { child, socket };
    let ready = rig.interrupt().until(LIMIT, || Ok(tunnel.socket.exists().then_some(())))?;
    ready.with_context(|| format!("{name} does not start"))?;
    Ok(tunnel)
}

/// Tells one end of the other, and puts its device into the sandbox.
fn join(near: &Peer<'_>, far: &Peer<'_>, runtime: &Runtime) -> Result<()> {
    let endpoint = format!("{}:{}", far.host.address, far.port);
    let key = near.private_key.to_string_lossy();
    let (port, subnet) = (near.port.to_string(), IpNet::new(far.address, 24)?.trunc().to_string());
    let interface = ["set", &near.device, "private-key", &key, "listen-port", &port];
    let peer = ["peer", &far.public_key, "endpoint", &endpoint, "allowed-ips", &subnet];
    near.host.namespace.run(|| tool(&[interface, peer].concat(), ""))??;
    runtime.block_on(async {
        Links::open(&near.host.namespace)?.move_to(&near.device, &near.sandbox).await?;
        let links = Links::open(&near.sandbox)?;
        links.set_up("lo").await?;
        links.set_mtu(&near.device, MTU).await?;
        links.add_address(&near.device, IpNet::new(near.address, 24)?).await?;
        Ok(links.set_up(&near.device).await?)
    })
}

/// Runs the tool with some input; what it says, without the line's end.
fn tool(arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(TOOL);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {TOOL}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("speak to {TOOL}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("wait for {TOOL}"))?;
    ensure!(output.status.success(), "{TOOL}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
