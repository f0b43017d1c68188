//! Two or three nodes, message by message: what is dropped, what is counted, what can't be forged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::message::Envelope;
use super::testing::start;
use super::*;

fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 7946))
}

fn gossip_of(number: u8, boot_epoch: u32, key: [u8; 32], now: Instant) -> Gossip {
    let config = GossipConfig {
        name: format!("n{number}").parse().expect("a name"),
        advertise: addr(number),
        data_port: 4789,
        cluster: [1; 16],
        ring: Ring::found(key),
        credentials: None,
        boot_epoch,
    };
    Gossip::new(config, Identity::from_secret(&[number; 32]), u64::from(number), now)
}

fn key() -> [u8; 32] {
    std::array::from_fn(|i| i as u8)
}

fn other_key() -> [u8; 32] {
    std::array::from_fn(|i| i as u8 + 1)
}

fn record_key(text: &str) -> RecordKey {
    RecordKey::new(text.as_bytes()).expect("a key")
}

fn drain(gossip: &mut Gossip) -> Vec<Transmit> {
    std::iter::from_fn(|| gossip.poll_transmit()).collect()
}

/// Carries messages between two nodes until both are silent; all that passed.
fn exchange(now: Instant, a: &mut Gossip, b: &mut Gossip) -> Vec<Transmit> {
    let mut passed = Vec::new();
    loop {
        let mut moved = false;
        for swap in [false, true] {
            let (from, to) = if swap { (&mut *b, &mut *a) } else { (&mut *a, &mut *b) };
            for transmit in drain(from) {
                if transmit.to == to.config.advertise {
                    moved = true;
                    deliver(now, from.config.advertise, to, &transmit);
                }
                passed.push(transmit);
            }
        }
        if !moved {
            return passed;
        }
    }
}

fn deliver(now: Instant, from: SocketAddr, to: &mut Gossip, transmit: &Transmit) {
    let mut bytes = transmit.bytes.clone();
    match transmit.via {
        Via::Datagram => to.handle_datagram(now, from, &mut bytes),
        Via::Stream => {
            to.handle_stream(now, from, &mut bytes);
        }
    }
}

/// Two nodes that know each other, and all that they said.
fn pair() -> (Instant, Gossip, Gossip, Vec<Transmit>) {
    let now = start();
    let (mut a, mut b) = (gossip_of(1, 1, key(), now), gossip_of(2, 1, key(), now));
    a.set_record(now, record_key("a"), b"of a".to_vec()).expect("room");
    b.set_record(now, record_key("b"), b"of b".to_vec()).expect("room");
    b.join(now, &[addr(1)]);
    b.handle_timeout(now);
    let mut said = exchange(now, &mut a, &mut b);
    for step in 1..=8 {
        let now = now + Duration::from_millis(250 * step);
        a.handle_timeout(now);
        b.handle_timeout(now);
        said.extend(exchange(now, &mut a, &mut b));
    }
    assert_eq!((a.alive(), b.alive()), (1, 1));
    (now + Duration::from_secs(2), a, b, said)
}

/// What a node holds, without its counters.
fn state(gossip: &Gossip) -> Vec<String> {
    let records = |id| gossip.records(id).map(|(k, r)| format!("{k:?} {r:?}")).collect::<Vec<_>>();
    gossip.members().map(|member| format!("{member:?} {:?}", records(member.id))).collect()
}

#[test]
fn every_message_replayed_is_dropped() {
    let (now, mut a, mut b, said) = pair();
    let (before, received) = (state(&b), b.counters.received);
    for transmit in said.iter().filter(|t| t.to == addr(2)) {
        deliver(now, addr(1), &mut b, transmit);
    }
    assert_eq!(b.counters.received, received);
    assert!(b.counters.replayed > 0);
    assert_eq!(state(&b), before);
    assert!(drain(&mut b).is_empty());
    let _ = drain(&mut a);
}

