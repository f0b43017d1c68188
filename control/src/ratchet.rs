//! A generator of seeds that forgets.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Seeds without end from one seed; who reads this memory later learns none of those given before.
pub(crate) struct Ratchet(Zeroizing<[u8; 32]>);

impl Ratchet {
    pub(crate) fn new(seed: Zeroizing<[u8; 32]>) -> Self {
        Self(seed)
    }

    /// A seed that was never given before.
    pub(crate) fn draw(&mut self) -> Zeroizing<[u8; 32]> {
        let given = self.hash(b"weft ratchet seed 1");
        self.0 = self.hash(b"weft ratchet 1");
        given
    }

    /// Mixes in randomness that was not there before: who knew this memory then does not know what is drawn from now on.
    pub(crate) fn stir(&mut self, fresh: &[u8; 32]) {
        let mixed = Sha256::new().chain_update(b"weft ratchet stirred 1").chain_update(*self.0);
        self.0 = Zeroizing::new(mixed.chain_update(fresh).finalize().into());
    }

    fn hash(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(Sha256::new().chain_update(label).chain_update(*self.0).finalize().into())
    }
}

impl fmt::Debug for Ratchet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ratchet(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratchet_repeats_from_its_seed_and_never_by_itself() {
        let (mut one, mut two) =
            (Ratchet::new(Zeroizing::new([1; 32])), Ratchet::new(Zeroizing::new([1; 32])));
        let drawn: std::collections::BTreeSet<_> = (0..100).map(|_| *one.draw()).collect();
        assert_eq!(drawn.len(), 100);
        assert!((0..100).all(|_| drawn.contains(&*two.draw())));
        assert!(!drawn.contains(&*one.0), "what is kept was never given");
        two.stir(&[3; 32]);
        assert_ne!(one.draw(), two.draw());
    }
}
