//! What finding a MAC costs by the number of those that are known: it grows with what the caches do not hold, and with
//! nothing else.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weft_dataplane::fdb::{Fdb, Place};
use weft_dataplane::wire::MacAddr;

const SIZES: [u32; 3] = [10, 10_000, 1_000_000];
/// Steps through all entries in an order that no prefetcher foresees: odd, and no divisor of a size.
const STRIDE: u32 = 7_368_787;

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("FDB lookup");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let fdb = Fdb::build((0..size).map(|n| (mac(n), Place::Remote(n))), 1);
        group.bench_function(BenchmarkId::new("the same each time", size), |bench| {
            bench.iter(|| fdb.lookup(black_box(mac(size / 2))));
        });
        group.bench_function(BenchmarkId::new("another each time", size), |bench| {
            let mut next = 0;
            bench.iter(|| {
                next = (next + STRIDE) % size;
                fdb.lookup(black_box(mac(next)))
            });
        });
        group.bench_function(BenchmarkId::new("unknown", size), |bench| {
            let mut next = 0;
            bench.iter(|| {
                next = (next + STRIDE) % size;
                fdb.lookup(black_box(mac(size + next)))
            });
        });
    }
    group.finish();
}

fn mac(n: u32) -> MacAddr {
    let [a, b, c, d] = n.to_be_bytes();
    MacAddr([2, 0, a, b, c, d])
}

criterion_group!(benches, lookup);
criterion_main!(benches);
