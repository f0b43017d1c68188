//! Traffic between namespaces: files, pings, floods.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::namespace::{Namespace, words};
use crate::pcap::Seen;
use crate::rig::Sandbox;

/// Longest silence on a connection that works.
const SILENCE: Duration = Duration::from_secs(30);

/// A file of random octets and its hash.
pub(crate) struct Sample {
    path: PathBuf,
    len: u64,
    hash: Vec<u8>,
}

impl Sample {
    /// Writes `len` random octets to a file in `dir`.
    pub(crate) fn new(dir: &Path, len: u64) -> Self {
        let path = dir.join(format!("sample-{len}"));
        let mut source = File::open("/dev/urandom").expect("randomness").take(len);
        let mut file = File::create(&path).expect("sample file");
        let (mut hash, mut block) = (Sha256::new(), vec![0; 1 << 20]);
        loop {
            let read = source.read(&mut block).expect("randomness");
            if read == 0 {
                break;
            }
            hash.update(&block[..read]);
            file.write_all(&block[..read]).expect("sample written");
        }
        Self { path, len, hash: hash.finalize().to_vec() }
    }

    /// Sends the file over TCP between two namespaces; it must arrive with its hash.
    pub(crate) fn travels(&self, from: &Namespace, to: &Namespace, address: IpAddr) {
        let listener = to.enter(|| TcpListener::bind((address, 0))).expect("listening");
        // holds for accepting too (man 7 socket, SO_RCVTIMEO)
        socket2::SockRef::from(&listener).set_read_timeout(Some(SILENCE)).expect("timeout set");
        let target = listener.local_addr().expect("bound");
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| receive(&listener));
            from.enter(|| send(target, &self.path))
                .unwrap_or_else(|error| panic!("sending to {target}: {error}"));
            let (len, hash) = receiver.join().expect("received");
            assert_eq!(
                (len, hash),
                (self.len, self.hash.clone()),
                "the file arrives at {target} as it was sent"
            );
        });
    }

    /// Sends the file both ways at once.
    pub(crate) fn travels_both_ways(&self, one: &Sandbox<'_>, other: &Sandbox<'_>) {
        let reach = |from: &Sandbox<'_>, to: &Sandbox<'_>| {
            self.travels(&from.namespace, &to.namespace, to.ip4().into());
        };
        std::thread::scope(|scope| {
            scope.spawn(|| reach(one, other));
            scope.spawn(|| reach(other, one));
        });
    }
}

fn send(target: SocketAddr, path: &Path) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect_timeout(&target, SILENCE)?;
    stream.set_write_timeout(Some(SILENCE))?;
    std::io::copy(&mut File::open(path)?, &mut stream)
}

fn receive(listener: &TcpListener) -> (u64, Vec<u8>) {
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(SILENCE)).expect("timeout set");
    let (mut hash, mut block, mut len) = (Sha256::new(), vec![0; 1 << 18], 0);
    loop {
        let read = stream.read(&mut block).expect("the file's octets");
        if read == 0 {
            return (len, hash.finalize().to_vec());
        }
        len += read as u64;
        hash.update(&block[..read]);
    }
}

/// Whether one ping from `from` to `address` is answered.
pub(crate) fn pings(from: &Namespace, address: IpAddr) -> bool {
    from.succeeds(&format!("ping -n -q -c 1 -W 5 {address}"))
}

/// The addresses, of all given, that a single ping from inside `sandbox` does not reach.
pub(crate) fn unreachable(sandbox: &Sandbox<'_>, addresses: &[IpAddr]) -> Vec<String> {
    let list: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let script = "for a in $0; do ping -n -q -c 1 -W 5 $a >/dev/null || echo $a; done";
    let mut command =
        sandbox.host.command(&["sandbox", "exec", &sandbox.name, "--", "sh", "-c", script, &list.join(" ")]);
    crate::weft::success(&mut command).split_whitespace().map(str::to_owned).collect()
}

/// Sends `count` numbered datagrams of `size` octets; gives the fraction of echoes that came back whole.
pub(crate) fn udp_echo(from: &Namespace, to: &Namespace, address: IpAddr, count: u32, size: usize) -> f64 {
    let server = to.enter(|| UdpSocket::bind((address, 0))).expect("bound");
    let target = server.local_addr().expect("bound");
    let wildcard: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let client = from.enter(|| UdpSocket::bind((wildcard, 0))).expect("bound");
    server.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout set");
    client.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout set");
    let datagram = |number: u32| -> Vec<u8> {
        number.to_be_bytes().into_iter().chain((4..size).map(|at| (at as u32 ^ number) as u8)).collect()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0; 65_536];
            while let Ok((len, peer)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(&buffer[..len], peer);
            }
        });
        let mut whole = 0;
        let mut buffer = vec![0; 65_536];
        for number in 0..count {
            let _ = client.send_to(&datagram(number), target);
            let Ok((len, _)) = client.recv_from(&mut buffer) else { continue };
            whole += u32::from(buffer[..len] == *datagram(number));
        }
        f64::from(whole) / f64::from(count.max(1))
    })
}

