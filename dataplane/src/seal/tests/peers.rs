//! Peers change and their sessions go on.

use std::net::SocketAddr;

use super::*;
use crate::fdb::Seconds;

#[test]
fn sessions_that_stay_keep_their_counters_and_windows_whoever_has_them() {
    let spec = |vtep: &str| PeerSpec {
        vtep: vtep.parse().expect("address"),
        send: Some(send_session()),
        receive: vec![receive_session()],
    };
    let (first, moved) = (spec("192.0.2.2:4789"), spec("192.0.2.3:4789"));
    let peers = Peers::new(4, 1).with(first.clone());
    let sealed = seal_for(&peers, first.vtep);
    let (_, opener) = peers.session(INDEX).expect("known");
    assert!(open(opener, &sealed).is_some());
    assert!(opener.confirm());

    let again = peers.with(first.clone()).with(moved.clone()).without(first.vtep);
    let later = seal_for(&again, moved.vtep);
    assert_ne!(sealed[8..16], later[8..16], "no counter twice");
    let (peer, opener) = again.session(INDEX).expect("known");
    assert_eq!(peer.vtep(), moved.vtep);
    assert_eq!(open(opener, &sealed), None, "the window stays");
    assert!(!opener.confirm());
    assert!(again.peer(first.vtep).is_none());
}

#[test]
fn sessions_that_are_not_named_again_are_gone() {
    let vtep: SocketAddr = "192.0.2.2:4789".parse().expect("address");
    let spec = PeerSpec { vtep, send: Some(send_session()), receive: vec![receive_session()] };
    let peers = Peers::new(1, 1).with(spec);
    let after = peers.with(PeerSpec { vtep, send: None, receive: Vec::new() });
    assert!(after.session(INDEX).is_none());
    let refusal = after.peer(vtep).expect("known").reserve(0, 1, Seconds(1)).expect_err("no session");
    assert_eq!(refusal, Refusal::NoSession);
    assert!(after.without(vtep).peer(vtep).is_none());
    let other = ReceiveSession { key: Key::new([1; 32]), ..receive_session() };
    let rekeyed = peers.with(PeerSpec { vtep, send: None, receive: vec![other] });
    assert_eq!(open(rekeyed.session(INDEX).expect("known").1, &seal_for(&peers, vtep)), None);
}

#[test]
fn a_send_session_that_was_gone_never_comes_back() {
    let vtep: SocketAddr = "192.0.2.2:4789".parse().expect("address");
    let with =
        |peers: &Peers, send: Option<SendSession>| peers.with(PeerSpec { vtep, send, receive: Vec::new() });
    let refusal = |peers: &Peers| peers.peer(vtep).expect("set").reserve(0, 1, Seconds(1)).err();
    let peers = with(&Peers::new(1, 1), Some(send_session()));
    assert_eq!(refusal(&peers), None);
    for gone in [peers.without(vtep), with(&peers, None), with(&peers, Some(other_session()))] {
        assert_eq!(refusal(&with(&gone, Some(send_session()))), Some(Refusal::NoSession));
        let fresh = SendSession { index: INDEX, key: Key::new([2; 32]) };
        assert_eq!(refusal(&with(&gone, Some(fresh))), None);
    }
}

#[test]
fn what_a_receive_session_let_in_is_not_let_in_again_when_it_comes_back() {
    let vtep: SocketAddr = "192.0.2.2:4789".parse().expect("address");
    let with = |peers: &Peers, receive: Vec<ReceiveSession>| {
        peers.with(PeerSpec { vtep, send: Some(send_session()), receive })
    };
    let other = ReceiveSession { index: INDEX, key: Key::new([1; 32]) };
    let peers = with(&Peers::new(1, 1), vec![receive_session()]);
    let sealed = seal_for(&peers, vtep);
    assert!(open(peers.session(INDEX).expect("known").1, &sealed).is_some());
    for gone in [peers.without(vtep), with(&peers, Vec::new()), with(&peers, vec![other.clone()])] {
        assert!(with(&gone, vec![receive_session()]).session(INDEX).is_none());
        let fresh = ReceiveSession { index: INDEX, key: Key::new([2; 32]) };
        assert!(with(&gone, vec![fresh]).session(INDEX).is_some());
    }
    let elsewhere = "192.0.2.3:4789".parse().expect("address");
    let hidden = peers.with(PeerSpec { vtep: elsewhere, send: None, receive: vec![other] });
    let back = with(&hidden, vec![receive_session()]);
    assert_eq!(open(back.session(INDEX).expect("known").1, &sealed), None, "the window stays");
}

#[test]
fn a_peer_is_counted_over_all_workers_and_its_changes() {
    let vtep: SocketAddr = "[::ffff:192.0.2.2]:4789".parse().expect("address");
    let spec = PeerSpec { vtep, send: Some(send_session()), receive: Vec::new() };
    let peers = Peers::new(2, 1).with(spec.clone());
    let canonical = "192.0.2.2:4789".parse().expect("address");
    let peer = peers.peer(canonical).expect("an IPv4 address in either form");
    assert_eq!(peers.totals(Seconds(0))[0].last_sent, None);
    for (queue, count) in [(0, 3), (1, 4)] {
        peer.reserve(queue, count, Seconds(10 + u32::from(queue))).expect("a session");
    }
    peer.note(1, &Opened { accepted: 0b11, forged: 5, replayed: 6 }, Seconds(0));
    peers.note_clear(vtep.ip(), 0, 8);
    peers.note_clear("192.0.2.9".parse().expect("address"), 0, 9);
    let totals = peers.with(spec).totals(Seconds(15));
    let [PeerTotals { sent, received, forged, replayed, clear, last_sent, last_received, send_index, .. }] =
        totals[..]
    else {
        panic!("one peer: {totals:?}")
    };
    assert_eq!((sent, received, forged, replayed, clear, send_index), (7, 2, 5, 6, 8, Some(INDEX)));
    peers.without(canonical).note_clear(canonical.ip(), 0, 1);
    assert_eq!(
        (last_sent.map(|ago| ago.as_secs()), last_received.map(|ago| ago.as_secs())),
        (Some(4), Some(15))
    );
}

fn other_session() -> SendSession {
    SendSession { index: INDEX + 1, key: Key::new([1; 32]) }
}

fn seal_for(peers: &Peers, vtep: SocketAddr) -> Vec<u8> {
    let peer = peers.peer(vtep).expect("known");
    sealed_by(&mut peer.reserve(0, 1, Seconds(1)).expect("a session"), b"frame")
}
