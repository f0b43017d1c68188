//! Nodes that lose all they knew.

use weft_dataplane::change::Event;

use super::super::Peer;
use super::world::*;

/// Two nodes with a session and traffic both ways.
fn busy(seed: u64) -> World {
    let mut world = World::new(2, seed);
    world.want_all();
    world.run(seconds(1));
    world.stream(0, 1, millis(50));
    world.stream(1, 0, millis(50));
    world.run(seconds(10));
    assert!(world.agree(0, 1));
    world
}

#[test]
fn restarted_node_that_wants_its_sessions_has_them_again_at_once() {
    for (seed, number) in [(1, 0), (2, 1)] {
        let mut world = busy(seed);
        world.restart(number);
        world.want(number, 1 - number);
        world.run(seconds(1));
        assert!(world.agree(0, 1), "node {number}");
        let lost = world.frames.lost;
        world.run(seconds(300));
        assert_eq!(world.frames.lost, lost);
    }
}

#[test]
fn news_of_a_restart_drops_old_sessions_and_makes_new_ones() {
    for (seed, number) in [(1, 0), (2, 1)] {
        let mut world = busy(seed);
        world.stop_streams();
        world.restart(number);
        world.introduce(1 - number, number);
        assert!(!world.is_established(1 - number, number), "no frame goes into the void");
        world.run(seconds(1));
        assert!(world.agree(0, 1));
    }
}

#[test]
fn both_restarting_at_once_meet_again() {
    let mut world = busy(3);
    world.restart(0);
    world.restart(1);
    world.introduce_all();
    world.want_all();
    world.run(seconds(1));
    assert!(world.agree(0, 1));
}

#[test]
fn peer_that_forgot_us_silently_is_found_out_by_its_silence() {
    let mut world = World::new(2, 4);
    world.want(0, 1);
    world.run(seconds(1));
    world.stream(0, 1, millis(50));
    world.run(seconds(1));
    world.restart(1);
    world.run(seconds(18));
    assert!(world.agree(0, 1), "after 15 s of silence and a round trip");
    let lost = world.frames.lost;
    world.run(seconds(600));
    assert_eq!(world.frames.lost, lost);
}

#[test]
fn dataplane_that_was_replaced_gets_fresh_keys_only() {
    let mut world = busy(5);
    let before = world.nodes[0].dataplane.keys().count();
    let now = world.now;
    world.act(0, |sessions| sessions.reset(now));
    assert!(!world.is_established(0, 1));
    world.run(seconds(1));
    assert!(world.agree(0, 1));
    assert!(world.nodes[0].dataplane.keys().count() > before);
}

/// A restored snapshot of a machine draws the same numbers again: keys must differ all the same.
#[test]
fn keys_never_repeat_even_if_one_end_repeats_its_randomness() {
    let mut world = World::new(2, 6);
    world.want_all();
    world.run(seconds(1));
    for _ in 0..5 {
        let now = world.now;
        world.nodes[0].boot_epoch += 1;
        world.nodes[0].sessions = sessions(0, world.nodes[0].boot_epoch, 6, now);
        world.introduce_all();
        world.want_all();
        world.run(seconds(2));
        assert!(world.agree(0, 1), "the dataplane model refuses keys that come back");
    }
    assert_eq!(world.nodes[0].dataplane.keys().count(), 6);
}

#[test]
fn earlier_boot_of_a_peer_is_not_believed() {
    let mut world = busy(7);
    for _ in 0..2 {
        world.restart(0);
        world.want(0, 1);
        world.run(seconds(1));
    }
    let now = world.now;
    let initiation = |d: &&Recorded| d.from == gossip(0) && d.bytes[0] == 0x10 && d.to == gossip(1);
    let old = world.recorded.iter().rev().filter(initiation).nth(1).expect("of the start before").clone();
    let replayed = world.nodes[1].sessions.counters().replayed;
    world.act(1, |sessions| sessions.handle_datagram(now, gossip(0), &old.bytes));
    assert_eq!(world.nodes[1].sessions.counters().replayed, replayed + 1);
    let old = Peer { id: id(0), static_public: public(0), gossip: gossip(0), vtep: vtep(0), boot_epoch: 1 };
    world.act(1, |sessions| {
        sessions.set_peer(now, old);
    });
    assert!(world.agree(0, 1), "stale news change nothing");
}

#[test]
fn late_events_of_the_dataplane_are_harmless() {
    let mut world = busy(8);
    let now = world.now;
    for index in [0, 1, u32::MAX] {
        let event = Event::SessionConfirmed { vtep: vtep(1), index };
        world.act(0, |sessions| sessions.note(now, event));
    }
    let unknown = vtep(99);
    world.act(0, |sessions| sessions.note(now, Event::SessionWanted { vtep: unknown }));
    world.act(0, |sessions| sessions.note(now, Event::SessionWorn { vtep: unknown }));
    world.act(0, |sessions| sessions.note(now, Event::SessionWanted { vtep: vtep(1) }));
    world.run(seconds(5));
    assert!(world.agree(0, 1));
    assert_eq!(world.nodes[0].dataplane.keys().count(), 1);
}
