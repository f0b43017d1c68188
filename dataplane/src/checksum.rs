//! The Internet checksum (RFC 1071): one's complement sums that can be kept, added and folded late.
//!
//! A [`Sum`] holds native-endian words: the one's complement sum does not care about byte order as long as
//! the result is stored the way it was loaded (RFC 1071 §2 (B)), so nothing is swapped per word. Parts of a
//! packet are summed once and combined, which is what makes splitting a super-frame cheap.

use std::ops::Add;

/// Octets summed per round of the wide loop: sixteen 32-bit lanes, which LLVM turns into vector adds.
const BLOCK: usize = 64;

/// An unfolded one's complement sum of 16-bit words.
///
/// Only parts that begin at an even offset of the packet may be added; see [`Sum::at_odd_offset`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Sums `octets` as big-endian 16-bit words, a last odd octet padded with zero (RFC 1071 §4.1).
    #[must_use]
    #[inline]
    pub fn of(octets: &[u8]) -> Self {
        let (blocks, rest) = octets.as_chunks::<BLOCK>();
        Self(sum_blocks(blocks) + sum_short(rest))
    }

    /// Sums a header of a length known when compiling, which unrolls to a few adds.
    #[must_use]
    #[inline]
    pub fn of_header<const N: usize>(octets: &[u8; N]) -> Self {
        Self(sum_short(octets))
    }

    /// Adds a 16-bit value given in host order.
    #[must_use]
    #[inline]
    pub fn word(self, value: u16) -> Self {
        self + Self(u64::from(value.to_be()))
    }

    /// Adds a 32-bit value given in host order: the same as its two halves.
    #[must_use]
    #[inline]
    pub fn double_word(self, value: u32) -> Self {
        self + Self(u64::from(value.to_be()))
    }

    /// Takes a 16-bit value given in host order away (RFC 1624: adding the complement).
    #[must_use]
    #[inline]
    pub fn without_word(self, value: u16) -> Self {
        self.word(!value)
    }

    /// The same octets as a part of a packet that begins at an odd offset (RFC 1071 §2 (B), swapped).
    #[must_use]
    #[inline]
    pub fn at_odd_offset(self) -> Self {
        Self(u64::from(self.fold().swap_bytes().to_be()))
    }

    /// The sum in 16 bits, host order, not inverted: what a `NEEDS_CSUM` field is seeded with.
    ///
    /// Zero only where every word summed was zero.
    #[must_use]
    #[inline]
    pub fn fold(self) -> u16 {
        let wide = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let wide = (wide & 0xffff) + ((wide >> 16) & 0xffff) + (wide >> 32);
        let wide = (wide & 0xffff) + (wide >> 16);
        let wide = (wide & 0xffff) + (wide >> 16);
        u16::from_be(wide as u16)
    }

    /// The checksum to store, host order: the complement of the folded sum.
    #[must_use]
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum to store in a UDP header, where zero means "none" and is sent as all ones (RFC 768).
    #[must_use]
    #[inline]
    pub fn checksum_not_zero(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            other => other,
        }
    }

    /// Whether octets summed together with their checksum are intact.
    #[must_use]
    #[inline]
    pub fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }
}

impl Add for Sum {
    type Output = Self;

    /// Adds with end-around carry, so that no number of parts overflows.
    #[inline]
    fn add(self, other: Self) -> Self {
        let (sum, carry) = self.0.overflowing_add(other.0);
        Self(sum + u64::from(carry))
    }
}

/// The pseudo header of TCP, UDP and ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1).
///
/// `addresses` are source and destination as they stand in the IP header (8 or 32 octets), `length` is that
/// of the upper-layer header and payload in octets.
#[must_use]
#[inline]
pub fn pseudo_header(addresses: &[u8], protocol: u8, length: usize) -> Sum {
    let sum = match (addresses.as_array::<8>(), addresses.as_array::<32>()) {
        (Some(v4), _) => Sum::of_header(v4),
        (_, Some(v6)) => Sum::of_header(v6),
        _ => Sum::of(addresses),
    };
    sum.word(u16::from(protocol)).double_word(length as u32)
}

