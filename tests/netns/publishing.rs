//! Published ports on a real host: who reaches them, by which way, and what becomes of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use crate::audit::Snapshot;
use crate::greeter::{Greeter, SHORT, ask, ask_by_datagram, ask_for};
use crate::rig::{Host, Rig, needs_root};
use crate::wait::until;

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Makes a sandbox that publishes, attached to `network`.
fn publish<'h>(host: &'h Host, name: &str, network: &str, flags: &[&str]) -> crate::rig::Sandbox<'h> {
    let mut create = vec!["sandbox", "create"];
    create.extend(flags);
    create.push(name);
    host.ok(&create);
    host.ok(&["network", "connect", network, name]);
    host.attached(name, network)
}

fn says(answer: Option<String>, expected: &str) {
    assert_eq!(answer.as_deref(), Some(expected));
}

#[test]
fn a_published_port_is_reached_from_outside_from_the_host_and_from_neighbours() {
    needs_root!();
    let rig = Rig::with_client(1);
    let [a, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    a.ok(&["network", "create", "--ipv6", "--subnet", "172.28.0.0/24", "--subnet", "fd28::/64", "blue"]);
    a.ok(&["network", "create", "--subnet", "172.29.0.0/24", "green"]);
    let web = publish(a, "web", "blue", &["-p", "8080:80", "-p", "8080:80/udp"]);
    let neighbour = a.sandbox("neighbour", "blue", &[]);
    let stranger = a.sandbox("stranger", "green", &[]);
    let _server = Greeter::at(&web.namespace, "web", 80);
    let (four, six): (IpAddr, IpAddr) = (a.ip4.into(), a.ip6.into());

    // From outside, with the client's own address.
    for (address, own) in [(four, client.ip4.to_string()), (six, client.ip6.to_string())] {
        says(ask(&client.namespace, (address, 8080)), &format!("web {own}"));
        says(ask_by_datagram(&client.namespace, (address, 8080)), &format!("web {own}"));
    }
    // From the host, by each of its addresses.
    for address in [four, six, LOCAL.into(), Ipv6Addr::LOCALHOST.into(), Ipv4Addr::new(172, 28, 0, 1).into()]
    {
        let answer = ask(&a.namespace, (address, 8080)).unwrap_or_default();
        assert!(answer.starts_with("web "), "by {address}: {answer:?}");
        let answer = ask_by_datagram(&a.namespace, (address, 8080)).unwrap_or_default();
        assert!(answer.starts_with("web "), "datagrams by {address}: {answer:?}");
    }
    // From a neighbour, from the sandbox itself and from another network, by the host's address.
    for sandbox in [&neighbour, &web, &stranger] {
        let answer = ask(&sandbox.namespace, (four, 8080)).unwrap_or_default();
        assert!(answer.starts_with("web "), "from {}: {answer:?}", sandbox.name);
    }
    // The neighbour may go straight there; the stranger and the outside may not.
    assert!(ask(&neighbour.namespace, (web.ip4(), 80)).is_some());
    assert_eq!(ask_for(&stranger.namespace, (web.ip4(), 80), SHORT), None);
    client.namespace.run(&format!("ip route add 172.28.0.0/24 via {}", a.ip4));
    assert_eq!(ask_for(&client.namespace, (web.ip4(), 80), SHORT), None, "not by a route of the client's");
    let ports = &a.json(&["sandbox", "inspect", "web"])[0]["NetworkSettings"]["Ports"];
    let both =
        serde_json::json!([{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]);
    assert_eq!(*ports, serde_json::json!({"80/tcp": both, "80/udp": both}));
}

#[test]
fn a_port_on_a_loopback_address_is_the_hosts_alone() {
    needs_root!();
    let rig = Rig::with_client(1);
    let [a, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "blue"]);
    let web = publish(a, "web", "blue", &["-p", "127.0.0.1:8080:80", "-p", "[::1]:8080:80"]);
    let _server = Greeter::at(&web.namespace, "web", 80);
    assert!(ask(&a.namespace, (LOCAL, 8080)).is_some());
    assert!(ask(&a.namespace, (Ipv6Addr::LOCALHOST, 8080)).is_some());
    assert_eq!(ask_for(&a.namespace, (a.ip4, 8080), SHORT), None);
    assert_eq!(ask_for(&client.namespace, (a.ip4, 8080), SHORT), None);
    // Even where somebody opened the host's loopback addresses to its neighbours.
    a.namespace.run("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    client.namespace.run("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    client.namespace.run("ip addr del 127.0.0.1/8 dev lo");
    client.namespace.run(&format!("ip route add 127.0.0.1/32 via {} src {}", a.ip4, client.ip4));
    assert_eq!(ask_for(&client.namespace, (LOCAL, 8080), SHORT), None);
}

#[test]
fn a_port_that_somebody_has_is_refused_and_nothing_stays() {
    needs_root!();
    let rig = Rig::with_client(1);
    let a = &rig.hosts[0];
    a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "blue"]);
    let _web = publish(a, "web", "blue", &["-p", "8080:80"]);
    for name in ["second", "third"] {
        a.ok(&["sandbox", "create", "-p", "9000:90", "-p", "8080:80", name]);
        let refused = a.refused(1, &["network", "connect", "blue", name]);
        let start = "failed to set up container networking: driver failed programming external connectivity on endpoint";
        assert!(refused.contains(&format!("{start} {name} (")), "{refused}");
        assert!(refused.contains("): Bind for 0.0.0.0:8080 failed: port is already allocated"), "{refused}");
    }
    let listener = a.namespace.enter(|| TcpListener::bind((LOCAL, 8081))).expect("a free port");
    a.ok(&["sandbox", "create", "-p", "8081:80", "fourth"]);
    let refused = a.refused(1, &["network", "connect", "blue", "fourth"]);
    assert!(
        refused.contains("failed to bind host port 0.0.0.0:8081/tcp: address already in use"),
        "{refused}"
    );
    drop(listener);
    a.ok(&["network", "connect", "blue", "fourth"]);
    // What sandboxes have, programs cannot have.
    for port in [8080, 8081] {
        assert!(
            a.namespace.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).is_err(),
            "{port} is held"
        );
    }
    // Any port is one that nobody has.
    a.ok(&["sandbox", "create", "-P", "--expose", "80-81", "any"]);
    a.ok(&["network", "connect", "blue", "any"]);
    let ports = &a.json(&["sandbox", "inspect", "any"])[0]["NetworkSettings"]["Ports"];
    for port in ["80/tcp", "81/tcp"] {
        let given: u16 = ports[port][0]["HostPort"].as_str().and_then(|p| p.parse().ok()).unwrap_or(0);
        assert!(given >= 1024, "{ports}");
    }
    let bad = a.refused(2, &["sandbox", "create", "-p", "70000:80", "bad"]);
    assert!(bad.contains("invalid hostPort: 70000"), "{bad}");
}

