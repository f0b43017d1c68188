//! One's complement sums by length: nanoseconds and octets per second.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weft_dataplane::checksum::Sum;

fn sums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    let octets: Vec<u8> = (0..65_536u32).map(|i| (i * 7) as u8).collect();
    for length in [20, 64, 256, 1398, 9000, 65_536] {
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_with_input(BenchmarkId::from_parameter(length), &octets[..length], |bench, octets| {
            bench.iter(|| Sum::of(black_box(octets)).fold());
        });
    }
    group.finish();
}

criterion_group!(benches, sums);
criterion_main!(benches);
