//! Somebody on the underlay who has recorded everything, and says it again, whole or altered, from wherever they like.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde_json::Value;

use crate::bad_input::{counter, counters};
use crate::inject::Injector;
use crate::pcap::{Datagram, Seen};
use crate::rig::{Host, Rig, Sandbox, UNDERLAY, needs_root};
use crate::sealed::{answers_soon, established, inspect};
use crate::traffic::Capture;
use crate::wait::{eventually, until};

const DATA_PORT: u16 = 4789;
const GOSSIP_PORT: u16 = 7946;
/// Counters that may not move, as they tell of something that was taken in.
const TAKEN: [(&str, &str); 5] = [
    ("Dataplane", "opened_in"),
    ("Dataplane", "frames_in"),
    ("Sessions", "handshakes"),
    ("Sessions", "confirmed"),
    ("Sessions", "responses_sent"),
];
/// What counts packets or measures time, and so may differ between two looks.
const MOVING: [&str; 8] = [
    "AgeSeconds",
    "LastSealedSeconds",
    "LastOpenedSeconds",
    "Sealed",
    "Opened",
    "Replayed",
    "Forged",
    "Clear",
];

/// What a host shows of the others and of the network.
#[derive(Debug, PartialEq)]
struct Shown(Vec<Value>, Vec<u64>);

impl Shown {
    fn at(host: &Host) -> Self {
        let mut views = vec![host.json(&["peers"]), host.json(&["fdb", "blue"]), inspect(host)];
        views.iter_mut().for_each(still);
        Self(views, TAKEN.iter().map(|(group, name)| counter(host, group, name)).collect())
    }
}

fn still(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !MOVING.contains(&name.as_str()));
            fields.values_mut().for_each(still);
        }
        Value::Array(all) => all.iter_mut().for_each(still),
        _ => {}
    }
}

/// Everything that was dropped at a host, however it is called.
fn dropped(host: &Host) -> u64 {
    let all = |group: &str, skip: &[&str]| -> u64 {
        counters(host, group).iter().filter(|(name, _)| !skip.contains(&name.as_str())).map(|(_, n)| n).sum()
    };
    let refusals = ["malformed", "bad_mac", "rate_limited", "unauthentic", "unknown_peer", "replayed"];
    // the last two are answers again to what was taken in before
    let more = ["unknown_epoch", "unknown_index", "crossed", "confirmed_again", "confirmations_repeated"];
    let sessions = counters(host, "Sessions");
    let of_sessions = refusals.iter().chain(&more).map(|name| sessions.get(*name).copied().unwrap_or(0));
    let gossip = counters(host, "Gossip");
    let refusals = ["malformed_seal", "replayed", "unauthentic", "rate_limited", "unknown_epoch"];
    let more = ["stale_boot", "misaddressed", "reflected"];
    let of_gossip = refusals.iter().chain(&more).map(|name| gossip.get(*name).copied().unwrap_or(0));
    all("Drops", &[]) + of_sessions.sum::<u64>() + of_gossip.sum::<u64>()
}

/// The third host, and whom it is after.
struct Attacker<'r> {
    rig: &'r Rig,
    injector: Injector,
    own: Ipv4Addr,
    victims: [&'r Host; 2],
}

