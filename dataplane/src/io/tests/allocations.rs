//! Forwarding asks for no memory: what a worker needs it has from its start. Counted is Rust's allocator; the AEAD's C
//! code works in place.

use super::sealing::{seal, sealed_rig, their_sealer};
use super::*;
use crate::seal::InnerChecksum;

#[path = "../../../../tests/counting_allocator.rs"]
mod counting;

/// Rounds of a few frames each; what is asked for in the first ones is not counted.
const ROUNDS: u64 = 40;
const WARM_UP: u64 = 8;
/// Octets of a TCP super-frame's payload, and the segments it makes.
const SUPER: usize = 20_000;
const SEGMENTS: u64 = 20;

#[test]
fn allocations_are_seen() {
    assert_eq!(counting::during(|| drop(std::hint::black_box(Box::new(7)))), 1);
    assert!(counting::during(|| drop(std::hint::black_box(vec![0_u8; 9]).into_boxed_slice())) >= 1);
}

#[test]
fn frames_leave_in_clear_without_an_allocation() {
    let mut rig = Rig::facing_peer();
    assert_eq!(asked_for_outbound(&mut rig), 0);
    assert_eq!(rig.totals().of(Counter::DatagramsOut), ROUNDS * (SEGMENTS + 2));
}

#[test]
fn frames_leave_sealed_without_an_allocation() {
    let mut rig = sealed_rig();
    assert_eq!(asked_for_outbound(&mut rig), 0);
    assert_eq!(rig.totals().of(Counter::SealedOut), ROUNDS * (SEGMENTS + 2));
}

#[test]
fn datagrams_come_in_clear_without_an_allocation() {
    let mut rig = Rig::facing_peer();
    assert_eq!(asked_for_inbound(&mut rig, |frame| datagram(42, frame)), 0);
    assert_eq!(rig.totals().of(Counter::FramesIn), ROUNDS * 4);
    assert!(rig.totals().of(Counter::MergedWritesIn) > 0, "segments of one flow are joined");
}

#[test]
fn sealed_datagrams_come_in_without_an_allocation() {
    let (mut rig, sealer) = (sealed_rig(), their_sealer());
    assert_eq!(asked_for_inbound(&mut rig, |frame| seal(&sealer, InnerChecksum::Whole, frame)), 0);
    assert_eq!(rig.totals().of(Counter::OpenedIn), ROUNDS * 4);
    assert!(rig.totals().of(Counter::MergedWritesIn) > 0, "segments of one flow are joined");
}

/// A super-frame and two small frames per round, from the port to the peer.
fn asked_for_outbound(rig: &mut Rig) -> u64 {
    let (vnet, frame) = super_frame_from_a(SUPER);
    let round = |_| {
        rig.feed(vnet, &frame);
        rig.feed(VnetHeader::PLAIN, &a_to_b(18));
        rig.feed(VnetHeader::PLAIN, &a_to_b(700));
        let asked = counting::during(|| rig.outbound_turn());
        rig.at_peer();
        asked
    };
    after_warm_up(round)
}

/// Two small frames and two segments of one TCP flow per round, from the peer to the port.
fn asked_for_inbound(rig: &mut Rig, datagram_of: impl Fn(&[u8]) -> Vec<u8>) -> u64 {
    let round = |_| {
        for frame in [b_to_a(18), b_to_a(700), tcp_b_to_a(1, 1000), tcp_b_to_a(1001, 1000)] {
            rig.peer_sends(&datagram_of(&frame));
        }
        let asked = counting::during(|| rig.inbound_turns());
        rig.at_port();
        asked
    };
    after_warm_up(round)
}

fn after_warm_up(round: impl FnMut(u64) -> u64) -> u64 {
    (0..ROUNDS).map(round).skip(usize::try_from(WARM_UP).expect("small")).sum()
}
