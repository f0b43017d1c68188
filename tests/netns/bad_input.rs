//! What strangers, neighbours and mistaken users may send: it is counted or clearly refused, and the agent works on.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::everyone::pair;
use crate::frames::Frame;
use crate::rig::{Host, Rig, Sandbox, needs_root};
use crate::traffic::{pings, udp_echo};
use crate::wait::{eventually, until};
use crate::weft::{Answer, answer};

/// Copies of each datagram, so that one lost on the way proves nothing.
const COPIES: u64 = 3;

/// Two hosts with agents and a stranger on their underlay who can use any address.
fn with_stranger() -> Rig {
    let rig = Rig::wire(&["a", "b", "x"]);
    let [a, b, x] = rig.hosts.as_slice() else { panic!("three hosts") };
    [a, b].into_iter().for_each(|host| host.start(&[]));
    rig.meet(2);
    // a host that owns b's address beside its own can send in b's name; nobody learns by ARP that it does
    for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
        x.namespace
            .enter(|| std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{key}"), value))
            .expect("set");
    }
    x.namespace.run(&format!("ip addr add {}/32 dev lo", b.ip4));
    rig
}

#[test]
fn forged_and_broken_datagrams_are_dropped_each_with_its_reason() {
    needs_root!();
    let rig = with_stranger();
    let (web, db) = pair(&rig);
    let [a, b, x] = rig.hosts.as_slice() else { panic!("three hosts") };
    let vni = u32::try_from(a.json(&["network", "inspect", "blue"])[0]["VNI"].as_u64().expect("a VNI"))
        .expect("24 bits");
    let victim = web.namespace.enter(|| UdpSocket::bind((web.ip4(), 9_999))).expect("bound");
    let good = Frame::from_to(&db, &web);
    let tunnelled = |frame: &Frame| vxlan(vni, &frame.octets());

    let neighbour = bound(x, b.ip4);
    let stranger = bound(x, x.ip4);
    let own = bound(a, a.ip4);
    let mut no_flag = tunnelled(&good);
    no_flag[0] = 0;
    let cases: Vec<(&str, &UdpSocket, Vec<u8>)> = vec![
        ("datagram_too_short", &neighbour, Vec::new()),
        ("datagram_too_short", &neighbour, tunnelled(&good)[..7].to_vec()),
        ("vni_flag_clear", &neighbour, no_flag),
        ("unknown_vni", &neighbour, vxlan(vni ^ 1, &good.octets())),
        ("unknown_vni", &neighbour, vxlan(0xff_ffff, &good.octets())),
        ("unknown_vtep", &stranger, tunnelled(&good)),
        ("own_address", &own, tunnelled(&good)),
        ("frame_too_short", &neighbour, vxlan(vni, &[])),
        ("frame_too_short", &neighbour, vxlan(vni, &good.octets()[..13])),
        ("vlan_tagged", &neighbour, tunnelled(&Frame { ethertype: 0x8100, ..good.clone() })),
        ("not_ethernet_ii", &neighbour, tunnelled(&Frame { ethertype: 0x0026, ..good.clone() })),
        ("link_local_group", &neighbour, tunnelled(&Frame { dst: [1, 0x80, 0xc2, 0, 0, 0], ..good.clone() })),
        ("not_local", &neighbour, tunnelled(&Frame { dst: [2, 0, 0, 0, 0, 0x99], ..good.clone() })),
        ("spoofed_mac", &neighbour, tunnelled(&Frame { src: [2, 0, 0, 0, 0, 0x99], ..good.clone() })),
        ("spoofed_mac", &neighbour, tunnelled(&Frame { src: [0xff; 6], ..good.clone() })),
        ("spoofed_ip", &neighbour, tunnelled(&Frame { ip_src: [10, 7, 0, 222], ..good.clone() })),
        ("malformed_ip", &neighbour, tunnelled(&Frame { ip_first: 0x4f, ..good.clone() })),
        ("malformed_ip", &neighbour, tunnelled(&Frame { ip_first: 0x65, ..good.clone() })),
        ("oversize", &neighbour, tunnelled(&Frame { padding: 3_000, ..good.clone() })),
        ("oversize", &neighbour, tunnelled(&Frame { padding: 60_000, ..good.clone() })),
    ];
    for (reason, socket, datagram) in &cases {
        let before = counter(a, "Drops", reason);
        (0..COPIES).for_each(|_| {
            socket.send_to(datagram, (a.ip4, 4_789)).expect("sent");
        });
        eventually(&format!("{reason} is counted for {} octets", datagram.len()), || {
            let now = counter(a, "Drops", reason);
            if now >= before + COPIES {
                Ok(())
            } else {
                Err(format!("{before} before, {now} now; {:?}", counters(a, "Drops")))
            }
        });
    }
    victim.set_nonblocking(true).expect("set");
    assert!(victim.recv(&mut [0; 2_048]).is_err(), "nothing forged reached the sandbox");
    neighbour.send_to(&tunnelled(&good), (a.ip4, 4_789)).expect("sent");
    until("the well-formed frame that all were made of does arrive", || victim.recv(&mut [0; 2_048]).is_ok());
    works(&rig, &web, &db);
}

