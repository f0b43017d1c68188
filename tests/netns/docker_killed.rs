//! Engines killed during each call to their plugin: when they are back, Docker, weft and the kernel have the same; nothing
//! is left, nothing is twice, and what was cut off can be done.

use std::collections::BTreeSet;

use crate::docker;
use crate::docker_host::Engine;
use crate::docker_relay::{Death, Moment, Relay};
use crate::rig::{Rig, needs_root};
use crate::wait::{eventually, until};

/// A command that changes something, what must be there before, what takes back whatever came of it, and the calls that
/// engines make for it.
struct Work {
    before: &'static [&'static str],
    command: &'static str,
    after: &'static [&'static str],
    calls: &'static [&'static str],
}

const MAKE: &str = "network create -d weft --ipam-driver weft --subnet 10.5.0.0/24 app";
const REMOVE: &str = "network rm app";
const RUN: &str = "run -d --name web --network base --ip 10.4.0.77 --stop-signal KILL bb:1 sleep 3600";
const APART: &str = "run -d --name web --stop-signal KILL bb:1 sleep 3600";
const HERE: &str = "run -d --name web --network here --ip 10.3.0.77 --stop-signal KILL bb:1 sleep 3600";
const CONNECT: &str = "network connect --ip 10.4.0.77 base web";
const DISCONNECT: &str = "network disconnect base web";
const END: &str = "rm -f web";

const JOINING: [&str; 3] =
    ["IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join"];
const LEAVING: [&str; 3] =
    ["NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint", "IpamDriver.ReleaseAddress"];

const NETWORKS: [Work; 2] = [
    Work {
        before: &[],
        command: MAKE,
        after: &[REMOVE],
        calls: &["IpamDriver.RequestPool", "IpamDriver.RequestAddress", "NetworkDriver.CreateNetwork"],
    },
    Work {
        before: &[MAKE],
        command: REMOVE,
        after: &[REMOVE],
        calls: &["NetworkDriver.DeleteNetwork", "IpamDriver.ReleaseAddress", "IpamDriver.ReleasePool"],
    },
];

const CONTAINERS: [Work; 2] = [
    Work { before: &[], command: RUN, after: &[END], calls: &JOINING },
    Work { before: &[RUN], command: END, after: &[END], calls: &LEAVING },
];

const CONNECTIONS: [Work; 2] = [
    Work { before: &[APART], command: CONNECT, after: &[END], calls: &JOINING },
    Work { before: &[APART, CONNECT], command: DISCONNECT, after: &[END], calls: &LEAVING },
];

const BRIDGES: [Work; 2] = [
    Work {
        before: &[],
        command: HERE,
        after: &[END],
        calls: &[
            "NetworkDriver.CreateEndpoint",
            "NetworkDriver.Join",
            "NetworkDriver.ProgramExternalConnectivity",
        ],
    },
    Work {
        before: &[HERE],
        command: END,
        after: &[END],
        calls: &[
            "NetworkDriver.RevokeExternalConnectivity",
            "NetworkDriver.Leave",
            "NetworkDriver.DeleteEndpoint",
        ],
    },
];

/// When the engine dies, and whether the agent does at the same moment.
const DEATHS: [(Moment, bool); 4] =
    [(Moment::Asked, false), (Moment::Done, false), (Moment::Done, true), (Moment::Answered, false)];

#[test]
fn an_engine_killed_while_it_makes_or_removes_a_network_agrees_with_the_agent_when_it_is_back() {
    needs_root!();
    strike_all(&NETWORKS);
}

#[test]
fn an_engine_killed_while_a_container_comes_or_goes_agrees_with_the_agent_when_it_is_back() {
    needs_root!();
    strike_all(&CONTAINERS);
}

#[test]
fn an_engine_killed_while_a_container_is_connected_or_disconnected_agrees_with_the_agent_when_it_is_back() {
    needs_root!();
    strike_all(&CONNECTIONS);
}

#[test]
fn an_engine_killed_while_a_container_joins_or_leaves_a_bridge_agrees_with_the_agent_when_it_is_back() {
    needs_root!();
    strike_all(&BRIDGES);
}

