//! `weft demo`: a cluster on one machine, told as a story with numbers.
//!
//! Everything is real: agents are processes of this program, one per host namespace; sandboxes, networks and
//! addresses come from them; figures are measured as they are shown. At the end, on Ctrl-C and on any failure
//! nothing is left.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use weft_control::api::{Network, NetworkCreate, Peer};

use crate::args::DemoArgs;
use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupted;
use crate::output::{Colour, Screen, Table, escape};
use crate::rig::{Blueprint, Rig, Wiring};
use crate::traffic::Station;

mod compare;

/// The network of the demo.
const NETWORK: &str = "blue";
/// How long a first answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long the death of a host may stay unnoticed.
const DEATH_LIMIT: Duration = Duration::from_secs(30);
/// A sandbox that has not answered for so long does not.
const SILENCE: Duration = Duration::from_millis(200);
/// Exit status after Ctrl-C, as shells report it.
const INTERRUPTED: u8 = 130;

/// Plays the demo.
pub(crate) fn perform(args: &DemoArgs, screen: &mut Screen) -> Outcome {
    let program = std::env::current_exe().context("find our own program")?;
    let blueprint = Blueprint { purpose: "demo", hosts: args.hosts, wiring: Wiring::Switch, program };
    let rig = Rig::build(&blueprint)?;
    let mut story = Story { rig, screen, stations: Vec::new() };
    let told = story.tell().and_then(|()| if args.keep { story.keep() } else { Ok(()) });
    let Story { rig, screen, .. } = story;
    screen.line("")?;
    drop(rig);
    screen.line("Agents stopped, namespaces gone, nothing left behind.")?;
    match told {
        Err(error) if error.is::<Interrupted>() => Err(Failure::Exit(INTERRUPTED)),
        other => Ok(other?),
    }
}

struct Story<'s> {
    rig: Rig,
    screen: &'s mut Screen,
    /// One sandbox per host, in the same order.
    stations: Vec<Station>,
}

