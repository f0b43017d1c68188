//! Session datagrams, octet by octet; integers are big-endian, sizes are fixed.
//!
//! ```text
//! all           0 kind | 1 version (1) | 2 zero, zero | 4 index (u32)
//! initiation    0x10, index = initiator's | 8 ring epoch (u32) | 12 e (32) | 44 sealed static (48)
//!               | 92 sealed hello (34) | 126 mac1 (16) | 142 mac2 (16)
//! response      0x11, index = initiator's | 8 e (32) | 40 sealed answer (38) | 78 mac1 (16)
//! cookie reply  0x12, index = initiator's | 8 nonce (16) | 24 sealed cookie (32)
//! confirmation  0x13, index = responder's | 8 mac (16)
//! ```
//! No answer is longer than what it answers. Names of nodes never appear in clear.

/// Octets before the first Noise message.
pub(crate) const INITIATION_HEADER: usize = 12;
/// Octets before everything else.
pub(crate) const HEADER: usize = 8;
/// Octets of a MAC, a cookie, a cookie's nonce and an AEAD tag.
pub(crate) const TAG: usize = 16;
/// Octets of the four datagrams.
pub(crate) const INITIATION: usize = INITIATION_HEADER + 32 + 32 + TAG + Hello::LEN + TAG + 2 * TAG;
pub(crate) const RESPONSE: usize = HEADER + 32 + Answer::LEN + TAG + TAG;
pub(crate) const COOKIE: usize = HEADER + TAG + TAG + TAG;
pub(crate) const CONFIRMATION: usize = HEADER + TAG;

const VERSION: u8 = 1;
const KIND_INITIATION: u8 = 0x10;
const KIND_RESPONSE: u8 = 0x11;
const KIND_COOKIE: u8 = 0x12;
const KIND_CONFIRMATION: u8 = 0x13;

/// Whether a datagram with this first octet is for [`crate::session`].
#[must_use]
pub fn is_session(first: u8) -> bool {
    first & 0xf0 == 0x10
}

/// A datagram of the right kind, version and size; nothing in it is authentic yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datagram<'m> {
    Initiation { index: u32, epoch: u32, header: &'m [u8], noise: &'m [u8] },
    Response { index: u32, noise: &'m [u8], mac1: &'m [u8] },
    Cookie { index: u32, nonce: [u8; TAG], sealed: &'m [u8] },
    Confirmation { index: u32, mac: &'m [u8] },
}

/// Reads a datagram's frame; `None` if it is none of ours.
pub(crate) fn parse(datagram: &[u8]) -> Option<Datagram<'_>> {
    let [kind, VERSION, 0, 0, ..] = *datagram else { return None };
    let index = number(datagram, 4)?;
    match (kind, datagram.len()) {
        (KIND_INITIATION, INITIATION) => Some(Datagram::Initiation {
            index,
            epoch: number(datagram, 8)?,
            header: &datagram[..INITIATION_HEADER],
            noise: &datagram[INITIATION_HEADER..INITIATION - 2 * TAG],
        }),
        (KIND_RESPONSE, RESPONSE) => Some(Datagram::Response {
            index,
            noise: &datagram[HEADER..RESPONSE - TAG],
            mac1: &datagram[RESPONSE - TAG..],
        }),
        (KIND_COOKIE, COOKIE) => Some(Datagram::Cookie {
            index,
            nonce: datagram[HEADER..HEADER + TAG].try_into().ok()?,
            sealed: &datagram[HEADER + TAG..],
        }),
        (KIND_CONFIRMATION, CONFIRMATION) => Some(Datagram::Confirmation { index, mac: &datagram[HEADER..] }),
        _ => None,
    }
}

/// Clear header of an initiation; both ends bind the handshake to it.
pub(crate) fn initiation_header(index: u32, epoch: u32) -> [u8; INITIATION_HEADER] {
    let mut header = [0; INITIATION_HEADER];
    header[..HEADER].copy_from_slice(&frame(KIND_INITIATION, index));
    header[HEADER..].copy_from_slice(&epoch.to_be_bytes());
    header
}

/// First octets of a response to `index`.
pub(crate) fn response_header(index: u32) -> [u8; HEADER] {
    frame(KIND_RESPONSE, index)
}

/// A whole cookie reply.
pub(crate) fn cookie_reply(index: u32, nonce: &[u8; TAG], sealed: &[u8; 2 * TAG]) -> Vec<u8> {
    [&frame(KIND_COOKIE, index)[..], nonce, sealed].concat()
}