impl<'r> Attacker<'r> {
    fn new(rig: &'r Rig, at: &Host, victims: [&'r Host; 2]) -> Self {
        Self { rig, injector: Injector::inside(&at.namespace), own: at.ip4, victims }
    }

    /// Says `datagrams`, each from its first sender's address and from the attacker's own, to both victims: each is
    /// dropped and counted, nothing that is shown changes, and no victim says more than it was told.
    fn says(&self, what: &str, datagrams: &[Datagram]) {
        assert!(!datagrams.is_empty(), "{what}");
        let before = self.victims.map(|host| (Shown::at(host), dropped(host)));
        let file = self.rig.dir.path().join("attack.pcap");
        let capture = Capture::start(&self.rig.switch, "br0", "udp", file);
        for Datagram { from, to, payload } in datagrams {
            for victim in self.victims {
                let to = SocketAddrV4::new(victim.ip4, to.port());
                for from in [*from, SocketAddrV4::new(self.own, from.port())] {
                    self.injector.send(from, to, payload);
                }
            }
            // what overflows a socket's buffer would prove nothing
            std::thread::sleep(Duration::from_micros(200));
        }
        for (host, (shown, count)) in self.victims.iter().zip(before) {
            let said = 2 * datagrams.len() as u64;
            eventually(&format!("{} counts {said} drops: {what}", host.name), || {
                let more = dropped(host) - count;
                if more >= said { Ok(()) } else { Err(format!("{more}: {}", host.ok(&["stats"]))) }
            });
            assert_eq!(Shown::at(host), shown, "{what} changed something at {}", host.name);
        }
        self.is_not_amplified(what, &capture.seen());
    }

    fn is_not_amplified(&self, what: &str, seen: &Seen) {
        let octets = |from: Ipv4Addr, to: Ipv4Addr| -> usize {
            let between = seen.datagrams.iter().filter(|d| (*d.from.ip(), *d.to.ip()) == (from, to));
            between.map(|datagram| datagram.payload.len()).sum()
        };
        for victim in self.victims {
            let (said, answered) = (octets(self.own, victim.ip4), octets(victim.ip4, self.own));
            assert!(answered * 2 <= said, "{what}: {said} octets drew {answered} from {}", victim.name);
        }
        let longest = seen.datagrams.iter().filter(|datagram| *datagram.to.ip() == self.own);
        let longest = longest.map(|datagram| datagram.payload.len()).max().unwrap_or(0);
        assert!(longest <= 56, "{what}: more than a cookie was answered: {longest} octets");
    }
}

/// The underlay's datagrams of a time with handshakes, gossip and traffic between the first two hosts.
fn record(rig: &Rig, life: impl FnOnce()) -> Vec<Datagram> {
    let capture = Capture::start(&rig.switch, "br0", "udp", rig.dir.path().join("recorded.pcap"));
    life();
    capture.seen().datagrams
}

/// Of what was recorded from one host to another the last `most` of each kind.
fn sample(recorded: &[Datagram], from: &Host, to: &Host, most: usize) -> Vec<Datagram> {
    let mut kinds = BTreeMap::<(u16, u8), Vec<Datagram>>::new();
    for datagram in recorded.iter().filter(|d| (*d.from.ip(), *d.to.ip()) == (from.ip4, to.ip4)) {
        kinds.entry((datagram.to.port(), datagram.payload[0])).or_default().push(datagram.clone());
    }
    kinds.into_values().flat_map(|all| all.into_iter().rev().take(most)).collect()
}

fn with_payload(datagram: &Datagram, payload: Vec<u8>) -> Datagram {
    Datagram { payload, ..datagram.clone() }
}

/// One bit changed, of every octet of the header and of every eighth behind it.
fn flipped(datagram: &Datagram) -> Vec<Datagram> {
    let flip = |at: usize| {
        let mut payload = datagram.payload.clone();
        payload[at] ^= 1 << (at % 8);
        with_payload(datagram, payload)
    };
    // the second MAC of an initiation is looked at under load only
    let end = if datagram.payload[0] == 0x10 { 142 } else { datagram.payload.len() };
    (0..end).filter(|at| *at < 48 || at % 8 == 0).map(flip).collect()
}

fn truncated(datagram: &Datagram) -> Vec<Datagram> {
    let length = datagram.payload.len();
    let ends = [0, 1, 7, 8, 15, 16, 31, 32, length / 2, length - 1].into_iter().filter(|end| *end < length);
    ends.map(|end| with_payload(datagram, datagram.payload[..end].to_vec())).collect()
}

/// A sealed frame under the VNI of another network, and a frame in clear under that of the sealed one.
fn crossed(sealed: &Datagram, clear_vni: u32) -> Vec<Datagram> {
    let mut other = sealed.payload.clone();
    other[1..4].copy_from_slice(&clear_vni.to_be_bytes()[1..]);
    let mut clear = vec![0x08, 0, 0, 0];
    clear.extend([&sealed.payload[1..4], &[0]].concat());
    clear.extend(&sealed.payload[16..]);
    [other, clear].map(|payload| with_payload(sealed, payload)).into()
}