impl Story<'_> {
    fn tell(&mut self) -> Result<()> {
        let hosts = self.rig.hosts().len();
        self.title(&format!("weft: {hosts} hosts on this machine, one network across them"))?;
        self.hosts_find_each_other()?;
        self.a_network_joins_sandboxes()?;
        self.everybody_pings_everybody()?;
        self.traffic_beside_the_kernel()?;
        self.a_host_dies_and_returns()
    }

    fn hosts_find_each_other(&mut self) -> Result<()> {
        self.chapter("The hosts: network namespaces on one switch, an agent in each")?;
        for index in 0..self.rig.hosts().len() {
            let member = self.rig.admit(index)?;
            let ready = self.rig.start_agent(index)?;
            let host = &self.rig.hosts()[index];
            let text = format!(
                "host {}  {}  {} in {}, agent ready after {}",
                host.name,
                host.address,
                if index == 0 { "weft init makes the cluster" } else { "weft join TOKEN joins it" },
                self.number(&millis(member)),
                self.number(&millis(ready))
            );
            self.say(&text)?;
        }
        self.say("the token proves the cluster to the newcomer first, and itself without being sent")?;
        let met = self.rig.await_members(self.rig.hosts().len())?;
        let text =
            format!("each knows all the others, {} after the last one started", self.number(&millis(met)));
        self.say(&text)
    }

    fn a_network_joins_sandboxes(&mut self) -> Result<()> {
        self.chapter("A network across them, and a sandbox on each")?;
        self.shell(&format!("weft network create -d overlay --ipv6 {NETWORK}"))?;
        let request = NetworkCreate {
            name: NETWORK.to_owned(),
            driver: "overlay".to_owned(),
            enable_ipv6: true,
            ..NetworkCreate::default()
        };
        let network = self.rig.create_network(0, &request)?;
        self.say(&described(&network))?;
        for index in 0..self.rig.hosts().len() {
            self.rig.await_network(index, NETWORK, ANSWER_LIMIT)?;
            let (host, name) = (self.rig.hosts()[index].name.clone(), self.sandbox(index));
            let station = self.rig.station(index, NETWORK, &name)?;
            let six = station.address6.map_or(String::new(), |six| format!("  {six}"));
            self.say(&format!("host {host}  sandbox {name}  {}{six}", station.address))?;
            self.stations.push(station);
        }
        Ok(())
    }

    fn everybody_pings_everybody(&mut self) -> Result<()> {
        self.chapter("Every sandbox pings every other, IPv4 and IPv6 (round trip)")?;
        let mut table = Table::new(["  FROM", "TO", "IPV4", "IPV6"]);
        for (from, to) in pairs(self.stations.len()) {
            let four = self.ping(from, to, false)?;
            let six = self.ping(from, to, true)?;
            table.row([&format!("  {}", self.sandbox(from)), &self.sandbox(to), &four, &six]);
        }
        Ok(self.screen.table(&table)?)
    }

    fn ping(&self, from: usize, to: usize, six: bool) -> Result<String> {
        let (near, far) = (&self.stations[from], &self.stations[to]);
        let Some(address) = (if six { far.address6 } else { Some(far.address) }) else {
            return Ok("-".to_owned());
        };
        let trip = near.ping(address, ANSWER_LIMIT, self.rig.interrupt())?;
        Ok(micros(
            trip.with_context(|| format!("{} does not answer {}", self.sandbox(to), self.sandbox(from)))?,
        ))
    }

    fn a_host_dies_and_returns(&mut self) -> Result<()> {
        let last = self.rig.hosts().len() - 1;
        let (name, sandbox) = (self.rig.hosts()[last].name.clone(), self.sandbox(last));
        self.chapter(&format!("Host {name}'s agent is killed (kill -9), and comes back"))?;
        self.rig.kill_agent(last);
        self.silent(last)?;
        self.say(&format!("killed: {sandbox} is still there, but answers nobody"))?;
        let noticed = self.await_state(&name, "dead")?;
        self.say(&format!("host a calls {name} dead after {}", self.number(&seconds(noticed))))?;
        let start = Instant::now();
        let ready = self.rig.start_agent(last)?;
        self.say(&format!("started again: ready after {}", self.number(&millis(ready))))?;
        let address = self.stations[last].address;
        let again = self.stations[0].ping(address, DEATH_LIMIT, self.rig.interrupt())?;
        let after = millis(start.elapsed());
        again.with_context(|| format!("{sandbox} does not answer again"))?;
        self.say(&format!("{sandbox} answers again at {address}, {} after the start", self.number(&after)))
    }

    /// Makes sure that a sandbox can't be reached from host a.
    fn silent(&self, index: usize) -> Result<()> {
        let (near, far) = (&self.stations[0], &self.stations[index]);
        match near.ping(far.address, SILENCE, self.rig.interrupt())? {
            None => Ok(()),
            Some(_) => anyhow::bail!("{} still answers though its host's agent is dead", self.sandbox(index)),
        }
    }

    /// How long until host a sees another in a state.
    fn await_state(&self, name: &str, state: &str) -> Result<Duration> {
        let (start, witness) = (Instant::now(), &self.rig.hosts()[0]);
        let seen = self.rig.interrupt().until(DEATH_LIMIT, || {
            let peers: Vec<Peer> = witness.read("/peers")?;
            Ok(peers.iter().any(|peer| peer.name == name && peer.state == state).then(|| start.elapsed()))
        })?;
        seen.with_context(|| format!("host a does not see {name} {state}"))
    }

    /// Leaves everything running until Ctrl-C.
    fn keep(&mut self) -> Result<()> {
        self.chapter("Still running. Try, in another terminal, as root:")?;
        let program = std::env::current_exe().context("find our own program")?;
        let weft = if on_path(&program) { "weft".to_owned() } else { program.display().to_string() };
        let socket = self.rig.hosts()[0].socket();
        self.shell(&format!("export WEFT_SOCKET={}      # host a; b, c… likewise", socket.display()))?;
        for verb in [
            "peers".to_owned(),
            format!("network inspect {NETWORK}"),
            format!("fdb {NETWORK}"),
            format!("exec {} -- ip address", self.sandbox(0)),
            format!("run --rm --network {NETWORK} -- sh"),
            "stats".to_owned(),
        ] {
            self.shell(&format!("{weft} {verb}"))?;
        }
        self.say("Ctrl-C here ends all of it.")?;
        self.rig.interrupt().wait();
        Ok(())
    }

    fn sandbox(&self, index: usize) -> String {
        format!("box-{}", self.rig.hosts()[index].name)
    }

    fn title(&mut self, text: &str) -> Result<()> {
        let text = self.screen.paint(Colour::Bold, text);
        Ok(self.screen.line(&text)?)
    }

    fn chapter(&mut self, text: &str) -> Result<()> {
        self.screen.line("")?;
        self.title(text)
    }

    fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.screen.line(&format!("  {text}"))?)
    }

    fn shell(&mut self, command: &str) -> Result<()> {
        let text = self.screen.paint(Colour::Dim, &format!("$ {command}"));
        self.say(&text)
    }

    fn number(&self, text: &str) -> String {
        self.screen.paint(Colour::Cyan, text)
    }
}

fn described(network: &Network) -> String {
    let subnets: Vec<_> = network.ipam.config.iter().map(|config| config.subnet.as_str()).collect();
    escape(&format!(
        "{}: {}, VNI {}, packets up to {}",
        network.name,
        subnets.join(" and "),
        network.vni,
        network.mtu
    ))
}

/// Every ordered pair of different numbers below `count`.
fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |from| (0..count).filter(move |to| *to != from).map(move |to| (from, to)))
}

fn on_path(program: &std::path::Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join("weft") == program)
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

fn micros(time: Duration) -> String {
    format!("{:.0} µs", time.as_secs_f64() * 1e6)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_ordered_and_never_with_oneself() {
        assert_eq!(pairs(3).collect::<Vec<_>>(), [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]);
    }
}
