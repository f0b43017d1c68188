//! How two nodes come to a session.

use weft_dataplane::change::Event;

use super::super::{SessionEvent, SessionState};
use super::world::*;

#[test]
fn one_initiation_one_response_and_one_confirmation_make_a_session() {
    let mut world = World::new(2, 1);
    assert_eq!(world.state(0, 1), SessionState::Idle);
    world.want_all();
    world.run(millis(16));
    assert!(world.all_established() && world.agree(0, 1));
    let kinds: Vec<u8> = world.recorded.iter().map(|datagram| datagram.bytes[0]).collect();
    assert_eq!(kinds, [0x10, 0x11, 0x13]);
    world.run(seconds(60));
    assert_eq!(world.recorded.len(), 3, "nothing more is said");
    assert_eq!(world.state(0, 1), SessionState::Established);
    assert_eq!(world.orphans, 0);
}

#[test]
fn initiations_that_cross_end_in_one_session_after_one_round_trip() {
    for seed in 0..20 {
        let mut world = World::new(2, seed);
        let now = world.now;
        world.act(0, |sessions| sessions.note(now, Event::SessionWanted { vtep: vtep(1) }));
        world.act(1, |sessions| sessions.note(now, Event::SessionWanted { vtep: vtep(0) }));
        world.run(millis(16));
        assert!(world.agree(0, 1));
        let crossed: u64 = world.nodes.iter().map(|node| node.sessions.counters().crossed).sum();
        assert_eq!(crossed, 1);
        let handshakes: u64 = world.nodes.iter().map(|node| node.sessions.counters().handshakes).sum();
        assert_eq!(handshakes, 2, "one, seen from both ends");
        world.run(seconds(30));
        assert!(world.agree(0, 1));
        assert_eq!(world.orphans, 0);
    }
}

#[test]
fn waiting_frames_start_a_handshake_without_anybody_wanting_it() {
    let mut world = World::new(2, 1);
    world.stream(1, 0, millis(1));
    world.run(seconds(1));
    assert!(world.all_established());
    assert_eq!(world.frames.lost, 0);
    assert!(world.frames.unsent <= 12, "{:?}: about one round trip of 10 ms", world.frames);
}

#[test]
fn ten_nodes_all_meet_although_a_third_of_the_datagrams_is_lost() {
    for seed in 0..5 {
        let mut world = World::new(10, seed);
        (world.loss, world.duplicates, world.jitter) = (0.33, 0.2, millis(40));
        world.want_all();
        world.run(seconds(60));
        assert!(world.all_established(), "seed {seed}");
        assert_eq!(world.orphans, 0, "seed {seed}");
    }
}

#[test]
fn cut_both_ways_they_meet_once_the_network_is_back() {
    let mut world = World::new(2, 1);
    world.loss = 1.0;
    world.want_all();
    world.run(seconds(300));
    assert!(!world.is_established(0, 1));
    assert_eq!(world.state(0, 1), SessionState::Connecting);
    world.loss = 0.0;
    world.run(seconds(31));
    assert!(world.agree(0, 1));
}

#[test]
fn lost_response_is_sent_again_until_it_is_confirmed() {
    let mut world = World::new(2, 1);
    world.want(0, 1);
    world.run(millis(200));
    world.want_all();
    // Loses whatever is under way, that is the response or the confirmation, whichever end began.
    let mut world = World::new(2, 1);
    world.want_all();
    world.run(millis(7));
    world.loss = 1.0;
    world.run(millis(100));
    world.loss = 0.0;
    world.run(seconds(4));
    assert!(world.agree(0, 1));
    assert_eq!(world.orphans, 0);
    let repeated: u64 = world.nodes.iter().map(|node| node.sessions.counters().responses_repeated).sum();
    assert!(repeated >= 1);
}

#[test]
fn ring_key_the_peer_lacks_is_told_and_the_session_comes_with_the_key() {
    let mut world = World::new(2, 1);
    let now = world.now;
    world.act(0, |sessions| sessions.set_ring(now, 9, ring(&[EPOCH, 9])));
    world.want(0, 1);
    world.run(seconds(3));
    assert!(!world.is_established(0, 1));
    assert!(world.nodes[1].events.contains(&SessionEvent::RingWanted { from: id(0), epoch: 9 }));
    assert!(world.nodes[1].sessions.counters().unknown_epoch >= 1);
    let now = world.now;
    world.act(1, |sessions| sessions.set_ring(now, EPOCH, ring(&[EPOCH, 9])));
    world.run(seconds(15));
    assert!(world.agree(0, 1));
}

#[test]
fn without_a_ring_key_nothing_is_sent_and_nothing_is_lost() {
    let mut world = World::new(2, 1);
    let now = world.now;
    world.act(0, |sessions| sessions.set_ring(now, 9, ring(&[])));
    world.want(0, 1);
    world.run(seconds(5));
    assert!(world.recorded.is_empty());
    let now = world.now;
    world.act(0, |sessions| sessions.set_ring(now, EPOCH, ring(&[EPOCH])));
    world.run(seconds(2));
    assert!(world.agree(0, 1));
}

#[test]
fn different_roots_under_one_epoch_make_no_session() {
    let mut world = World::new(2, 1);
    let now = world.now;
    let other = [(EPOCH, zeroize::Zeroizing::new([0xee; 32]))].into();
    world.act(0, |sessions| sessions.set_ring(now, EPOCH, other));
    world.want_all();
    world.run(seconds(30));
    assert!(!world.is_established(0, 1) && !world.is_established(1, 0));
}
