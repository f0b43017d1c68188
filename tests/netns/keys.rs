//! Keys of a real cluster change under traffic, and come to hosts that were away.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::bad_input::counter;
use crate::everyone::pair;
use crate::faults::Connection;
use crate::paced::while_sending;
use crate::rig::{Host, Rig, needs_root};
use crate::sealed::{answers_soon, cluster_with, established};
use crate::wait::until;

/// The epoch that a host sends with.
fn active(host: &Host) -> String {
    let keys = host.json(&["keys", "ls"]);
    let keys = keys.as_array().expect("a list");
    let active = keys.iter().find(|key| key["Active"] == true).expect("one is active");
    active["Epoch"].as_str().expect("a text").to_owned()
}

pub(crate) fn rotate(rig: &Rig) -> String {
    let epoch = rig.hosts[0].ok(&["keys", "rotate"]).trim().to_owned();
    until("everyone who runs sends with the new key", || rig.running().all(|host| active(host) == epoch));
    epoch
}

#[test]
fn keys_rotate_under_traffic_and_no_message_is_lost_to_it() {
    needs_root!();
    let rig = Rig::cluster(3);
    let (web, db) = pair(&rig);
    let mut connection = Connection::between(&web, &db);
    let before = active(&rig.hosts[0]);
    let refusal = rig.hosts[1].refused(1, &["keys", "rotate"]);
    assert!(refusal.contains("no admin"), "{refusal}");
    for _ in 0..3 {
        assert_ne!(rotate(&rig), before);
        connection.exchanges();
    }
    for host in &rig.hosts {
        let refused = host.json(&["stats", "--all"])["Gossip"]["unknown_epoch"].clone();
        assert_eq!(refused, 0, "{}", host.name);
    }
    rig.hosts.iter().for_each(Host::kill);
    rig.hosts.iter().for_each(|host| host.start(&[]));
    rig.meet(3);
    rig.converge("blue");
    connection.exchanges();
}

/// How long packets flow while keys change; `WEFT_SOAK_SECONDS=600 cargo test -p weft --test netns rekeyed` is the
/// long form.
fn soak() -> Duration {
    let asked = std::env::var("WEFT_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(8))
}

#[test]
fn of_a_thousand_packets_a_second_none_is_lost_while_sessions_are_rekeyed_and_keys_rotate() {
    needs_root!();
    let rig = cluster_with(2, &["--rekey-after", "1"]);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    let (web, db) = (a.sandbox("web", "blue", &[]), b.sandbox("db", "blue", &[]));
    rig.hosts.iter().for_each(|host| established(host, 1));
    assert!(answers_soon(&web, db.ip4().into()));
    let handshakes = || counter(a, "Sessions", "handshakes");
    let (first, before, end) = (active(a), handshakes(), Instant::now() + soak());
    let mut rotations = 0;
    let (((), there), back) = while_sending((&db, &web), 1000, &[0x5a; 100], || {
        while_sending((&web, &db), 1000, &[0xa5; 100], || {
            while Instant::now() < end {
                std::thread::sleep(Duration::from_secs(2));
                rotate(&rig);
                rotations += 1;
            }
        })
    });
    let rekeyed = handshakes() - before;
    let figures = format!(
        "{} packets there, {} back, {} and {} lost, {rekeyed} handshakes, {rotations} new keys in {:?}\n",
        there.sent,
        back.sent,
        there.lost.len(),
        back.lost.len(),
        soak()
    );
    // not through the test's own capture: whoever runs the long form wants to see it
    let _ = std::io::stderr().write_all(figures.as_bytes());
    assert_eq!((there.lost, back.lost), (Vec::new(), Vec::new()), "{figures}");
    assert_eq!((there.doubled, back.doubled), (0, 0));
    assert!(rekeyed > 2 && rotations > 2 && active(a) != first, "{figures}");
}

#[test]
fn a_host_that_was_away_while_keys_changed_fetches_them_by_itself() {
    needs_root!();
    let rig = Rig::cluster(3);
    let away = &rig.hosts[2];
    away.kill();
    rig.meet(2);
    rotate(&rig);
    rotate(&rig);
    let epoch = rotate(&rig);
    away.start(&[]);
    rig.meet(3);
    until("it sends with the new key", || active(away) == epoch);
}
