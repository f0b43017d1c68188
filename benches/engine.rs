//! What the engine costs per frame and per change: lookups, guards and answers, without any IO.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weft_dataplane::change::Change;
use weft_dataplane::engine::Engine;
use weft_dataplane::fdb::Seconds;
use weft_dataplane::segment::{Broadcast, LocalEndpoint, RemoteEndpoint, SegmentSpec, Vtep};
use weft_dataplane::wire::{MacAddr, Vni, vxlan};

const NOW: Seconds = Seconds(1);
const ENDPOINTS: u32 = 50_000;
/// Endpoints of segments that are compared.
const SIZES: [u32; 4] = [10, 1_000, 10_000, 100_000];
/// Steps through all endpoints in an order that no prefetcher foresees.
const STRIDE: u32 = 7_919;
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

fn engine(c: &mut Criterion) {
    let (vni, spec) = (Vni::from_octets([0, 0, 42]), spec(ENDPOINTS));
    let empty = Engine::new(OWN, 1, 1);
    let engine = empty.after(Change::SetSegment(spec.clone()));
    let mut group = c.benchmark_group("engine");
    group.throughput(Throughput::Elements(1));

    let out = udp(0, 1);
    group.bench_function("frame of 64 octets out", |b| {
        b.iter(|| engine.handle_frame(vni, black_box(&out), 50, NOW));
    });

    let header = vxlan::header(vni);
    let source = engine.source(PEER, &header).expect("a member");
    let back = udp(1, 0);
    group.bench_function("frame of 64 octets in", |b| {
        b.iter(|| source.handle_frame(black_box(&back), NOW, &mut |_| {}));
    });
    group.bench_function("frame of 64 octets in, after one alike", |b| {
        b.iter(|| source.handle_next(Some(&back), black_box(&back), NOW, &mut |_| {}));
    });

    group.throughput(Throughput::Elements(u64::from(ENDPOINTS)));
    group.sample_size(10);
    group.bench_function("change of a segment of 50,000 endpoints", |b| {
        b.iter(|| empty.after(Change::SetSegment(spec.clone())));
    });
    group.finish();
}

/// Frames to and from another endpoint each time, by how many there are: that may cost what the caches do not hold.
fn sizes(c: &mut Criterion) {
    let vni = Vni::from_octets([0, 0, 42]);
    let mut group = c.benchmark_group("engine, another endpoint each time");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let engine = Engine::new(OWN, 1, 1).after(Change::SetSegment(spec(size)));
        let mut next = 0;
        let mut another = move || {
            next = (next + STRIDE) % (size - 1);
            next + 1
        };
        let mut out = udp(0, 1);
        group.bench_function(BenchmarkId::new("out", size), |b| {
            b.iter(|| {
                out[..6].copy_from_slice(&mac(another()).0);
                engine.handle_frame(vni, black_box(&out), 50, NOW)
            });
        });
        let header = vxlan::header(vni);
        let source = engine.source(PEER, &header).expect("a member");
        let mut back = udp(1, 0);
        group.bench_function(BenchmarkId::new("in", size), |b| {
            b.iter(|| {
                let from = another();
                back[6..12].copy_from_slice(&mac(from).0);
                back[26..30].copy_from_slice(&ip(from).octets());
                source.handle_frame(black_box(&back), NOW, &mut |_| {})
            });
        });
    }
    group.finish();
}

/// Endpoint 0 here, all others behind one member.
fn spec(endpoints: u32) -> SegmentSpec {
    let vni = Vni::from_octets([0, 0, 42]);
    let vtep = Vtep { address: SocketAddr::new(PEER, 4789), vni };
    let remote = |n| RemoteEndpoint { mac: mac(n), ips: vec![IpAddr::V4(ip(n))], vtep };
    SegmentSpec {
        vni,
        mtu: 1450,
        broadcast: Broadcast::Local,
        local: vec![LocalEndpoint { mac: mac(0), ips: vec![IpAddr::V4(ip(0))] }],
        remote: (1..endpoints).map(remote).collect(),
        static_vteps: Vec::new(),
        members: vec![vtep],
        sealing: None,
    }
}

fn mac(n: u32) -> MacAddr {
    let [a, b, c, d] = n.to_be_bytes();
    MacAddr([2, 0, a, b, c, d])
}

fn ip(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) + n)
}

fn udp(from: u32, to: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(mac(from).0, mac(to).0)
        .ipv4(ip(from).octets(), ip(to).octets(), 64)
        .udp(1000, 2000)
        .write(&mut frame, &[7; 22])
        .expect("fits");
    frame
}

criterion_group!(benches, engine, sizes);
criterion_main!(benches);
