//! New keys under traffic: every frame meets a receiver that holds its session.

use weft_dataplane::change::Event;

use super::world::*;

fn rekeyed(world: &World) -> usize {
    world.nodes[0].dataplane.keys().count()
}

#[test]
fn an_hour_of_traffic_both_ways_loses_no_frame_and_changes_keys_every_two_minutes() {
    let mut world = World::new(2, 1);
    world.want_all();
    world.run(seconds(1));
    world.stream(0, 1, millis(10));
    world.stream(1, 0, millis(13));
    world.run(seconds(3600));
    world.stop_streams();
    world.run(seconds(1));
    assert_eq!((world.frames.lost, world.frames.unsent, world.orphans), (0, 0, 0));
    assert!((28..=31).contains(&rekeyed(&world)), "{} keys", rekeyed(&world));
    assert_eq!(world.recorded.len(), 3 * rekeyed(&world), "one handshake each");
}

#[test]
fn traffic_one_way_only_loses_no_frame() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut world = World::new(2, 1);
        world.want_all();
        world.run(seconds(1));
        world.stream(from, to, millis(10));
        world.run(seconds(1800));
        assert_eq!((world.frames.lost, world.frames.unsent, world.orphans), (0, 0, 0));
        assert!(rekeyed(&world) >= 14);
    }
}

#[test]
fn handshakes_that_are_lost_doubled_and_reordered_cost_no_frame() {
    for seed in 0..12 {
        let mut world = World::new(2, seed);
        world.want_all();
        world.run(seconds(1));
        (world.loss, world.duplicates, world.jitter) = (0.5, 0.3, millis(300));
        world.stream(0, 1, millis(50));
        if seed % 3 != 0 {
            world.stream(1, 0, millis(70));
        }
        world.run(seconds(1800));
        assert_eq!((world.frames.lost, world.frames.unsent, world.orphans), (0, 0, 0), "seed {seed}");
        assert!(rekeyed(&world) >= 12, "seed {seed}: {} keys", rekeyed(&world));
    }
}

#[test]
fn frames_flow_on_while_no_handshake_gets_through_at_all() {
    let mut world = World::new(2, 1);
    world.want_all();
    world.run(seconds(1));
    world.loss = 1.0;
    world.stream(0, 1, millis(50));
    world.stream(1, 0, millis(50));
    world.run(seconds(900));
    assert_eq!((world.frames.lost, world.frames.unsent), (0, 0));
    world.loss = 0.0;
    world.run(seconds(60));
    assert!(world.agree(0, 1));
    assert_eq!((world.frames.lost, world.frames.unsent, world.orphans), (0, 0, 0));
}

#[test]
fn both_ends_rekeying_at_once_over_and_over_lose_no_frame() {
    for seed in 0..10 {
        let mut world = World::new(2, seed);
        world.want_all();
        world.run(seconds(1));
        (world.jitter, world.loss) = (millis(20), 0.2);
        world.stream(0, 1, millis(10));
        world.stream(1, 0, millis(10));
        for _ in 0..50 {
            world.run(seconds(6));
            let now = world.now;
            world.act(0, |sessions| sessions.note(now, Event::SessionWorn { vtep: vtep(1) }));
            world.act(1, |sessions| sessions.note(now, Event::SessionWorn { vtep: vtep(0) }));
        }
        assert_eq!((world.frames.lost, world.frames.unsent, world.orphans), (0, 0, 0), "seed {seed}");
        assert!(rekeyed(&world) >= 30, "seed {seed}: {}", rekeyed(&world));
    }
}

#[test]
fn worn_session_is_replaced_at_once_and_only_once() {
    let mut world = World::new(2, 1);
    world.want_all();
    world.run(seconds(10));
    for _ in 0..5 {
        let now = world.now;
        world.act(1, |sessions| sessions.note(now, Event::SessionWorn { vtep: vtep(0) }));
        world.run(millis(100));
    }
    assert_eq!(rekeyed(&world), 2);
    assert!(world.agree(0, 1));
}

#[test]
fn old_sessions_are_refused_three_minutes_after_the_peer_moved_on() {
    let mut world = World::new(2, 1);
    world.want_all();
    world.run(seconds(10));
    world.stream(0, 1, millis(500));
    world.stream(1, 0, millis(500));
    world.run(seconds(110));
    let old = world.nodes[0].dataplane.send(vtep(1)).expect("a session").clone();
    world.run(seconds(10));
    assert_ne!(world.nodes[0].dataplane.send(vtep(1)), Some(&old), "replaced");
    assert!(world.nodes[1].dataplane.opens(vtep(0), &old), "still there for late frames");
    world.stop_streams();
    world.run(seconds(175));
    assert!(!world.nodes[1].dataplane.opens(vtep(0), &old));
    assert_eq!(world.orphans, 0);
}
