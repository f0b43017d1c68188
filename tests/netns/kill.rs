//! An agent killed at every named point of its work: what it had promised is there again, nothing is there twice,
//! nothing is left behind.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::Agent;
use crate::audit::{files_under, mounts_under, unmount};
use crate::rig::{Host, Rig, needs_root};
use crate::traffic::pings;
use crate::wait::{eventually, until};

/// Points the work below does not come to: two minutes of quarantine, undoing an address; leaving for good, a peer
/// never met before, virtual machines and networks of one host have tests of their own.
const NOT_HERE: [&str; 9] = [
    "range-wake",
    "delete-address",
    "range-leave",
    "peers",
    "add-tap",
    "add-device",
    "redirect",
    "add-vlan",
    "add-dummy",
];
/// Points that only networks of one host come to.
const LOCAL: [&str; 3] = ["local-network-", "ports-", "add-child"];
/// Points that only what is done for Docker's engine comes to.
const DOCKER: [&str; 2] = ["docker-", "address-"];
/// Steps of which everything is made after a host's restart.
const MAKING: [&str; 13] = [
    "make-namespace",
    "set-up",
    "set-sysctl",
    "add-bridge",
    "open-uplink",
    "set-mtu",
    "enslave",
    "guard",
    "add-veth",
    "pin-mac",
    "add-address",
    "tell",
    "set-default-route",
];

#[test]
fn an_agent_killed_at_any_point_comes_back_with_all_it_promised_and_leaves_nothing() {
    needs_root!();
    let rig = Rig::cluster(2);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "--subnet", "fd07::/64", "base"]);
    until("b knows the network", || b.weft(&["network", "inspect", "base"]).code == 0);
    a.sandbox("keep", "base", &[]);
    let far = b.sandbox("far", "base", &[]);
    rig.converge("base");
    let before = left(a);
    let promised = Promises::default().of(a);

    let here =
        |point: &String| !NOT_HERE.iter().chain(&LOCAL).chain(&DOCKER).any(|other| point.starts_with(other));
    let points: Vec<String> = weft_control::io::kill::points().into_iter().filter(here).collect();
    assert!(points.len() >= 30, "{} points", points.len());
    for point in &points {
        a.stop();
        let promises = strike(a, point, |promises| work(a, b, promises));
        a.start(&[]);
        promises.check(a, point);
        rig.meet(2);
        clear(&rig);
        rig.converge("base");
        let keep = a.attached("keep", "base");
        for address in far.addresses() {
            until(&format!("keep reaches far after {point}"), || pings(&keep.namespace, address));
        }
        drop(keep);
        eventually(&format!("nothing is left after {point}"), || {
            let after = left(a);
            if before == after { Ok(()) } else { Err(format!("before {before:#?}\nafter {after:#?}")) }
        });
        assert_eq!(Promises::default().of(a), promised, "after {point}");
    }
}

#[test]
fn an_agent_killed_at_any_step_of_bringing_everything_back_does_the_rest_the_next_time() {
    needs_root!();
    let rig = Rig::cluster(2);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "--subnet", "fd07::/64", "base"]);
    until("b knows the network", || b.weft(&["network", "inspect", "base"]).code == 0);
    a.sandbox("keep", "base", &[]);
    let far = b.sandbox("far", "base", &[]);
    rig.converge("base");
    let before = left(a);
    for name in MAKING {
        let deaths = (1..)
            .take_while(|turn| {
                a.stop();
                lose_everything(a);
                let died = starts_only_to_die(a, &format!("{name}:after:{turn}"));
                if died {
                    a.start(&[]);
                }
                rig.meet(2);
                rig.converge("base");
                let keep = a.attached("keep", "base");
                for address in far.addresses() {
                    until(&format!("keep reaches far after {name} {turn}"), || {
                        pings(&keep.namespace, address)
                    });
                }
                for address in keep.addresses() {
                    assert!(pings(&far.namespace, address), "far reaches keep after {name} {turn}");
                }
                until(&format!("keep has its way out after {name} {turn}"), || {
                    keep.namespace.run("ip route show default").contains("dev eth1")
                });
                drop(keep);
                assert_eq!(before, left(a), "after {name} {turn}");
                died
            })
            .count();
        assert!(deaths > 0, "bringing everything back comes to {name}");
    }
}

#[test]
fn an_agent_killed_while_it_works_on_networks_of_its_host_comes_back_with_all_it_promised() {
    needs_root!();
    let points = ["local-", "ports-", "set-default-route"];
    strike_locally(&points, 14, &["--subnet", "10.8.0.0/24", "--subnet", "fd08::/64"]);
}

