//! The two identifiers of layer 2: MAC addresses and VXLAN network identifiers.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address, 6 octets in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Makes a locally administered unicast address out of 6 random octets (IEEE 802 §8.2.2).
    #[must_use]
    pub fn local_from_random(mut octets: [u8; 6]) -> Self {
        octets[0] = (octets[0] & 0xfc) | 0x02;
        Self(octets)
    }

    /// Whether the group bit is set: broadcast or multicast.
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether an interface may own it: not a group address and not all zero.
    #[must_use]
    pub fn is_assignable(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six two-digit hexadecimal octets joined by colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address of the form 02:42:ac:11:00:02")]
pub struct ParseMacError;

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2 && !p.starts_with('+')).ok_or(ParseMacError)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| ParseMacError)?;
        }
        parts.next().is_none().then_some(Self(octets)).ok_or(ParseMacError)
    }
}

/// A VXLAN network identifier: 24 bits (RFC 7348 §5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

/// The number does not fit in 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("VNI {0} is not in 0..=16777215")]
pub struct VniOutOfRange(pub u32);

impl Vni {
    /// The largest VNI, 2^24 − 1.
    pub const MAX: Self = Self(0x00ff_ffff);

    /// The VNI as three octets in network order.
    #[must_use]
    pub fn octets(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// Reads three octets in network order.
    #[must_use]
    pub fn from_octets([a, b, c]: [u8; 3]) -> Self {
        Self(u32::from_be_bytes([0, a, b, c]))
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniOutOfRange;

    fn try_from(value: u32) -> Result<Self, VniOutOfRange> {
        if value <= Self::MAX.0 { Ok(Self(value)) } else { Err(VniOutOfRange(value)) }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vni({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_round_trips_and_bad_text_is_refused() {
        let mac: MacAddr = "02:42:ac:11:00:02".parse().expect("well formed");
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        for bad in [
            "",
            "02:42",
            "02:42:ac:11:00:02:03",
            "2:42:ac:11:00:02",
            "zz:42:ac:11:00:02",
            "+2:42:ac:11:00:02",
        ] {
            assert_eq!(bad.parse::<MacAddr>(), Err(ParseMacError), "{bad}");
        }
    }

    #[test]
    fn vni_refuses_25_bits_and_its_octets_round_trip() {
        assert_eq!(Vni::try_from(1 << 24), Err(VniOutOfRange(1 << 24)));
        let vni = Vni::try_from(0x00ab_cdef).expect("24 bits");
        assert_eq!(vni.octets(), [0xab, 0xcd, 0xef]);
        assert_eq!(Vni::from_octets(vni.octets()), vni);
    }
}
