//! The way out of sandboxes that are in overlay networks alone, and the ports that they publish by it.

use crate::greeter::{Greeter, SHORT, ask, ask_for};
use crate::rig::{Host, Rig, Sandbox, needs_root};
use crate::wait::until;

fn overlay(host: &Host, name: &str, flags: &[&str]) {
    host.ok(&[&["network", "create", "-d", "overlay"], flags, &[name]].concat());
}

/// The sandbox's end of the gateway bridge: its address there.
fn leg(host: &Host, sandbox: &str) -> Option<std::net::Ipv4Addr> {
    let shown = host.weft(&["network", "inspect", "weft_gwbridge"]);
    if shown.code != 0 {
        return None;
    }
    let shown = shown.json();
    let ends = shown[0]["Containers"].as_object()?;
    let end = ends.values().find(|end| end["Name"] == sandbox)?;
    end["IPv4Address"].as_str()?.split('/').next()?.parse().ok()
}

fn default_route(sandbox: &Sandbox<'_>) -> String {
    sandbox.namespace.run("ip route show default").trim().to_owned()
}

fn links(sandbox: &Sandbox<'_>) -> usize {
    sandbox.namespace.run("ip -o link").lines().count()
}

#[test]
fn a_sandbox_in_overlay_networks_alone_gets_out_with_the_hosts_address() {
    needs_root!();
    let rig = Rig::with_client(2);
    let [a, b, client] = rig.hosts.as_slice() else { panic!("three hosts") };
    overlay(a, "blue", &["--subnet", "10.7.0.0/24"]);
    let web = a.sandbox("web", "blue", &[]);
    let _outside = Greeter::at(&client.namespace, "outside", 80);
    let answer = ask(&web.namespace, (client.ip4, 80));
    assert_eq!(answer, Some(format!("outside {}", a.ip4)));
    assert_eq!((web.interface.as_str(), links(&web)), ("eth0", 3));
    let gateway = a.json(&["network", "inspect", "weft_gwbridge"])[0]["IPAM"]["Config"][0]["Gateway"].clone();
    let gateway = gateway.as_str().expect("it has one");
    assert_eq!(default_route(&web), format!("default via {gateway} dev eth1 proto static"));
    let listed = a.ok(&["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]);
    assert!(listed.contains("weft_gwbridge bridge local"), "{listed}");
    let networks = "{{range $name, $end := .NetworkSettings.Networks}}{{$name}} {{end}}";
    assert_eq!(a.ok(&["inspect", "web", "-f", networks]), "blue", "as a user attached it");
    assert_eq!(a.ok(&["ps", "--filter", "name=web", "--format", "{{.Networks}}"]), "blue");

    until("b knows the network", || b.weft(&["network", "inspect", "blue"]).code == 0);
    let db = b.sandbox("db", "blue", &[]);
    rig.converge("blue");
    assert_eq!(ask(&db.namespace, (client.ip4, 80)), Some(format!("outside {}", b.ip4)));
    let _web = Greeter::at(&web.namespace, "web", 80);
    assert_eq!(ask(&db.namespace, (web.ip4(), 80)), Some(format!("web {}", db.ip4())), "within as before");
}

#[test]
fn a_sandbox_in_internal_overlays_alone_has_no_way_out() {
    needs_root!();
    let rig = Rig::with_client(2);
    let [a, _, client] = rig.hosts.as_slice() else { panic!("three hosts") };
    overlay(a, "inner", &["--internal", "--subnet", "10.7.0.0/24"]);
    a.ok(&["sandbox", "create", "-p", "8080:80", "db"]);
    a.ok(&["network", "connect", "inner", "db"]);
    let db = a.attached("db", "inner");
    assert_eq!((links(&db), default_route(&db).as_str()), (2, ""));
    let _server = Greeter::at(&db.namespace, "db", 80);
    assert_eq!(ask_for(&client.namespace, (a.ip4, 8080), SHORT), None);
    assert!(!a.ok(&["network", "ls", "--format", "{{.Name}}"]).contains("weft_gwbridge"), "nobody needs it");

    overlay(a, "blue", &["--subnet", "10.8.0.0/24"]);
    a.ok(&["network", "connect", "blue", "db"]);
    assert!(default_route(&db).contains("dev eth2"), "{}", default_route(&db));
    assert!(ask(&client.namespace, (a.ip4, 8080)).is_some(), "it is published by now");
    a.ok(&["network", "disconnect", "blue", "db"]);
    assert_eq!((links(&db), default_route(&db).as_str()), (2, ""));
    assert_eq!(ask_for(&client.namespace, (a.ip4, 8080), SHORT), None);
}

#[test]
fn ports_of_a_sandbox_in_overlay_networks_alone_are_published_as_any_others() {
    needs_root!();
    let rig = Rig::with_client(2);
    let [a, _, client] = rig.hosts.as_slice() else { panic!("three hosts") };
    overlay(a, "blue", &["--subnet", "10.7.0.0/24"]);
    a.ok(&["sandbox", "create", "-p", "8080:80", "-p", "127.0.0.1:9000:80", "-P", "--expose", "81", "web"]);
    a.ok(&["network", "connect", "blue", "web"]);
    let web = a.attached("web", "blue");
    let neighbour = a.sandbox("neighbour", "blue", &[]);
    let _server = Greeter::at(&web.namespace, "web", 80);
    for (address, client_address) in [(a.ip4.into(), client.ip4.to_string()), (a.ip6.into(), String::new())] {
        let address: std::net::IpAddr = address;
        let answer = ask(&client.namespace, (address, 8080)).unwrap_or_default();
        assert!(answer.starts_with(&format!("web {client_address}")), "by {address}: {answer:?}");
        for sandbox in [&web, &neighbour] {
            let asked = address.is_ipv4().then(|| ask(&sandbox.namespace, (address, 8080)));
            assert_ne!(asked, Some(None), "from {}", sandbox.name);
        }
    }
    for port in [8080, 9000] {
        assert!(ask(&a.namespace, (std::net::Ipv4Addr::LOCALHOST, port)).is_some(), "the relay of {port}");
    }
    assert_eq!(ask_for(&client.namespace, (a.ip4, 9000), SHORT), None);
    let shown = a.json(&["inspect", "web"])[0].clone();
    assert_eq!(shown["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"], "8080");
    assert_eq!(shown["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "8080");

    a.ok(&["sandbox", "create", "-p", "8080:80", "second"]);
    let refused = a.refused(1, &["network", "connect", "blue", "second"]);
    assert!(refused.contains("Bind for 0.0.0.0:8080 failed: port is already allocated"), "{refused}");
    assert_eq!(leg(a, "second"), None);
    let second = a.json(&["sandbox", "inspect", "second"])[0]["NetworkSettings"]["Networks"].clone();
    assert_eq!(second, serde_json::json!({}), "nothing stays");
    a.ok(&["sandbox", "rm", "web"]);
    a.ok(&["network", "connect", "blue", "second"]);
    assert!(leg(a, "second").is_some(), "the port is free");
}

#[test]
fn the_gateway_bridge_is_no_path_between_networks() {
    needs_root!();
    let rig = Rig::with_client(2);
    let [a, b, client] = rig.hosts.as_slice() else { panic!("three hosts") };
    overlay(a, "blue", &["--subnet", "10.7.0.0/24"]);
    overlay(a, "red", &["--subnet", "10.8.0.0/24"]);
    a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "local"]);
    let sandboxes =
        [a.sandbox("web", "blue", &[]), a.sandbox("db", "red", &[]), a.sandbox("app", "local", &[])];
    let servers: Vec<_> = sandboxes.iter().map(|one| Greeter::at(&one.namespace, &one.name, 80)).collect();
    let [web, db, app] = &sandboxes;
    let (web_leg, db_leg) = (leg(a, "web").expect("a leg"), leg(a, "db").expect("a leg"));
    for (from, to) in [(web, db_leg), (db, web_leg), (web, app.ip4()), (app, web_leg), (web, db.ip4())] {
        assert_eq!(ask_for(&from.namespace, (to, 80), SHORT), None, "{} to {to}", from.name);
    }
    // Not from outside either, nor on the wire below IP.
    client.namespace.run(&format!("ip route add {web_leg}/32 via {}", a.ip4));
    assert_eq!(ask_for(&client.namespace, (web_leg, 80), SHORT), None);
    let shown = db.namespace.run("ip -br link show dev eth1");
    let mac = shown.split_whitespace().nth(2).expect("an address");
    web.namespace.run(&format!("ip neigh replace {db_leg} lladdr {mac} dev eth1"));
    assert_eq!(ask_for(&web.namespace, (db_leg, 80), SHORT), None, "icc is off");
    assert!(ask(&a.namespace, (web_leg, 80)).is_some(), "the host reaches everybody");
    drop(servers);

    // A frame of red, said by a sandbox of blue, with the address that its host has for b.
    let heard = b.namespace.enter(|| std::net::UdpSocket::bind((b.ip4, 4790))).expect("a port");
    heard.set_read_timeout(Some(SHORT)).expect("a timeout");
    let speaks = web.namespace.enter(|| std::net::UdpSocket::bind("0.0.0.0:0")).expect("a port");
    speaks.send_to(b"!", (b.ip4, 4790)).expect("sent");
    assert!(heard.recv(&mut [0; 8]).is_ok(), "datagrams get out");
    let before = received(b);
    for _ in 0..20 {
        speaks.send_to(&[8, 0, 0, 0, 0, 0, 1, 0], (b.ip4, 4789)).expect("sent");
    }
    speaks.send_to(b"!", (b.ip4, 4790)).expect("sent");
    assert!(heard.recv(&mut [0; 8]).is_ok());
    assert_eq!(received(b), before, "VXLAN does not");
}

/// Datagrams that the tunnel end of a host has taken in and dropped.
fn received(host: &Host) -> serde_json::Value {
    host.json(&["stats"])["Drops"].clone()
}

#[test]
fn the_default_route_and_the_ports_follow_the_networks_a_sandbox_is_in() {
    needs_root!();
    let rig = Rig::with_client(2);
    let [a, _, client] = rig.hosts.as_slice() else { panic!("three hosts") };
    overlay(a, "blue", &["--subnet", "10.7.0.0/24"]);
    a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "local"]);
    a.ok(&["sandbox", "create", "-p", "80", "web"]);
    a.ok(&["network", "connect", "blue", "web"]);
    let web = a.attached("web", "blue");
    let _server = Greeter::at(&web.namespace, "web", 80);
    let ports = || a.json(&["sandbox", "inspect", "web"])[0]["NetworkSettings"]["Ports"]["80/tcp"].clone();
    let given = ports();
    let port = given[0]["HostPort"].as_str().and_then(|port| port.parse().ok()).expect("a port");
    let reached = || ask(&client.namespace, (a.ip4, port)).is_some();
    assert!(default_route(&web).ends_with("dev eth1 proto static") && reached());

    a.ok(&["network", "connect", "local", "web"]);
    assert_eq!(default_route(&web), "default via 172.28.0.1 dev eth2 proto static");
    assert_eq!((leg(a, "web"), links(&web)), (None, 3), "the leg is gone");
    assert!(reached() && ports() == given, "the same ports");

    a.ok(&["network", "disconnect", "local", "web"]);
    assert!(leg(a, "web").is_some() && default_route(&web).ends_with("dev eth1 proto static"));
    assert!(reached() && ports() == given, "the same ports");

    for verb in ["connect", "disconnect"] {
        let refused = a.refused(1, &["network", verb, "weft_gwbridge", "web"]);
        assert!(refused.contains("connect them to another bridge network"), "{refused}");
    }
    let refused = a.refused(1, &["network", "rm", "weft_gwbridge"]);
    assert!(refused.contains("network weft_gwbridge has active endpoints (name:\"web\""), "{refused}");
    a.ok(&["network", "disconnect", "blue", "web"]);
    assert_eq!((leg(a, "web"), links(&web), reached()), (None, 1, false));
    a.ok(&["network", "prune", "-f"]);
    a.ok(&["network", "rm", "weft_gwbridge"]);
}

