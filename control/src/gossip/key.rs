//! The secret that makes a cluster: who holds it is a member.

use std::fmt;
use std::str::FromStr;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::ring::Ring;

/// The cluster's key, 256 bits.
///
/// Its text form is one line of standard base64 (RFC 4648 §4): 44 characters. It leaves memory with this value
/// and is never printed by `Debug`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ClusterKey([u8; 32]);

/// The text is not a cluster key. It is never repeated in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClusterKey {
    /// Not 44 characters.
    #[error("cluster key must be one line of 44 characters (32 octets in base64), it has {0}")]
    Length(usize),
    /// A character outside of the alphabet, or padding at the wrong place.
    #[error("cluster key is not base64 at character {0}")]
    Character(usize),
    /// Unused bits of the last character are set, so that it is no text this program prints.
    #[error("cluster key is not base64: its last character has stray bits")]
    StrayBits,
    /// All octets equal: a placeholder, not a key.
    #[error("cluster key is a placeholder (all octets equal); make one with 'weft keygen'")]
    Placeholder,
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const TEXT_LEN: usize = 44;

impl ClusterKey {
    /// The key of these octets.
    ///
    /// # Errors
    /// [`InvalidClusterKey::Placeholder`] if all octets are equal.
    pub fn from_bytes(octets: [u8; 32]) -> Result<Self, InvalidClusterKey> {
        if octets.iter().all(|octet| *octet == octets[0]) {
            return Err(InvalidClusterKey::Placeholder);
        }
        Ok(Self(octets))
    }

    /// The ring of a cluster that has no other key than this.
    #[must_use]
    pub fn ring(&self) -> Ring {
        Ring::found(self.0)
    }

    /// A public name of the cluster that follows from its key.
    #[must_use]
    pub fn cluster_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        let root = Hkdf::<Sha256>::new(Some(b"weft cluster 1"), &self.0);
        root.expand(b"weft cluster id 1", &mut id).expect("16 octets is a length HKDF can give");
        id
    }

    /// The text form, without a newline.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_LEN));
        for group in self.0.chunks(3) {
            let word = group.iter().fold(0u32, |word, octet| word << 8 | u32::from(*octet))
                << (8 * (3 - group.len()));
            for place in 0..=group.len() {
                text.push(char::from(ALPHABET[(word >> (18 - 6 * place)) as usize & 63]));
            }
        }
        text.push('=');
        text
    }
}

impl FromStr for ClusterKey {
    type Err = InvalidClusterKey;

    /// Reads the text form; one newline at the end (`\n` or `\r\n`) is allowed, nothing else.
    fn from_str(text: &str) -> Result<Self, InvalidClusterKey> {
        let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        if line.len() != TEXT_LEN {
            return Err(InvalidClusterKey::Length(line.chars().count()));
        }
        if line.as_bytes()[TEXT_LEN - 1] != b'=' {
            return Err(InvalidClusterKey::Character(TEXT_LEN));
        }
        Self::from_bytes(*decode(&line.as_bytes()[..TEXT_LEN - 1])?)
    }
}

fn decode(digits: &[u8]) -> Result<Zeroizing<[u8; 32]>, InvalidClusterKey> {
    let mut octets = Zeroizing::new([0; 32]);
    let (mut word, mut bits, mut at) = (Zeroizing::new(0u32), 0, 0);
    for (index, digit) in digits.iter().enumerate() {
        let value = ALPHABET
            .iter()
            .position(|letter| letter == digit)
            .ok_or(InvalidClusterKey::Character(index + 1))?;
        *word = *word << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            octets[at] = (*word >> bits) as u8;
            at += 1;
            *word &= (1 << bits) - 1;
        }
    }
    if *word != 0 {
        return Err(InvalidClusterKey::StrayBits);
    }
    Ok(octets)
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ClusterKey {
        ClusterKey::from_bytes(std::array::from_fn(|i| i as u8 * 7)).expect("not a placeholder")
    }

    #[test]
    fn text_form_is_standard_base64_and_reads_back() {
        let counting = ClusterKey::from_bytes(std::array::from_fn(|i| i as u8)).expect("not a placeholder");
        assert_eq!(&*counting.to_text(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        let text = key().to_text();
        assert_eq!(text.parse::<ClusterKey>(), Ok(key()));
        assert_eq!(format!("{}\n", *text).parse::<ClusterKey>(), Ok(key()));
        assert_eq!(format!("{}\r\n", *text).parse::<ClusterKey>(), Ok(key()));
    }

    #[test]
    fn anything_but_one_exact_line_is_refused_with_its_reason() {
        let text = key().to_text().to_string();
        let parse = |text: &str| text.parse::<ClusterKey>().expect_err(text);
        assert_eq!(parse(""), InvalidClusterKey::Length(0));
        assert_eq!(parse(&text[1..]), InvalidClusterKey::Length(43));
        assert_eq!(parse(&format!(" {text}")), InvalidClusterKey::Length(45));
        assert_eq!(parse(&format!("{text}\n\n")), InvalidClusterKey::Length(45));
        assert_eq!(parse(&text.replace('=', "A")), InvalidClusterKey::Character(44));
        assert_eq!(parse(&format!("-{}", &text[1..])), InvalidClusterKey::Character(1));
        assert_eq!(parse(&format!("{}\u{e9}", &text[..42])), InvalidClusterKey::Character(44));
        assert_eq!(parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9="), InvalidClusterKey::StrayBits);
        assert_eq!(parse(&format!("{}=", "A".repeat(43))), InvalidClusterKey::Placeholder);
    }

    #[test]
    fn debug_output_holds_nothing_of_the_key() {
        assert_eq!(format!("{:?}", key()), "ClusterKey(redacted)");
    }
}
