//! Virtual machines as endpoints: real guests of QEMU on two hosts, emulated where there is no better.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bad_input::counter;
use crate::namespace::Namespace;
use crate::rig::{Host, Rig, needs_root};
use crate::traffic::Capture;
use crate::wait::{eventually, until};

/// Longest time a guest takes to boot or for one command, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a guest is run by; `$DIR` has its kernel.
const QEMU: &str = "exec qemu-system-x86_64 -machine pc -accel tcg -m 128 -nographic -nodefaults -no-reboot \
    -serial stdio -kernel $DIR/vmlinuz -initrd $DIR/initramfs.gz -append 'console=ttyS0 quiet panic=-1' \
    -netdev tap,id=n0,$TAP -device virtio-net-pci,netdev=n0,mac=$WEFT_MAC,host_mtu=$WEFT_MTU,romfile=";

/// Where the guests' kernel is.
fn kernel() -> &'static Path {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/guest-kernel");
        let made = Command::new(script).arg(&directory).output().expect("the script runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        directory
    })
}

/// A guest with a serial line.
struct Guest<'h> {
    host: &'h Host,
    name: String,
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl<'h> Guest<'h> {
    /// Starts a guest in a network; it boots while the caller goes on.
    fn start(host: &'h Host, name: &str, network: &str) -> Self {
        let mut command = host.command(&["run", "--rm", "--name", name, "--network", network, "--tap"]);
        command.args(["--", "sh", "-c", QEMU]).env("TAP", "fd=3");
        Self::run(host, name, &mut command)
    }

    /// Starts a guest whose monitor opens the TAP `name` of the host.
    fn start_by_name(host: &'h Host, name: &str, mac: &str) -> Self {
        let mut command = Command::new("sh");
        let tap = format!("ifname={name},script=no,downscript=no");
        command.args(["-c", QEMU]).env("TAP", tap).env("WEFT_MAC", mac).env("WEFT_MTU", "1450");
        Self::run(host, name, &mut command)
    }

    fn run(host: &'h Host, name: &str, command: &mut Command) -> Self {
        command.env("DIR", kernel()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = host.namespace.spawn(command);
        let (input, lines) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (told, output) = channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(lines);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let _ = told.send(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        });
        Self { host, name: name.to_owned(), child, input, output }
    }

    /// Waits for the end of what runs; gives how it ended and what it said.
    fn finish(&self) -> (String, Vec<String>) {
        let (deadline, mut said) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                // Before the first command, what the firmware has said may stand on the same line.
                Ok(line) => match line.rsplit_once("status:") {
                    Some((_, status)) => return (status.to_owned(), said),
                    None => said.push(line),
                },
                Err(RecvTimeoutError::Disconnected) => panic!("guest {} ended: {said:#?}", self.name),
                Err(RecvTimeoutError::Timeout) => panic!("guest {} does not answer: {said:#?}", self.name),
            }
        }
    }

    fn booted(&self) {
        let (status, said) = self.finish();
        assert_eq!(status, "ready", "{said:#?}");
    }

    /// Begins a command line in the guest.
    fn begin(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the serial line is open");
    }

    /// Runs a command line in the guest; whether it succeeded, and what it said.
    fn tries(&mut self, line: &str) -> (bool, String) {
        self.begin(line);
        let (status, said) = self.finish();
        (status == "0", said.join("\n"))
    }

    /// Runs a command line in the guest, which must succeed.
    fn runs(&mut self, line: &str) -> String {
        let (succeeded, said) = self.tries(line);
        assert!(succeeded, "{line}: {said}");
        said
    }

    fn pings(&mut self, address: &str) -> bool {
        self.tries(&format!("ping -c 1 -W 5 {address}")).0
    }

    /// What the agent says of its end of the network.
    fn end(&self, network: &str) -> Value {
        let all = self.host.json(&["sandbox", "ls"]);
        let mut all = all.as_array().into_iter().flatten();
        let mine = all.find(|sandbox| sandbox["Name"] == *self.name).expect("it is there");
        mine["Networks"][network].clone()
    }

    fn address(&self, network: &str) -> String {
        self.end(network)["IPAddress"].as_str().expect("an address").to_owned()
    }

    /// Gives its interface the address that the agent knows.
    fn settle(&mut self, network: &str) -> String {
        let address = self.address(network);
        let length = self.end(network)["IPPrefixLen"].clone();
        self.runs(&format!("ip addr add {address}/{length} dev eth0 && ip link set eth0 up"));
        address
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two hosts with a network over both.
fn rig(flags: &[&str]) -> Rig {
    let rig = Rig::cluster(2);
    let create = ["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24"];
    rig.hosts[0].ok(&[&create[..], flags, &["blue"]].concat());
    until("b knows the network", || rig.hosts[1].weft(&["network", "inspect", "blue"]).code == 0);
    rig
}

/// The hidden namespace of the only network of a host.
fn hidden(host: &Host) -> Namespace {
    let pins = std::fs::read_dir(host.dir.join("run/netns")).expect("pins").flatten();
    let pin = pins
        .map(|pin| pin.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
    Namespace::open(&pin.expect("a network"))
}

/// Sends ten megabytes over TCP; gives the hashes of what was sent and of what arrived.
fn transfer(from: &mut Guest<'_>, to: &mut Guest<'_>, address: &str) -> (String, String) {
    from.runs("dd if=/dev/urandom of=/tmp/sample bs=1M count=10 2>/dev/null");
    // An input that never ends: at its end nc would close the connection.
    to.runs("[ -p /tmp/open ] || mkfifo /tmp/open");
    to.begin("nc -l -p 5000 <>/tmp/open | sha256sum");
    // The listener needs a moment: until then connections are refused.
    from.runs(&format!("for i in $(seq 100); do nc {address} 5000 </tmp/sample && break; sleep 0.2; done"));
    let (status, said) = to.finish();
    assert_eq!(status, "0", "{said:?}");
    let hash = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
    (hash(&from.runs("sha256sum /tmp/sample")), hash(&said.join(" ")))
}

#[test]
fn two_guests_on_two_hosts_talk_over_an_encrypted_network_in_super_frames() {
    needs_root!();
    let rig = rig(&["-o", "encrypted"]);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    let (mut one, mut two) = (Guest::start(a, "one", "blue"), Guest::start(b, "two", "blue"));
    one.booted();
    two.booted();
    let (first, second) = (one.settle("blue"), two.settle("blue"));
    until("one reaches two", || one.pings(&second));
    assert!(two.pings(&first));

    let port = one.end("blue")["EndpointID"].as_str().expect("an id")[..12].to_owned();
    let capture = Capture::start(
        &hidden(a),
        &format!("v{port}"),
        "tcp and greater 3000",
        rig.dir.path().join("port.pcap"),
    );
    let (sent, arrived) = transfer(&mut one, &mut two, &second);
    assert_eq!(sent, arrived);
    let frames = capture.read("tcp", &["frame.len"]);
    assert!(!frames.is_empty(), "a guest's segments leave it uncut");
    let (sent, arrived) = transfer(&mut two, &mut one, &first);
    assert_eq!(sent, arrived);
    drop((one, two));
    for host in [a, b] {
        eventually("nothing is left of the guests", || {
            let left = host.json(&["sandbox", "ls"]);
            if left.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(left.to_string()) }
        });
        until("the network's namespace is gone", || {
            std::fs::read_dir(host.dir.join("run/netns")).expect("pins").next().is_none()
        });
    }
}

#[test]
fn guests_get_their_addresses_by_dhcp_keep_them_without_an_agent_and_cannot_be_others() {
    needs_root!();
    let rig = rig(&["-o", "weft.dhcp=true"]);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    let (mut one, mut two) = (Guest::start(a, "one", "blue"), Guest::start(b, "two", "blue"));
    let near = a.sandbox("near", "blue", &[]);
    one.booted();
    two.booted();
    for guest in [&mut one, &mut two] {
        let said =
            guest.runs("ip link set eth0 up && udhcpc -i eth0 -s /etc/dhcp -O mtu -n -q -t 30 -T 1 2>&1");
        let address = guest.address("blue");
        assert!(said.contains(&format!("lease of {address} obtained")), "{said}");
        assert_eq!(guest.runs("ip -o -4 addr show dev eth0 | grep -c inet"), "1");
        let bound = guest.runs("cat /tmp/dhcp.bound");
        for fact in ["mtu='1450'", "mask='24'", &format!("hostname='{}'", guest.name)] {
            assert!(bound.contains(fact), "{fact} in {bound}");
        }
        assert!(!bound.contains("router="), "there is no way out: {bound}");
        let other = guest.runs("udhcpc -i eth0 -s /etc/dhcp -r 10.7.0.99 -n -q -t 30 -T 1 2>&1");
        assert!(
            other.contains(&format!("lease of {address} obtained")),
            "another address is not to be had: {other}"
        );
    }
    let (first, second) = (one.address("blue"), two.address("blue"));
    until("one reaches two", || one.pings(&second));
    assert!(one.pings(&near.ip4().to_string()));

    // Its TAP outlives the agent, whose next run finds it.
    a.kill();
    a.start(&[]);
    rig.meet(2);
    until("one reaches two again", || one.pings(&second));
    until("two reaches one again", || two.pings(&first));
    one.runs("udhcpc -i eth0 -s /etc/dhcp -n -q -t 30 -T 1 2>&1");

    for victim in [near.ip4().to_string(), second.clone()] {
        one.runs(&format!("ip addr add {victim}/32 dev eth0"));
        // Where it does not know the other's MAC address yet, it asks for that as the victim first.
        let counted = || {
            ["ip", "arp"]
                .iter()
                .map(|what| counter(a, "Drops", &format!("bridge_spoofed_{what}")))
                .sum::<u64>()
        };
        let before = counted();
        let target = if victim == second { near.ip4().to_string() } else { second.clone() };
        assert!(!one.tries(&format!("ping -c 1 -W 2 -I {victim} {target}")).0, "as {victim}");
        until("it is counted", || counted() > before);
        one.runs(&format!("ip addr del {victim}/32 dev eth0"));
    }
    let mac = one.end("blue")["MacAddress"].as_str().expect("an address").to_owned();
    one.runs(&format!(
        "ip link set eth0 down && ip link set eth0 address {} && ip link set eth0 up",
        near.mac
    ));
    assert!(!one.pings(&second), "with another's MAC address");
    assert!(two.pings(&near.ip4().to_string()), "whose it is notices nothing");
    one.runs(&format!("ip link set eth0 down && ip link set eth0 address {mac} && ip link set eth0 up"));
    until("with its own it is back", || one.pings(&second));
}

#[test]
fn a_guest_whose_tap_is_opened_by_its_name_is_an_endpoint_until_it_is_disconnected() {
    needs_root!();
    let rig = rig(&["-o", "weft.dhcp=true"]);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    let far = b.sandbox("far", "blue", &[]);
    a.ok(&["network", "create", "--subnet", "10.8.0.0/24", "front"]);
    a.namespace.run("ip link add taken type bridge");
    let before = a.namespace.run("ip -o link").lines().count();
    assert!(
        a.refused(1, &["network", "connect", "--tap", "taken", "blue"]).contains("interface taken already")
    );
    a.ok(&["network", "connect", "--tap", "vm1,owner=1234", "front"]);
    assert!(a.namespace.run("ip -d link show vm1").contains("user 1234"));

    let got = a.json(&["network", "connect", "--tap", "vm0", "blue"]);
    let mut guest = Guest::start_by_name(a, "vm0", got["MacAddress"].as_str().expect("an address"));
    guest.booted();
    guest.runs("ip link set eth0 up && udhcpc -i eth0 -s /etc/dhcp -n -q -t 30 -T 1 2>&1");
    let address = guest.address("blue");
    until("the guest reaches the other host", || guest.pings(&far.ip4().to_string()));
    assert!(crate::traffic::pings(&far.namespace, address.parse().expect("an address")));
    a.kill();
    a.start(&[]);
    rig.meet(2);
    until("it does so without that agent", || guest.pings(&far.ip4().to_string()));
    guest.runs("ip addr add 10.7.0.99/24 dev eth0");
    assert!(!guest.tries(&format!("ping -c 1 -W 2 -I 10.7.0.99 {}", far.ip4())).0, "as somebody else");
    drop(guest);

    assert!(a.namespace.succeeds("ip link show vm0"), "it stays for the next guest");
    a.ok(&["network", "disconnect", "blue", "vm0"]);
    a.ok(&["network", "disconnect", "front", "vm1"]);
    assert_eq!(a.json(&["sandbox", "ls"]).as_array().map(Vec::len), Some(0));
    assert_eq!(a.namespace.run("ip -o link").lines().count(), before, "{}", a.namespace.run("ip -o link"));
}