fn talk(web: &Sandbox<'_>, db: &Sandbox<'_>) {
    assert!(answers_soon(web, db.ip4().into()));
}

#[test]
fn nothing_recorded_on_the_underlay_is_taken_in_again_or_answered_with_more() {
    needs_root!();
    let rig = Rig::wire(&["a", "b", "c", "d"]);
    let [a, b, c, d] = rig.hosts.as_slice() else { panic!("four hosts") };
    for host in [a, b, c] {
        for switch in ["tx-udp-segmentation", "gso", "tso"] {
            host.namespace.run(&format!("ethtool -K {UNDERLAY} {switch} off"));
        }
        host.start(&[]);
    }
    rig.meet(3);
    let (mut web, mut db, mut cache) = (None, None, None);
    let recorded = record(&rig, || {
        create(&rig);
        web = Some(a.sandbox("web", "blue", &[]));
        db = Some(b.sandbox("db", "blue", &[]));
        cache = Some(c.sandbox("cache", "blue", &[]));
        b.sandbox("stall", "open", &[]);
        [a, b, c].iter().for_each(|host| established(host, 2));
        talk(web.as_ref().expect("made"), db.as_ref().expect("made"));
        talk(db.as_ref().expect("made"), cache.as_ref().expect("made"));
    });
    rig.converge("blue");
    let (web, db) = (web.expect("made"), db.expect("made"));
    let said = sample(&recorded, a, b, 12);
    let of_port = |port: u16| said.iter().filter(move |datagram| datagram.to.port() == port);
    let kinds: BTreeSet<u8> = of_port(GOSSIP_PORT).map(|datagram| datagram.payload[0]).collect();
    assert!(kinds.contains(&1) && kinds.len() > 1, "gossip and handshakes were recorded: {kinds:?}");
    let sealed = of_port(DATA_PORT).next().expect("sealed frames were recorded");

    let attacker = Attacker::new(&rig, d, [b, c]);
    attacker.says("replays", &said);
    let one_of_each = sample(&said, a, b, 1);
    attacker.says("flipped bits", &one_of_each.iter().flat_map(flipped).collect::<Vec<_>>());
    attacker.says("stumps", &one_of_each.iter().flat_map(truncated).collect::<Vec<_>>());
    let open = b.ok(&["network", "inspect", "open"]);
    let open: Value = serde_json::from_str(&open).expect("JSON");
    let clear_vni = u32::try_from(open[0]["VNI"].as_u64().expect("a number")).expect("24 bits");
    attacker.says("frames of other networks", &crossed(sealed, clear_vni));
    let by_name = |name: &str| counter(b, "Drops", name);
    for name in ["replayed", "forged", "clear_for_sealed", "sealed_for_clear", "sealed_too_short"] {
        assert!(by_name(name) > 0, "{name}: {:?}", counters(b, "Drops"));
    }
    assert!(counter(c, "Drops", "unknown_session") > 0, "sessions of another host's");
    let peers = b.json(&["peers"]);
    let of_a = peers.as_array().into_iter().flatten().find(|peer| peer["Name"] == "a").expect("a peer");
    for count in ["Replayed", "Forged", "Clear"] {
        assert!(of_a["Session"][count].as_u64() > Some(0), "{count}: {of_a}");
    }

    b.kill();
    b.start(&[]);
    rig.meet(3);
    [a, b, c].iter().for_each(|host| established(host, 2));
    until("it answers again", || answers_soon(&web, db.ip4().into()));
    attacker.says("replays of before a restart", &said);
    talk(&web, &db);
}

fn create(rig: &Rig) {
    let a = &rig.hosts[0];
    a.ok(&["network", "create", "-d", "overlay", "--opt", "encrypted", "--subnet", "10.7.0.0/24", "blue"]);
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.8.0.0/24", "open"]);
    for network in ["blue", "open"] {
        let knows = |host: &Host| host.weft(&["network", "inspect", network]).code == 0;
        until("all know it", || rig.hosts[..3].iter().all(knows));
    }
}
