use std::io;

use super::sending::{Failure, failure};
use super::*;
use crate::stats::DropReason;

#[test]
fn equal_datagrams_join_a_run_and_a_shorter_one_ends_it() {
    let mut outbox = Outbox::new(1);
    for len in [100, 100, 60, 100] {
        outbox.push(peer(), 0, Part { start: 0, len }).expect("room");
    }
    let runs: Vec<(u32, u32)> = outbox.runs.iter().map(|run| (run.count, run.total)).collect();
    assert_eq!(runs, [(3, 260), (1, 100)]);
}

#[test]
fn runs_of_two_source_ports_interleave_without_ending_each_other() {
    let mut outbox = Outbox::new(2);
    for socket in [0, 1, 0, 1] {
        outbox.push(peer(), socket, Part { start: 0, len: 100 }).expect("room");
    }
    assert_eq!(outbox.runs.iter().map(|run| run.count).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn a_run_never_exceeds_what_one_send_may_carry() {
    let mut outbox = Outbox::new(1);
    for _ in 0..100 {
        outbox.push(peer(), 0, Part { start: 0, len: 1472 }).expect("room");
    }
    assert_eq!(outbox.runs.iter().map(|run| run.count).collect::<Vec<_>>(), [44, 44, 12]);
}

#[test]
fn a_full_outbox_says_so_and_takes_nothing() {
    let mut outbox = Outbox::new(1);
    let taken =
        (0..PIECES * 2).filter(|_| outbox.push(peer(), 0, Part { start: 0, len: 50 }).is_ok()).count();
    assert_eq!(taken, PIECES);
}

#[test]
fn errors_are_told_apart_by_what_can_be_done() {
    let of = |code, segmented| failure(&io::Error::from_raw_os_error(code), segmented);
    assert_eq!(of(libc::EIO, true), Failure::NotSegmented { for_good: true });
    assert_eq!(of(libc::EINVAL, true), Failure::NotSegmented { for_good: false });
    assert_eq!(of(libc::EIO, false), Failure::Lost(DropReason::SendFailed));
    assert_eq!(of(libc::EMSGSIZE, true), Failure::Lost(DropReason::UnderlayMtu));
    assert_eq!(of(libc::ENOBUFS, true), Failure::Again);
    assert_eq!(of(libc::ENETUNREACH, false), Failure::Lost(DropReason::SendFailed));
}

fn peer() -> SocketAddr {
    "192.0.2.2:4789".parse().expect("address")
}