#[test]
fn a_sandbox_that_takes_anothers_addresses_reaches_nobody() {
    needs_root!();
    let rig = Rig::cluster(2);
    let (web, db) = pair(&rig);
    let a = &rig.hosts[0];
    let other = a.sandbox("other", "blue", &[]);
    rig.converge("blue");
    let spoofs = |host: &Host| {
        ["bridge_spoofed_mac", "bridge_spoofed_ip", "bridge_spoofed_arp", "bridge_spoofed_nd"]
            .iter()
            .map(|r| counter(host, "Drops", r))
            .sum::<u64>()
    };

    let before = spoofs(a);
    other.namespace.run(&format!("ip addr add {}/24 dev {}", Ipv4Addr::new(10, 7, 0, 222), other.interface));
    let spoofed = format!("ping -n -q -c 3 -i 0.2 -W 1 -I 10.7.0.222 {}", db.ip4());
    assert!(!other.namespace.succeeds(&spoofed), "an address of nobody gets no answer");
    until("the foreign address is counted", || spoofs(a) > before);

    let mac = &other.mac;
    other.namespace.run(&format!("ip link set {} address 02:00:00:00:00:99", other.interface));
    assert!(!pings(&other.namespace, db.ip4().into()), "a foreign MAC gets no answer");
    other.namespace.run(&format!("ip link set {} address {mac}", other.interface));
    works(&rig, &web, &db);
}

#[test]
fn strangers_and_wrong_keys_on_the_gossip_port_get_no_answer_and_change_nothing() {
    needs_root!();
    let rig = with_stranger();
    let (web, db) = pair(&rig);
    let [a, _, x] = rig.hosts.as_slice() else { panic!("three hosts") };
    let gossip = SocketAddr::from((a.ip4, 7_946));
    let noise = noise(65_507);

    let socket = bound(x, x.ip4);
    for len in [0, 1, 16, 41, 57, 58, 100, 1_200, 1_472, 9_000, 65_507] {
        let mut datagram = noise[..len].to_vec();
        for (kind, version) in [(0, 1), (1, 1), (2, 1), (0xff, 0xff)] {
            if let [first, second, ..] = datagram.as_mut_slice() {
                (*first, *second) = (kind, version);
            }
            let _ = socket.send_to(&datagram, gossip);
        }
    }
    // connections that say nothing, too much, half of something; all stay open while the agents work
    let mut open: Vec<TcpStream> =
        x.namespace.enter(|| (0..100).filter_map(|_| TcpStream::connect(gossip).ok()).collect());
    assert!(open.len() > 10, "the gossip port accepts connections");
    for (stream, prefix) in open.iter_mut().skip(1).zip([
        &b"\xff\xff\xff\xff"[..],
        b"\0\0\0\0",
        b"\0\0\0\x10half",
        b"GET / HTTP/1.1\r\n\r\n",
        &noise,
    ]) {
        let _ = stream.write_all(prefix);
    }

    let mut foreign = x.agent_command_with(x.ip4.into(), &x.dir.join("foreign"));
    x.start_command(foreign.args(["--init", "--join", "192.0.2.1"]));
    let before = refused_messages(a);
    until("the foreign agent's messages are counted as refused", || refused_messages(a) > before);
    assert_eq!(x.json(&["status"])["MembersAlive"], 1, "the foreign agent stays alone");
    assert_eq!(a.json(&["status"])["MembersAlive"], 2, "the cluster stays what it was");
    x.stop();

    socket.set_nonblocking(true).expect("set");
    assert!(socket.recv(&mut [0; 2_048]).is_err(), "noise gets no answer");
    for (name, stream) in ["a silent connection", "a broken message"].iter().zip(&mut open) {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)), "{name} gets no answer");
    }
    works(&rig, &web, &db);
    drop(open);
}

