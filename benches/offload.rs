//! Splitting and coalescing of full super-frames: time per segment.

use std::hint::black_box;
use std::ops::Range;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weft_dataplane::checksum::{Sum, pseudo_header};
use weft_dataplane::offload::{Arrival, Checksum, Coalescer, MAX_HEADER_LEN, Split, UdpSegmentation};
use weft_dataplane::wire::vnet::{self, VnetHeader};

/// Ethernet 14, IPv4 20, TCP 20 with 12 octets of timestamps.
const HEADER_LEN: usize = 66;
const TCP_SIZE: usize = 1398;

fn splitting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("split");
    let frame = tcp_super_frame(46 * TCP_SIZE);
    let vnet = VnetHeader {
        flags: vnet::NEEDS_CSUM,
        gso_type: vnet::GSO_TCPV4,
        hdr_len: HEADER_LEN as u16,
        gso_size: TCP_SIZE as u16,
        csum_start: 34,
        csum_offset: 16,
    };
    group.throughput(Throughput::Elements(46));
    group.bench_function("46 TCP segments of 1398", |bench| {
        let mut header = [0; MAX_HEADER_LEN];
        bench.iter(|| {
            let split = Split::plan(black_box(&vnet), black_box(&frame)).expect("well formed");
            for i in 0..split.count() {
                split.write_header(i, &mut header);
                black_box(&header);
            }
        });
    });
    group.finish();
}

fn coalescing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coalesce");
    for (name, size, flows, checksum) in [
        ("46 TCP segments of 1398, verified", TCP_SIZE, 1, Checksum::Verify),
        ("46 TCP segments of 1398, known good", TCP_SIZE, 1, Checksum::KnownGood),
        ("46 TCP segments of 1398 of 4 flows in turn, verified", TCP_SIZE, 4, Checksum::Verify),
        ("46 TCP segments of 1", 1, 1, Checksum::Verify),
        ("46 flows of one segment of 1", 1, 46, Checksum::Verify),
    ] {
        let (arena, frames) = segments(size, flows);
        group.throughput(Throughput::Elements(frames.len() as u64));
        group.bench_function(name, |bench| {
            let mut coalescer = Coalescer::new(UdpSegmentation::Supported);
            bench.iter(|| {
                for frame in &frames {
                    let arrival = Arrival { frame: frame.clone(), port: 0, mtu: 1450, checksum };
                    coalescer.push(black_box(&arena), &arrival).expect("taken");
                }
                coalescer.flush(&arena, |merged| {
                    black_box(&merged);
                });
            });
        });
    }
    group.finish();
}

/// 46 segments of `flows` streams, in turn.
fn segments(size: usize, flows: usize) -> (Vec<u8>, Vec<Range<u32>>) {
    let mut arena = Vec::new();
    let mut frames = Vec::new();
    for i in 0..46 {
        let (flow, step) = (i % flows, i / flows);
        let mut frame = tcp_super_frame(size);
        frame[34] = flow as u8;
        frame[18..20].copy_from_slice(&(step as u16).to_be_bytes());
        frame[38..42].copy_from_slice(&((step * size) as u32).to_be_bytes());
        finish(&mut frame);
        let start = arena.len() as u32;
        arena.extend(frame);
        frames.push(start..arena.len() as u32);
    }
    (arena, frames)
}

fn tcp_super_frame(payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 0, 0, 0, 0, 9, 0x80, 0x10, 1, 0xf5, 0, 0, 0, 0]);
    frame.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    frame.extend((0..payload).map(|i| (i * 7) as u8));
    let total_len = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&total_len.to_be_bytes());
    frame
}

fn finish(frame: &mut [u8]) {
    let ip = Sum::of(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&ip.to_be_bytes());
    let sum = pseudo_header(&frame[26..34], 6, frame.len() - 34) + Sum::of(&frame[34..]);
    frame[50..52].copy_from_slice(&sum.checksum().to_be_bytes());
}

criterion_group!(benches, splitting, coalescing);
criterion_main!(benches);
