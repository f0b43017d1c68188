//! Random traces of a few TCP and UDP flows: mostly bulk, with every irregularity that must end a run.

use proptest::prelude::*;

use crate::packet::{ACK, CWR, DF, FIN, Layer4, PSH, Packet, octets};

/// A frame as it arrives.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// On the wire: perhaps partial, corrupted or padded.
    pub(crate) wire: Vec<u8>,
    /// What a receiver must end up with.
    pub(crate) truth: Vec<u8>,
    /// The checksum is left to hardware.
    pub(crate) partial: bool,
}

/// What happens next in a flow.
#[derive(Debug, Clone, Copy)]
enum Step {
    Full,
    Sized(usize),
    Pushed(usize),
    Empty,
    Flags(u8),
    Acknowledged,
    Window,
    Timestamp,
    Tos,
    Ttl,
    Label,
    Tag,
    IdJump,
    IdFixed,
    Gap,
    Corrupt,
    CorruptIp,
    Partial,
    Padded,
    NoChecksum,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => Just(Step::Full),
        4 => (1usize..700).prop_map(Step::Sized),
        3 => (1usize..300).prop_map(Step::Pushed),
        2 => Just(Step::Empty),
        2 => prop::sample::select(vec![ACK | FIN, ACK | CWR, ACK | 0x40, ACK | 0x02, ACK | 0x04, ACK | 0x20, 0, PSH])
            .prop_map(Step::Flags),
        1 => Just(Step::Acknowledged),
        1 => Just(Step::Window),
        1 => Just(Step::Timestamp),
        1 => Just(Step::Tos),
        1 => Just(Step::Ttl),
        1 => Just(Step::Label),
        1 => Just(Step::Tag),
        1 => Just(Step::IdJump),
        2 => Just(Step::IdFixed),
        1 => Just(Step::Gap),
        1 => Just(Step::Corrupt),
        1 => Just(Step::CorruptIp),
        4 => Just(Step::Partial),
        2 => Just(Step::Padded),
        1 => Just(Step::NoChecksum),
    ]
}

prop_compose! {
    fn flow()(
        udp in any::<bool>(),
        v6 in any::<bool>(),
        timestamps in any::<bool>(),
        tags in 0usize..3,
        size in prop_oneof![1usize..9, 100usize..700],
        df in any::<bool>(),
        id in prop_oneof![Just(65_530u16), any::<u16>()],
        sequence in prop_oneof![Just(u32::MAX - 900), any::<u32>()],
        port in prop_oneof![9 => 1024u16..1028, 1 => Just(4789u16)],
    ) -> (Packet, usize) {
        let mut packet = Packet::tcp(Vec::new());
        packet.v6 = v6;
        packet.id = id;
        packet.fragment = if df { DF } else { 0 };
        packet.tags = vec![[0x81, 0, 0, 5]; tags];
        packet.ports[1] = port;
        packet.layer4 = if udp {
            Layer4::Udp
        } else {
            let options = if timestamps { vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2] } else { Vec::new() };
            Layer4::Tcp { sequence, acknowledgement: 5, flags: ACK, window: 9, urgent: 0, options }
        };
        (packet, size)
    }
}

/// Up to four flows, up to 120 frames.
pub(crate) fn trace() -> impl Strategy<Value = Vec<Sent>> {
    let script = prop::collection::vec((0usize..4, step()), 1..120);
    // Bursts: a flow sends several frames in a row more often than flows take turns.
    let script = script.prop_map(|mut script| {
        for i in 1..script.len() {
            if i % 3 != 0 {
                script[i].0 = script[i - 1].0;
            }
        }
        script
    });
    (prop::collection::vec(flow(), 4), script).prop_map(|(mut flows, script)| {
        let steps = script.into_iter().enumerate();
        steps.map(|(i, (flow, step))| send(&mut flows[flow], step, i as u32)).collect()
    })
}

fn send((flow, size): &mut (Packet, usize), step: Step, salt: u32) -> Sent {
    change_for_good(flow, step);
    let mut packet = flow.clone();
    packet.payload = octets(length(step, *size), salt);
    if let Layer4::Tcp { flags, .. } = &mut packet.layer4 {
        match step {
            Step::Flags(value) => *flags = value,
            Step::Pushed(_) => *flags |= PSH,
            _ => {}
        }
    }
    let sent = put_on_wire(&packet, step);
    if let Layer4::Tcp { sequence, .. } = &mut flow.layer4 {
        *sequence = sequence.wrapping_add(packet.payload.len() as u32);
    }
    if !matches!(step, Step::IdFixed) {
        flow.id = flow.id.wrapping_add(1);
    }
    sent
}

fn length(step: Step, size: usize) -> usize {
    match step {
        Step::Sized(length) | Step::Pushed(length) => length,
        Step::Empty => 0,
        Step::Padded => size.min(3),
        _ => size,
    }
}

fn change_for_good(flow: &mut Packet, step: Step) {
    match step {
        Step::Tos => flow.tos ^= 1,
        Step::Ttl => flow.ttl -= 1,
        Step::Label => flow.flow_label ^= 1,
        Step::Tag => flow.tags.iter_mut().for_each(|tag| tag[3] ^= 1),
        Step::IdJump => flow.id = flow.id.wrapping_add(7),
        _ => {}
    }
    let Layer4::Tcp { sequence, acknowledgement, window, options, .. } = &mut flow.layer4 else { return };
    match step {
        Step::Acknowledged => *acknowledgement += 1,
        Step::Window => *window += 1,
        Step::Gap => *sequence = sequence.wrapping_add(3),
        Step::Timestamp if !options.is_empty() => options[7] = options[7].wrapping_add(1),
        _ => {}
    }
}

fn put_on_wire(packet: &Packet, step: Step) -> Sent {
    let truth = packet.frame();
    let mut sent = Sent { wire: truth.clone(), truth, partial: false };
    match step {
        Step::Partial => {
            sent.wire = packet.partial_frame();
            sent.partial = true;
        }
        Step::Padded => sent.wire.extend([0xee; 9]),
        Step::Corrupt if !packet.payload.is_empty() => damage(&mut sent, packet.l4() + 8 + 12),
        Step::CorruptIp if !packet.v6 => damage(&mut sent, packet.l3() + 10),
        Step::NoChecksum if matches!(packet.layer4, Layer4::Udp) && !packet.v6 => {
            let at = packet.checksum_at();
            sent.truth[at..at + 2].fill(0);
            sent.wire[at..at + 2].fill(0);
        }
        _ => {}
    }
    sent
}

/// A bit error survives as it is: nobody may give the frame a checksum that fits.
fn damage(sent: &mut Sent, at: usize) {
    let at = at.min(sent.truth.len() - 1);
    sent.truth[at] ^= 0x10;
    sent.wire[at] ^= 0x10;
}