#[test]
fn wrong_names_subnets_and_addresses_are_refused_with_words_that_help() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "blue"]);
    a.sandbox("web", "blue", &["--ip", "10.7.0.9", "--mac", "02:00:00:00:00:09"]);
    a.ok(&["sandbox", "create", "idle"]);
    let long = "x".repeat(64);
    for name in ["..", "../x", "a/b", "a b", "a\nb", "é", "a;b", "$(id)", long.as_str()] {
        for verb in [&["network", "create", "--", name][..], &["sandbox", "create", "--", name]] {
            let words = refused(a.weft(verb));
            assert!(words.contains("name"), "{verb:?}: {words}");
        }
    }
    let create = ["network", "create", "-d", "overlay"];
    let connect = ["network", "connect"];
    let cases: &[(&[&str], &[&str], &str)] = &[
        (&create, &["blue"], "network with name blue already exists"),
        (
            &create,
            &["--subnet", "10.7.0.0/24", "other"],
            "Pool overlaps with other one on this address space",
        ),
        (&create, &["--subnet", "10.0.0.0/8", "other"], "Pool overlaps with other one on this address space"),
        (
            &create,
            &["--subnet", "10.8.0.1/24", "other"],
            "invalid subnet 10.8.0.1/24: it should be 10.8.0.0/24",
        ),
        (&create, &["--subnet", "300.1.1.0/24", "other"], "300.1.1.0/24"),
        (&create, &["--subnet", "10.8.0.0/33", "other"], "10.8.0.0/33"),
        (&create, &["--subnet", "10.8.0.0/24", "--gateway", "10.9.0.1", "other"], "10.9.0.1"),
        (&create, &["--subnet", "10.8.0.0/24", "--ip-range", "10.9.0.0/25", "other"], "10.9.0.0/25"),
        (
            &create,
            &["--ip-range", "10.9.0.0/25", "other"],
            "every ip-range or gateway must have a corresponding subnet",
        ),
        (&["network", "create", "-d"], &["teleport", "other"], "teleport"),
        (&create, &["-o", "weft.vni=16777216", "other"], "16777216"),
        (&create, &["-o", "weft.vni=soon", "other"], "soon"),
        (&create, &["-o", "weft.static_vteps=nowhere", "other"], "nowhere"),
        (&create, &["-o", "com.docker.network.driver.mtu=12", "other"], "12"),
        (&create, &["-o", "weft.no_such_option=1", "other"], "weft.no_such_option"),
        (&connect, &["blue", "web"], "web"),
        (&connect, &["blue", "nobody"], "nobody"),
        (&connect, &["nowhere", "idle"], "network nowhere not found"),
        (&connect, &["--ip", "10.7.0.9", "blue", "idle"], "Address already in use"),
        (&connect, &["--ip", "10.8.0.9", "blue", "idle"], "10.8.0.9"),
        (&connect, &["--ip", "10.7.0.255", "blue", "idle"], ""),
        (&connect, &["--ip", "10.7.0.1", "blue", "idle"], "Address already in use"),
        (&connect, &["--ip", "10.7.0.300", "blue", "idle"], "10.7.0.300"),
        (&connect, &["--mac", "02:00:00:00:00:09", "blue", "idle"], "02:00:00:00:00:09"),
        (&connect, &["--mac", "01:00:00:00:00:09", "blue", "idle"], "01:00:00:00:00:09"),
        (&connect, &["--mac", "zz", "blue", "idle"], "zz"),
    ];
    for (verb, rest, needed) in cases {
        let arguments = [*verb, *rest].concat();
        let words = refused(a.weft(&arguments));
        assert!(words.contains(needed), "{arguments:?}: {words}");
    }
    assert_eq!(
        a.json(&["network", "ls", "--filter", "type=custom"]).as_array().map(Vec::len),
        Some(1),
        "nothing of it was made"
    );
    assert_eq!(a.json(&["fdb", "blue"]).as_array().map(Vec::len), Some(1), "nothing of it was attached");
    let escape = a.weft(&["network", "inspect", "\u{1b}[31mred"]);
    assert!(!escape.stderr.contains('\u{1b}'), "control characters do not reach the terminal: {escape:?}");
}

