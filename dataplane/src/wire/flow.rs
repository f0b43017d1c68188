//! A stable hash of the flow a frame belongs to.
//!
//! It picks the outer source port and the queue, so every frame of a flow must give the same value, on every
//! node and in every run: no random keys. Frames that carry ports are told apart by the 5-tuple; fragments,
//! which carry them only in the first piece, by addresses and protocol; everything that is not IP by its MACs.

use super::ethernet::Ethernet;
use super::ip::Ip;
use super::transport::Transport;

/// Hashes the flow of `frame`; a frame too short for Ethernet gives a constant.
#[must_use]
#[inline]
pub fn hash(frame: &[u8]) -> u32 {
    let Some(ethernet) = Ethernet::parse(frame) else { return 0 };
    match Ip::parse(ethernet.ethertype, ethernet.payload(frame)) {
        Some(ip) => of_ip(&ip),
        None => finish(mix_octets(0, &frame[..12])),
    }
}

fn of_ip(ip: &Ip<'_>) -> u32 {
    let carries_ports = Transport::from_protocol(ip.protocol()).is_some() && !ip.is_fragment();
    let ports = if carries_ports { ip.payload().first_chunk::<4>() } else { None };
    let ports = ports.map_or(0, |ports| u32::from_ne_bytes(*ports));
    finish(mix(mix_octets(0, ip.addresses()), u64::from(ports) << 8 | u64::from(ip.protocol())))
}

/// Mixes octets in, a multiple of four of them.
#[inline]
pub(crate) fn mix_octets(state: u64, octets: &[u8]) -> u64 {
    let (words, rest) = octets.as_chunks::<8>();
    let state = words.iter().fold(state, |state, word| mix(state, u64::from_ne_bytes(*word)));
    rest.first_chunk::<4>().map_or(state, |word| mix(state, u64::from(u32::from_ne_bytes(*word))))
}

/// One round of a folded 128-bit product: every input bit reaches every output bit.
#[inline]
pub(crate) fn mix(state: u64, word: u64) -> u64 {
    // Two odd constants with balanced bits (the golden ratio and the square root of three, in 64 bits).
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xbb67_ae85_84ca_a73b;
    let product = u128::from(state ^ word ^ A) * u128::from(word.rotate_left(32) ^ state.rotate_left(17) ^ B);
    (product as u64) ^ ((product >> 64) as u64)
}

fn finish(state: u64) -> u32 {
    let state = mix(state, 0);
    (state ^ (state >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_one_flow_hash_alike_whatever_else_differs() {
        let a = udp_frame(1000, 53, 0x4000);
        let mut b = a.clone();
        b[14 + 8] = 3; // TTL
        b[14 + 5] = 99; // IP id
        b.extend([1, 2, 3]);
        assert_eq!(hash(&a), hash(&b));
    }

    #[test]
    fn flows_spread_over_a_small_pool() {
        let mut slots = [0u32; 8];
        for port in 1024..9216 {
            slots[(hash(&udp_frame(port, 53, 0)) % 8) as usize] += 1;
        }
        assert!(slots.iter().all(|count| (900..1150).contains(count)), "{slots:?}");
    }

    #[test]
    fn both_ports_and_both_addresses_matter() {
        let base = udp_frame(1000, 53, 0);
        for at in [14 + 12 + 3, 14 + 16 + 3, 14 + 20 + 1, 14 + 20 + 3] {
            let mut other = base.clone();
            other[at] ^= 1;
            assert_ne!(hash(&base), hash(&other), "octet {at}");
        }
    }

    #[test]
    fn all_fragments_of_a_packet_hash_alike() {
        let first = udp_frame(1000, 53, 0x2000);
        let mut later = udp_frame(7, 8, 0x00b9);
        later[14 + 20..].fill(0xaa);
        assert_eq!(hash(&first), hash(&later));
    }

    #[test]
    fn frames_that_are_not_ip_hash_by_their_macs() {
        let mut frame = vec![0u8; 60];
        frame[12] = 0x88;
        let base = hash(&frame);
        frame[30] = 7;
        assert_eq!(hash(&frame), base);
        frame[11] = 7;
        assert_ne!(hash(&frame), base);
    }

    fn udp_frame(source: u16, destination: u16, fragment: u16) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        let [f0, f1] = fragment.to_be_bytes();
        frame.extend([0x45, 0, 0, 28, 0, 0, f0, f1, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(source.to_be_bytes());
        frame.extend(destination.to_be_bytes());
        frame.extend([0, 8, 0, 0]);
        frame
    }
}
