//! Reads captures by itself: what is proved of the wire hangs on no other program's understanding of it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

/// Octets of libpcap's file header, and of what stands before each frame.
const FILE_HEADER: usize = 24;
const FRAME_HEADER: usize = 16;
/// Octets of an Ethernet header.
const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A UDP datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) payload: Vec<u8>,
}

/// What one end of a TCP connection said, as far as it was captured without a gap.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) to: SocketAddrV4,
    pub(crate) octets: Vec<u8>,
}

/// Everything over IPv4 in a capture of Ethernet frames.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) datagrams: Vec<Datagram>,
    pub(crate) streams: Vec<Stream>,
    /// The file as it is.
    pub(crate) raw: Vec<u8>,
}

impl Seen {
    /// Reads a capture file of libpcap's format, written on a machine of this byte order.
    pub(crate) fn read(file: &Path) -> Self {
        let raw = std::fs::read(file).expect("a capture");
        let magic = u32::from_ne_bytes(raw[..4].try_into().expect("four octets"));
        assert!([0xa1b2_c3d4, 0xa1b2_3c4d].contains(&magic), "not libpcap's format: {magic:x}");
        let mut seen = Self::default();
        let mut flows = BTreeMap::<_, Vec<Flow>>::new();
        let mut at = FILE_HEADER;
        while let Some(header) = raw.get(at..at + FRAME_HEADER) {
            let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four octets"));
            assert_eq!(word(8), word(12), "a frame was captured in part");
            at += FRAME_HEADER;
            let Some(frame) = raw.get(at..at + word(8) as usize) else { break };
            at += frame.len();
            seen.take(frame, &mut flows);
        }
        for ((_, to), flows) in flows {
            seen.streams.extend(flows.into_iter().map(|flow| Stream { to, octets: flow.in_order() }));
        }
        seen.raw = raw;
        seen
    }

    fn take(&mut self, frame: &[u8], flows: &mut BTreeMap<(SocketAddrV4, SocketAddrV4), Vec<Flow>>) {
        let Some((protocol, [from, to], body)) = ipv4(frame) else { return };
        let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        let (from, to) = (SocketAddrV4::new(from, port(0)), SocketAddrV4::new(to, port(2)));
        match protocol {
            UDP => {
                let payload = body[8..usize::from(port(4))].to_vec();
                self.datagrams.push(Datagram { from, to, payload });
            }
            TCP => {
                let sequence = u32::from_be_bytes(body[4..8].try_into().expect("four octets"));
                let flows = flows.entry((from, to)).or_default();
                if body[13] & 0x02 != 0 {
                    flows.push(Flow { first: sequence.wrapping_add(1), parts: BTreeMap::new() });
                }
                let payload = &body[usize::from(body[12] >> 4) * 4..];
                if let Some(flow) = flows.last_mut().filter(|_| !payload.is_empty()) {
                    flow.parts.insert(sequence.wrapping_sub(flow.first), payload.to_vec());
                }
            }
            _ => {}
        }
    }

    /// Whether these octets stand anywhere in the capture.
    pub(crate) fn has(&self, octets: &[u8]) -> bool {
        let first = octets[0];
        self.raw.windows(octets.len()).any(|window| window[0] == first && window == octets)
    }
}

/// One end of a connection: what it said, by distance from its beginning.
struct Flow {
    first: u32,
    parts: BTreeMap<u32, Vec<u8>>,
}

impl Flow {
    fn in_order(self) -> Vec<u8> {
        let mut octets = Vec::new();
        for (at, part) in self.parts {
            match octets.len().checked_sub(at as usize) {
                // sent again, perhaps with more behind it
                Some(known) => octets.extend(part.into_iter().skip(known)),
                None => break,
            }
        }
        octets
    }
}

/// Protocol, both addresses and body of an IPv4 packet that is not a fragment.
fn ipv4(frame: &[u8]) -> Option<(u8, [Ipv4Addr; 2], &[u8])> {
    let (header, packet) = frame.split_at_checked(ETHERNET)?;
    if header[12..] != IPV4.to_be_bytes() {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    assert_eq!(u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff, 0, "a fragment");
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four octets"));
    let body = &packet[usize::from(packet[0] & 0xf) * 4..length];
    Some((packet[9], [address(12), address(16)], body))
}