#[test]
fn nonsense_on_the_agents_socket_is_answered_with_an_error_or_closed() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let request = |body: &str| {
        format!(
            "POST /networks/create HTTP/1.1\r\nHost: weft\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut held = Vec::new();
    for nonsense in [
        String::from_utf8_lossy(&noise(5_000)).into_owned(),
        "GET / HTTP/0.9\r\n\r\n".to_owned(),
        "GET /networks/%00%2e%2e%2f HTTP/1.1\r\nHost: weft\r\n\r\n".to_owned(),
        "BREW /status HTTP/1.1\r\nHost: weft\r\n\r\n".to_owned(),
        "POST /networks/create HTTP/1.1\r\nHost: weft\r\nContent-Length: 99999999999999\r\n\r\n{".to_owned(),
        request("not json"),
        request("{}"),
        request(&"[".repeat(100_000)),
        request(&format!("{{\"Name\":\"{}\"}}", "x".repeat(3_000_000))),
        request("{\"Name\":\"n\",\"IPAM\":{\"Config\":[{\"Subnet\":\"::/0\"},{\"Subnet\":\"0.0.0.0/0\"}]}}"),
        "POST /sandboxes/x/namespace HTTP/1.1\r\nHost: weft\r\nConnection: upgrade\r\nUpgrade: weft-descriptor\r\n\r\n".to_owned(),
        "POST /sandboxes/adopt?name=x HTTP/1.1\r\nHost: weft\r\nConnection: upgrade\r\nUpgrade: weft-descriptor\r\n\r\nno descriptor".to_owned(),
    ] {
        let mut stream = UnixStream::connect(a.socket()).expect("connected");
        let _ = stream.write_all(nonsense.as_bytes());
        held.push(stream);
    }
    for stream in &mut held {
        let _ = stream.shutdown(std::net::Shutdown::Write);
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        assert!(!said.starts_with("HTTP/1.1 2"), "{said}");
    }
    let idle: Vec<UnixStream> =
        (0..100).map(|_| UnixStream::connect(a.socket()).expect("connected")).collect();
    a.ok(&["network", "create", "-d", "overlay", "blue"]);
    assert_eq!(
        a.json(&["network", "ls", "--filter", "type=custom"]).as_array().map(Vec::len),
        Some(1),
        "only what was asked for well exists"
    );
    drop(idle);
}

#[test]
fn a_second_agent_in_the_same_place_is_told_who_is_there() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let pid = a.pid().to_string();
    let elsewhere = a.dir.join("elsewhere");
    let (state, run, apart) = (a.dir.join("state"), a.dir.join("run"), elsewhere.join("state"));
    let ports = ["--data-port", "5789", "--gossip-port", "8946"];

    for (state, run, ports) in [
        (&state, &run, &ports[..]),
        (&state, &elsewhere, &ports),
        (&elsewhere, &run, &ports),
        (&apart, &elsewhere, &[]),
    ] {
        let mut second = crate::weft::weft();
        second
            .args(["agent", "--init", "--name", "a2", "--advertise", &a.ip4.to_string(), "--state-dir"])
            .arg(state)
            .arg("--run-dir")
            .arg(run)
            .args(ports);
        let answer = a.ends(&mut second);
        let _ = std::fs::remove_dir_all(&elsewhere);
        assert_eq!(answer.code, 1, "{answer:?}");
        assert!(answer.stderr.contains(&pid), "process {pid} is named: {answer:?}");
        if ports.is_empty() {
            assert!(
                answer.stderr.contains("7946") || answer.stderr.contains("4789"),
                "so is the port: {answer:?}"
            );
        }
    }
    assert_eq!(a.weft(&["status"]).code, 0, "the first agent works on");
}

#[test]
fn a_kernel_device_on_the_data_port_is_named() {
    needs_root!();
    let rig = Rig::wire(&["a"]);
    let a = &rig.hosts[0];
    a.namespace.run("ip link add vx type vxlan dstport 4789 external");
    a.namespace.run("ip link set vx up");
    let answer = a.ends(&mut a.agent_command(a.ip4.into()));
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains("4789") && answer.stderr.to_lowercase().contains("vx"), "{answer:?}");
}

