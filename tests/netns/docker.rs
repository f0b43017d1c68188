//! weft as the driver of real Docker engines: what their users rely on, by the commands they use.

use crate::docker_host::Engine;
use crate::greeter::{SHORT, ask_for};
use crate::rig::{Rig, needs_root};
use crate::wait::{eventually, until};

/// Two hosts, each with an engine and an agent that is its plugin.
fn engines(rig: &Rig) -> [Engine<'_>; 2] {
    let engines = [&rig.hosts[0], &rig.hosts[1]].map(Engine::start);
    engines.iter().for_each(|engine| engine.start_agent(&[]));
    rig.meet(2);
    engines
}

/// Makes the same network in the other engine, as whoever watches both does.
fn share(from: &Engine<'_>, to: &Engine<'_>, network: &str) {
    let id = from.inspect(network, "{{.Id}}");
    let subnets = from.inspect(network, "{{range .IPAM.Config}}--subnet {{.Subnet}} {{end}}");
    let known = format!("weft.network={}", &id[..32]);
    eventually("the other agent knows the network", || {
        let answer = to.host.weft(&["network", "inspect", &id[..32]]);
        if answer.code == 0 { Ok(()) } else { Err(answer.stderr) }
    });
    let six = if subnets.contains(':') { "--ipv6" } else { "" };
    to.ok(&format!(
        "network create -d weft -o {known} --ipam-driver weft --ipam-opt {known} {six} {subnets} {network}"
    ));
}

