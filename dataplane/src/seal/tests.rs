//! What sealing promises: whatever is changed is refused, whatever is repeated is accepted once, nonces are never
//! drawn twice, and the octets are those of another implementation of AES-GCM.

use std::collections::HashSet;
use std::thread;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::testing::{NETWORK, vni};

mod peers;

const KEY: [u8; 32] = *b"a key of thirty-two octets......";
const INDEX: u32 = 0xfeed_0001;
const QUEUE: u8 = 3;

#[test]
fn a_sealed_datagram_shows_its_header_and_nothing_of_its_frame() {
    let sealed = seal(&sealer(), QUEUE, b"a frame that nobody reads");
    let header = Header::parse(sealed.first_chunk().expect("whole")).expect("sealed");
    assert_eq!((header.vni, header.session, header.queue(), header.number()), (vni(42), INDEX, QUEUE, 0));
    assert_eq!(sealed.len(), 25 + OVERHEAD);
    assert!(
        !sealed.windows(6).any(|octets| b"a frame that nobody reads".windows(6).any(|six| six == octets))
    );
}

#[test]
fn what_was_sealed_opens_once() {
    let (sealer, opener) = (sealer(), opener());
    let sealed = seal(&sealer, QUEUE, b"frame");
    assert_eq!(open(&opener, &sealed), Some(b"frame".to_vec()));
    assert_eq!(open(&opener, &sealed), None);
    assert_eq!(opener.open_train(&NETWORK, &mut sealed.clone(), sealed.len()).replayed, 1);
}

#[test]
fn a_train_is_opened_whole_and_its_bad_datagrams_left_out() {
    let (sealer, opener) = (sealer(), opener());
    let datagrams: Vec<Vec<u8>> = (0..6).map(|_| seal(&sealer, QUEUE, &[7; 100])).collect();
    assert!(open(&opener, &datagrams[4]).is_some());
    let mut train = datagrams.concat();
    let stride = datagrams[0].len();
    train[stride + 50] ^= 1;
    train.truncate(train.len() - 3);
    let opened = opener.open_train(&NETWORK, &mut train, stride);
    assert_eq!(opened, Opened { accepted: 0b00_1101, forged: 2, replayed: 1 });
    assert_eq!(train[2 * stride + HEADER_LEN..][..100], [7; 100]);
}

#[test]
fn a_datagram_of_another_queue_does_not_ride_in_a_train() {
    let (sealer, opener) = (sealer(), opener());
    let datagrams = [seal(&sealer, 0, b"frame"), seal(&sealer, 1, b"frame")];
    let opened = opener.open_train(&NETWORK, &mut datagrams.concat(), datagrams[0].len());
    assert_eq!((opened.accepted, opened.forged), (0b01, 1));
    assert!(open(&opener, &datagrams[1]).is_some(), "alone it is welcome");
}

#[test]
fn queues_are_counted_apart() {
    let opener = opener();
    for queue in [0, 1, 255] {
        assert!(open(&opener, &by_oracle(counter(queue, 5), b"frame")).is_some(), "queue {queue}");
        assert!(open(&opener, &by_oracle(counter(queue, 5), b"frame")).is_none(), "queue {queue}");
    }
}

#[test]
fn the_window_ends_where_it_says_and_a_leap_moves_it() {
    let opener = opener();
    let at = |number| by_oracle(counter(QUEUE, number), b"frame");
    let newest = 1 << 40;
    assert!(open(&opener, &at(0)).is_some());
    assert!(open(&opener, &at(newest)).is_some(), "a leap");
    assert!(open(&opener, &at(newest + 1 - Window::LEN)).is_some(), "the oldest of the window");
    assert!(open(&opener, &at(newest - Window::LEN)).is_none(), "one older");
    assert!(open(&opener, &at(1)).is_none());
    assert!(open(&opener, &at(newest + 1)).is_some());
}

#[test]
fn a_wrong_network_or_key_opens_nothing() {
    let sealed = seal(&sealer(), QUEUE, b"frame");
    let opener = opener();
    assert_eq!(opener.open_train(&[0; 16], &mut sealed.clone(), sealed.len()).forged, 1);
    let other = Opener::new(ReceiveSession { index: INDEX, key: Key::new([9; 32]) }).expect("memory");
    assert_eq!(open(&other, &sealed), None);
    assert_eq!(other.windows_made() + opener.windows_made(), 0);
}