/// First octets of a confirmation of the session that the responder calls `index`.
pub(crate) fn confirmation_header(index: u32) -> [u8; HEADER] {
    frame(KIND_CONFIRMATION, index)
}

fn frame(kind: u8, index: u32) -> [u8; HEADER] {
    let mut header = [kind, VERSION, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_be_bytes());
    header
}

fn number(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}

/// What an initiator says under seal: `boot epoch (4) | counter (8) | data port (2) | sending on (4)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) boot_epoch: u32,
    /// Grows with every initiation of one boot.
    pub(crate) counter: u64,
    pub(crate) data_port: u16,
    /// Index, of the reader's choice, of the session the writer sends on; 0 for none.
    pub(crate) sending_on: u32,
}

impl Hello {
    pub(crate) const LEN: usize = 18;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut octets = [0; Self::LEN];
        octets[..4].copy_from_slice(&self.boot_epoch.to_be_bytes());
        octets[4..12].copy_from_slice(&self.counter.to_be_bytes());
        octets[12..14].copy_from_slice(&self.data_port.to_be_bytes());
        octets[14..].copy_from_slice(&self.sending_on.to_be_bytes());
        octets
    }

    pub(crate) fn decode(octets: &[u8; Self::LEN]) -> Option<Self> {
        Some(Self {
            boot_epoch: number(octets, 0)?,
            counter: u64::from_be_bytes(octets[4..12].try_into().ok()?),
            data_port: u16::from_be_bytes(octets[12..14].try_into().ok()?),
            sending_on: number(octets, 14)?,
        })
    }
}

/// What a responder says under seal: `boot epoch (4) | counter (8) | data port (2) | its index (4) | sending on (4)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) boot_epoch: u32,
    /// Of the responder's own newest initiation: older ones of it that still come were held back.
    pub(crate) counter: u64,
    pub(crate) data_port: u16,
    /// The responder's receive index, never 0.
    pub(crate) index: u32,
    /// As in [`Hello`].
    pub(crate) sending_on: u32,
}

impl Answer {
    pub(crate) const LEN: usize = 22;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut octets = [0; Self::LEN];
        octets[..4].copy_from_slice(&self.boot_epoch.to_be_bytes());
        octets[4..12].copy_from_slice(&self.counter.to_be_bytes());
        octets[12..14].copy_from_slice(&self.data_port.to_be_bytes());
        octets[14..18].copy_from_slice(&self.index.to_be_bytes());
        octets[18..].copy_from_slice(&self.sending_on.to_be_bytes());
        octets
    }

    pub(crate) fn decode(octets: &[u8; Self::LEN]) -> Option<Self> {
        let answer = Self {
            boot_epoch: number(octets, 0)?,
            counter: u64::from_be_bytes(octets[4..12].try_into().ok()?),
            data_port: u16::from_be_bytes(octets[12..14].try_into().ok()?),
            index: number(octets, 14)?,
            sending_on: number(octets, 18)?,
        };
        (answer.index != 0).then_some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_what_the_layout_says_and_answers_are_never_longer() {
        assert_eq!((INITIATION, RESPONSE, COOKIE, CONFIRMATION), (158, 94, 56, 24));
        const { assert!(RESPONSE <= INITIATION && COOKIE <= INITIATION && CONFIRMATION <= RESPONSE) };
    }

    #[test]
    fn only_the_exact_size_version_and_kind_is_read() {
        let mut datagram = vec![0; INITIATION];
        datagram[..INITIATION_HEADER].copy_from_slice(&initiation_header(7, 9));
        assert!(matches!(parse(&datagram), Some(Datagram::Initiation { index: 7, epoch: 9, .. })));
        for length in 0..INITIATION {
            assert_eq!(parse(&datagram[..length]), None, "{length}");
        }
        for (at, wrong) in [(0, 0x11), (0, 0x14), (0, 0x1f), (0, 1), (1, 2), (2, 1), (3, 1)] {
            let mut other = datagram.clone();
            other[at] = wrong;
            assert_eq!(parse(&other), None, "octet {at} = {wrong}");
        }
        datagram.push(0);
        assert_eq!(parse(&datagram), None);
    }

    #[test]
    fn payloads_read_back() {
        let hello = Hello { boot_epoch: 3, counter: u64::MAX - 1, data_port: 4789, sending_on: 5 };
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        let answer = Answer { boot_epoch: 3, counter: 8, data_port: 4789, index: 1, sending_on: 0 };
        assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        assert_eq!(Answer::decode(&Answer { index: 0, ..answer }.encode()), None, "0 means none");
    }
}