#[test]
fn a_gateway_bridge_that_a_user_made_is_the_one_that_is_used() {
    needs_root!();
    let rig = Rig::with_client(2);
    let [a, b, client] = rig.hosts.as_slice() else { panic!("three hosts") };
    for (flags, why) in [
        (&["--internal"][..], "it can neither be internal nor"),
        (&["-o", "com.docker.network.bridge.enable_icc=true"], "it can neither be internal nor"),
        (&["-d", "overlay"], "it can only have the driver bridge"),
        (&["-d", "macvlan"], "it can only have the driver bridge"),
    ] {
        let refused = a.refused(1, &[&["network", "create"], flags, &["weft_gwbridge"]].concat());
        assert!(refused.contains(why), "{refused}");
    }
    let subnets = ["--subnet", "172.30.0.0/24", "--ipv6", "--subnet", "fd30::/64"];
    a.ok(&[
        &["network", "create"],
        &subnets[..],
        &["-o", "com.docker.network.bridge.name=gw0", "weft_gwbridge"],
    ]
    .concat());
    overlay(a, "blue", &["--subnet", "10.7.0.0/24"]);
    a.ok(&["sandbox", "create", "-p", "8080:80", "web"]);
    a.ok(&["network", "connect", "blue", "web"]);
    let web = a.attached("web", "blue");
    assert_eq!(default_route(&web), "default via 172.30.0.1 dev eth1 proto static");
    assert!(a.namespace.run("ip -o addr show dev gw0").contains("172.30.0.1/24"));
    let _outside = Greeter::at(&client.namespace, "outside", 80);
    assert_eq!(ask(&web.namespace, (client.ip6, 80)), Some(format!("outside {}", a.ip6)), "IPv6 too");
    let _web = Greeter::at(&web.namespace, "web", 80);
    assert_eq!(ask(&client.namespace, (a.ip6, 8080)), Some(format!("web {}", client.ip6)));

    // One that has addresses of an overlay is named, and the overlay works all the same.
    overlay(b, "red", &["--subnet", "172.30.0.0/24"]);
    until("a knows the network", || a.weft(&["network", "inspect", "red"]).code == 0);
    let db = a.sandbox("db", "red", &[]);
    assert_eq!((links(&db), leg(a, "db")), (2, None));
    let warnings = a.json(&["status"])["Warnings"].to_string();
    assert!(warnings.contains("sandbox db has no way out of its overlay networks: "), "{warnings}");
    a.ok(&["sandbox", "create", "-p", "8081:80", "second"]);
    let refused = a.refused(1, &["network", "connect", "red", "second"]);
    assert!(refused.contains("have addresses of weft_gwbridge"), "{refused}");
}