#[test]
fn an_agent_killed_while_it_works_on_children_of_a_link_comes_back_with_all_it_promised() {
    needs_root!();
    let points = ["local-", "set-default-route", "add-child", "delete-link", "add-address", "set-up", "tell"];
    strike_locally(&points, 20, &["-d", "macvlan", "-o", "parent=u0", "--subnet", "10.8.0.0/24"]);
}

#[test]
fn an_agent_killed_while_it_makes_a_tap_with_a_name_leaves_nothing_once_it_is_taken_back() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let before = left_of_host(a);
    let here = |point: &String| point.starts_with("add-device") || point.starts_with("redirect");
    let points: Vec<String> = weft_control::io::kill::points().into_iter().filter(here).collect();
    assert_eq!(points.len(), 4, "{points:?}");
    for (point, driver) in points.iter().flat_map(|point| [(point, "overlay"), (point, "bridge")]) {
        if driver == "bridge" && point.starts_with("redirect") {
            continue;
        }
        a.ok(&["network", "create", "-d", driver, "app"]);
        a.stop();
        strike(a, point, |_| {
            a.weft(&["network", "connect", "--tap", "vm1", "app"]);
            Some(())
        });
        a.start(&[]);
        // Whether it is attached is not promised: the call has not returned.
        a.weft(&["network", "disconnect", "app", "vm1"]);
        until(&format!("{driver} can go after {point}"), || a.weft(&["network", "rm", "app"]).code == 0);
        eventually(&format!("nothing is left of {driver} after {point}"), || {
            let after = left_of_host(a);
            if before == after { Ok(()) } else { Err(format!("before {before:#?}\nafter {after:#?}")) }
        });
    }
}

/// Has an agent that makes, uses and removes a network as `flags` say killed at each of `count` points.
fn strike_locally(points: &[&str], count: usize, flags: &[&str]) {
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let before = left_of_host(a);
    let here = |point: &String| points.iter().any(|local| point.starts_with(local));
    let points: Vec<String> = weft_control::io::kill::points().into_iter().filter(here).collect();
    assert_eq!(points.len(), count, "{points:?}");
    for point in &points {
        a.stop();
        let promises = strike(a, point, |promises| work_locally(a, flags, promises));
        a.start(&[]);
        promises.check(a, point);
        clear(&rig);
        eventually(&format!("nothing is left after {point}"), || {
            let after = left_of_host(a);
            if before == after { Ok(()) } else { Err(format!("before {before:#?}\nafter {after:#?}")) }
        });
    }
}

/// Ends all namespaces of a host without an agent, as its restart does.
fn lose_everything(host: &Host) {
    mounts_under(&host.dir.join("run/netns")).iter().for_each(|mount| unmount(mount));
}

/// Starts an agent that is to die at `point`; false when it comes up instead.
fn starts_only_to_die(host: &Host, point: &str) -> bool {
    let mut command = host.agent_command(host.ip4.into());
    command.env("WEFT_KILL_AT", point);
    host.adopt(Agent::start(&host.namespace, &mut command, &host.dir.join("agent.log")));
    eventually("the agent answers or dies", || match host.ended() {
        Some(code) => {
            assert_eq!(code, None, "a signal ended it at {point}");
            Ok(true)
        }
        None if host.weft(&["status"]).code == 0 => Ok(false),
        None => Err("neither".to_owned()),
    })
}

#[test]
fn an_agent_killed_while_it_writes_down_whom_it_met_or_leaves_for_good_comes_back_whole() {
    needs_root!();
    for point in ["peers:before", "peers:after", "range-leave:before", "range-leave:after"] {
        let rig = Rig::wire(&["a", "b"]);
        let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
        let mut command = a.agent_command(a.ip4.into());
        a.start_command(command.arg("--teardown-on-stop").env("WEFT_KILL_AT", point));
        a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "base"]);
        drop(a.sandbox("one", "base", &[]));
        b.start(&[]);
        if point.starts_with("range") {
            rig.meet(2);
            until("b knows the network", || b.weft(&["network", "inspect", "base"]).code == 0);
            a.signal(nix::sys::signal::Signal::SIGTERM);
        }
        let end = eventually(&format!("the agent dies at {point}"), || {
            a.ended().ok_or_else(|| "it lives on".to_owned())
        });
        assert_eq!(end, None, "a signal ended it at {point}");
        a.start(&[]);
        rig.meet(2);
        let kept = a.json(&["sandbox", "ls"]).as_array().map_or(0, Vec::len);
        assert_eq!(kept, usize::from(point.starts_with("peers")), "after {point}");
        until("b knows the network", || b.weft(&["network", "inspect", "base"]).code == 0);
        let two = a.sandbox("two", "base", &[]);
        let three = b.sandbox("three", "base", &[]);
        rig.converge("base");
        until(&format!("two reaches three after {point}"), || pings(&two.namespace, three.ip4().into()));
    }
}

