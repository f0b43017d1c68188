//! A coalescer as one would write it to be understood: decoded headers, lists, a search through everything.

use etherparse::{IpNumber, NetHeaders, TcpHeader, TransportHeader};

use crate::decoded::{has_valid_checksums, headers};

/// Frames that go into one write: their indices.
#[derive(Debug, Default)]
struct Group {
    members: Vec<usize>,
    closed: bool,
}

/// Groups `frames` (all TCP or UDP, not fragments), which arrive at one port in this order.
pub(crate) fn coalesce(frames: &[Vec<u8>], partial: &[bool]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Group> = Vec::new();
    for index in 0..frames.len() {
        let seen = Seen::of(&frames[index]);
        let newest = groups.iter_mut().rev().find(|group| {
            let first = Seen::of(&frames[group.members[0]]);
            first.flow() == seen.flow() && !first.is_pure_ack()
        });
        let vouched = |i: usize| if partial[i] { true } else { has_valid_checksums(&frames[i]) };
        if let Some(group) = newest.filter(|group| !group.closed)
            && seen.joins()
            && seen.continues(group, frames)
            && vouched(group.members[0])
            && vouched(index)
        {
            group.members.push(index);
            group.closed = seen.is_pushed() || seen.payload < Seen::of(&frames[group.members[0]]).payload;
        } else {
            groups.push(Group { members: vec![index], closed: !seen.joins() || seen.is_pushed() });
        }
    }
    groups.into_iter().map(|group| group.members).collect()
}

struct Seen {
    ethernet: Vec<u8>,
    net: NetHeaders,
    transport: TransportHeader,
    payload: usize,
}

impl Seen {
    fn of(frame: &[u8]) -> Self {
        let headers = headers(frame);
        let tags = headers.link_exts.len();
        Self {
            ethernet: frame[..14 + 4 * tags].to_vec(),
            net: headers.net.clone().expect("IP"),
            transport: headers.transport.clone().expect("TCP or UDP"),
            payload: headers.payload.slice().len(),
        }
    }

    fn tcp(&self) -> Option<&TcpHeader> {
        match &self.transport {
            TransportHeader::Tcp(tcp) => Some(tcp),
            _ => None,
        }
    }

    fn flow(&self) -> (Vec<u8>, IpNumber, u16, u16) {
        let addresses = match &self.net {
            NetHeaders::Ipv4(ip, _) => [&ip.source[..], &ip.destination[..]].concat(),
            NetHeaders::Ipv6(ip, _) => [&ip.source[..], &ip.destination[..]].concat(),
            other => panic!("{other:?}"),
        };
        match &self.transport {
            TransportHeader::Tcp(tcp) => (addresses, IpNumber::TCP, tcp.source_port, tcp.destination_port),
            TransportHeader::Udp(udp) => (addresses, IpNumber::UDP, udp.source_port, udp.destination_port),
            other => panic!("{other:?}"),
        }
    }

    fn is_ordinary(&self) -> bool {
        self.tcp().is_some_and(|tcp| tcp.ack && !(tcp.syn || tcp.fin || tcp.rst || tcp.urg || tcp.cwr))
    }

    fn is_pure_ack(&self) -> bool {
        self.is_ordinary() && self.payload == 0
    }

    fn is_pushed(&self) -> bool {
        self.tcp().is_some_and(|tcp| tcp.psh)
    }

    fn joins(&self) -> bool {
        self.payload > 0
            && match &self.transport {
                TransportHeader::Udp(udp) => {
                    udp.checksum != 0 && ![4789, 8472, 6081].contains(&udp.destination_port)
                }
                _ => self.is_ordinary(),
            }
    }

    fn continues(&self, group: &Group, frames: &[Vec<u8>]) -> bool {
        let count = group.members.len();
        let first = Self::of(&frames[group.members[0]]);
        let before: usize = group.members.iter().map(|member| Self::of(&frames[*member]).payload).sum();
        let headers = match first.tcp() {
            Some(tcp) => 20 + tcp.options.len(),
            None => 8,
        } + if matches!(first.net, NetHeaders::Ipv4(..)) { 20 } else { 40 };
        count < 64
            && headers + before + self.payload <= 65_535
            && self.payload <= first.payload
            && self.ethernet == first.ethernet
            && self.ip_continues(&first, count)
            && self.tcp_continues(&first, before)
    }

    fn ip_continues(&self, first: &Self, count: usize) -> bool {
        match (&self.net, &first.net) {
            (NetHeaders::Ipv4(own, _), NetHeaders::Ipv4(first, _)) => {
                let follows = own.dont_fragment
                    || own.identification == first.identification.wrapping_add(count as u16);
                let mut same = own.clone();
                same.total_len = first.total_len;
                same.identification = first.identification;
                same.header_checksum = first.header_checksum;
                follows && same == *first
            }
            (NetHeaders::Ipv6(own, _), NetHeaders::Ipv6(first, _)) => {
                let mut same = own.clone();
                same.payload_length = first.payload_length;
                same == *first
            }
            _ => false,
        }
    }

    fn tcp_continues(&self, first: &Self, before: usize) -> bool {
        let (Some(own), Some(first)) = (self.tcp(), first.tcp()) else { return true };
        let mut expected = first.clone();
        expected.sequence_number = first.sequence_number.wrapping_add(before as u32);
        expected.checksum = own.checksum;
        expected.psh = own.psh;
        *own == expected
    }
}
