//! The agent killed at every named point of its work: after a restart what was promised is there, what was not is
//! there whole or not at all, and nothing is left behind.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::Value;
use weft_control::plan::Step;
use weft_control::storage;

use crate::agent::Agent;
use crate::audit::Snapshot;
use crate::rig::{Host, Rig, needs_root};
use crate::wait::{eventually, until};
use crate::weft::Answer;

/// What the calls of a trial make and remove again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Network,
    Web,
    WebAttached,
    Db,
    DbAttached,
    PeerAttached,
}

use Thing::{Db, DbAttached, Network, PeerAttached, Web, WebAttached};

/// The calls of a trial: on which host, its words, and what is there (or not) once it succeeds.
const CALLS: [(usize, &[&str], Thing, bool); 13] = [
    (
        0,
        &["network", "create", "--ipv6", "--subnet", "10.7.0.0/24", "--subnet", "2001:db8:7::/64", "blue"],
        Network,
        true,
    ),
    (0, &["sandbox", "create", "web"], Web, true),
    (0, &["network", "connect", "blue", "web"], WebAttached, true),
    (1, &["network", "connect", "blue", "peer"], PeerAttached, true),
    (0, &["sandbox", "create", "db"], Db, true),
    (0, &["network", "connect", "--ip", "10.7.0.77", "blue", "db"], DbAttached, true),
    (0, &["network", "disconnect", "blue", "web"], WebAttached, false),
    (0, &["network", "connect", "blue", "web"], WebAttached, true),
    (0, &["network", "disconnect", "blue", "db"], DbAttached, false),
    (0, &["sandbox", "rm", "db"], Db, false),
    (1, &["network", "disconnect", "blue", "peer"], PeerAttached, false),
    (0, &["sandbox", "rm", "web"], Web, false),
    (0, &["network", "rm", "blue"], Network, false),
];

#[test]
fn an_agent_killed_at_any_named_point_loses_nothing_doubles_nothing_and_leaves_nothing() {
    needs_root!();
    let points: Vec<String> = Step::NAMES
        .iter()
        .chain(storage::STEPS)
        .flat_map(|name| ["before", "after"].map(|side| format!("{name}:{side}")))
        .collect();
    let (queue, passed) = (Mutex::new(points.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let rig = Rig::cluster(2);
                rig.hosts[1].ok(&["sandbox", "create", "peer"]);
                let at_rest = rig.hosts.iter().map(Snapshot::of).collect::<Vec<_>>();
                loop {
                    let Some(point) = queue.lock().expect("queue").next() else { break };
                    if Trial::run(&rig, point, &at_rest) {
                        passed.lock().expect("list").push(point);
                    }
                }
            });
        }
    });
    let passed = passed.into_inner().expect("list");
    let missed: Vec<&String> = points.iter().filter(|point| !passed.contains(point)).collect();
    assert!(passed.len() >= 30, "the agent was killed at only {} points; never at {missed:?}", passed.len());
}

/// One life of the agent of the first host that ends at a point.
struct Trial<'r> {
    a: &'r Host,
    b: &'r Host,
    point: &'r str,
    promised: BTreeMap<Thing, bool>,
    web: Option<Value>,
    died: bool,
}

impl<'r> Trial<'r> {
    /// Makes every call with the agent dying at `point`; tells whether it came there.
    fn run(rig: &'r Rig, point: &'r str, at_rest: &[Snapshot]) -> bool {
        let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
        a.stop();
        let mut command = a.agent_command(a.ip4.into());
        a.adopt(Agent::start(&a.namespace, command.env("WEFT_KILL_AT", point), &a.dir.join("agent.log")));
        let mut trial = Trial { a, b, point, promised: BTreeMap::new(), web: None, died: false };
        until("the agent answers or dies", || trial.restarted() || a.weft(&["status"]).code == 0);
        rig.meet(2);
        for call in CALLS {
            trial.make(call);
        }
        until("the peer sees all of it gone", || b.weft(&["network", "inspect", "blue"]).code != 0);
        for (host, before) in rig.hosts.iter().zip(at_rest) {
            before.assert_returns(host);
        }
        trial.died
    }