#[test]
fn messages_sent_back_or_on_to_another_node_are_dropped() {
    let (now, mut a, _, said) = pair();
    for transmit in said.iter().filter(|t| t.to == addr(2)) {
        deliver(now, addr(2), &mut a, transmit);
    }
    assert!(a.counters.reflected > 0);
    assert!(
        !std::iter::from_fn(|| a.poll_event()).any(|event| matches!(event, GossipEvent::IdentityClash(_)))
    );

    let mut third = gossip_of(3, 1, key(), now);
    let hellos = said.len();
    for transmit in &said {
        deliver(now, addr(1), &mut third, transmit);
    }
    // Only first contact names nobody, and it can't be told apart from one meant for us.
    assert!(third.counters.misaddressed as usize >= hellos - 2, "{:?}", third.counters);
    assert!(third.counters.received <= 2);
}

#[test]
fn message_for_an_earlier_start_is_dropped() {
    let (now, a, _, said) = pair();
    let mut restarted = gossip_of(2, 2, key(), now);
    for transmit in said.iter().filter(|t| t.to == addr(2)) {
        deliver(now, addr(1), &mut restarted, transmit);
    }
    assert!(restarted.counters.misaddressed > 0);
    assert_eq!(restarted.records(a.us).count(), 0, "of first contact only what its sender signed counts");
}

#[test]
fn wrong_key_opens_nothing_and_costs_nothing() {
    let (now, mut a, _, _) = pair();
    let mut stranger = gossip_of(9, 1, other_key(), now);
    stranger.join(now, &[addr(1)]);
    stranger.handle_timeout(now);
    let (before, contexts) = (state(&a), a.seal.contexts());
    for mut transmit in drain(&mut stranger) {
        deliver(now, addr(9), &mut a, &transmit);
        transmit.bytes[2..6].copy_from_slice(&a.ring().active().0.to_be_bytes());
        deliver(now, addr(9), &mut a, &transmit);
    }
    assert_eq!((a.counters.unknown_epoch, a.counters.unauthentic), (1, 1));
    assert_eq!(a.seal.contexts(), contexts);
    assert_eq!(state(&a), before);
    assert!(drain(&mut a).is_empty(), "no answer");
}

#[test]
fn flood_of_unknown_senders_is_limited_and_does_not_shut_out_members() {
    let (now, mut a, mut b, _) = pair();
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..10_000 {
        let mut forged = vec![0; 200];
        rng.fill_bytes(&mut forged);
        forged[..2].copy_from_slice(&[1, 2]);
        forged[2..6].copy_from_slice(&a.ring().active().0.to_be_bytes());
        a.handle_datagram(now, addr(77), &mut forged);
    }
    assert_eq!(a.counters.unauthentic, u64::from(limits::UNKNOWN_OPENS));
    assert_eq!(a.counters.unauthentic + a.counters.rate_limited, 10_000);
    b.set_record(now, record_key("after"), vec![1]).expect("room");
    exchange(now, &mut a, &mut b);
    assert!(a.record(b.node_id(), &record_key("after")).is_some());
}

#[test]
fn any_altered_octet_makes_a_message_unauthentic() {
    let (now, mut a, mut b, _) = pair();
    b.set_record(now, record_key("x"), b"x".to_vec()).expect("room");
    let sent = drain(&mut b);
    let transmit = sent.iter().find(|t| t.to == addr(1)).expect("pushed");
    for at in 0..transmit.bytes.len() {
        let mut altered = transmit.clone();
        altered.bytes[at] ^= 1;
        deliver(now + Duration::from_secs(at as u64), addr(2), &mut a, &altered);
    }
    let dropped =
        a.counters.unauthentic + a.counters.malformed_seal + a.counters.unknown_epoch + a.counters.replayed;
    assert!(a.counters.unauthentic > 0);
    assert_eq!(dropped as usize, transmit.bytes.len());
    assert!(a.record(b.node_id(), &record_key("x")).is_none());
    // None of the forged counters moved the window.
    deliver(now, addr(2), &mut a, transmit);
    assert!(a.record(b.node_id(), &record_key("x")).is_some());
}