#[test]
fn ports_survive_the_agent_and_go_with_the_sandbox() {
    needs_root!();
    let rig = Rig::wire(&["a", "client"]);
    let [a, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    let before = Snapshot::of(a);
    a.start(&[]);
    a.namespace.run("nft add table ip foreign");
    a.namespace.run("nft add chain ip foreign forward { type filter hook forward priority 0 ; }");
    a.namespace.run("nft add rule ip foreign forward ip saddr 10.9.9.9 drop");
    let foreign = a.namespace.run("nft list table ip foreign");
    let at_rest = Snapshot::of(a);
    a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "blue"]);
    let web = publish(a, "web", "blue", &["-p", "8080:80", "-p", "80", "-p", "127.0.0.1:9000:80"]);
    let server = Greeter::at(&web.namespace, "web", 80);
    let shown = a.json(&["sandbox", "inspect", "web"])[0]["NetworkSettings"]["Ports"].clone();
    a.kill();
    assert!(ask(&client.namespace, (a.ip4, 8080)).is_some(), "the kernel goes on without the agent");
    a.start(&[]);
    until("the relay is there again", || ask_for(&a.namespace, (LOCAL, 9000), SHORT).is_some());
    assert!(ask(&client.namespace, (a.ip4, 8080)).is_some());
    assert_eq!(
        a.json(&["sandbox", "inspect", "web"])[0]["NetworkSettings"]["Ports"],
        shown,
        "the same ports"
    );

    a.ok(&["network", "disconnect", "blue", "web"]);
    assert_eq!(ask_for(&client.namespace, (a.ip4, 8080), SHORT), None);
    let ports = &a.json(&["sandbox", "inspect", "web"])[0]["NetworkSettings"]["Ports"];
    assert_eq!(*ports, serde_json::json!({"80/tcp": null}));
    a.ok(&["network", "connect", "blue", "web"]);
    assert!(ask(&client.namespace, (a.ip4, 8080)).is_some(), "attached again, published again");
    drop((server, web));
    a.ok(&["sandbox", "rm", "web"]);
    a.ok(&["network", "rm", "blue"]);
    at_rest.assert_returns(a);
    assert_eq!(a.namespace.run("nft list table ip foreign"), foreign, "what is others' is untouched");
    a.namespace.run("nft delete table ip foreign");

    a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "blue"]);
    drop(publish(a, "web", "blue", &["-p", "8080:80"]));
    a.stop();
    a.start(&["--teardown-on-stop"]);
    a.stop();
    before.assert_unchanged(a);
    assert_eq!(rules(a), 3 + 2, "no routing rule is left");
}

/// Number of routing rules; three of IPv4 and two of IPv6 are the kernel's own.
fn rules(host: &Host) -> usize {
    host.namespace.run("ip rule").lines().count() + host.namespace.run("ip -6 rule").lines().count()
}

