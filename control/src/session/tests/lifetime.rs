//! Sessions that are idle, unwanted or under another address, and what is shown of them.

use std::net::SocketAddr;

use super::super::{Peer, SessionState};
use super::world::*;

#[test]
fn idle_session_that_nobody_wants_is_wiped_after_ten_minutes() {
    let mut world = World::new(2, 1);
    world.send_frame(0, 1);
    world.run(seconds(1));
    assert!(world.agree(0, 1));
    world.run(seconds(530));
    assert!(world.is_established(0, 1));
    world.run(seconds(20));
    assert!(!world.is_established(0, 1) && !world.is_established(1, 0), "nothing is sent on it any more");
    world.run(seconds(60));
    assert!(world.nodes.iter().all(|node| node.dataplane.specs().all(|spec| spec.receive.is_empty())));
    assert_eq!(world.state(0, 1), SessionState::Idle);
    assert_eq!(world.orphans, 0);
}

#[test]
fn frames_that_come_when_a_session_is_about_to_go_are_not_lost() {
    for idle in [530, 545, 590, 605] {
        let mut world = World::new(2, 1);
        world.send_frame(0, 1);
        world.run(seconds(idle));
        world.stream(0, 1, millis(10));
        world.stream(1, 0, millis(10));
        world.run(seconds(2));
        assert!(world.agree(0, 1));
        assert_eq!((world.frames.lost, world.orphans), (0, 0), "after {idle} s");
    }
}

#[test]
fn wanted_session_is_kept_and_replaced_slowly_while_idle() {
    let mut world = World::new(2, 1);
    world.want_all();
    world.run(seconds(3600));
    assert!(world.agree(0, 1));
    assert!((10..=13).contains(&world.nodes[0].dataplane.keys().count()));
    assert_eq!(world.orphans, 0);
}

#[test]
fn session_that_only_one_end_wants_is_there_when_frames_come() {
    for wanting in 0..2 {
        let mut world = World::new(2, 1);
        world.want(wanting, 1 - wanting);
        world.run(seconds(3 * 3600));
        assert_eq!(world.orphans, 0);
        world.send_frame(wanting, 1 - wanting);
        world.run(seconds(1));
        assert_eq!((world.frames.opened, world.frames.lost), (1, 0));
    }
}

#[test]
fn unwanted_session_goes_once_it_is_idle() {
    let mut world = World::new(2, 1);
    world.want_all();
    world.run(seconds(60));
    let now = world.now;
    world.act(0, |sessions| sessions.unwant(now, id(1)));
    world.act(1, |sessions| sessions.unwant(now, id(0)));
    world.run(seconds(60));
    assert!(world.is_established(0, 1));
    world.run(seconds(600));
    assert!(!world.is_established(0, 1) && !world.is_established(1, 0));
}

#[test]
fn unanswered_handshake_that_nobody_wants_is_given_up() {
    let mut world = World::new(2, 1);
    world.loss = 1.0;
    world.send_frame(0, 1);
    world.run(seconds(3600));
    assert_eq!(world.recorded.len(), 6);
    assert_eq!(world.nodes[0].sessions.counters().given_up, 1);
    assert_eq!(world.state(0, 1), SessionState::Idle);
}

#[test]
fn peer_at_another_tunnel_end_gets_new_keys_there() {
    let mut world = World::new(2, 1);
    world.want_all();
    world.run(seconds(1));
    let now = world.now;
    let moved = SocketAddr::from(([10, 0, 0, 2], 14789));
    let peer = Peer { id: id(1), static_public: public(1), gossip: gossip(1), vtep: moved, boot_epoch: 1 };
    world.act(0, |sessions| {
        sessions.set_peer(now, peer);
    });
    assert!(world.nodes[0].dataplane.spec(vtep(1)).is_none());
    assert!(world.nodes[0].dataplane.spec(moved).is_some_and(|spec| spec.send.is_none()));
    world.run(seconds(1));
    assert!(world.nodes[0].dataplane.send(moved).is_some());
}

#[test]
fn tunnel_end_is_its_peers_until_that_is_gone() {
    let mut world = World::new(2, 1);
    world.want_all();
    world.run(seconds(1));
    let now = world.now;
    let held = world.nodes[0].dataplane.spec(vtep(1)).cloned();
    let other = Peer { id: id(5), static_public: public(5), gossip: gossip(5), vtep: vtep(1), boot_epoch: 1 };
    world.act(0, |sessions| assert!(!sessions.set_peer(now, other)));
    assert_eq!(world.nodes[0].dataplane.spec(vtep(1)).cloned(), held, "nobody takes it away");
    world.act(0, |sessions| assert!(sessions.set_peer(now, Peer { vtep: vtep(5), ..other })));
    world.act(0, |sessions| assert!(!sessions.set_peer(now, other)));
    assert!(world.nodes[0].dataplane.spec(vtep(5)).is_none(), "who moves where it may not is nowhere");
    assert_eq!(world.nodes[0].dataplane.spec(vtep(1)).cloned(), held);
    world.act(0, |sessions| sessions.remove_peer(now, id(1)));
    world.act(0, |sessions| assert!(sessions.set_peer(now, other)));
    assert!(world.nodes[0].dataplane.spec(vtep(1)).is_some_and(|spec| spec.receive.is_empty()));
}

#[test]
fn view_shows_what_there_is() {
    let mut world = World::new(2, 1);
    world.want_all();
    world.run(seconds(10));
    let view = world.nodes[0].sessions.views(world.now).next().expect("a peer");
    assert_eq!((view.peer, view.vtep, view.address), (id(1), vtep(1), gossip(1)));
    assert_eq!((view.state, view.epoch, view.receiving), (SessionState::Established, Some(EPOCH), 1));
    assert_eq!(view.index, world.nodes[0].dataplane.send(vtep(1)).map(|session| session.index));
    assert!(view.wanted && view.age.is_some_and(|age| age >= seconds(9)) && view.tries == 0);
}

#[test]
fn counters_are_told_by_name() {
    let mut world = World::new(2, 1);
    world.deliver(0, gossip(1), &[0x10]);
    let named = world.nodes[0].sessions.counters().named();
    assert!(named.contains(&("malformed", 1)) && named.contains(&("bad_mac", 0)));
}
