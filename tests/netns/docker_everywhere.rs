//! One network in every engine, and names on every host: what follows of watching the engines.

use std::process::Command;

use serde_json::json;

use crate::docker_host::{Engine, IMAGE};
use crate::docker_plugin;
use crate::rig::{Rig, needs_root};
use crate::wait::eventually;
use crate::weft;

/// Starts the host's agent as plugin and watcher of its engine.
fn join(engine: &Engine<'_>) {
    engine.start_agent(&["--docker", &engine.address()]);
}

/// Waits until the engine shows this of a network.
fn shows(engine: &Engine<'_>, network: &str, template: &str, expected: &str) {
    eventually(&format!("{network} on {}", engine.host.name), || {
        let answer = weft::answer(engine.command("network inspect -f").args([template, network]));
        let shown = answer.stdout.trim_end();
        if answer.code == 0 && shown == expected { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}

/// Waits until the engine has no network of the name.
fn lacks(engine: &Engine<'_>, network: &str) {
    eventually(&format!("{network} is gone from {}", engine.host.name), || {
        let names = engine.ok("network ls --format {{.Name}}");
        if names.lines().all(|name| name != network) { Ok(()) } else { Err(names) }
    });
}

/// Waits until a container finds so many addresses of a name.
fn finds(engine: &Engine<'_>, container: &str, name: &str, count: usize) {
    eventually(&format!("{container} finds {count} of {name}"), || {
        let answer = engine.docker(&format!("exec {container} nslookup {name}"));
        let found = answer.stdout.lines().filter(|line| line.starts_with("Name:")).count();
        if found == count { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}

/// Waits until a container reaches another by a name.
fn reaches(engine: &Engine<'_>, container: &str, name: &str) {
    eventually(&format!("{container} reaches {name}"), || engine.reaches(container, name));
}

fn warnings(engine: &Engine<'_>) -> String {
    engine.host.json(&["status"])["Warnings"].to_string()
}

/// Says what an engine says that makes a network of the cluster and cannot write it down.
fn take_back(engine: &Engine<'_>, network: &str) {
    let known = engine.host.json(&["network", "inspect", network])[0].clone();
    let (docker, config) = ("7".repeat(64), &known["IPAM"]["Config"][0]);
    let pool = json!({"AddressSpace": "weft", "Pool": config["Subnet"], "Gateway": "10.7.0.1/24"});
    let options = json!({"com.docker.network.generic": {"weft.network": known["Id"]}});
    let made = json!({"NetworkID": docker, "Options": options, "IPv4Data": [pool], "IPv6Data": []});
    for (call, request) in [("CreateNetwork", made), ("DeleteNetwork", json!({"NetworkID": docker}))] {
        let answer = docker_plugin::call(&engine.plugin(), &format!("/NetworkDriver.{call}"), &request);
        assert_eq!(answer, json!({}), "{call}");
    }
    let still = engine.host.json(&["network", "inspect", network]);
    assert_eq!(still[0]["Id"], known["Id"], "the network is everybody's");
}

/// A service in a network that is there already, and in one that comes with the first host it is on.
const COMPOSE: &str = "
version: '3'
services:
  shop:
    image: IMAGE
    command: sleep 3600
    stop_grace_period: 1s
    networks: {app: {aliases: [store]}, own: {}}
networks:
  app: {external: true}
  own: {driver: weft, driver_opts: {encrypted: 'true'}}
";

/// Brings the project up: the services of one host each.
fn compose_up(engine: &Engine<'_>) {
    let file = engine.host.dir.join("compose.yml");
    std::fs::write(&file, COMPOSE.replace("IMAGE", IMAGE)).expect("written");
    let mut compose = Command::new("docker-compose");
    compose.arg("-H").arg(engine.address()).arg("-f").arg(file).args(["-p", "both", "up", "-d"]);
    weft::success(&mut compose);
}

#[test]
fn a_network_of_one_engine_is_in_every_engine_and_its_containers_have_names_on_every_host() {
    needs_root!();
    let rig = Rig::wire(&["a", "b"]);
    let [mut a, b] = [&rig.hosts[0], &rig.hosts[1]].map(Engine::start);
    join(&a);
    a.ok("network create -d weft --subnet 10.5.0.0/24 --label tier=back -o encrypted app");
    join(&b);
    rig.meet(2);
    let all = "{{.Driver}} {{.Labels.tier}} {{.Options.encrypted}} {{(index .IPAM.Config 0).Subnet}}";
    shows(&b, "app", all, "weft back true 10.5.0.0/24");
    shows(&b, "docker_gwbridge", "{{(index .IPAM.Config 0).Subnet}}", "192.168.240.0/20");

    b.ok("network create taken");
    a.ok("network create -d weft --subnet 10.6.0.0/24 taken");
    eventually("b says what has the name", || match warnings(&b) {
        named if named.contains("which has another network taken (driver bridge") => Ok(()),
        other => Err(other),
    });
    b.ok("network rm taken");
    shows(&b, "taken", "{{.Driver}}", "weft");
    assert_eq!(warnings(&b), "[]", "nothing is in the way any more");
    b.ok("network rm taken");
    lacks(&a, "taken");
    b.host.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "second"]);
    shows(&a, "second", "{{.Driver}}", "weft");

    take_back(&b, "second");

    a.run("web", "--network app --network-alias www --restart always --stop-timeout 1");
    b.run("db", "--network app --network-alias www");
    b.run("beside", "--network app --network-alias www");
    reaches(&a, "web", "db");
    reaches(&b, "db", "web.app");
    finds(&b, "db", "www", 3);
    b.ok("network create plain");
    b.run("far", "--network plain");
    b.ok("network connect plain db");
    reaches(&b, "db", "far");
    b.ok("network connect --alias late second beside");
    a.ok("network connect second web");
    reaches(&a, "web", "late");
    b.ok("network disconnect second beside");
    eventually("the network has one of its two", || {
        let shown = a.host.json(&["network", "inspect", "second"]);
        let count = shown[0]["Containers"].as_object().map_or(0, |all| all.len());
        if count == 1 { Ok(()) } else { Err(shown.to_string()) }
    });

    compose_up(&a);
    shows(&b, "both_own", "{{.Driver}} {{.Options}}", "weft map[encrypted:true]");
    compose_up(&b);
    finds(&b, "db", "store", 2);
    finds(&a, "web", "shop", 2);
    finds(&a, "both_shop_1", "shop.both_own", 2);

    // Docker's resolver answers for its own host's containers while no agent runs, and the others' again with it.
    b.host.stop();
    reaches(&b, "db", "beside");
    b.ok("rm -f beside");
    join(&b);
    finds(&a, "web", "www", 2);
    finds(&b, "db", "store", 2);

    a.stop();
    a.launch();
    reaches(&b, "db", "web");
    finds(&b, "db", "www", 2);
    a.ok("network disconnect second web");
    b.ok("network rm second");
    lacks(&a, "second");
}

const MAKE: &str = "network create -d weft --ipam-driver weft app";
const REMOVE: &str = "network rm app";
/// Points at which the agent is killed, and the command that leads it there.
const DEATHS: [(&str, &str); 5] = [
    ("docker-network:before", MAKE),
    ("docker-network:after", MAKE),
    ("network-create:after", MAKE),
    ("network-remove:before", REMOVE),
    ("network-remove:after", REMOVE),
];

#[test]
fn an_agent_killed_while_a_network_is_made_or_removed_agrees_with_the_engine_when_it_is_back() {
    needs_root!();
    let rig = Rig::wire(&["a"]);
    let engine = &Engine::start(&rig.hosts[0]);
    join(engine);
    for (point, command) in DEATHS {
        if command == REMOVE {
            engine.ok(MAKE);
            agree(engine, point);
        }
        engine.kill_agent_at(point, command, &["--docker", &engine.address()]);
        agree(engine, point);
        engine.docker(REMOVE);
        lacks(engine, "app");
        assert_eq!(agree(engine, point), Vec::<String>::new(), "killed at {point}");
    }
    engine.ok(MAKE);
    assert_eq!(agree(engine, "the end"), ["app"]);
}

/// Waits until the engine and the agent know the same networks, and gives their names.
fn agree(engine: &Engine<'_>, when: &str) -> Vec<String> {
    eventually(&format!("both have the same networks, killed at {when}"), || {
        let there = engine.ok("network ls --filter driver=weft --format {{.Name}}");
        let mut there: Vec<String> = there.lines().map(str::to_owned).collect();
        let networks = engine.host.json(&["network", "ls"]);
        let overlay =
            networks.as_array().into_iter().flatten().filter(|network| network["Driver"] == "overlay");
        let mut here: Vec<String> =
            overlay.filter_map(|network| network["Name"].as_str()).map(str::to_owned).collect();
        there.sort();
        here.sort();
        if there == here { Ok(there) } else { Err(format!("{there:?} in the engine, {here:?} here")) }
    })
}