/// Waits until both containers reach each other by address.
fn meet(ends: [(&Engine<'_>, &str); 2], network: &str) {
    let [(_, a), (_, b)] = ends.map(|(engine, name)| (name, engine.address_of(name, network)));
    eventually("both reach each other", || {
        ends[0].0.reaches(ends[0].1, &b)?;
        ends[1].0.reaches(ends[1].1, &a)
    });
}

/// What of weft and of Docker's endpoints is on a host.
pub(crate) fn left(engine: &Engine<'_>) -> Vec<String> {
    let host = engine.host;
    let sandboxes = host.json(&["ps"]);
    let sandboxes = sandboxes.as_array().into_iter().flatten().map(|sandbox| sandbox["Name"].to_string());
    let networks = host.json(&["network", "ls"]);
    let networks = networks.as_array().into_iter().flatten().filter(|network| {
        !["bridge", "host", "none"].contains(&network["Name"].as_str().unwrap_or_default())
    });
    let networks = networks.map(|network| network["Name"].to_string());
    let links = host.namespace.run("ip -o link");
    let made = |line: &&str| line.contains(": w") || line.contains(": v");
    let links = links.lines().filter(made).filter(|line| !line.contains(": veth")).map(str::to_owned);
    let pins = crate::audit::mounts_under(&host.dir.join("run"));
    sandboxes.chain(networks).chain(links).chain(pins).collect()
}

/// Waits until nothing is left of containers and networks.
fn clean(engine: &Engine<'_>) {
    eventually(&format!("nothing is left on {}", engine.host.name), || match left(engine) {
        none if none.is_empty() => Ok(()),
        left => Err(format!("{left:#?}")),
    });
}

#[test]
fn containers_of_two_engines_meet_in_networks_of_weft() {
    needs_root!();
    let rig = Rig::wire(&["a", "b"]);
    let [a, b] = &engines(&rig);
    let nothing = left(a);
    assert!(nothing.is_empty(), "{nothing:?}");
    a.ok("network create -d weft --subnet 10.5.0.0/24 --aux-address router=10.5.0.3 app");
    share(a, b, "app");
    a.run("web", "--network app");
    b.run("db", "--network app");
    meet([(a, "web"), (b, "db")], "app");
    assert_eq!(a.address_of("web", "app"), "10.5.0.2", "the engine's own choice");

    b.run("fixed", "--network app --ip 10.5.0.77");
    let taken = a.refused("run -d --network app --ip 10.5.0.77 bb:1 sleep 1");
    assert!(taken.contains("10.5.0.77") && taken.contains("on b"), "{taken}");
    let overlap = a.refused("network create -d weft --ipam-driver weft --subnet 10.5.0.128/25 other");
    assert!(overlap.contains("Pool overlaps with other one on this address space"), "{overlap}");
    let unknown = a.refused("network create -d weft -o colour=blue other");
    assert!(unknown.contains("unknown driver option \"colour\""), "{unknown}");
    let active = a.refused("network rm app");
    assert!(active.contains("has active endpoints"), "{active}");

    a.ok(
        "network create -d weft --ipam-driver weft --internal -o encrypted --ipv6 --subnet fd06::/64 sealed",
    );
    share(a, b, "sealed");
    a.ok("network connect sealed web");
    b.run("safe", "--network sealed");
    meet([(a, "web"), (b, "safe")], "sealed");
    let six = b.inspect("safe", "{{.NetworkSettings.Networks.sealed.GlobalIPv6Address}}");
    eventually("they meet by IPv6 too", || a.reaches("web", &six));
    assert!(!b.ok("exec safe ip route").contains("default"), "an internal network has no way out");
    assert!(b.ok("exec db ip route").contains("default"), "by docker_gwbridge");

    a.host.kill();
    a.start_agent(&[]);
    rig.meet(2);
    meet([(a, "web"), (b, "db")], "app");
    let before = a.ok("exec web ip -o link").lines().count();
    a.ok("network disconnect sealed web");
    assert_eq!(a.ok("exec web ip -o link").lines().count(), before - 1, "its interface went");
    a.ok("network connect sealed web");
    meet([(a, "web"), (b, "safe")], "sealed");

    a.ok("network create -d weft -o weft.driver=bridge --subnet 10.9.0.0/24 here");
    a.run("one", "--network here");
    a.run("two", "--network here");
    eventually("they meet on their host", || a.reaches("one", &a.address_of("two", "here")));
    a.reaches("one", "10.9.0.1").expect("the gateway answers");
    assert!(a.ok("exec one ip route").contains("default via 10.9.0.1"), "out by the bridge");
    a.ok("network create -d weft -o weft.driver=macvlan -o parent=u0 --subnet 10.11.0.0/24 wire");
    a.run("three", "--network wire");
    a.run("four", "--network wire");
    eventually("children of a link meet", || a.reaches("three", &a.address_of("four", "wire")));
    a.ok("restart -t 0 four");
    eventually("again after a restart", || a.reaches("three", &a.address_of("four", "wire")));
    let id = a.inspect("here", "{{.Id}}");
    b.host.refused(1, &["network", "inspect", &id[..32]]);

    assert!(left(a).len() >= 8, "{:?}", left(a));
    for engine in [a, b] {
        let all = engine.ok("ps -aq").split_whitespace().collect::<Vec<_>>().join(" ");
        engine.ok(&format!("rm -f {all}"));
    }
    a.ok("network prune -f");
    b.ok("network prune -f");
    clean(a);
    clean(b);
}

#[test]
fn a_container_of_a_bridge_network_of_weft_publishes_ports_as_any_other_and_the_engine_shows_them() {
    needs_root!();
    let rig = Rig::wire(&["a", "client"]);
    let [host, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    let a = &Engine::start(host);
    a.start_agent(&["--docker", &a.address()]);
    a.ok("network create -d weft -o weft.driver=bridge --subnet 10.9.0.0/24 here");
    a.ok("network create -d weft -o weft.driver=bridge --internal --subnet 10.10.0.0/24 closed");
    let serve = |name: &str, words: &str| {
        a.ok(&format!("run -d --name {name} {words} bb:1 nc -ll -p 80 -e echo {name}"));
    };
    serve("web", "--network here -p 8080:80");
    let says = |port: u16| ask_for(&client.namespace, (host.ip4, port), SHORT);
    until("it is served", || says(8080).as_deref() == Some("web\n"));
    assert_eq!(a.ok("port web"), "80/tcp -> 0.0.0.0:8080");
    a.run("quiet", "--network here");
    a.reaches("quiet", &a.address_of("web", "here")).expect("neighbours meet by their bridge");
    a.reaches("web", &client.ip4.to_string()).expect("it gets out");
    assert!(a.ok("exec quiet ip route").contains("default via 10.9.0.1"), "out by the bridge");
    let taken = a.refused("run -d --name second --network here -p 8080:80 bb:1 sleep 3600");
    assert!(taken.contains("port is already allocated"), "{taken}");
    a.ok("rm second");

    a.ok("network disconnect here web");
    assert_eq!(says(8080), None);
    a.ok("network connect here web");
    until("it is served again", || says(8080).is_some());
    a.ok("restart -t 0 web");
    until("after a restart too", || says(8080).is_some());
    serve("hidden", "--network closed -p 8081:80");
    assert!(!a.ok("exec hidden ip route").contains("default"), "an internal network has no way out");
    assert_eq!(says(8081), None);
    a.ok("rm -f web quiet hidden");
    assert_eq!(says(8080), None);
    a.ok("network rm here closed");
    clean(a);
}

const RUN: &str = "run -d --name web --network app --ip 10.5.0.77 bb:1 sleep 3600";
const REMOVE: &str = "rm -f web";
/// Points at which the agent is killed, and the command during which it comes to them.
const DEATHS: [(&str, &str); 7] = [
    ("address-hold:after", RUN),
    ("endpoint-attach:after", RUN),
    ("docker-endpoint-join:after", RUN),
    ("add-veth:after", RUN),
    ("sandbox-interface:after", RUN),
    ("docker-endpoint-leave:after", REMOVE),
    ("sandbox-remove:before", REMOVE),
];

#[test]
fn an_agent_or_an_engine_that_was_killed_agrees_with_the_other_when_it_is_back() {
    needs_root!();
    let rig = Rig::wire(&["a"]);
    let mut engine = Engine::start(&rig.hosts[0]);
    engine.start_agent(&[]);
    engine.ok("network create -d weft --ipam-driver weft --subnet 10.5.0.0/24 app");
    engine.ok("network create -d weft --subnet 10.6.0.0/24 plain");
    engine.run("peer", "--network app --restart always");
    for (point, command) in DEATHS {
        kill_agent_at(&engine, point, command);
    }
    engine.run("fixed", "--network app --ip 10.5.0.50 --restart always");
    engine.run("first", "--network plain --restart always");
    engine.kill();
    engine.launch();
    for (name, network) in [("fixed", "app"), ("peer", "app"), ("first", "plain")] {
        eventually(&format!("{name} is back"), || {
            let running = engine.inspect(name, "{{.State.Running}}") == "true";
            if running { Ok(()) } else { Err(engine.inspect(name, "{{.State.Error}}")) }
        });
        assert!(!engine.address_of(name, network).is_empty());
    }
    eventually("they meet again", || engine.reaches("peer", "10.5.0.50"));
    engine.ok("rm -f peer fixed first");
    engine.ok("network rm app plain");
    clean(&engine);
}

/// Kills the agent while it works on a command, which may fail; afterwards the same is possible, and nothing is twice.
fn kill_agent_at(a: &Engine<'_>, point: &str, command: &str) {
    if command == REMOVE {
        a.ok(RUN);
    }
    a.kill_agent_at(point, command, &[]);
    a.ok(REMOVE);
    eventually(&format!("the container is gone, killed at {point}"), || match sandboxes(a) {
        1 => Ok(()),
        more => Err(format!("{more} of 1")),
    });
    a.ok(RUN);
    let web = a.address_of("web", "app");
    eventually(&format!("it is reached, killed at {point}"), || a.reaches("peer", &web));
    a.ok(REMOVE);
}

fn sandboxes(engine: &Engine<'_>) -> usize {
    engine.host.json(&["ps"]).as_array().map_or(0, Vec::len)
}

/// Containers that come and go at once on each host; `WEFT_DOCKER_CONTAINERS` says how many others.
fn many() -> usize {
    std::env::var("WEFT_DOCKER_CONTAINERS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[test]
fn containers_made_and_removed_at_once_have_addresses_of_their_own_and_leave_nothing() {
    needs_root!();
    let rig = Rig::wire(&["a", "b"]);
    let [a, b] = &engines(&rig);
    a.ok("network create -d weft --subnet 10.5.0.0/24 app");
    share(a, b, "app");
    let many = many();
    std::thread::scope(|scope| {
        for (engine, name) in [a, b].into_iter().flat_map(|e| (0..many).map(move |n| (e, format!("c{n}")))) {
            scope.spawn(move || engine.run(&name, "--network app"));
        }
    });
    let names: Vec<String> = (0..many).map(|n| format!("c{n}")).collect();
    let mut addresses: Vec<String> =
        [a, b].iter().flat_map(|e| names.iter().map(|name| e.address_of(name, "app"))).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 2 * many, "no address is given twice: {addresses:?}");
    meet([(a, "c0"), (b, "c7")], "app");
    std::thread::scope(|scope| {
        for engine in [a, b] {
            scope.spawn(|| engine.ok(&format!("rm -f {}", names.join(" "))));
        }
    });
    for engine in [a, b] {
        eventually(&format!("no container of {} has an endpoint", engine.host.name), || {
            match (sandboxes(engine), engine.inspect("app", "{{len .Containers}}").as_str()) {
                (0, "0") => Ok(()),
                (here, there) => Err(format!("{here} here, {there} in the engine")),
            }
        });
    }
    // Not by the engine, whose own count of endpoints may be off by one after so many at once.
    a.host.ok(&["network", "rm", &a.inspect("app", "{{.Id}}")[..32]]);
    clean(a);
    clean(b);
}