#[test]
fn tokens_and_settings_that_are_wrong_are_refused_at_the_start() {
    needs_root!();
    let rig = Rig::wire(&["a", "b"]);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    let token = b.dir.join("bad.token");
    let mut starts = BTreeMap::new();
    for (what, text) in [("short", "weft1_aebq\n"), ("garbage", "!!!\n"), ("empty", "")] {
        std::fs::write(&token, text).expect("written");
        starts.insert(what, b.ends(&mut b.agent_command_with(b.ip4.into(), &token)));
    }
    for (what, answer) in &starts {
        assert_eq!(answer.code, 1, "{what}: {answer:?}");
        assert!(answer.stderr.contains("bad.token"), "{what}: the file is named: {answer:?}");
        assert!(!answer.stderr.contains("aebq"), "{what}: the token is not repeated: {answer:?}");
    }
    for flags in [
        &["--name", "../x"][..],
        &["--advertise", "nowhere"],
        &["--data-port", "70000"],
        &["--workers", "0"],
        &["--config", "/nonexistent.toml"],
    ] {
        let answer: Answer = answer_inside(a, flags);
        assert!([1, 2].contains(&answer.code), "{flags:?}: {answer:?}");
    }
    let foreign: Answer = answer_inside(a, &["--advertise", "198.51.100.7"]);
    assert!(
        foreign.code == 1 && foreign.stderr.contains("198.51.100.7"),
        "an address of another host: {foreign:?}"
    );
}

fn answer_inside(host: &Host, flags: &[&str]) -> Answer {
    let mut command = crate::weft::weft();
    command
        .arg("agent")
        .arg("--init")
        .arg("--state-dir")
        .arg(host.dir.join("s"))
        .arg("--run-dir")
        .arg(host.dir.join("r"))
        .args(flags);
    host.ends(&mut command)
}

/// RFC 7348 §5: flags with the I bit, reserved, VNI, reserved, frame.
fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    [0x0800_0000_u32.to_be_bytes(), (vni << 8).to_be_bytes()]
        .concat()
        .into_iter()
        .chain(frame.iter().copied())
        .collect()
}

fn bound(host: &Host, address: Ipv4Addr) -> UdpSocket {
    host.namespace.enter(|| UdpSocket::bind((address, 0))).expect("bound")
}

/// Octets without meaning, the same every time (xorshift64).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

pub(crate) fn counters(host: &Host, group: &str) -> BTreeMap<String, u64> {
    let stats = host.json(&["stats"]);
    let group = stats[group].as_object().expect("counters");
    group.iter().map(|(name, value)| (name.clone(), value.as_u64().unwrap_or(0))).collect()
}

pub(crate) fn counter(host: &Host, group: &str, name: &str) -> u64 {
    counters(host, group).get(name).copied().unwrap_or(0)
}

/// Gossip messages that were dropped unread.
fn refused_messages(host: &Host) -> u64 {
    let refused = ["unauthentic", "malformed_seal", "rate_limited", "unknown_epoch"];
    refused.iter().map(|name| counter(host, "Gossip", name)).sum()
}

/// The words of an answer that must be a refusal, by the binary or the agent.
fn refused(answer: Answer) -> String {
    assert!([1, 2].contains(&answer.code), "{answer:?}");
    assert!(!answer.stderr.contains("panicked"), "{answer:?}");
    answer.stderr
}

/// The agents serve as before: old traffic flows, and what is new is made and seen.
fn works(rig: &Rig, web: &Sandbox<'_>, db: &Sandbox<'_>) {
    assert!(pings(&web.namespace, db.ip4().into()), "traffic flows one way");
    assert!(udp_echo(&db.namespace, &web.namespace, IpAddr::V4(web.ip4()), 5, 100) > 0.5, "and the other");
    let fresh = web.host.sandbox("fresh", "blue", &[]);
    rig.converge("blue");
    assert!(pings(&db.namespace, fresh.ip4().into()), "a new sandbox is reached");
    assert_eq!(answer(&mut web.host.command(&["status"])).code, 0);
}