#[test]
fn a_replay_on_several_workers_is_accepted_by_one() {
    let (sealer, opener) = (sealer(), opener());
    let trains: Vec<Vec<u8>> =
        (0..200).map(|_| (0..16).flat_map(|_| seal(&sealer, QUEUE, &[1; 40])).collect()).collect();
    let accepted: u32 = thread::scope(|scope| {
        let open_all = || {
            trains.iter().map(|train| {
                opener.open_train(&NETWORK, &mut train.clone(), 40 + OVERHEAD).accepted.count_ones()
            })
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(move || open_all().sum::<u32>())).collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
    });
    assert_eq!(accepted, 200 * 16);
}

#[test]
fn a_million_seals_of_several_workers_draw_a_million_nonces() {
    const EACH: u32 = 250_000;
    let sealer = sealer();
    let draw = |queue: u8| {
        let mut nonces = Vec::with_capacity(EACH as usize);
        while nonces.len() < EACH as usize {
            let mut reserved = sealer.reserve(queue, 46).expect("far from spent");
            let mut datagram = [0; OVERHEAD + 1];
            while reserved.seal(vni(42), InnerChecksum::Whole, &NETWORK, &mut datagram, &[]).is_ok() {
                nonces.push(u64::from_be_bytes(*datagram[8..].first_chunk().expect("eight")));
            }
        }
        nonces
    };
    // Two threads share a queue, which the dataplane never does; even then nothing comes out twice.
    let nonces: Vec<u64> = thread::scope(|scope| {
        let workers: Vec<_> = [0, 1, 2, 2].map(|queue| scope.spawn(move || draw(queue))).into();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    assert!(nonces.len() >= 4 * EACH as usize);
    assert_eq!(nonces.iter().collect::<HashSet<_>>().len(), nonces.len());
}

#[test]
fn a_session_is_worn_at_the_soft_limit_and_spent_at_the_hard_one() {
    let sealer = sealer();
    assert!(!sealer.reserve(QUEUE, 1).expect("new").is_worn());
    sealer.wear(QUEUE, WORN_AT);
    assert!(sealer.reserve(QUEUE, 1).expect("worn, not spent").is_worn());
    assert!(!sealer.reserve(QUEUE, 1).expect("worn, not spent").is_worn(), "said once in a while only");
    sealer.wear(QUEUE, 1 << 30);
    assert_eq!(sealer.reserve(QUEUE, 1).expect_err("spent"), Spent);
    assert_eq!(sealer.reserve(QUEUE + 1, 1).expect_err("spent for all"), Spent);
}

#[test]
fn a_worker_that_has_no_queue_seals_nothing() {
    let sealer = Sealer::new(send_session(), 2).expect("memory");
    assert!(sealer.reserve(1, 1).is_ok());
    assert!(sealer.reserve(2, 1).is_err());
}

#[test]
fn nothing_is_sealed_beyond_what_was_reserved_or_without_room() {
    let sealer = sealer();
    let mut reserved = sealer.reserve(QUEUE, 2).expect("new");
    let mut seal = |octets: &mut [u8]| reserved.seal(vni(42), InnerChecksum::Whole, &NETWORK, octets, &[]);
    assert_eq!(seal(&mut [0; OVERHEAD - 1]), Err(Spent));
    assert_eq!(seal(&mut [0; OVERHEAD]), Ok(()));
    assert_eq!(seal(&mut [0; OVERHEAD]), Err(Spent));
    let mut reserved = sealer.reserve(QUEUE, 1).expect("new");
    let short = reserved.seal(vni(42), InnerChecksum::Whole, &NETWORK, &mut [0; OVERHEAD], &[7]);
    assert_eq!(short, Err(Spent));
}

#[test]
fn a_confirmation_that_could_not_be_told_is_told_later() {
    let opener = opener();
    assert!(opener.confirm());
    assert!(!opener.confirm());
    opener.unconfirm();
    assert!(opener.confirm());
}

proptest! {
    #[test]
    fn sealed_octets_are_those_of_another_implementation(frame in vec(any::<u8>(), 0..3000)) {
        let sealed = seal(&sealer(), QUEUE, &frame);
        prop_assert_eq!(&sealed, &by_oracle(counter(QUEUE, 0), &frame));
        prop_assert_eq!(open(&opener(), &sealed), Some(frame));
    }

    #[test]
    fn a_frame_is_sealed_alike_wherever_its_octets_stand(
        frame in vec(any::<u8>(), 0..3000),
        cut in any::<prop::sample::Index>(),
    ) {
        let (front, rest) = frame.split_at(cut.index(frame.len() + 1));
        let mut datagram = [&[0; HEADER_LEN], front, &vec![0; rest.len()], &[0; TAG_LEN]].concat();
        let sealer = sealer();
        let mut reserved = sealer.reserve(QUEUE, 1).expect("far from spent");
        let done = reserved.seal(vni(42), InnerChecksum::Whole, &NETWORK, &mut datagram, rest);
        prop_assert_eq!(done, Ok(()));
        prop_assert_eq!(datagram, by_oracle(counter(QUEUE, 0), &frame));
    }

    #[test]
    fn a_datagram_with_any_bit_flipped_is_refused_and_leaves_no_trace(
        frame in vec(any::<u8>(), 0..200),
        bit in any::<prop::sample::Index>(),
    ) {
        let sealed = seal(&sealer(), QUEUE, &frame);
        let opener = opener();
        let mut flipped = sealed.clone();
        let bit = bit.index(sealed.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(open(&opener, &flipped), None);
        prop_assert_eq!(opener.windows_made(), 0);
        prop_assert_eq!(open(&opener, &sealed), Some(frame));
    }

    #[test]
    fn a_truncated_datagram_and_noise_are_refused(
        frame in vec(any::<u8>(), 0..200),
        cut in any::<prop::sample::Index>(),
        noise in vec(any::<u8>(), 0..200),
    ) {
        let sealed = seal(&sealer(), QUEUE, &frame);
        let opener = opener();
        prop_assert_eq!(open(&opener, &sealed[..cut.index(sealed.len())]), None);
        prop_assert_eq!(open(&opener, &noise), None);
        prop_assert_eq!(opener.windows_made(), 0);
    }

    #[test]
    fn within_the_window_any_order_is_accepted_once(
        order in Just((0..500u64).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let opener = opener();
        for (at, &number) in order.iter().chain(&order[..50]).enumerate() {
            let opened = open(&opener, &by_oracle(counter(QUEUE, number * 16), b"f"));
            prop_assert_eq!(opened.is_some(), at < order.len());
        }
    }
}

fn send_session() -> SendSession {
    SendSession { index: INDEX, key: Key::new(KEY) }
}

fn receive_session() -> ReceiveSession {
    ReceiveSession { index: INDEX, key: Key::new(KEY) }
}

fn sealer() -> Sealer {
    Sealer::new(send_session(), QUEUES_MAX).expect("memory")
}

fn opener() -> Opener {
    Opener::new(receive_session()).expect("memory")
}

fn counter(queue: u8, number: u64) -> u64 {
    u64::from(queue) << 56 | number
}

fn seal(sealer: &Sealer, queue: u8, frame: &[u8]) -> Vec<u8> {
    sealed_by(&mut sealer.reserve(queue, 1).expect("far from spent"), frame)
}

fn sealed_by(reserved: &mut Reserved<'_>, frame: &[u8]) -> Vec<u8> {
    let mut datagram = [&[0; HEADER_LEN], frame, &[0; TAG_LEN]].concat();
    reserved.seal(vni(42), InnerChecksum::Whole, &NETWORK, &mut datagram, &[]).expect("one was reserved");
    datagram
}

fn open(opener: &Opener, datagram: &[u8]) -> Option<Vec<u8>> {
    let mut octets = datagram.to_vec();
    let opened = opener.open_train(&NETWORK, &mut octets, datagram.len());
    (opened.accepted == 1).then(|| octets[HEADER_LEN..octets.len() - TAG_LEN].to_vec())
}

/// The datagram as RustCrypto seals it.
fn by_oracle(counter: u64, frame: &[u8]) -> Vec<u8> {
    let header = Header { checksum: InnerChecksum::Whole, vni: vni(42), session: INDEX, counter }.emit();
    let aad = [header, NETWORK].concat();
    let nonce: [u8; 12] = [&[0; 4][..], &counter.to_be_bytes()].concat().try_into().expect("twelve");
    let cipher = Aes256Gcm::new_from_slice(&KEY).expect("thirty-two octets");
    let sealed = cipher.encrypt(&nonce.into(), Payload { msg: frame, aad: &aad }).expect("short");
    [&header[..], &sealed].concat()
}