#[test]
fn a_datagrams_client_is_not_kept_with_a_sandbox_that_is_gone() {
    needs_root!();
    let rig = Rig::with_client(1);
    let [a, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "blue"]);
    let socket = client.namespace.enter(|| std::net::UdpSocket::bind((client.ip4, 5353))).expect("a port");
    socket.set_read_timeout(Some(SHORT)).expect("a timeout");
    let target: SocketAddr = (a.ip4, 5353).into();
    let ask = || {
        let mut datagram = [0; 64];
        socket.send_to(b"?", target).ok()?;
        let (length, _) = socket.recv_from(&mut datagram).ok()?;
        Some(String::from_utf8_lossy(&datagram[..length]).into_owned())
    };
    // It asks before there is anybody, goes on while one sandbox is replaced by another, and never changes its port.
    assert_eq!(ask(), None);
    for name in ["first", "second"] {
        let sandbox = publish(a, name, "blue", &["-p", "5353:5353/udp"]);
        let server = Greeter::at(&sandbox.namespace, name, 5353);
        until("it answers", || ask().is_some_and(|answer| answer.starts_with(name)));
        drop((server, sandbox));
        a.ok(&["sandbox", "rm", name]);
    }
}

#[test]
fn an_agent_killed_while_it_gives_ports_gives_them_when_it_is_back() {
    needs_root!();
    let rig = Rig::with_client(1);
    let [a, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "blue"]);
    for (side, port) in [("before", "8001"), ("after", "8002")] {
        a.stop();
        let point = format!("ports-publish:{side}");
        a.start_command(a.agent_command(a.ip4.into()).env("WEFT_KILL_AT", &point));
        a.ok(&["sandbox", "create", "-p", &format!("{port}:80"), side]);
        assert_ne!(a.weft(&["network", "connect", "blue", side]).code, 0, "it dies at {point}");
        until("it is dead", || a.ended().is_some());
        a.start(&[]);
        let sandbox = a.attached(side, "blue");
        let _server = Greeter::at(&sandbox.namespace, side, 80);
        let target: SocketAddr = (a.ip4, port.parse().expect("a port")).into();
        until("it is published", || ask_for(&client.namespace, target, SHORT).is_some());
    }
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_named_with_the_way_out_which_works() {
    needs_root!();
    let rig = Rig::with_client(1);
    let [a, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    // As Docker has it on a host that it makes forward.
    for line in ["-P FORWARD DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN"]
    {
        a.namespace.run(&format!("iptables {line}"));
    }
    let warnings = || a.json(&["status"])["Warnings"].to_string();
    a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "blue"]);
    let web = publish(a, "web", "blue", &["-p", "8080:80"]);
    let _server = Greeter::at(&web.namespace, "web", 80);
    assert_eq!(ask_for(&client.namespace, (a.ip4, 8080), SHORT), None);
    until("it is named", || warnings().contains("chain FORWARD of table filter drops"));
    let said = warnings();
    let way_out =
        said.split('\'').find(|words| words.starts_with("iptables -I DOCKER-USER")).expect("a command");
    a.namespace.run(way_out);
    assert!(ask(&client.namespace, (a.ip4, 8080)).is_some(), "after {way_out}");
    client.namespace.run(&format!("ip route add 172.28.0.0/24 via {}", a.ip4));
    assert_eq!(ask_for(&client.namespace, (web.ip4(), 80), SHORT), None, "and nothing more");
    a.stop();
    a.start(&[]);
    assert!(!warnings().contains("FORWARD"), "{}", warnings());
}

#[test]
fn ports_are_published_and_shown_as_docker_users_write_and_read_them() {
    needs_root!();
    let rig = Rig::with_client(1);
    let [a, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    a.ok(&["network", "create", "app-network"]);
    let run = ["run", "-d", "--name", "web", "--network", "app-network", "-p", "8080:80", "--"];
    a.ok(&[&run[..], &["busybox", "nc", "-ll", "-p", "80", "-e", "echo", "hello"]].concat());
    until("it is served", || ask_for(&client.namespace, (a.ip4, 8080), SHORT).as_deref() == Some("hello\n"));
    let ports = a.ok(&["ps", "--filter", "name=web", "--format", "{{.Ports}}"]);
    assert_eq!(ports, "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp");
    let format = "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}";
    assert_eq!(a.ok(&["inspect", "web", "--format", format]), "8080");

    let host = a.weft(&["run", "--rm", "--network", "host", "-p", "8081:80", "--", "true"]);
    assert_eq!(host.code, 0, "{host:?}");
    assert_eq!(host.stderr.trim(), "WARNING: Published ports are discarded when using host network mode");
    let shared = a.weft(&["run", "--rm", "--network", "container:web", "-p", "8081:80", "--", "true"]);
    assert_ne!(shared.code, 0);
    let why = "conflicting options: port publishing and the container type network mode";
    assert!(shared.stderr.contains(why), "{shared:?}");
    a.ok(&["stop", "-t", "1", "web"]);
    assert_eq!(ask_for(&client.namespace, (a.ip4, 8080), SHORT), None);
}
