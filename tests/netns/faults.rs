//! Hosts cut off, killed and renumbered: the views converge and no address is there twice.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use crate::everyone::pair;
use crate::rig::{Rig, Sandbox, UNDERLAY, needs_root};
use crate::traffic::pings;
use crate::truth::in_state;
use crate::wait::until;

#[test]
fn a_host_cut_off_and_healed_sees_what_the_others_see() {
    needs_root!();
    let rig = Rig::cluster(3);
    let (web, db) = pair(&rig);
    let [a, _, c] = rig.hosts.as_slice() else { panic!("three hosts") };
    let cache = c.sandbox("cache", "blue", &[]);
    rig.converge("blue");

    rig.cut(c);
    until("a gives the lost host's endpoint up for now", || {
        in_state(a, "blue", "suspended").contains("cache")
    });
    until("the lost host gives the others' up for now", || in_state(c, "blue", "suspended").len() == 2);
    assert!(pings(&web.namespace, db.ip4().into()), "the majority's traffic is untouched");
    a.sandbox("new-a", "blue", &[]);
    c.sandbox("new-c", "blue", &[]);
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.8.0.0/24", "late"]);
    c.ok(&["sandbox", "rm", "cache"]);
    drop(cache);

    rig.heal();
    rig.meet(3);
    rig.converge("blue");
    until("the healed host learns the network", || c.weft(&["network", "inspect", "late"]).code == 0);
    let newcomer = c.attached("new-c", "blue");
    assert!(pings(&newcomer.namespace, web.ip4().into()), "traffic crosses the healed cut");
    assert!(pings(&web.namespace, newcomer.ip4().into()), "and back");
}

#[test]
fn two_sides_of_a_cut_never_hand_out_one_address() {
    needs_root!();
    let rig = Rig::cluster(2);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/28", "tiny"]);
    until("b knows the network", || b.weft(&["network", "inspect", "tiny"]).code == 0);
    a.sandbox("a-first", "tiny", &[]);
    b.sandbox("b-first", "tiny", &[]);
    rig.converge("tiny");

    rig.cut(b);
    rig.meet(1);
    let mut handed_out = 2;
    for host in [a, b] {
        for number in 0..14 {
            let name = format!("{}-{number}", host.name);
            host.ok(&["sandbox", "create", &name]);
            let answer = host.weft(&["network", "connect", "tiny", &name]);
            handed_out += usize::from(answer.code == 0);
            if answer.code != 0 {
                assert!(answer.stderr.contains("address"), "an exhausted range is named: {answer:?}");
                break;
            }
        }
    }
    assert!(
        (2..=13).contains(&handed_out),
        "a /28 has 13 addresses beside the gateway's, {handed_out} were handed out"
    );

    rig.heal();
    rig.meet(2);
    rig.converge("tiny");
}

#[test]
fn an_agent_killed_and_restarted_finds_its_sandboxes_and_their_connections_go_on() {
    needs_root!();
    let rig = Rig::cluster(3);
    let (web, db) = pair(&rig);
    let b = &rig.hosts[1];
    let mut connection = Connection::between(&web, &db);
    connection.exchanges();

    b.kill();
    until("a gives the dead host's endpoint up for now", || {
        in_state(&rig.hosts[0], "blue", "suspended").contains("db")
    });
    b.start(&[]);
    rig.meet(3);
    rig.converge("blue");
    let again = b.attached("db", "blue");
    assert_eq!((again.addresses(), &again.mac), (db.addresses(), &db.mac), "the endpoint is what it was");
    connection.exchanges();

    b.stop();
    assert!(pings(&db.namespace, db.ip4().into()), "the sandbox outlives an agent that is stopped");
    b.start(&[]);
    rig.meet(3);
    rig.converge("blue");
    connection.exchanges();
}

#[test]
fn every_agent_killed_at_once_comes_back_with_everything() {
    needs_root!();
    let rig = Rig::cluster(2);
    let (web, db) = pair(&rig);
    let mut connection = Connection::between(&web, &db);
    rig.hosts.iter().for_each(crate::rig::Host::kill);
    rig.hosts.iter().for_each(|host| host.start(&[]));
    rig.meet(2);
    rig.converge("blue");
    connection.exchanges();
    assert!(pings(&web.namespace, db.addresses()[1]), "IPv6 answers");
}