#[test]
fn own_records_can_not_be_changed_from_outside() {
    let (now, mut a, mut b, _) = pair();
    // B relays a table of A that A did not write, but signed with A's key: a clone.
    let mut clone = gossip_of(1, 7, key(), now);
    clone.set_record(now, record_key("forged"), b"!".to_vec()).expect("room");
    let _ = drain(&mut clone);
    let section = clone.tables.get(clone.us).expect("own").section(0);
    let before = state(&a);
    b.send(a.node_id(), Message::Delta { more: false, sections: vec![section] });
    for transmit in drain(&mut b) {
        deliver(now, addr(2), &mut a, &transmit);
    }
    assert_eq!(state(&a), before);
    assert_eq!(a.counters.foreign_claims, 1);
    let events: Vec<_> = std::iter::from_fn(|| a.poll_event()).collect();
    assert!(events.contains(&GossipEvent::IdentityClash(a.node_id())), "{events:?}");
}

#[test]
fn claim_of_a_burial_in_the_far_future_does_not_use_up_generations() {
    let (now, mut a, mut b, _) = pair();
    let before = a.membership.us();
    for buried in [u64::MAX, before.generation + 1, before.generation | u64::from(u32::MAX)] {
        let hello = Message::Hello { buried, reply: false, section: Box::new(b.introduction()) };
        b.send(a.node_id(), hello);
        for transmit in drain(&mut b) {
            deliver(now, addr(2), &mut a, &transmit);
        }
    }
    assert_eq!(a.membership.us(), before);
    assert!(
        std::iter::from_fn(|| a.poll_event()).all(|event| !matches!(event, GossipEvent::IdentityClash(_)))
    );
}

/// Lets `from` say `message` to `to` as a member that does not play by the rules would.
fn say(now: Instant, from: &mut Gossip, to: &mut Gossip, message: Message) {
    drain(from);
    from.send(to.node_id(), message);
    for transmit in drain(from) {
        deliver(now, from.config.advertise, to, &transmit);
    }
}

#[test]
fn nobody_but_the_member_itself_renews_buries_or_moves_it_beyond_what_it_signed() {
    let (now, mut a, mut b, _) = pair();
    let mut c = gossip_of(3, 1, key(), now);
    c.join(now, &[addr(1)]);
    c.handle_timeout(now);
    exchange(now, &mut a, &mut c);
    let (us, before) = (c.membership.us(), a.membership.find(c.us));
    assert_eq!(before, Some((us, true)));
    let forged = [
        Peer { generation: us.generation + 1, ..us },
        Peer { generation: us.generation + (1 << 32), ..us },
        Peer { generation: us.generation - 1, ..us },
        Peer { addr: addr(66), ..us },
        Peer { addr: addr(66), generation: us.generation + 1, ..us },
    ];
    for peer in forged {
        for alive in [true, false] {
            let entries = vec![message::RosterEntry { peer, incarnation: 9, alive }];
            say(now, &mut b, &mut a, Message::Roster { reply: false, entries });
            assert_eq!(a.membership.find(c.us), before, "{peer:?}");
        }
        // The same in a packet of B's membership engine.
        let mut effects = Effects::default();
        b.membership.prove(peer);
        b.membership.welcome(now, b.us, std::iter::once((peer, 7)), &mut effects);
        b.membership.announce(now, a.membership.us(), &mut effects);
        for (_, packet) in effects.packets {
            say(now, &mut b, &mut a, Message::Member(packet));
            assert_eq!(a.membership.find(c.us), before, "{peer:?}");
        }
    }
    assert!(a.counters.unproven > 0, "{:?}", a.counters);
    assert!(
        std::iter::from_fn(|| a.poll_event()).all(|event| !matches!(event, GossipEvent::IdentityClash(_)))
    );
}

#[test]
fn clash_is_told_only_on_what_its_subject_signed() {
    let (now, mut a, mut b, _) = pair();
    let mut c = gossip_of(3, 1, key(), now);
    let head = |gossip: &Gossip| gossip.tables.get(gossip.us).expect("own").hint();
    say(now, &mut b, &mut a, Message::Delta { more: false, sections: vec![head(&c)] });
    let mut forged = head(&c);
    forged.head.start = [9; 8];
    say(now, &mut b, &mut a, Message::Delta { more: false, sections: vec![forged] });
    let clashes = |a: &mut Gossip| {
        std::iter::from_fn(|| a.poll_event()).filter(|e| matches!(e, GossipEvent::IdentityClash(_))).count()
    };
    assert_eq!((clashes(&mut a), a.counters.bad_signature), (0, 1));
    c.start = [9; 8];
    c.publish(false);
    say(now, &mut b, &mut a, Message::Delta { more: false, sections: vec![head(&c)] });
    assert_eq!(clashes(&mut a), 1);
}

