//! Networks and sandboxes that come and go, many at once, with an agent that dies among them: nothing is left over.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::audit::Snapshot;
use crate::rig::{Host, Rig, needs_root};
use crate::traffic::pings;
use crate::wait::eventually;

/// Rounds of a usual run; `WEFT_CHURN_ROUNDS=1000 cargo test -p weft --test netns comes_and_goes -- --nocapture` is the
/// long form, which tells how long the first and the last ones took.
fn rounds() -> u32 {
    let asked = std::env::var("WEFT_CHURN_ROUNDS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(60)
}

/// Rounds at the same time.
const WORKERS: u32 = 4;
/// What the networks of rounds are made with, by turns.
const DRIVERS: [&[&str]; 3] = [&["-d", "bridge"], &["-d", "overlay"], &["-d", "macvlan", "-o", "parent=u0"]];

/// Makes a network and a sandbox, uses them and removes them; stops at the first thing that does not go.
fn round(host: &Host, number: u32) -> Result<(), String> {
    let (network, sandbox) = (format!("n{number}"), format!("s{number}"));
    let does = |words: &[&str]| {
        let answer = host.weft(words);
        if answer.code == 0 { Ok(()) } else { Err(format!("{words:?}: {answer:?}")) }
    };
    let driver = DRIVERS[number as usize % DRIVERS.len()];
    does(&[&["network", "create"][..], driver, &[&network]].concat())?;
    does(&["sandbox", "create", &sandbox])?;
    does(&["network", "connect", &network, &sandbox])?;
    does(&["network", "connect", "base", &sandbox])?;
    does(&["network", "disconnect", &network, &sandbox])?;
    does(&["network", "connect", &network, &sandbox])?;
    does(&["sandbox", "rm", &sandbox])?;
    does(&["network", "rm", &network])
}

/// Does rounds of these numbers, several at once; gives how long each took, and what did not go.
fn churn(host: &Host, numbers: std::ops::Range<u32>) -> (Vec<Duration>, Vec<String>) {
    let next = AtomicU32::new(numbers.start);
    let work = || {
        let (mut took, mut faults) = (Vec::new(), Vec::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                return (took, faults);
            }
            let begun = Instant::now();
            match round(host, number) {
                Ok(()) => took.push((number, begun.elapsed())),
                Err(fault) => faults.push(fault),
            }
        }
    };
    let done: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("no worker panics")).collect()
    });
    let (took, faults): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    let mut took = took.concat();
    took.sort_unstable();
    (took.into_iter().map(|(_, took)| took).collect(), faults.concat())
}

/// Removes what rounds that were cut off have left.
fn clear(host: &Host) {
    for sandbox in host.json(&["sandbox", "ls"]).as_array().into_iter().flatten() {
        let name = sandbox["Name"].as_str().expect("a name");
        if name.starts_with('s') {
            host.ok(&["sandbox", "rm", name]);
        }
    }
    for network in host.json(&["network", "ls", "--filter", "type=custom"]).as_array().into_iter().flatten() {
        let name = network["Name"].as_str().expect("a name");
        if name.starts_with('n') {
            host.ok(&["network", "rm", name]);
        }
    }
}

fn descriptors(host: &Host) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", host.pid())).map_or(0, Iterator::count)
}

fn memory(host: &Host) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned()
}

/// Tells how the first and the last tenth compare; no more than told, for the machine has other things to do too.
fn compare(host: &Host, took: &mut [Duration]) {
    let tenth = took.len() / 10;
    let median = |part: &mut [Duration]| {
        part.sort_unstable();
        part.get(part.len() / 2).copied().unwrap_or_default()
    };
    let last = took.len() - tenth;
    let (first, last) = (median(&mut took[..tenth]), median(&mut took[last..]));
    let text = format!(
        "a round took {first:?} among the first {tenth}, {last:?} among the last; {}\n",
        memory(host)
    );
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
}

#[test]
fn nothing_is_left_of_what_comes_and_goes_many_times_with_an_agent_that_dies_among_it() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    a.ok(&["network", "create", "--subnet", "172.28.0.0/16", "base"]);
    a.ok(&["network", "create", "-d", "overlay", "wide"]);
    // They stay, so that no bridge of theirs is ever without a port, which would be seen some time later.
    let (keep, _out) = (a.sandbox("keep", "base", &[]), a.sandbox("out", "wide", &[]));
    let (faults, half) = (churn(a, 0..WORKERS).1, rounds() / 2);
    assert_eq!(faults, Vec::<String>::new());
    let before = Snapshot::of(a);
    let open = descriptors(a);
    let (mut took, faults) = churn(a, 100..100 + half);
    assert_eq!(faults, Vec::<String>::new());
    compare(a, &mut took.clone());

    std::thread::scope(|scope| {
        let cut_off = scope.spawn(|| churn(a, 10_000..10_000 + 5 * WORKERS));
        eventually("rounds are under way", || {
            let made = a.json(&["sandbox", "ls"]).as_array().map_or(0, Vec::len);
            if made >= 3 { Ok(()) } else { Err(format!("{made} sandboxes")) }
        });
        a.kill();
        let (_, faults) = cut_off.join().expect("no worker panics");
        assert!(!faults.is_empty(), "the agent died among them");
    });
    a.start(&[]);
    clear(a);
    before.assert_returns(a);

    let (rest, faults) = churn(a, 20_000..20_000 + half);
    assert_eq!(faults, Vec::<String>::new());
    took.extend(rest);
    compare(a, &mut took);
    before.assert_returns(a);
    assert!(pings(&keep.namespace, Ipv4Addr::new(172, 28, 0, 1).into()), "who stayed is still served");
    eventually("the agent holds no more than before", || {
        let now = descriptors(a);
        if now <= open { Ok(()) } else { Err(format!("{now} descriptors, {open} before")) }
    });
}