/// What an agent could leave behind: mounts, files of its run directory, links of the host and of its sandbox.
fn left(host: &Host) -> (Vec<String>, BTreeSet<String>, Vec<String>) {
    // without the index of the other end, which a pair made anew has another one of
    let name = |line: &str| line.split([':', '@']).nth(1).unwrap_or_default().trim().to_owned();
    let keep = host.attached("keep", "base").namespace.run("ip -o link");
    let links = format!("{}\n{keep}", host.namespace.run("ip -o link"));
    (mounts_under(&host.dir), files_under(&host.dir.join("run")), links.lines().map(name).collect())
}

/// What an agent of one host alone could leave behind.
fn left_of_host(host: &Host) -> (Vec<String>, BTreeSet<String>, Vec<String>) {
    let shown = ["ip -br link", "nft list tables", "ip rule"].map(|shown| host.namespace.run(shown));
    (mounts_under(&host.dir), files_under(&host.dir.join("run")), shown.to_vec())
}

/// Has `work` done by `a` until it dies at `point`; returns what it had promised by then.
fn strike(a: &Host, point: &str, work: impl FnOnce(&mut Promises) -> Option<()>) -> Promises {
    let mut command = a.agent_command(a.ip4.into());
    command.env("WEFT_KILL_AT", point);
    a.adopt(Agent::start(&a.namespace, &mut command, &a.dir.join("agent.log")));
    let mut promises = Promises::default();
    let up = eventually("the agent answers or dies", || match a.ended() {
        Some(code) => Ok(Err(code)),
        None if a.weft(&["status"]).code == 0 => Ok(Ok(())),
        None => Err("neither".to_owned()),
    });
    let end = match up {
        Err(code) => code,
        Ok(()) => {
            work(&mut promises);
            eventually(&format!("the agent dies at {point}"), || {
                a.ended().ok_or_else(|| "it lives on".to_owned())
            })
        }
    };
    assert_eq!(end, None, "a signal ended it at {point}");
    promises
}

/// What makes an agent come to every point; goes on for as long as it answers.
fn work(a: &Host, b: &Host, promises: &mut Promises) -> Option<()> {
    promises.make(
        a,
        &["network", "create", "-d", "overlay", "--subnet", "10.8.0.0/24", "--subnet", "fd08::/64", "extra"],
    )?;
    b.ok(&["network", "create", "-d", "overlay", "--subnet", "10.9.0.0/24", "theirs"]);
    wait_for(a, || a.weft(&["network", "inspect", "theirs"]).code == 0)?;
    wait_for(a, || b.weft(&["network", "inspect", "extra"]).code == 0)?;
    promises.make(a, &["sandbox", "create", "one"])?;
    promises.make(a, &["network", "connect", "extra", "one"])?;
    promises.make(a, &["network", "connect", "theirs", "one"])?;
    b.ok(&["sandbox", "create", "two"]);
    if b.weft(&["network", "connect", "extra", "two"]).code == 0 {
        b.ok(&["network", "disconnect", "extra", "two"]);
    }
    promises.end(a, &["network", "disconnect", "extra", "one"])?;
    promises.end(a, &["sandbox", "rm", "one"])?;
    promises.networks.remove("extra");
    wait_for(a, || a.weft(&["network", "rm", "extra"]).code == 0)
}

/// The same for networks of one host.
fn work_locally(a: &Host, flags: &[&str], promises: &mut Promises) -> Option<()> {
    promises.make(a, &[&["network", "create"], flags, &["extra"]].concat())?;
    promises.make(a, &["sandbox", "create", "-p", "8080:80", "one"])?;
    promises.make(a, &["network", "connect", "extra", "one"])?;
    promises.end(a, &["network", "disconnect", "extra", "one"])?;
    promises.end(a, &["sandbox", "rm", "one"])?;
    promises.networks.remove("extra");
    wait_for(a, || a.weft(&["network", "rm", "extra"]).code == 0)
}

/// Waits until `holds`, or until the agent has died.
fn wait_for(a: &Host, holds: impl Fn() -> bool) -> Option<()> {
    eventually("it comes true, or the agent dies", || {
        if holds() {
            Ok(Some(()))
        } else if a.weft(&["status"]).code == 3 {
            Ok(None)
        } else {
            Err("neither".to_owned())
        }
    })
}

/// Removes all that the work may have left on either host.
fn clear(rig: &Rig) {
    for (host, keep) in rig.hosts.iter().zip(["keep", "far"]) {
        let sandboxes = host.json(&["sandbox", "ls"]);
        let names = sandboxes.as_array().into_iter().flatten().filter_map(|sandbox| sandbox["Name"].as_str());
        for name in names.filter(|name| *name != keep) {
            host.ok(&["sandbox", "rm", name]);
        }
    }
    for host in &rig.hosts {
        until(&format!("{} has no network but the base", host.name), || {
            let networks = host.json(&["network", "ls", "--filter", "type=custom"]);
            let names =
                networks.as_array().into_iter().flatten().filter_map(|network| network["Name"].as_str());
            let others: Vec<&str> = names.filter(|name| *name != "base").collect();
            for name in &others {
                host.weft(&["network", "rm", name]);
            }
            others.is_empty()
        });
    }
}

