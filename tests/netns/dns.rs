//! DNS messages by hand (RFC 1035), so that the codec under test is not its own judge.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::namespace::Namespace;

pub(crate) const A: u16 = 1;
pub(crate) const PTR: u16 = 12;
pub(crate) const AAAA: u16 = 28;
pub(crate) const NAME_ERROR: u8 = 3;
pub(crate) const REFUSED: u8 = 5;

/// Where a sandbox asks.
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// Longer than it takes to ask three servers.
const PATIENCE: Duration = Duration::from_secs(8);
const ID: [u8; 2] = [0x5e, 0xed];

/// What a reply says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u8,
    data: Vec<IpAddr>,
    pub(crate) names: Vec<String>,
}

impl Answer {
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.data.iter().copied().collect()
    }
}

/// Asks over UDP inside `namespace`; an answer must come.
pub(crate) fn ask(namespace: &Namespace, name: &str, kind: u16) -> Answer {
    namespace.enter(|| send(name, kind, PATIENCE)).unwrap_or_else(|| panic!("nobody answers for {name}"))
}

/// Asks over UDP in the calling thread's namespace.
pub(crate) fn send(name: &str, kind: u16, patience: Duration) -> Option<Answer> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    socket.set_read_timeout(Some(patience)).expect("timeout set");
    socket.connect(SERVER).expect("an address");
    socket.send(&query(name, kind)).ok()?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    Some(read(&buffer[..length]))
}

/// Asks over TCP inside `namespace`.
pub(crate) fn ask_over_tcp(namespace: &Namespace, name: &str, kind: u16) -> Answer {
    namespace.enter(|| {
        let mut stream = TcpStream::connect(SERVER).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout set");
        let query = query(name, kind);
        let length = u16::try_from(query.len()).expect("short").to_be_bytes();
        // in two pieces, as a network may cut it
        stream.write_all(&length[..1]).expect("sent");
        stream.write_all(&[&length[1..], query.as_slice()].concat()).expect("sent");
        let mut length = [0; 2];
        stream.read_exact(&mut length).expect("a length");
        let mut reply = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut reply).expect("a reply");
        read(&reply)
    })
}

/// A query.
pub(crate) fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut octets = [&ID[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        octets.push(u8::try_from(label.len()).expect("a short label"));
        octets.extend(label.bytes());
    }
    octets.push(0);
    octets.extend(kind.to_be_bytes());
    octets.extend([0, 1]);
    octets
}

/// The name a query asks for.
pub(crate) fn question(query: &[u8]) -> String {
    name_at(query, 12).0
}

/// A reply to `query` with this address.
pub(crate) fn reply(query: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let (_, end) = name_at(query, 12);
    let mut octets = query[..end + 4].to_vec();
    octets[2..4].copy_from_slice(&[0x81, 0x80]);
    octets[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    octets.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    octets.extend(address.octets());
    octets
}

fn read(reply: &[u8]) -> Answer {
    assert!(reply[..2] == ID && reply[2] & 0x80 != 0, "a reply to the query: {reply:?}");
    let mut answer = Answer { code: reply[3] & 0x0f, data: Vec::new(), names: Vec::new() };
    let mut at = 12;
    if u16::from_be_bytes([reply[4], reply[5]]) == 1 {
        at = name_at(reply, at).1 + 4;
    }
    for _ in 0..u16::from_be_bytes([reply[6], reply[7]]) {
        at = name_at(reply, at).1;
        let kind = u16::from_be_bytes([reply[at], reply[at + 1]]);
        let length = usize::from(u16::from_be_bytes([reply[at + 8], reply[at + 9]]));
        let data = &reply[at + 10..at + 10 + length];
        match kind {
            A => answer.data.push(Ipv4Addr::from(*data.first_chunk::<4>().expect("four octets")).into()),
            AAAA => {
                answer.data.push(Ipv6Addr::from(*data.first_chunk::<16>().expect("sixteen octets")).into());
            }
            PTR => answer.names.push(name_at(reply, at + 10).0),
            other => panic!("a record of kind {other}"),
        }
        at += 10 + length;
    }
    answer
}

/// The name at a place, and where it ends.
fn name_at(message: &[u8], mut at: usize) -> (String, usize) {
    let (mut labels, mut end) = (Vec::new(), None);
    loop {
        let length = usize::from(message[at]);
        if length >= 0xc0 {
            end = end.or(Some(at + 2));
            at = (length & 0x3f) << 8 | usize::from(message[at + 1]);
            continue;
        }
        at += 1 + length;
        if length == 0 {
            return (labels.join("."), end.unwrap_or(at));
        }
        labels.push(String::from_utf8_lossy(&message[at - length..at]).into_owned());
    }
}