#[test]
fn a_host_with_a_new_underlay_address_is_found_again_by_all() {
    needs_root!();
    let rig = Rig::cluster(3);
    let (web, db) = pair(&rig);
    let b = &rig.hosts[1];
    let mut connection = Connection::between(&web, &db);

    b.stop();
    let moved = Ipv4Addr::new(192, 0, 2, 99);
    b.namespace.run(&format!("ip addr del {}/24 dev {UNDERLAY}", b.ip4));
    b.namespace.run(&format!("ip addr add {moved}/24 dev {UNDERLAY}"));
    b.start_command(&mut b.agent_command(moved.into()));
    rig.meet(3);
    rig.converge("blue");
    connection.exchanges();
    assert!(pings(&web.namespace, db.ip4().into()), "the moved host answers");
}

#[test]
fn an_address_that_moved_to_another_host_with_another_mac_answers_at_once() {
    needs_root!();
    let rig = Rig::cluster(3);
    let (web, db) = pair(&rig);
    let [_, b, c] = rig.hosts.as_slice() else { panic!("three hosts") };
    let addresses = db.addresses();
    let (ip, ip6) = (addresses[0].to_string(), addresses[1].to_string());
    let known = |ip: &str| web.namespace.run(&format!("ip neigh show {ip}"));
    for address in &addresses {
        assert!(pings(&web.namespace, *address), "{address} answers");
        assert!(known(&address.to_string()).contains(&db.mac), "{address} is known by its MAC");
    }
    b.ok(&["sandbox", "rm", "db"]);
    rig.converge("blue");
    let moved = c.sandbox("moved", "blue", &["--ip", &ip, "--ip6", &ip6]);
    rig.converge("blue");
    assert_ne!(moved.mac, db.mac);
    for address in addresses {
        until(&format!("{address} is known by its new MAC"), || {
            !known(&address.to_string()).contains(&db.mac)
        });
        assert!(pings(&web.namespace, address), "{address} answers: {}", known(&address.to_string()));
    }
}

#[test]
fn networks_follow_the_underlays_mtu_and_say_when_it_is_too_small_for_them() {
    needs_root!();
    let rig = Rig::cluster(2);
    let (web, db) = pair(&rig);
    let a = &rig.hosts[0];
    let inner = |sandbox: &Sandbox<'_>| {
        let link = sandbox.namespace.run(&format!("ip -o link show dev {}", sandbox.interface));
        link.split_whitespace().skip_while(|word| *word != "mtu").nth(1).map(str::to_owned)
    };
    assert_eq!(inner(&web).as_deref(), Some("1450"));
    let whole = format!("ping -n -q -c 1 -W 5 -M do -s 1322 {}", db.ip4());
    for host in &rig.hosts {
        host.namespace.run(&format!("ip link set {UNDERLAY} mtu 1400"));
    }
    until("both have shrunk", || [&web, &db].iter().all(|sandbox| inner(sandbox).as_deref() == Some("1350")));
    until("a packet of the whole size travels", || web.namespace.succeeds(&whole));
    assert_eq!(a.json(&["status"])["Warnings"].as_array().map(Vec::len), Some(0));

    a.namespace.run(&format!("ip link set {UNDERLAY} mtu 1300"));
    until("the network that needs more is named", || {
        let warnings = a.json(&["status"])["Warnings"].to_string();
        warnings.contains("blue") && warnings.contains("1300") && warnings.contains("MTU")
    });
    for host in &rig.hosts {
        host.namespace.run(&format!("ip link set {UNDERLAY} mtu 1500"));
    }
    until("both have grown again", || [&web, &db].iter().all(|s| inner(s).as_deref() == Some("1450")));
    assert_eq!(a.json(&["status"])["Warnings"].as_array().map(Vec::len), Some(0));
    assert!(pings(&web.namespace, db.addresses()[1]), "IPv6 answers");
}

/// A TCP connection between two sandboxes, which a pause must not break.
pub(crate) struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    pub(crate) fn between(client: &Sandbox<'_>, server: &Sandbox<'_>) -> Self {
        let listener =
            server.namespace.enter(|| TcpListener::bind((IpAddr::V4(server.ip4()), 0))).expect("listening");
        let target = listener.local_addr().expect("bound");
        socket2::SockRef::from(&listener)
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("timeout set");
        let client = client.namespace.enter(|| TcpStream::connect(target)).expect("connected");
        let (server, _) = listener.accept().expect("a connection");
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout set");
        }
        Self { client, server }
    }

    /// Sends octets both ways.
    pub(crate) fn exchanges(&mut self) {
        let mut read = [0; 5];
        self.client.write_all(b"there").expect("sent");
        self.server.read_exact(&mut read).expect("what was sent arrives");
        assert_eq!(&read, b"there");
        self.server.write_all(b"again").expect("sent");
        self.client.read_exact(&mut read).expect("what was sent back arrives");
        assert_eq!(&read, b"again");
    }
}
