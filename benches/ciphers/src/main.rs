//! AES-256-GCM in place by aws-lc-rs (which seals weft's packets), ring and aes-gcm (which seals its gossip): a packet's
//! share of the work that is the library's alone. What weft's own path adds is in `benches/seal.rs`.

use std::hint::black_box;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A small packet, a typical one, what fits 1,500 and 9,000 octets of underlay.
const SIZES: [usize; 4] = [64, 256, 1426, 9000];
const KEY: [u8; 32] = [7; 32];
const NONCE: [u8; 12] = [0; 12];
/// Header and network id.
const ADDITIONAL: [u8; 32] = [0; 32];

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("AES-256-GCM, seal in place");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let mut frame = vec![1; size];
        group.bench_function(BenchmarkId::new("aws-lc-rs", size), |bench| {
            use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).expect("32 octets"));
            bench.iter(|| {
                let nonce = Nonce::assume_unique_for_key(NONCE);
                key.seal_in_place_separate_tag(nonce, Aad::from(ADDITIONAL), black_box(&mut frame))
            });
        });
        group.bench_function(BenchmarkId::new("ring", size), |bench| {
            use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).expect("32 octets"));
            bench.iter(|| {
                let nonce = Nonce::assume_unique_for_key(NONCE);
                key.seal_in_place_separate_tag(nonce, Aad::from(ADDITIONAL), black_box(&mut frame))
            });
        });
        group.bench_function(BenchmarkId::new("aes-gcm", size), |bench| {
            let cipher = Aes256Gcm::new(&KEY.into());
            bench.iter(|| {
                cipher.encrypt_inout_detached(&NONCE.into(), &ADDITIONAL, black_box(&mut *frame).into())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, seal);
criterion_main!(benches);
