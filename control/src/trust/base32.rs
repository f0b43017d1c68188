//! Base32 of RFC 4648 §6 in lower case, without padding.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The text of `octets`.
pub(super) fn encode(octets: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(octets.len().div_ceil(5) * 8));
    for group in octets.chunks(5) {
        let word =
            group.iter().fold(0u64, |word, octet| word << 8 | u64::from(*octet)) << (8 * (5 - group.len()));
        for place in 0..(group.len() * 8).div_ceil(5) {
            text.push(char::from(ALPHABET[(word >> (35 - 5 * place)) as usize & 31]));
        }
    }
    text
}

/// The octets of `text`, or where its first fault is, counted from 0.
pub(super) fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, usize> {
    let mut octets = Zeroizing::new(Vec::with_capacity(text.len() * 5 / 8));
    let (mut word, mut bits) = (Zeroizing::new(0u32), 0);
    for (place, digit) in text.bytes().enumerate() {
        let value = ALPHABET.iter().position(|letter| *letter == digit.to_ascii_lowercase()).ok_or(place)?;
        *word = *word << 5 | value as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            octets.push((*word >> bits) as u8);
            *word &= (1 << bits) - 1;
        }
    }
    if *word != 0 || bits >= 5 {
        return Err(text.len().saturating_sub(1));
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_the_standard() {
        for (plain, text) in [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
        ] {
            assert_eq!(*encode(plain.as_bytes()), text);
            assert_eq!(*decode(text).expect("reads back"), plain.as_bytes());
            assert_eq!(*decode(&text.to_ascii_uppercase()).expect("reads back"), plain.as_bytes());
        }
        assert_eq!(decode("m1"), Err(1));
        assert_eq!(decode("mz"), Err(1), "stray bits");
        assert_eq!(decode("m"), Err(0), "half an octet");
    }
}
