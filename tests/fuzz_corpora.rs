//! The fuzzer's seeds, and variants of them, on every run of the tests: `fuzz/` grows them.

use std::path::Path;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_control::fuzzing::TARGETS;

/// Variants of each seed.
const VARIANTS: usize = 50;

#[test]
#[expect(clippy::disallowed_methods, reason = "there is no other way to make an Instant")]
fn seeds_and_variants_of_them_are_borne() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let now = Instant::now();
    for (name, body) in TARGETS {
        let files = std::fs::read_dir(corpora.join(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let mut seeds: Vec<Vec<u8>> =
            files.map(|file| std::fs::read(file.expect("listed").path()).expect("read")).collect();
        assert!(!seeds.is_empty(), "{name} has seeds");
        seeds.sort();
        let mut rng = StdRng::seed_from_u64(1);
        for seed in &seeds {
            body(now, seed);
            for _ in 0..VARIANTS {
                body(now, &vary(seed, &mut rng));
            }
        }
    }
}

/// Changes, cuts, doubles or inserts a few octets.
fn vary(seed: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut octets = seed.to_vec();
    for _ in 0..rng.random_range(1..5) {
        let at = rng.random_range(0..=octets.len());
        match rng.random_range(0..4) {
            0 if at < octets.len() => octets[at] ^= 1 << rng.random_range(0..8),
            1 if at < octets.len() => octets[at] = rng.random(),
            2 => octets.truncate(at.max(1)),
            _ => octets.insert(at, rng.random()),
        }
    }
    octets
}