/// Runs iperf3 over TCP for a second from one sandbox to another by `weft sandbox exec`; gives octets received.
pub(crate) fn iperf(client: &Sandbox<'_>, server: &Sandbox<'_>, address: IpAddr, flags: &[&str]) -> u64 {
    let mut listening =
        server.exec("iperf3 --server --one-off").stdout(Stdio::null()).spawn().expect("iperf3 started");
    let result = crate::wait::eventually("iperf3 runs", || {
        let mut command = client.exec(&format!("iperf3 --client {address} --time 1 --json"));
        let output: crate::weft::Answer = command.args(flags).output().expect("iperf3 ran").into();
        report(&output)
    });
    let _ = listening.wait();
    received(&result)
}

/// As [`iperf`], between bare namespaces and with the protocol's flags given.
pub(crate) fn iperf_between(client: &Namespace, server: &Namespace, address: IpAddr, flags: &str) -> Value {
    let mut listening = server.spawn(words("iperf3 --server --one-off").stdout(Stdio::null()));
    let line = format!("iperf3 --client {address} --time 1 --json {flags}");
    let result = crate::wait::eventually("iperf3 runs", || {
        let output: crate::weft::Answer = client.output(&mut words(&line)).into();
        report(&output)
    });
    let _ = listening.wait();
    result
}

/// What an iperf3 client reports; with `--json` its exit code says nothing.
fn report(output: &crate::weft::Answer) -> Result<Value, String> {
    match output.json() {
        report if report["error"].is_null() => Ok(report),
        report => Err(report["error"].to_string()),
    }
}

/// Octets that arrived, from iperf3's report.
pub(crate) fn received(report: &Value) -> u64 {
    let end = &report["end"];
    end["sum_received"]["bytes"].as_u64().or_else(|| end["sum"]["bytes"].as_u64()).unwrap_or(0)
}

/// A running capture of one interface.
pub(crate) struct Capture {
    child: std::process::Child,
    file: PathBuf,
}

impl Capture {
    /// Starts capturing `filter` on `interface` of `namespace`; returns once packets are seen.
    pub(crate) fn start(namespace: &Namespace, interface: &str, filter: &str, file: PathBuf) -> Self {
        let mut command = Command::new("tcpdump");
        command
            .args(["-q", "-n", "-U", "-s", "0", "-B", "32768", "-i", interface, "-w"])
            .arg(&file)
            .arg(filter);
        let mut child =
            namespace.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
        // tcpdump says "listening on" once its socket is in place
        let mut said = Vec::new();
        let mut octet = [0];
        let mut words = child.stderr.take().expect("piped");
        while !said.ends_with(b"listening on") {
            assert_eq!(
                words.read(&mut octet).expect("tcpdump's words"),
                1,
                "{}",
                String::from_utf8_lossy(&said)
            );
            said.push(octet[0]);
        }
        std::thread::spawn(move || std::io::copy(&mut words, &mut std::io::sink()));
        Self { child, file }
    }

    /// Ends the capture and reads all of it.
    pub(crate) fn seen(mut self) -> Seen {
        self.finish();
        Seen::read(&self.file)
    }

    /// Ends the capture and has tshark print `fields` of every frame that matches `filter`, one frame a line.
    pub(crate) fn read(mut self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        self.finish();
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&self.file).args([
            "-Y",
            filter,
            "-T",
            "fields",
            "-E",
            "separator=|",
            "-E",
            "occurrence=a",
        ]);
        for check in ["ip.check_checksum", "udp.check_checksum", "tcp.check_checksum"] {
            command.args(["-o", &format!("{check}:TRUE")]);
        }
        fields.iter().for_each(|field| {
            command.args(["-e", field]);
        });
        let output = crate::weft::success(&mut command);
        output.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
    }

    fn finish(&mut self) {
        // what is on its way to the file arrives within tcpdump's own read timeout
        std::thread::sleep(Duration::from_millis(1_200));
        let pid = i32::try_from(self.child.id()).expect("a process id");
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGINT);
        let _ = self.child.wait();
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