#[test]
fn junk_from_many_addresses_keeps_no_new_member_from_joining() {
    let (now, mut a, _, _) = pair();
    let mut rng = StdRng::seed_from_u64(2);
    let mut c = gossip_of(3, 1, key(), now);
    c.join(now, &[addr(1)]);
    let active = a.ring().active().0.to_be_bytes();
    let mut joined = None;
    // 10,000 a second, for five seconds.
    for tick in 0..5_000 {
        let now = now + Duration::from_millis(tick);
        for _ in 0..10 {
            let mut junk = [0; 120];
            rng.fill_bytes(&mut junk);
            junk[..2].copy_from_slice(&[1, 2]);
            junk[2..6].copy_from_slice(&active);
            let from = SocketAddr::from(([junk[50], junk[51], junk[52], junk[53]], 7946));
            a.handle_datagram(now, from, &mut junk);
        }
        a.handle_timeout(now);
        c.handle_timeout(now);
        exchange(now, &mut a, &mut c);
        if a.membership.is_active(c.us) {
            joined.get_or_insert(tick);
        }
    }
    assert!(joined.is_some_and(|tick| tick < 2_000), "{joined:?}");
    assert!(a.counters.rate_limited + a.counters.unauthentic >= 49_000, "{:?}", a.counters);
}

