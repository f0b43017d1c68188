//! Join tokens: what `weft init` and `weft token create` print and `weft join` takes.
//!
//! ```text
//! "weft1_" ‖ base32( version 1 | root hash 16 | secret 16 | seed count 1 | seeds | check 3 )
//! seed:  4 | IPv4 4 | port 2    or    6 | IPv6 16 | port 2        (network order)
//! check: the first 3 octets of SHA-256 of everything before
//! ```
//! The token's key pair is Ed25519 of HKDF-SHA256(secret, salt = root hash, "weft token key 1"). The secret never
//! crosses the wire: the holder proves it by signing with that key.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ed25519_dalek::{Signer as _, SigningKey};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{RootHash, base32};

/// Most addresses in a token.
pub const MAX_SEEDS: usize = 4;
const PREFIX: &str = "weft1_";
const VERSION: u8 = 1;
const CHECK: usize = 3;
/// Octets of a token without seeds.
const BARE: usize = 1 + 16 + 16 + 1 + CHECK;
/// Longest text looked at.
const MAX_TEXT: usize = 1024;

/// Public name of a token: the first 8 octets of SHA-256 of its public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 8]);

impl TokenId {
    /// The token whose public key this is.
    #[must_use]
    pub fn of(key: &[u8; 32]) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&Sha256::digest(key)[..8]);
        Self(id)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a token. It is never repeated in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It begins otherwise.
    #[error("this is not a join token: tokens begin with 'weft1_'")]
    Prefix,
    /// It begins as that of another version.
    #[error("this join token was made by another version of weft, which this one does not understand")]
    Version,
    /// A character that no token has.
    #[error("the join token is garbled at character {0}: copy it whole, without spaces or line breaks")]
    Character(usize),
    /// Too short for what it says it holds.
    #[error("the join token is cut short: copy it whole")]
    Truncated,
    /// Longer than what it says it holds.
    #[error("the join token has too many characters: copy it alone")]
    TooLong,
    /// Its checksum does not match, or it holds what no token does.
    #[error("the join token is garbled: its checksum does not match; copy it again")]
    Garbled,
}

/// A join token. Its secret leaves memory with this value and is never printed but by [`Token::to_text`].
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    root: RootHash,
    secret: Zeroizing<[u8; 16]>,
    seeds: Vec<SocketAddr>,
}

impl Token {
    /// A token of this secret, which comes from the operating system's generator; at most [`MAX_SEEDS`] of `seeds`
    /// are taken.
    #[must_use]
    pub fn new(root: RootHash, secret: [u8; 16], seeds: &[SocketAddr]) -> Self {
        let seeds = seeds.iter().take(MAX_SEEDS).copied().collect();
        Self { root, secret: Zeroizing::new(secret), seeds }
    }

    /// The same token with other members to ask.
    #[must_use]
    pub fn with_seeds(&self, seeds: &[SocketAddr]) -> Self {
        Self::new(self.root, *self.secret, seeds)
    }

    /// The root it pins.
    #[must_use]
    pub fn root(&self) -> RootHash {
        self.root
    }

    /// Members that can be asked.
    #[must_use]
    pub fn seeds(&self) -> &[SocketAddr] {
        &self.seeds
    }

    /// The key pair that proves it.
    #[must_use]
    pub fn key(&self) -> TokenKey {
        let mut secret = Zeroizing::new([0; 32]);
        // 32 octets are far below the limit of HKDF-SHA256.
        let _ =
            Hkdf::<Sha256>::new(Some(&self.root), &*self.secret).expand(b"weft token key 1", &mut *secret);
        TokenKey(SigningKey::from_bytes(&secret))
    }