    /// Makes a call; where the agent dies of it, restarts the agent, audits, and makes it again if need be.
    fn make(&mut self, (host, words, thing, there): (usize, &[&str], Thing, bool)) {
        let caller = [self.a, self.b][host];
        if thing == PeerAttached || thing == Network && !there {
            self.settle();
        }
        let answer = caller.weft(words);
        let died = self.restarted();
        self.promised.remove(&thing);
        if answer.code != 0 {
            assert!(died, "{}: {words:?} fails while the agent lives: {answer:?}", self.point);
            self.finish(caller, words, thing, there);
        }
        self.promised.insert(thing, there);
        if thing == Web && !there {
            self.promised.insert(WebAttached, false);
        }
        self.audit();
    }

    /// What a call needs of other hosts takes gossip some time.
    fn settle(&self) {
        let others =
            |fdb: &Value| fdb.as_array().is_some_and(|rows| rows.iter().all(|row| row["State"] == "local"));
        if self.promised.get(&PeerAttached) == Some(&false) {
            until("nobody else is seen in the network", || others(&self.a.json(&["fdb", "blue"])));
        } else {
            until("the peer knows the network", || self.b.weft(&["network", "inspect", "blue"]).code == 0);
        }
    }

    /// Brings an interrupted call to its end, from whatever of it is there.
    fn finish(&self, caller: &Host, words: &[&str], thing: Thing, there: bool) {
        eventually(&format!("{}: {words:?} after the restart", self.point), || {
            if self.is_there(thing) == there {
                return Ok(());
            }
            let Answer { code, stderr, .. } = caller.weft(words);
            if code == 0 { Ok(()) } else { Err(stderr) }
        });
    }

    /// Starts the agent again if it has died.
    fn restarted(&mut self) -> bool {
        // the answer to a call may overtake the news of a death that came right after it
        let Some(code) = self.a.ended() else { return false };
        assert_eq!(code, None, "{}: the agent dies by the signal only:\n{}", self.point, self.a.log());
        self.died = true;
        self.a.start(&[]);
        true
    }

    /// Fails unless everything promised is there and whole, and everything removed is gone.
    fn audit(&mut self) {
        self.restarted();
        for (thing, there) in self.promised.clone() {
            eventually(&format!("{}: {thing:?} there: {there}", self.point), || {
                self.restarted();
                if self.is_there(thing) == there {
                    Ok(())
                } else {
                    Err(format!("{}", self.a.json(&["sandbox", "ls"])))
                }
            });
        }
        let end = self.promised.get(&WebAttached).filter(|there| **there).map(|_| self.end("web"));
        if let (Some(before), Some(now)) = (&self.web, &end) {
            assert_eq!(before, now, "{}: the endpoint is what it was", self.point);
        }
        self.web = end;
    }

    fn is_there(&self, thing: Thing) -> bool {
        let sandboxes = |host: &Host| host.json(&["sandbox", "ls"]);
        let named = |name: &str| {
            sandboxes(self.a).as_array().is_some_and(|all| all.iter().any(|s| s["Name"] == name))
        };
        match thing {
            Network => self.a.weft(&["network", "inspect", "blue"]).code == 0,
            Web => named("web"),
            Db => named("db"),
            WebAttached => named("web") && whole(self.a, "web"),
            DbAttached => named("db") && whole(self.a, "db"),
            PeerAttached => whole(self.b, "peer"),
        }
    }

    fn end(&self, name: &str) -> Value {
        self.a.json(&["sandbox", "inspect", name])[0]["Networks"]["blue"].clone()
    }
}

/// Whether a sandbox has an end in the network, in the agent's eyes and the kernel's alike.
fn whole(host: &Host, name: &str) -> bool {
    eventually(&format!("agent and kernel agree on {name}"), || {
        let sandbox = host.attached(name, "blue");
        let links = sandbox.namespace.run("ip -o addr");
        let in_kernel = links.contains(" eth0 ");
        match sandbox.ip4 {
            None if !in_kernel => Ok(false),
            Some(ip4) if links.contains(&format!(" {ip4}/24 ")) && links.contains(" 2001:db8:7:") => Ok(true),
            ip4 => Err(format!("agent says {ip4:?}, kernel {links}")),
        }
    })
}