#[inline]
fn sum_blocks(blocks: &[[u8; BLOCK]]) -> u64 {
    let mut lanes = [0u64; BLOCK / 4];
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    lanes.iter().sum()
}

/// Sums a few octets: headers, and what the wide loop leaves over.
#[inline]
fn sum_short(octets: &[u8]) -> u64 {
    let (words, rest) = octets.as_chunks::<4>();
    let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let (pairs, odd) = rest.as_chunks::<2>();
    for pair in pairs {
        sum += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [last] = odd {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_alignment_agrees_with_rfc_1071() {
        let buffer: Vec<u8> = (0..1024u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for offset in 0..64 {
            for length in 0..300 {
                let octets = &buffer[offset..offset + length];
                assert_eq!(Sum::of(octets).fold(), naive(octets), "offset {offset} length {length}");
            }
        }
    }

    #[test]
    fn headers_and_pseudo_headers_agree_with_rfc_1071() {
        let octets: [u8; 40] = std::array::from_fn(|i| (i * 89) as u8);
        assert_eq!(Sum::of_header(&octets).fold(), naive(&octets));
        for length in [4, 8, 32] {
            let mut whole = octets[..length].to_vec();
            whole.extend([0, 1, 0x23, 0x45, 0, 0, 0, 17]);
            assert_eq!(pseudo_header(&octets[..length], 17, 0x1_2345).fold(), naive(&whole), "{length}");
        }
    }

    #[test]
    fn carries_are_not_lost() {
        for length in [2, 3, 4, 7, 63, 64, 65, 128, 1500, 65_535, 65_536] {
            let ones = vec![0xff; length];
            assert_eq!(Sum::of(&ones).fold(), naive(&ones), "{length} octets of 0xff");
            let mut edge = vec![0u8; length];
            edge[0] = 0xff;
            edge[1] = 0xff;
            edge[length - 1] = edge[length - 1].max(1);
            assert_eq!(Sum::of(&edge).fold(), naive(&edge), "edge of {length}");
        }
    }

    #[test]
    fn parts_add_up_to_the_whole_at_even_and_odd_cuts() {
        let octets: Vec<u8> = (0..200u8).map(|i| i.wrapping_mul(37)).collect();
        for cut in 0..octets.len() {
            let (a, b) = octets.split_at(cut);
            let second = if cut % 2 == 0 { Sum::of(b) } else { Sum::of(b).at_odd_offset() };
            assert_eq!((Sum::of(a) + second).fold(), naive(&octets), "cut at {cut}");
        }
    }

    #[test]
    fn words_are_added_and_taken_away_in_host_order() {
        let sum = Sum::of(&[0x12, 0x34, 0xff, 0xfe]);
        assert_eq!(sum.fold(), Sum::default().word(0x1234).word(0xfffe).fold());
        assert_eq!(sum.fold(), Sum::default().double_word(0x1234_fffe).fold());
        assert_eq!(sum.without_word(0xfffe).fold(), 0x1234);
    }

    #[test]
    fn end_around_carry_keeps_a_full_accumulator_right() {
        let full = Sum(u64::MAX);
        assert_eq!((full + full).fold(), 0xffff);
        assert_eq!((full + Sum::default().word(1)).fold(), 1);
    }

    #[test]
    fn the_example_of_rfc_1071_holds() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of(&octets).fold(), 0xddf2);
        assert_eq!(Sum::of(&octets).checksum(), 0x220d);
    }

    #[test]
    fn udp_sends_a_zero_checksum_as_all_ones() {
        let sum = Sum::of(&[0xff, 0xff]);
        assert_eq!(sum.checksum(), 0);
        assert_eq!(sum.checksum_not_zero(), 0xffff);
    }

    /// RFC 1071 §4.1, word by word.
    fn naive(octets: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in octets.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}
