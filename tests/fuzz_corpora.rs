//! The fuzzer's seeds, and variants of them, on every run of the tests: `fuzz/` grows them.
//!
//! `WEFT_FUZZ_SECONDS=300 cargo test -p weft-control --test fuzz_corpora` makes variants for so long per target, where
//! there is no fuzzer at hand; what is not borne is left in the directory for temporary files.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_control::fuzzing::TARGETS;

/// Variants that are kept to make more of.
const MOST_SEEDS: usize = 1000;
/// Variants of each seed.
const VARIANTS: usize = 50;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = std::fs::read_dir(corpus).unwrap_or_else(|fault| panic!("{target}: {fault}"));
    let mut seeds: Vec<Vec<u8>> =
        files.map(|file| std::fs::read(file.expect("listed").path()).expect("read")).collect();
    assert!(!seeds.is_empty(), "{target} has seeds");
    seeds.sort();
    seeds
}

#[test]
#[expect(clippy::disallowed_methods, reason = "there is no other way to make an Instant")]
fn seeds_and_variants_of_them_are_borne() {
    let now = Instant::now();
    for (name, body) in TARGETS {
        let (seeds, mut rng) = (seeds(name), StdRng::seed_from_u64(1));
        for seed in &seeds {
            body(now, seed);
            for _ in 0..VARIANTS {
                body(now, &vary(seed, &mut rng));
            }
        }
        long_form(name, body, seeds);
    }
}

/// Variants of seeds and of variants, joined at random, for as long as was asked.
#[expect(clippy::disallowed_methods, reason = "the long form is bounded by time")]
fn long_form(name: &str, body: fn(Instant, &[u8]), mut seeds: Vec<Vec<u8>>) {
    let asked = std::env::var("WEFT_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let Some(span) = asked.map(Duration::from_secs) else { return };
    let mut rng: StdRng = rand::make_rng();
    let (first, start, mut runs) = (seeds.len(), Instant::now(), 0u64);
    while start.elapsed() < span {
        let mut octets = vary(&seeds[rng.random_range(0..seeds.len())], &mut rng);
        if rng.random_bool(0.2) {
            let other = &seeds[rng.random_range(0..seeds.len())];
            octets.truncate(rng.random_range(0..=octets.len()));
            octets.extend(&other[rng.random_range(0..=other.len())..]);
        }
        if std::panic::catch_unwind(|| body(start, &octets)).is_err() {
            let file = std::env::temp_dir().join(format!("weft-fuzz-{name}-{runs}"));
            std::fs::write(&file, &octets).expect("written");
            panic!("{name} does not bear {}", file.display());
        }
        runs += 1;
        if rng.random_bool(0.01) && octets.len() < 4096 {
            if seeds.len() >= MOST_SEEDS {
                seeds.truncate(first);
            }
            seeds.push(octets);
        }
    }
    let _ = std::io::stderr().write_all(format!("{name}: {runs} variants borne\n").as_bytes());
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
