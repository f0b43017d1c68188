//! Keys of a real cluster change under traffic, and come to hosts that were away.

use crate::everyone::pair;
use crate::faults::Connection;
use crate::rig::{Host, Rig, needs_root};
use crate::wait::until;

/// The epoch that a host sends with.
fn active(host: &Host) -> String {
    let keys = host.json(&["keys", "ls"]);
    let keys = keys.as_array().expect("a list");
    let active = keys.iter().find(|key| key["Active"] == true).expect("one is active");
    active["Epoch"].as_str().expect("a text").to_owned()
}

fn rotate(rig: &Rig) -> String {
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

#[test]
fn a_host_that_was_away_while_keys_changed_fetches_them_by_itself() {
    needs_root!();
    let rig = Rig::cluster(3);
    let away = &rig.hosts[2];
    away.kill();
    rig.meet(2);
    rotate(&rig);
    let epoch = rotate(&rig);
    away.start(&[]);
    rig.meet(3);
    until("it sends with the new key", || active(away) == epoch);
}
