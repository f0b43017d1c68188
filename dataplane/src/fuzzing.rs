//! What the fuzzer feeds, and the tests replay: octets of a stranger into the code that must bear them.

use std::net::{IpAddr, SocketAddr};

use crate::change::Change;
use crate::engine::{Engine, Verdict};
use crate::fdb::Seconds;
use crate::seal::{
    HEADER_LEN, Header, InnerChecksum, Key, OVERHEAD, PeerSpec, ReceiveSession, Sealer, SendSession, TAG_LEN,
};
use crate::segment::{Broadcast, LocalEndpoint, RemoteEndpoint, SegmentSpec, Vtep};
use crate::wire::{MacAddr, Vni};

const NETWORK: [u8; 16] = *b"network of fuzz.";
const SESSION: u32 = 7;
const KEY: [u8; 32] = [0x11; 32];

/// A node with one sealed segment (VNI 42), one endpoint, and one peer with another.
fn node() -> Engine {
    let vni = Vni::try_from(42).expect("24 bits");
    let peer = SocketAddr::from(([192, 0, 2, 2], 4789));
    let vtep = Vtep { address: peer, vni };
    let segment = SegmentSpec {
        vni,
        mtu: 1426,
        broadcast: Broadcast::Flood,
        local: vec![LocalEndpoint {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            ips: vec![IpAddr::from([10, 0, 0, 1])],
        }],
        remote: vec![RemoteEndpoint {
            mac: MacAddr([2, 0, 0, 0, 0, 2]),
            ips: vec![IpAddr::from([10, 0, 0, 2])],
            vtep,
        }],
        static_vteps: Vec::new(),
        members: vec![vtep],
        sealing: Some(NETWORK),
    };
    let receive = vec![ReceiveSession { index: SESSION, key: Key::new(KEY) }];
    Engine::new(IpAddr::from([192, 0, 2, 1]), 1, 1)
        .after(Change::SetSegment(segment))
        .after(Change::SetPeer(PeerSpec { vtep: peer, send: None, receive }))
}

/// Takes a datagram in as the workers do; how many frames were opened of it.
fn take_in(engine: &Engine, datagram: &mut [u8]) -> u32 {
    let Some(header) = datagram.first_chunk().and_then(Header::parse) else {
        let from = IpAddr::from([192, 0, 2, 2]);
        let verdict = engine.handle_datagram(from, datagram, Seconds(0), &mut |_| ());
        assert!(matches!(verdict, Verdict::Drop(_)), "a sealed segment takes nothing in clear");
        return 0;
    };
    let Ok(source) = engine.sealed_source(&header) else { return 0 };
    let stride = datagram.len();
    let opened = source.opener.open_train(source.network, datagram, stride);
    if opened.accepted == 0 {
        return 0;
    }
    let frame = &datagram[HEADER_LEN..datagram.len() - TAG_LEN];
    match source.source.handle_frame(frame, Seconds(0), &mut |_| ()) {
        Verdict::Deliver(_) | Verdict::Drop(_) => opened.accepted.count_ones(),
        other => panic!("a frame from the network went back there: {other:?}"),
    }
}

/// Octets as a datagram, and as a frame that a member sealed: the first must not open, the second opens once,
/// and not at all with a bit changed.
pub fn sealed_datagram(input: &[u8]) {
    let engine = node();
    assert_eq!(take_in(&engine, &mut input.to_vec()), 0, "opened without the key");
    let (Some((flip, frame)), true) = (input.split_first(), input.len() <= 2000) else { return };
    let mut datagram = vec![0; OVERHEAD + frame.len()];
    datagram[HEADER_LEN..HEADER_LEN + frame.len()].copy_from_slice(frame);
    let send = SendSession { index: SESSION, key: Key::new(KEY) };
    let sealer = Sealer::new(send, 1).expect("there is memory");
    let vni = Vni::try_from(42).expect("24 bits");
    let mut reserved = sealer.reserve(0, 1).expect("a fresh session");
    reserved.seal(vni, InnerChecksum::Whole, &NETWORK, &mut datagram, &[]).expect("it has room");
    let mut altered = datagram.clone();
    let at = usize::from(*flip) * 37 % (altered.len() * 8);
    altered[at / 8] ^= 1 << (at % 8);
    assert_eq!(take_in(&engine, &mut altered), 0, "bit {at} may be changed");
    let mut again = datagram.clone();
    assert_eq!(take_in(&engine, &mut datagram), 1, "what a member sealed opens");
    assert_eq!(take_in(&engine, &mut again), 0, "once");
    let _ = engine.handle_frame(vni, frame, frame.len(), Seconds(0));
}