fn strike_all(works: &[Work]) {
    let rig = Rig::wire(&["a"]);
    let mut engine = Engine::start(&rig.hosts[0]);
    let relay = engine.relay();
    start_agent(&engine);
    engine.ok("network create -d weft --ipam-driver weft --subnet 10.4.0.0/24 base");
    engine.ok("network create -d weft -o weft.driver=bridge --subnet 10.3.0.0/24 here");
    engine.run("peer", "--network base --ip 10.4.0.9 --restart always --stop-signal KILL");
    agree(&engine, "nothing has happened");
    let stock = stock_of(&engine);
    for work in works {
        for call in work.calls {
            for (moment, with_agent) in DEATHS {
                let death = Death { call, moment, doomed: Vec::new() };
                let when = format!("{}: {death:?}, agent too: {with_agent}", work.command);
                strike(&mut engine, &relay, work, death, with_agent);
                agree(&engine, &when);
                work.after.iter().for_each(|command| drop(engine.docker(command)));
                is_as_before(&engine, &stock, &when);
                work.before.iter().for_each(|command| drop(engine.ok(command)));
                engine.ok(work.command);
                agree(&engine, &when);
                work.after.iter().for_each(|command| drop(engine.docker(command)));
                is_as_before(&engine, &stock, &when);
            }
        }
    }
}

fn start_agent(engine: &Engine<'_>) {
    engine.start_agent(&["--docker", &engine.address()]);
}

/// Has the engine die while it does the work, the agent at the same moment if it is to, and starts them again.
fn strike(engine: &mut Engine<'_>, relay: &Relay, work: &Work, mut death: Death, with_agent: bool) {
    work.before.iter().for_each(|command| drop(engine.ok(command)));
    let what = format!("{} comes to {}", work.command, death.call);
    death.doomed = vec![engine.pid()];
    if with_agent {
        death.doomed.push(engine.host.pid());
    }
    relay.plan(death);
    engine.docker(work.command);
    until(&what, || !relay.is_awaited());
    if with_agent {
        engine.host.kill();
        start_agent(engine);
    }
    engine.kill();
    engine.launch();
}

/// Waits until the engine and weft have the same networks and endpoints, and the neighbour is back.
fn agree(engine: &Engine<'_>, when: &str) {
    eventually(&format!("all have the same: {when}"), || {
        let warnings = engine.host.json(&["status"])["Warnings"].to_string();
        if warnings.contains("Docker's engine") {
            return Err(warnings);
        }
        let there = engine.ok("network ls --filter driver=weft --format {{.Name}}");
        let there: BTreeSet<String> = there.lines().map(str::to_owned).collect();
        let here: BTreeSet<String> = names(&engine.host.json(&["network", "ls"]))
            .filter(|name| !["bridge", "host", "none"].contains(&name.as_str()))
            .collect();
        if there != here {
            return Err(format!("networks {there:?} in the engine, {here:?} here"));
        }
        let ids = |network: &String| {
            let shown = engine.inspect(network, "{{range .Containers}}{{.EndpointID}} {{end}}");
            shown.split_whitespace().map(|id| format!("docker-{}", &id[..12])).collect::<Vec<_>>()
        };
        let there: BTreeSet<String> = there.iter().flat_map(ids).collect();
        let here: BTreeSet<String> = names(&engine.host.json(&["ps"])).collect();
        if there != here {
            return Err(format!("endpoints {there:?} in the engine, {here:?} here"));
        }
        let addresses = addresses(engine);
        let different: BTreeSet<&String> = addresses.iter().collect();
        if addresses.len() != here.len() || different.len() != here.len() {
            return Err(format!("addresses {addresses:?} of {here:?}"));
        }
        let peer = engine.inspect("peer", "{{.State.Running}}");
        if peer == "true" { Ok(()) } else { Err(engine.inspect("peer", "{{.State.Error}}")) }
    });
}

fn names(list: &serde_json::Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(|one| Some(one["Name"].as_str()?.to_owned()))
}

/// Addresses of endpoints as weft has them.
fn addresses(engine: &Engine<'_>) -> Vec<String> {
    let networks = ["base", "here"].map(|network| engine.host.json(&["network", "inspect", network]));
    let containers = networks.iter().filter_map(|shown| shown[0]["Containers"].as_object());
    containers.flat_map(|all| all.values()).map(|one| one["IPv4Address"].to_string()).collect()
}

/// Waits until nothing of the work is left on the host.
fn is_as_before(engine: &Engine<'_>, stock: &[String], when: &str) {
    eventually(&format!("nothing is left: {when}"), || {
        let left = stock_of(engine);
        if left == stock { Ok(()) } else { Err(format!("{left:#?} instead of {stock:#?}")) }
    });
}

/// What is on the host, without what the neighbour's restart changes.
fn stock_of(engine: &Engine<'_>) -> Vec<String> {
    let left = docker::left(engine).into_iter();
    let lasting = |one: String| match one.split(": ").nth(1) {
        Some(link) => link.to_owned(),
        None if one.contains("docker-") => "an endpoint".to_owned(),
        None => one,
    };
    left.map(lasting).collect()
}