#[test]
fn a_leg_survives_the_agent_and_goes_with_the_sandbox() {
    needs_root!();
    let rig = Rig::with_client(1);
    let [a, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    let at_rest = crate::audit::Snapshot::of(a);
    overlay(a, "blue", &["--subnet", "10.7.0.0/24"]);
    a.ok(&["sandbox", "create", "-p", "8080:80", "web"]);
    a.ok(&["network", "connect", "blue", "web"]);
    let web = a.attached("web", "blue");
    let server = Greeter::at(&web.namespace, "web", 80);
    let (route, address) = (default_route(&web), leg(a, "web"));
    a.kill();
    assert!(ask(&client.namespace, (a.ip4, 8080)).is_some(), "the kernel goes on without the agent");
    // Somebody takes the leg meanwhile: it is the record that decides.
    web.namespace.run("ip link del eth1");
    a.start(&[]);
    until("it is there again", || default_route(&web) == route);
    until("it is published", || ask_for(&client.namespace, (a.ip4, 8080), SHORT).is_some());
    assert_eq!(leg(a, "web"), address);

    // An agent that dies while it gives a leg and its ports goes on when it is back.
    for (point, sandbox) in [
        ("local-endpoint-attach:before", "one"),
        ("local-endpoint-attach:after", "two"),
        ("sandbox-interface:before:2", "three"),
        ("ports-publish:before", "four"),
        ("ports-publish:after", "five"),
    ] {
        a.stop();
        a.start_command(a.agent_command(a.ip4.into()).env("WEFT_KILL_AT", point));
        a.ok(&["sandbox", "create", "-p", "80", sandbox]);
        assert_ne!(a.weft(&["network", "connect", "blue", sandbox]).code, 0, "it dies at {point}");
        until("it is dead", || a.ended().is_some());
        a.start(&[]);
        let end = a.attached(sandbox, "blue");
        until(&format!("it has a way out after {point}"), || default_route(&end).contains("dev eth1"));
        let _server = Greeter::at(&end.namespace, sandbox, 80);
        let ports = || {
            let shown = a.json(&["sandbox", "inspect", sandbox])[0]["NetworkSettings"]["Ports"].clone();
            shown["80/tcp"][0]["HostPort"].as_str().and_then(|port| port.parse::<u16>().ok())
        };
        until(&format!("it is published after {point}"), || {
            ports().is_some_and(|port| ask_for(&client.namespace, (a.ip4, port), SHORT).is_some())
        });
        drop(end);
        a.ok(&["sandbox", "rm", sandbox]);
    }
    drop((server, web));
    a.ok(&["sandbox", "rm", "web"]);
    a.ok(&["network", "rm", "blue"]);
    at_rest.assert_returns(a);
    a.ok(&["network", "rm", "weft_gwbridge"]);
}

#[test]
fn a_command_has_its_way_out_and_its_ports_while_it_runs() {
    needs_root!();
    let rig = Rig::with_client(1);
    let [a, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    overlay(a, "blue", &["-o", "encrypted", "--subnet", "10.7.0.0/24"]);
    let _outside = Greeter::at(&client.namespace, "outside", 80);
    let served = || ask_for(&client.namespace, (a.ip4, 8080), SHORT).as_deref() == Some("hello\n");
    let run = ["run", "-d", "--name", "web", "--network", "blue", "-p", "8080:80", "--"];
    a.ok(&[&run[..], &["busybox", "nc", "-ll", "-p", "80", "-e", "echo", "hello"]].concat());
    until("it is served", served);
    let out = a.attached("web", "blue");
    assert_eq!(ask(&out.namespace, (client.ip4, 80)), Some(format!("outside {}", a.ip4)));
    drop(out);
    a.ok(&["stop", "-t", "1", "web"]);
    assert!(leg(a, "web").is_none() && !served(), "who has ended publishes nothing");
    a.ok(&["start", "web"]);
    until("it is served again", served);
    a.ok(&["rm", "-f", "web"]);
    assert_eq!(leg(a, "web"), None);
    let links = a.namespace.run("ip -o link");
    assert!(!links.contains("weft_gwbridge"), "{links}");
}