    /// The text form, which holds the secret.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut octets = Zeroizing::new(vec![VERSION]);
        octets.extend_from_slice(&self.root);
        octets.extend_from_slice(&*self.secret);
        octets.push(self.seeds.len() as u8);
        for seed in &self.seeds {
            match seed.ip() {
                IpAddr::V4(ip) => {
                    octets.push(4);
                    octets.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    octets.push(6);
                    octets.extend_from_slice(&ip.octets());
                }
            }
            octets.extend_from_slice(&seed.port().to_be_bytes());
        }
        let check = check(&octets);
        octets.extend_from_slice(&check);
        Zeroizing::new(format!("{PREFIX}{}", *base32::encode(&octets)))
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    /// Reads the text form; white space around it is allowed.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        let Some(digits) = text.strip_prefix(PREFIX) else { return Err(foreign(text)) };
        if digits.len() > MAX_TEXT {
            return Err(InvalidToken::TooLong);
        }
        let octets = match base32::decode(digits) {
            Ok(octets) => octets,
            // The last character may stand for less than it says where others are missing.
            Err(place) if place + 1 == digits.len() && digits.is_ascii() => {
                return Err(cut(digits).unwrap_or(InvalidToken::Garbled));
            }
            Err(place) => return Err(InvalidToken::Character(PREFIX.len() + place + 1)),
        };
        read(&octets)
    }
}

/// Words for a text with another beginning.
fn foreign(text: &str) -> InvalidToken {
    let version = text.strip_prefix("weft").and_then(|rest| rest.split_once('_')).map(|(version, _)| version);
    match version {
        Some(version) if version.parse::<u8>().is_ok() => InvalidToken::Version,
        _ => InvalidToken::Prefix,
    }
}

/// What is wrong with digits whose last one has stray bits: too few of them, if those before say so.
fn cut(digits: &str) -> Option<InvalidToken> {
    let whole = digits.len() / 8 * 8;
    let octets = base32::decode(&digits[..whole]).ok()?;
    match read(&octets) {
        Err(InvalidToken::Truncated) => Some(InvalidToken::Truncated),
        _ => None,
    }
}

fn read(octets: &[u8]) -> Result<Token, InvalidToken> {
    match octets.first() {
        None => return Err(InvalidToken::Truncated),
        Some(&VERSION) => {}
        Some(_) => return Err(InvalidToken::Version),
    }
    if octets.len() < BARE {
        return Err(InvalidToken::Truncated);
    }
    let (root, rest) = octets[1..].split_first_chunk::<16>().ok_or(InvalidToken::Truncated)?;
    let (secret, rest) = rest.split_first_chunk::<16>().ok_or(InvalidToken::Truncated)?;
    let (seeds, rest) = read_seeds(rest)?;
    let body = octets.len() - rest.len();
    match rest.len() {
        CHECK if rest == check(&octets[..body]) => {}
        CHECK => return Err(InvalidToken::Garbled),
        less if less < CHECK => return Err(InvalidToken::Truncated),
        _ => return Err(InvalidToken::TooLong),
    }
    Ok(Token { root: *root, secret: Zeroizing::new(*secret), seeds })
}

fn read_seeds(octets: &[u8]) -> Result<(Vec<SocketAddr>, &[u8]), InvalidToken> {
    let (&count, mut rest) = octets.split_first().ok_or(InvalidToken::Truncated)?;
    if usize::from(count) > MAX_SEEDS {
        return Err(InvalidToken::Garbled);
    }
    let mut seeds = Vec::new();
    for _ in 0..count {
        let (&family, after) = rest.split_first().ok_or(InvalidToken::Truncated)?;
        let (ip, after) = match family {
            4 => after.split_first_chunk::<4>().map(|(ip, after)| (IpAddr::from(*ip), after)),
            6 => after.split_first_chunk::<16>().map(|(ip, after)| (IpAddr::from(*ip), after)),
            _ => return Err(InvalidToken::Garbled),
        }
        .ok_or(InvalidToken::Truncated)?;
        let (port, after) = after.split_first_chunk::<2>().ok_or(InvalidToken::Truncated)?;
        seeds.push(SocketAddr::new(ip, u16::from_be_bytes(*port)));
        rest = after;
    }
    Ok((seeds, rest))
}

fn check(octets: &[u8]) -> [u8; CHECK] {
    let hash = Sha256::digest(octets);
    [hash[0], hash[1], hash[2]]
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

/// The key pair of a token, never printed.
pub struct TokenKey(SigningKey);

impl TokenKey {
    /// The public half, which the token's certificate names.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The token's public name.
    #[must_use]
    pub fn id(&self) -> TokenId {
        TokenId::of(&self.public_key())
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(redacted)")
    }
}
