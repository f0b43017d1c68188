//! What sandboxes of different networks and the outside can do to each other: what the networks say, whatever becomes
//! of the host's ruleset.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::greeter::{Greeter, SHORT, ask, ask_for};
use crate::rig::{Host, Rig, Sandbox, needs_root};
use crate::wait::until;

/// The three-tier example: web on front, api on front and back, db on back, which is internal.
struct Tiers<'h> {
    web: Sandbox<'h>,
    api: Sandbox<'h>,
    api_at_back: IpAddr,
    db: Sandbox<'h>,
    _servers: [Greeter; 3],
}

impl<'h> Tiers<'h> {
    fn on(a: &'h Host) -> Self {
        a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "front"]);
        a.ok(&["network", "create", "--internal", "--subnet", "172.29.0.0/24", "back"]);
        a.ok(&["sandbox", "create", "-p", "8080:80", "web"]);
        a.ok(&["network", "connect", "front", "web"]);
        let (web, api, db) =
            (a.attached("web", "front"), a.sandbox("api", "front", &[]), a.sandbox("db", "back", &[]));
        a.ok(&["network", "connect", "back", "api"]);
        let api_at_back = a.attached("api", "back").ip4().into();
        let server = |sandbox: &Sandbox<'_>| Greeter::at(&sandbox.namespace, &sandbox.name, 80);
        let _servers = [server(&web), server(&api), server(&db)];
        Self { web, api, api_at_back, db, _servers }
    }
}

fn hears(from: &Sandbox<'_>, to: IpAddr) -> bool {
    ask_for(&from.namespace, (to, 80), SHORT).is_some()
}

#[test]
fn three_tiers_reach_what_their_networks_say_and_nothing_else() {
    needs_root!();
    let rig = Rig::with_client(1);
    let [a, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    let tiers = Tiers::on(a);
    let (web, api, db): (IpAddr, IpAddr, IpAddr) =
        (tiers.web.ip4().into(), tiers.api.ip4().into(), tiers.db.ip4().into());
    assert!(hears(&tiers.web, api) && hears(&tiers.api, web), "front is one network");
    assert!(hears(&tiers.api, db) && hears(&tiers.db, tiers.api_at_back), "back is one network");
    assert!(!hears(&tiers.web, db) && !hears(&tiers.web, tiers.api_at_back), "front does not see back");
    assert!(ask(&client.namespace, (a.ip4, 8080)).is_some(), "the web is published");
    for (from, reached) in [(&tiers.web, true), (&tiers.api, true), (&tiers.db, false)] {
        let outside = Greeter::at(&client.namespace, "outside", 80);
        // Whoever is root in a sandbox adds routes as it likes.
        if !reached {
            from.namespace.run("ip route add default via 172.29.0.1");
        }
        let answer = ask_for(&from.namespace, (client.ip4, 80), SHORT * 3);
        let expected = reached.then(|| format!("outside {}", a.ip4));
        assert_eq!(answer, expected, "{} gets out, with the host's address", from.name);
        drop(outside);
    }
    // Not by what the host publishes, nor to anything of it but the gateway.
    assert!(!hears(&tiers.db, web));
    assert_eq!(ask_for(&tiers.db.namespace, (a.ip4, 8080), SHORT), None);
    let _on_host = Greeter::at(&a.namespace, "host", 7000);
    assert_eq!(ask_for(&tiers.db.namespace, (a.ip4, 7000), SHORT), None);
    for subnet in ["172.28.0.0/24", "172.29.0.0/24"] {
        client.namespace.run(&format!("ip route add {subnet} via {}", a.ip4));
    }
    for address in [web, api, db, tiers.api_at_back] {
        assert_eq!(ask_for(&client.namespace, (address, 80), SHORT), None, "{address} from outside");
        assert!(ask(&a.namespace, (address, 80)).is_some(), "{address} from the host");
    }
}

#[test]
fn a_flushed_ruleset_closes_everything_until_it_is_back_within_a_second() {
    needs_root!();
    let rig = Rig::with_client(1);
    let [a, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    let tiers = Tiers::on(a);
    for subnet in ["172.28.0.0/24", "172.29.0.0/24"] {
        client.namespace.run(&format!("ip route add {subnet} via {}", a.ip4));
    }
    // Datagrams that must never arrive, all the while: one that does is a hole.
    let (stop, leaked) = (AtomicBool::new(false), AtomicU32::new(0));
    let forbidden = [(&tiers.web.namespace, tiers.db.ip4()), (&client.namespace, tiers.web.ip4())];
    let trap = |sandbox: &Sandbox<'_>| {
        let socket =
            sandbox.namespace.enter(|| std::net::UdpSocket::bind((sandbox.ip4(), 666))).expect("a port");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        socket
    };
    let traps = [trap(&tiers.db), trap(&tiers.web)];
    std::thread::scope(|scope| {
        for (from, to) in forbidden {
            let stop = &stop;
            scope.spawn(move || {
                let socket = from.enter(|| std::net::UdpSocket::bind("0.0.0.0:0")).expect("a port");
                while !stop.load(Ordering::Relaxed) {
                    let _ = socket.send_to(b"!", (to, 666));
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
        }
        for trap in &traps {
            let (stop, leaked) = (&stop, &leaked);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if trap.recv(&mut [0; 8]).is_ok() {
                        leaked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let work = || {
            let mut quickest = Duration::MAX;
            for round in 0..10 {
                a.namespace.run(if round % 2 == 0 {
                    "nft flush ruleset"
                } else {
                    "nft delete table ip weft"
                });
                let flushed = Instant::now();
                until("the table is back", || a.namespace.succeeds("nft list table ip weft"));
                quickest = quickest.min(flushed.elapsed());
                assert!(ask(&client.namespace, (a.ip4, 8080)).is_some(), "published again");
            }
            // Far less than the half minute of audits: the kernel tells of it.
            assert!(quickest < Duration::from_secs(1), "closed for {quickest:?} at least");
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(leaked.load(Ordering::Relaxed), 0, "datagrams came through");

    // Without an agent nothing puts the ruleset back, and all stays closed.
    a.kill();
    a.namespace.run("nft flush ruleset");
    assert!(!hears(&tiers.web, tiers.db.ip4().into()));
    assert_eq!(ask_for(&client.namespace, (tiers.web.ip4(), 80), SHORT), None);
    let _outside = Greeter::at(&client.namespace, "outside", 80);
    assert_eq!(
        ask_for(&tiers.web.namespace, (client.ip4, 80), SHORT),
        None,
        "nothing leaves with an inner address"
    );
    a.start(&[]);
    assert!(ask(&client.namespace, (a.ip4, 8080)).is_some());
    assert!(ask(&tiers.web.namespace, (client.ip4, 80)).is_some());
}

#[test]
fn routing_rules_that_somebody_removes_are_back() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "blue"]);
    let rules = a.namespace.run("ip rule");
    a.namespace.run("ip rule del pref 4790");
    until("the rule is back", || a.namespace.run("ip rule") == rules);
}
