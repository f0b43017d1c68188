//! Frames written field by field, with checksums by the textbook loop of RFC 1071.

/// Layer 4 of a [`Packet`].
#[derive(Debug, Clone)]
pub(crate) enum Layer4 {
    Tcp { sequence: u32, acknowledgement: u32, flags: u8, window: u16, urgent: u16, options: Vec<u8> },
    Udp,
}

/// Everything a frame says.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) tags: Vec<[u8; 4]>,
    pub(crate) v6: bool,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) id: u16,
    /// Flags and offset of IPv4.
    pub(crate) fragment: u16,
    pub(crate) flow_label: u16,
    pub(crate) hosts: [u8; 2],
    pub(crate) ports: [u16; 2],
    pub(crate) ip_options: Vec<u8>,
    /// IPv6 extension headers and the number of the first.
    pub(crate) extensions: (u8, Vec<u8>),
    pub(crate) layer4: Layer4,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const ACK: u8 = 0x10;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const FIN: u8 = 0x01;
pub(crate) const CWR: u8 = 0x80;
pub(crate) const DF: u16 = 0x4000;

impl Packet {
    pub(crate) fn tcp(payload: Vec<u8>) -> Self {
        let layer4 = Layer4::Tcp {
            sequence: 1000,
            acknowledgement: 77,
            flags: ACK,
            window: 500,
            urgent: 0,
            options: Vec::new(),
        };
        Self {
            tags: Vec::new(),
            v6: false,
            tos: 0,
            ttl: 64,
            id: 9,
            fragment: DF,
            flow_label: 0x1234,
            hosts: [1, 2],
            ports: [40_000, 5201],
            ip_options: Vec::new(),
            extensions: (0, Vec::new()),
            layer4,
            payload,
        }
    }

    pub(crate) fn udp(payload: Vec<u8>) -> Self {
        Self { layer4: Layer4::Udp, ..Self::tcp(payload) }
    }

    pub(crate) fn over_v6(self) -> Self {
        Self { v6: true, ..self }
    }

    pub(crate) fn set_flags(&mut self, value: u8) {
        let Layer4::Tcp { flags, .. } = &mut self.layer4 else { panic!("not TCP") };
        *flags = value;
    }

    pub(crate) fn advance(&mut self, octets: u32) {
        let Layer4::Tcp { sequence, .. } = &mut self.layer4 else { panic!("not TCP") };
        *sequence = sequence.wrapping_add(octets);
    }

    fn protocol(&self) -> u8 {
        if matches!(self.layer4, Layer4::Udp) { 17 } else { 6 }
    }

    /// Offset of the IP header.
    pub(crate) fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Offset of the TCP or UDP header.
    pub(crate) fn l4(&self) -> usize {
        self.l3() + if self.v6 { 40 + self.extensions.1.len() } else { 20 + self.ip_options.len() }
    }

    /// Offset of the checksum in the frame.
    pub(crate) fn checksum_at(&self) -> usize {
        self.l4() + if matches!(self.layer4, Layer4::Udp) { 6 } else { 16 }
    }

    fn source(&self) -> Vec<u8> {
        address(self.v6, self.hosts[0])
    }

    fn destination(&self) -> Vec<u8> {
        address(self.v6, self.hosts[1])
    }

    /// The frame with every checksum right.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut frame = self.without_checksum();
        let (l4, at) = (self.l4(), self.checksum_at());
        let mut covered = self.pseudo_header(frame.len() - l4);
        covered.extend(&frame[l4..]);
        let mut checksum = !sum(&covered);
        if self.protocol() == 17 && checksum == 0 {
            checksum = 0xffff;
        }
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    /// The frame as a kernel leaves it to hardware: the field holds the pseudo-header sum.
    pub(crate) fn partial_frame(&self) -> Vec<u8> {
        let mut frame = self.without_checksum();
        let at = self.checksum_at();
        let seed = sum(&self.pseudo_header(frame.len() - self.l4()));
        frame[at..at + 2].copy_from_slice(&seed.to_be_bytes());
        frame
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let mut pseudo = [self.source(), self.destination()].concat();
        pseudo.extend((length as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, self.protocol()]);
        pseudo
    }

    fn without_checksum(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, self.hosts[1], 2, 0, 0, 0, 0, self.hosts[0]];
        for tag in &self.tags {
            frame.extend(tag);
        }
        let layer4 = self.layer4_octets();
        if self.v6 {
            self.put_v6(&mut frame, layer4.len());
        } else {
            self.put_v4(&mut frame, layer4.len());
        }
        frame.extend(layer4);
        frame
    }

    fn put_v4(&self, frame: &mut Vec<u8>, length: usize) {
        frame.extend([8, 0]);
        let words = (20 + self.ip_options.len()) / 4;
        let mut header = vec![0x40 | words as u8, self.tos];
        header.extend(((words * 4 + length) as u16).to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol(), 0, 0]);
        header.extend(self.source());
        header.extend(self.destination());
        header.extend(&self.ip_options);
        let checksum = !sum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(header);
    }

    fn put_v6(&self, frame: &mut Vec<u8>, length: usize) {
        frame.extend([0x86, 0xdd]);
        frame.extend([0x60 | self.tos >> 4, self.tos << 4]);
        frame.extend(self.flow_label.to_be_bytes());
        let (first, extensions) = &self.extensions;
        frame.extend(((extensions.len() + length) as u16).to_be_bytes());
        frame.extend([if extensions.is_empty() { self.protocol() } else { *first }, self.ttl]);
        frame.extend(self.source());
        frame.extend(self.destination());
        frame.extend(extensions);
    }

    fn layer4_octets(&self) -> Vec<u8> {
        let mut octets = [self.ports[0].to_be_bytes(), self.ports[1].to_be_bytes()].concat();
        match &self.layer4 {
            Layer4::Udp => {
                octets.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                octets.extend([0, 0]);
            }
            Layer4::Tcp { sequence, acknowledgement, flags, window, urgent, options } => {
                octets.extend(sequence.to_be_bytes());
                octets.extend(acknowledgement.to_be_bytes());
                octets.extend([((5 + options.len() / 4) as u8) << 4, *flags]);
                octets.extend(window.to_be_bytes());
                octets.extend([0, 0]);
                octets.extend(urgent.to_be_bytes());
                octets.extend(options);
            }
        }
        octets.extend(&self.payload);
        octets
    }
}

fn address(v6: bool, host: u8) -> Vec<u8> {
    if v6 { [&[0xfd; 15][..], &[host]].concat() } else { vec![10, 0, 0, host] }
}

/// Octets that differ from their neighbours.
pub(crate) fn octets(length: usize, salt: u32) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_add(salt).wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// RFC 1071 §4.1, word by word.
fn sum(octets: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in octets.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
