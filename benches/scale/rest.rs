//! Agents at rest: what they take of processor and memory by the number of endpoints they know of.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft::rig::{Blueprint, Host, Rig, UPLINK, Wiring};
use weft_control::api::{FdbEntry, Stats};
use weft_control::io::joining;
use weft_control::io::netlink::Links;

use crate::Options;
use crate::crowd::{self, Crowd};
use crate::environment::say;
use crate::process::Usage;

/// Members that have the endpoints; a node has at most some 2,500.
const MEMBERS: u8 = 25;
/// How long agents may take to learn of what there is.
const LIMIT: Duration = Duration::from_secs(300);
/// What is under way is over by then: members that take part in a network get their share of its addresses within half a
/// minute.
const SETTLE: Duration = Duration::from_secs(60);
/// What gossip counts of what it sends.
const SENT: [&str; 2] = ["datagram_bytes_sent", "stream_bytes_sent"];
/// The sandbox of the first agent, which is in all networks.
const SANDBOX: &str = "observer";

pub(crate) fn measure(options: &Options) -> Result<()> {
    let program = options.program.clone();
    let mut rig = Rig::build(&Blueprint { purpose: "bench", hosts: 2, wiring: Wiring::Cable, program })?;
    rig.start_all()?;
    say(&format!(
        "\nAgents at rest for {} s. Agent a has one sandbox in each of {MEMBERS} networks, agent b none",
        options.rest
    ))?;
    say(&format!(
        "{:<34}{:>10}{:>10}{:>10}{:>10}{:>12}",
        "members, endpoints elsewhere", "a: CPU, %", "b: CPU, %", "a: MB", "b: MB", "a: octets/s"
    ))?;
    rig.interrupt().pause(SETTLE)?;
    row(&rig, "2, none", options)?;
    let crowd = gather(&rig)?;
    for &endpoints in &options.endpoints {
        crowd.grow(endpoints / usize::from(MEMBERS));
        let took = learn(&rig, endpoints / usize::from(MEMBERS))?;
        rig.interrupt().pause(SETTLE)?;
        row(&rig, &format!("{}, {endpoints} (learnt in {:.1} s)", MEMBERS + 2, took.as_secs_f64()), options)?;
    }
    Ok(())
}

/// Has the crowd join, and agent a take part in all its networks.
fn gather(rig: &Rig) -> Result<Crowd> {
    let far = &rig.hosts()[1];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let links = Links::open(&far.namespace)?;
        for number in 0..MEMBERS {
            links.add_address(UPLINK, ipnet::IpNet::new(crowd::address(number).into(), 24)?).await?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let token = joining::read_token(&rig.directory().join("token"))?;
    let crowd = Crowd::gather(&far.namespace, MEMBERS, token)?;
    rig.create_sandbox(0, SANDBOX)?;
    for number in 0..MEMBERS {
        rig.await_network(0, &crowd::network(number), LIMIT)?;
        rig.connect(0, &crowd::network(number), SANDBOX, None)?;
    }
    Ok(crowd)
}

/// Waits until agent a forwards to so many endpoints of each member.
fn learn(rig: &Rig, endpoints: usize) -> Result<Duration> {
    let start = Instant::now();
    for number in 0..MEMBERS {
        let path = format!("/networks/{}/fdb", crowd::network(number));
        let known = rig.interrupt().until(LIMIT, || {
            rig.interrupt().pause(Duration::from_millis(200))?;
            // Its own is there too.
            let known = rig.hosts()[0].read::<Vec<FdbEntry>>(&path)?.len();
            Ok((known > endpoints).then_some(()))
        })?;
        known.with_context(|| format!("agent a does not learn of {endpoints} endpoints"))?;
    }
    Ok(start.elapsed())
}

/// Measures both agents for a while.
fn row(rig: &Rig, what: &str, options: &Options) -> Result<()> {
    let usage = || -> Result<Vec<Usage>> {
        let pid = |host: &Host| host.agent_pid().context("an agent runs");
        rig.hosts().iter().map(|host| Usage::of(pid(host)?)).collect()
    };
    let octets = || -> Result<u64> {
        let stats: Stats = rig.hosts()[0].read("/stats")?;
        Ok(SENT.iter().filter_map(|counter| stats.gossip.get(*counter)).sum())
    };
    let (said, before, start) = (octets()?, usage()?, Instant::now());
    rig.interrupt().pause(Duration::from_secs(options.rest))?;
    let (seconds, after) = (start.elapsed().as_secs_f64(), usage()?);
    ensure!(after.len() == 2, "two agents run");
    let share = |host: usize| (after[host].processor - before[host].processor) / seconds * 100.0;
    let memory = |host: usize| after[host].memory as f64 / 1e6;
    let said = (octets()? - said) as f64 / seconds;
    Ok(say(&format!(
        "{what:<34}{:>10.3}{:>10.3}{:>10.1}{:>10.1}{said:>12.0}",
        share(0),
        share(1),
        memory(0),
        memory(1)
    ))?)
}