/// Lets in who shows this.
#[derive(Debug)]
struct Password(&'static [u8]);

impl Credentials for Password {
    fn admit(&self, _: &[u8; 32], certificate: &[u8]) -> bool {
        certificate == self.0
    }
}

fn strict(number: u8, now: Instant, certificate: Option<&[u8]>) -> Gossip {
    let credentials: Option<Arc<dyn Credentials>> = Some(Arc::new(Password(b"let me in")));
    let config = GossipConfig { credentials, ..gossip_of(number, 1, key(), now).config };
    let mut gossip = Gossip::new(config, Identity::from_secret(&[number; 32]), u64::from(number), now);
    if let Some(certificate) = certificate {
        gossip
            .set_record(now, RecordKey::new(CERTIFICATE).expect("a key"), certificate.to_vec())
            .expect("room");
    }
    gossip
}

#[test]
fn who_shows_no_certificate_is_no_member_and_costs_no_memory() {
    let now = start();
    let mut a = strict(1, now, Some(b"let me in"));
    let mut members = 0;
    for (number, certificate) in [(2, None), (3, Some(&b"wrong"[..])), (4, Some(&b"let me in"[..]))] {
        let mut b = strict(number, now, certificate);
        b.set_record(now, record_key("x"), vec![1; 500]).expect("room");
        b.join(now, &[addr(1)]);
        for step in 0..12 {
            let now = now + Duration::from_millis(250 * step);
            a.handle_timeout(now);
            b.handle_timeout(now);
            exchange(now, &mut a, &mut b);
        }
        members += usize::from(number == 4);
        assert_eq!((a.tables.len(), a.alive()), (1 + members, members), "{certificate:?}");
        assert_eq!(a.record(b.us, &record_key("x")).is_some(), number == 4);
    }
}

#[test]
fn banned_member_is_gone_and_stays_so() {
    let (now, mut a, mut b, said) = pair();
    let (banned, before) = (b.us, a.counters.banned);
    while a.poll_event().is_some() {}
    a.ban(now, banned);
    let events: Vec<_> = std::iter::from_fn(|| a.poll_event()).collect();
    assert_eq!(events, [GossipEvent::MemberLeft(banned), GossipEvent::RecordsChanged { origin: banned }]);
    b.set_record(now, record_key("more"), vec![1]).expect("room");
    for step in 0..40 {
        let now = now + Duration::from_millis(500 * step);
        a.handle_timeout(now);
        b.handle_timeout(now);
        exchange(now, &mut a, &mut b);
    }
    // Others do not know yet, and hand its records on.
    let mut c = gossip_of(3, 1, key(), now);
    let section = b.tables.get(b.us).expect("own").section(0);
    let hint = c.tables.get(c.us).expect("own").hint();
    say(now, &mut c, &mut a, Message::Hello { buried: 0, reply: false, section: Box::new(hint) });
    say(now, &mut c, &mut a, Message::Delta { more: false, sections: vec![section] });
    assert!(a.counters.banned > before);
    assert!(a.member(banned).is_none() && a.membership.find(banned).is_none());
    assert_eq!(a.records(banned).count(), 0);
    assert!(said.len() > 2);
}

#[test]
fn unknown_epoch_of_a_member_asks_for_the_ring_and_of_a_stranger_does_not() {
    let (now, mut a, mut b, _) = pair();
    let needed = |a: &mut Gossip| {
        std::iter::from_fn(|| a.poll_event()).filter(|e| matches!(e, GossipEvent::RingNeeded { .. })).count()
    };
    let mut ring = b.ring().clone();
    let next = ring.add(other_key(), false, &Identity::from_secret(&[1; 32])).expect("room");
    b.set_ring(now, ring.clone());
    b.set_record(now, record_key("1"), vec![]).expect("room");
    exchange(now, &mut a, &mut b);
    assert_eq!((needed(&mut a), a.counters.unknown_epoch), (0, 0), "it is not sent with yet");
    ring.activate(next);
    b.set_ring(now, ring.clone());
    for step in 0..3 {
        b.set_record(now, record_key("2"), vec![step]).expect("room");
        for mut transmit in drain(&mut b) {
            a.handle_datagram(now, addr(99), &mut transmit.bytes.clone());
            a.handle_datagram(now, addr(2), &mut transmit.bytes);
        }
    }
    assert_eq!((needed(&mut a), a.counters.unknown_epoch), (1, 6));
    a.set_ring(now, ring);
    b.set_record(now, record_key("3"), vec![]).expect("room");
    exchange(now, &mut a, &mut b);
    assert!(a.record(b.us, &record_key("3")).is_some());
}

#[test]
fn sealing_key_is_renewed_before_its_limit_and_messages_still_open() {
    let (now, mut a, mut b, _) = pair();
    b.set_record(now, record_key("1"), vec![1]).expect("room");
    exchange(now, &mut a, &mut b);
    let contexts = a.seal.contexts();
    let day = now + limits::MAX_SEAL_AGE;
    b.set_record(day, record_key("2"), vec![2]).expect("room");
    exchange(day, &mut a, &mut b);
    assert!(a.record(b.node_id(), &record_key("2")).is_some());
    assert_eq!(a.seal.contexts(), contexts + 1);
}

#[test]
fn no_nonce_is_used_twice_under_one_key_across_starts_and_streams() {
    let now = start();
    let mut seen = BTreeSet::new();
    for boot_epoch in 1..=3 {
        let mut gossip = gossip_of(1, boot_epoch, key(), now);
        gossip.join(now, &[addr(2), addr(3)]);
        for step in 0..100 {
            gossip.handle_timeout(now + Duration::from_secs(step));
        }
        for transmit in drain(&mut gossip) {
            assert!(
                seen.insert(transmit.bytes[22..46].to_vec()),
                "a pair of boot nonce and counter came again"
            );
        }
    }
    assert!(seen.len() > 30);
}

#[test]
fn large_tables_travel_by_stream_within_bounds() {
    let now = start();
    let (mut a, mut b) = (gossip_of(1, 1, key(), now), gossip_of(2, 1, key(), now));
    let mut count = 0u32;
    while a.set_record(now, record_key(&format!("{count}")), vec![count as u8; 100]).is_ok() {
        count += 1;
    }
    assert!(count > 2000);
    assert_eq!(a.set_record(now, record_key("more"), vec![0; 4096]), Err(RecordRefused::Full));
    assert_eq!(a.set_record(now, record_key("more"), vec![0; 4097]), Err(RecordRefused::TooLarge(4097)));
    b.join(now, &[addr(1)]);
    b.handle_timeout(now);
    let mut said = exchange(now, &mut a, &mut b);
    for step in 1..=20 {
        let now = now + Duration::from_millis(100 * step);
        a.handle_timeout(now);
        b.handle_timeout(now);
        said.extend(exchange(now, &mut a, &mut b));
    }
    assert_eq!(b.records(a.node_id()).count(), count as usize);
    assert!(said.iter().all(|t| t.bytes.len() <= t.via.limit()));
    assert!(b.counters.verifications < 20, "the head proves the table: {}", b.counters.verifications);
}

#[test]
fn calls_nobody_takes_are_bounded() {
    let (now, mut a, mut b, _) = pair();
    for _ in 0..limits::MAX_RPC_QUEUE + 5 {
        assert!(b.send_rpc(now, a.node_id(), vec![1]));
    }
    exchange(now, &mut a, &mut b);
    assert_eq!(a.counters.rpc_dropped, 5);
    let calls = std::iter::from_fn(|| a.poll_event())
        .filter(|event| matches!(event, GossipEvent::Rpc { .. }))
        .count();
    assert_eq!(calls, limits::MAX_RPC_QUEUE);
}

#[test]
fn nobody_calls_in_anothers_name_and_no_call_counts_twice() {
    let (now, mut a, mut b, _) = pair();
    let mut c = gossip_of(3, 1, key(), now);
    c.join(now, &[addr(1)]);
    c.handle_timeout(now);
    exchange(now, &mut a, &mut c);
    // Whoever has the ring can seal in anybody's name.
    let mut seal = Seal::new([1; 16], Ring::found(key()), c.us, [9; 32], now);
    let envelope = Envelope { to: Some(a.us), to_epoch: 1, from_epoch: 1 };
    let id = c.us;
    let mut taken = |a: &mut Gossip, call: &call::Call| {
        let body = envelope.emit(&Message::Rpc(Box::new(call.clone())));
        let bytes = seal.seal(now, Via::Datagram, &body);
        deliver(now, addr(2), a, &Transmit { to: addr(1), via: Via::Datagram, bytes });
        std::iter::from_fn(|| a.poll_event())
            .filter(|event| matches!(event, GossipEvent::Rpc { from, .. } if *from == id))
            .count()
    };
    let genuine = c.call(a.us, b"a range, please".to_vec()).expect("it knows A");
    let forged = call::Call { number: 9, ..genuine.clone() };
    let by_another = forged.clone().sign(a.tables.cluster(), &b.identity, a.us);
    let to_another = forged.clone().sign(a.tables.cluster(), &c.identity, b.us);
    let of_another_start = call::Call { to_start: [7; 8], ..forged.clone() };
    let of_another_start = of_another_start.sign(a.tables.cluster(), &c.identity, a.us);
    for call in [&forged, &by_another, &to_another, &of_another_start] {
        assert_eq!(taken(&mut a, call), 0);
    }
    assert_eq!((a.counters.bad_signature, a.counters.misaddressed), (3, 1));
    assert_eq!((taken(&mut a, &genuine), taken(&mut a, &genuine)), (1, 0));
    assert_eq!(a.counters.replayed, 1);
    let _ = drain(&mut b);
}

#[test]
fn node_that_left_is_silent() {
    let (now, mut a, mut b, _) = pair();
    a.leave(now);
    assert!(!drain(&mut a).is_empty());
    assert_eq!(a.poll_timeout(), None);
    b.set_record(now, record_key("x"), vec![]).expect("room");
    for transmit in drain(&mut b) {
        deliver(now, addr(2), &mut a, &transmit);
    }
    assert_eq!(a.set_record(now, record_key("y"), vec![]), Err(RecordRefused::Left));
    assert!(drain(&mut a).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_octets_change_nothing(octets in prop::collection::vec(any::<u8>(), 0..1400), stream: bool) {
        let now = start();
        let mut a = gossip_of(1, 1, key(), now);
        let before = state(&a);
        let mut octets = octets;
        match stream {
            false => a.handle_datagram(now, addr(2), &mut octets),
            true => prop_assert!(!a.handle_stream(now, addr(2), &mut octets)),
        }
        prop_assert_eq!(state(&a), before);
        prop_assert!(drain(&mut a).is_empty());
        prop_assert_eq!(a.counters.received, 0);
    }

    /// What a member says may be anything; it is read or counted, and never ends the agent.
    #[test]
    fn authentic_nonsense_does_no_harm(kind in 0u8..12, content in prop::collection::vec(any::<u8>(), 0..600), seed: u64) {
        let (now, mut a, mut b) = shared_pair();
        let envelope = Envelope { to: Some(a.node_id()), to_epoch: 1, from_epoch: 1 };
        let mut body = envelope.emit(&Message::Member(Vec::new()));
        body.truncate(24);
        body.push(kind);
        body.extend_from_slice(&content);
        let own = state_of_own(&a);
        b.enqueue(addr(1), &body);
        for transmit in drain(&mut b) {
            deliver(now, addr(2), &mut a, &transmit);
        }
        a.handle_timeout(now + Duration::from_millis(seed % 10_000));
        drain(&mut a);
        prop_assert_eq!(state_of_own(&a), own);
    }

    /// Valid messages with some octets changed before they are sealed.
    #[test]
    fn authentic_messages_gone_wrong_do_no_harm(which in any::<prop::sample::Index>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let (now, mut a, mut b) = shared_pair();
        let mut body = Envelope { to: Some(a.node_id()), to_epoch: 1, from_epoch: 1 }.emit(which.get(&samples(&b)));
        for (at, value) in changes {
            let at = 24 + at.index(body.len() - 24);
            body[at] = value;
        }
        let own = state_of_own(&a);
        b.enqueue(addr(1), &body);
        for transmit in drain(&mut b) {
            deliver(now, addr(2), &mut a, &transmit);
        }
        for step in 1..20 {
            a.handle_timeout(now + Duration::from_millis(500 * step));
            drain(&mut a);
        }
        prop_assert_eq!(state_of_own(&a), own);
    }

    #[test]
    fn messages_survive_their_octets(which in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>()) {
        let (_, _, b) = shared_pair();
        let message = which.get(&samples(&b)).clone();
        let octets = Envelope { to: None, to_epoch: 0, from_epoch: 1 }.emit(&message);
        let (_, content) = Envelope::parse(&octets).expect("whole");
        prop_assert_eq!(Message::parse(content), Some(message.clone()));
        let short = &content[..cut.index(content.len())];
        let free_form = matches!(message, Message::Member(_) | Message::Rpc(_));
        prop_assert!(Message::parse(short) != Some(message) && (free_form || Message::parse(short).is_none()));
    }
}

/// A pair that was made by few signatures; properties run it hundreds of times.
fn shared_pair() -> (Instant, Gossip, Gossip) {
    let (now, a, b, _) = pair();
    (now, a, b)
}

fn state_of_own(gossip: &Gossip) -> String {
    let records: Vec<_> = gossip.records(gossip.us).map(|(k, r)| format!("{k:?} {r:?}")).collect();
    format!("{:?} {records:?}", gossip.member(gossip.us))
}

/// One message of every kind.
fn samples(gossip: &Gossip) -> Vec<Message> {
    let own = gossip.tables.get(gossip.us).expect("own");
    vec![
        Message::Member(vec![1, 2, 3]),
        Message::Hello { buried: 7, reply: true, section: Box::new(own.section(0)) },
        Message::Suspicion(3),
        Message::Delta { more: true, sections: vec![own.section(0), own.hint(), own.section(1)] },
        Message::Digest { tables: 1, roster: 2 },
        Message::Buckets(Box::new(std::array::from_fn(|i| i as u64))),
        Message::Summaries {
            buckets: u128::MAX,
            entries: vec![message::Summary { origin: gossip.us, version: 1, mark: 2 }],
        },
        Message::Pull(vec![(gossip.us, 0), (NodeId([4; 16]), 9)]),
        Message::Roster { reply: true, entries: gossip.membership.roster() },
        Message::Rpc(Box::new(call::Call {
            to_start: [1; 8],
            from_start: gossip.start,
            number: 7,
            body: vec![5; 100],
            signature: [6; 64],
        })),
    ]
}