/// What an agent has said it has done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Promises {
    networks: BTreeSet<String>,
    /// Addresses by network, by sandbox.
    sandboxes: BTreeMap<String, BTreeMap<String, String>>,
    gone: BTreeSet<String>,
}

impl Promises {
    /// Everything `host` shows.
    fn of(mut self, host: &Host) -> Self {
        let networks = host.json(&["network", "ls", "--filter", "type=custom"]);
        self.networks.extend(networks.as_array().into_iter().flatten().map(|n| n["Name"].to_string()));
        let sandboxes = host.json(&["sandbox", "ls"]);
        for sandbox in sandboxes.as_array().into_iter().flatten() {
            let ends = sandbox["Networks"].as_object().into_iter().flatten();
            let ends = ends.map(|(network, end)| (network.clone(), end["IPAddress"].to_string()));
            self.sandboxes.insert(sandbox["Name"].as_str().unwrap_or_default().to_owned(), ends.collect());
        }
        self
    }

    /// Asks for something new; what the agent says it did it must not forget.
    fn make(&mut self, host: &Host, call: &[&str]) -> Option<()> {
        if host.weft(call).code != 0 {
            return None;
        }
        match call {
            ["network", "create", .., name] => {
                self.networks.insert((*name).to_owned());
            }
            ["sandbox", "create", .., name] => {
                drop(self.sandboxes.insert((*name).to_owned(), BTreeMap::new()));
            }
            ["network", "connect", network, sandbox] => {
                // It may die before it is asked for the address; that it is attached counts then.
                let answer = host.weft(&["sandbox", "ls", "--json"]);
                let address =
                    if answer.code == 0 { address(&answer.json(), sandbox, network) } else { String::new() };
                self.sandboxes
                    .entry((*sandbox).to_owned())
                    .or_default()
                    .insert((*network).to_owned(), address);
            }
            other => panic!("{other:?} makes nothing"),
        }
        Some(())
    }

    /// Asks for an end; from the asking on nothing is promised, and once it is confirmed it must not come back.
    fn end(&mut self, host: &Host, call: &[&str]) -> Option<()> {
        let confirmed = match call {
            ["network", "disconnect", network, sandbox] => {
                self.sandboxes.get_mut(*sandbox).map(|ends| ends.remove(*network));
                format!("{sandbox} in {network}")
            }
            ["sandbox", "rm", name] => {
                self.sandboxes.remove(*name);
                (*name).to_owned()
            }
            other => panic!("{other:?} ends nothing"),
        };
        let done = host.weft(call).code == 0;
        done.then(|| {
            self.gone.insert(confirmed);
        })
    }

    /// Fails unless `host` has all that was promised and nothing that was ended.
    fn check(&self, host: &Host, point: &str) {
        for network in &self.networks {
            assert_eq!(
                host.weft(&["network", "inspect", network]).code,
                0,
                "{network} is lost after {point}"
            );
        }
        let sandboxes = host.json(&["sandbox", "ls"]);
        let there = Self::default().of(host).sandboxes;
        for (name, ends) in &self.sandboxes {
            assert!(there.contains_key(name), "sandbox {name} is lost after {point}");
            for (network, promised) in ends {
                assert!(there[name].contains_key(network), "{name} has lost {network} after {point}");
                let address = address(&sandboxes, name, network);
                assert!(
                    promised.is_empty() || *promised == address,
                    "{name}: {promised}, {address} after {point}"
                );
                let inside = host.attached(name, network);
                let shown = inside.namespace.run(&format!("ip -o addr show dev {}", inside.interface));
                assert!(shown.contains(&address), "{name} has no {address} after {point}: {shown}");
            }
        }
        for ended in &self.gone {
            let back = match ended.split_once(" in ") {
                Some((sandbox, network)) => there.get(sandbox).is_some_and(|ends| ends.contains_key(network)),
                None => there.contains_key(ended),
            };
            assert!(!back, "{ended} is back after {point}");
        }
    }
}

fn address(sandboxes: &serde_json::Value, sandbox: &str, network: &str) -> String {
    let mut all = sandboxes.as_array().into_iter().flatten();
    let found = all.find(|shown| shown["Name"] == sandbox);
    found
        .map(|found| found["Networks"][network]["IPAddress"].as_str().unwrap_or_default().to_owned())
        .unwrap_or_default()
}
