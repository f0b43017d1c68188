//! What sealing costs per packet, and what moving octets adds to it. What other libraries cost is in `benches/ciphers`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weft_dataplane::seal::{
    HEADER_LEN, InnerChecksum, Key, OVERHEAD, Opener, ReceiveSession, Reserved, Sealer, SendSession, TAG_LEN,
};
use weft_dataplane::wire::Vni;

/// A small packet, a typical one, what fits 1,500 and 9,000 octets of underlay.
const SIZES: [usize; 4] = [64, 256, 1426, 9000];
const NETWORK: [u8; 16] = *b"one network's id";
const KEY: [u8; 32] = [7; 32];
/// Counters drawn at once, as for a super-frame.
const TRAIN: u32 = 44;

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("in place", size), |bench| {
            let mut sealing = Sealing::new();
            let mut datagram = vec![1; size + OVERHEAD];
            bench.iter(|| sealing.seal(black_box(&mut datagram)));
        });
        group.bench_function(BenchmarkId::new("after a copy", size), |bench| {
            let mut sealing = Sealing::new();
            let (frame, mut datagram) = (vec![1; size], vec![1; size + OVERHEAD]);
            bench.iter(|| {
                datagram[HEADER_LEN..][..size].copy_from_slice(black_box(&frame));
                sealing.seal(black_box(&mut datagram));
            });
        });
    }
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("after a copy", size), |bench| {
            let session = ReceiveSession { index: 1, key: Key::new(KEY) };
            let opener = Opener::new(session).expect("memory");
            let mut sealed = vec![1; size + OVERHEAD];
            Sealing::new().seal(&mut sealed);
            let mut datagram = sealed.clone();
            bench.iter(|| {
                datagram.copy_from_slice(black_box(&sealed));
                opener.open_train(&NETWORK, black_box(&mut datagram), size + OVERHEAD)
            });
        });
    }
    group.finish();
}

/// A sender that draws counters a train at a time, and takes a new session before the old one is spent.
struct Sealing {
    sealer: &'static Sealer,
    reserved: Reserved<'static>,
}

impl Sealing {
    fn new() -> Self {
        let session = SendSession { index: 1, key: Key::new(KEY) };
        let sealer: &Sealer = Box::leak(Box::new(Sealer::new(session, 1).expect("memory")));
        Self { sealer, reserved: sealer.reserve(0, TRAIN).expect("new") }
    }

    fn seal(&mut self, datagram: &mut [u8]) {
        let (vni, checksum) = (Vni::from_octets([0, 0, 42]), InnerChecksum::Partial);
        debug_assert!(datagram.len() >= HEADER_LEN + TAG_LEN);
        while self.reserved.seal(vni, checksum, &NETWORK, datagram, &[]).is_err() {
            self.reserved = match self.sealer.reserve(0, TRAIN) {
                Ok(reserved) => reserved,
                Err(_) => return *self = Self::new(),
            };
        }
    }
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
