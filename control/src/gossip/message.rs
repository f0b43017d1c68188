//! The messages inside of seals, and their octets.
//!
//! ```text
//!  envelope: destination node 16 (zero: whoever is there) | its boot epoch 4 (zero: any) | our boot epoch 4 | kind 1
//! ```

use std::net::SocketAddr;

use super::call::{self, Call};
use super::limits::{MAX_DATAGRAM, MAX_KEYS, MAX_NODES, MAX_PULL, MAX_RPC};
use super::membership::Peer;
use super::record::{Head, Record};
use super::seal;
use super::table::{BUCKETS, Extent, Section};
use super::twin::Word;
use super::wire::{Reader, Writer as _};
use crate::model::NodeId;

/// Octets of the envelope.
const ENVELOPE: usize = 16 + 4 + 4 + 1;
/// What is left for a message's content in a datagram, octets.
pub(crate) const MAX_CONTENT: usize = MAX_DATAGRAM - seal::OVERHEAD - ENVELOPE;

/// What is left in a first contact for a section.
pub(crate) const MAX_INTRODUCTION: usize = MAX_CONTENT - 9;

const _: () = assert!(MAX_RPC + call::OVERHEAD <= MAX_CONTENT, "a call fits a datagram");
const _: () = assert!(8 * BUCKETS < MAX_CONTENT, "all buckets fit a datagram");

/// For whom a message is and from which start of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) to: Option<NodeId>,
    /// Start of the destination that is meant; zero is any.
    pub(crate) to_epoch: u32,
    pub(crate) from_epoch: u32,
}

/// One line of a comparison: how far an origin is complete, and a hash of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) origin: NodeId,
    pub(crate) version: u64,
    pub(crate) mark: u64,
}

/// One line of a roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RosterEntry {
    pub(crate) peer: Peer,
    pub(crate) incarnation: u16,
    pub(crate) alive: bool,
}

/// A set of buckets, one bit each.
pub(crate) type BucketSet = u128;
const _: () = assert!(BUCKETS == BucketSet::BITS as usize);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A packet of the membership engine.
    Member(Vec<u8>),
    /// First contact: who we are as we signed it, and up to which generation we hold the receiver dead.
    Hello { buried: u64, reply: bool, section: Box<Section> },
    /// The sender suspects the receiver, in this incarnation, to be dead.
    Suspicion(u16),
    /// Changes of records; `more` says that the sender had to stop.
    Delta { more: bool, sections: Vec<Section> },
    /// What all we know hashes to: records, active members.
    Digest { tables: u64, roster: u64 },
    /// Hash per bucket of origins.
    Buckets(Box<[u64; BUCKETS]>),
    /// Everything the sender has in some buckets.
    Summaries { buckets: BucketSet, entries: Vec<Summary> },
    /// Request for changes after a version, per origin.
    Pull(Vec<(NodeId, u64)>),
    /// All members as the sender sees them.
    Roster { reply: bool, entries: Vec<RosterEntry> },
    /// A call of the layer above.
    Rpc(Box<Call>),
    /// One start of a node to another one of it.
    Twin(Box<Word>),
}

const MEMBER: u8 = 1;
const HELLO: u8 = 2;
const DELTA: u8 = 3;
const DIGEST: u8 = 4;
const BUCKET_HASHES: u8 = 5;
const SUMMARIES: u8 = 6;
const PULL: u8 = 7;
const ROSTER: u8 = 8;
const RPC: u8 = 9;
const SUSPICION: u8 = 10;
const TWIN: u8 = 11;

impl Envelope {
    pub(crate) fn emit(&self, message: &Message) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.node(self.to.unwrap_or(NodeId([0; 16])));
        out.u32(self.to_epoch);
        out.u32(self.from_epoch);
        message.emit(&mut out);
        out
    }

    /// The envelope, and the content that is for [`Message::parse`].
    pub(crate) fn parse(body: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader::new(body);
        let to = reader.node()?;
        let envelope =
            Self { to: (to.0 != [0; 16]).then_some(to), to_epoch: reader.u32()?, from_epoch: reader.u32()? };
        Some((envelope, reader.rest()))
    }
}

impl Message {
    fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Member(packet) => {
                out.u8(MEMBER);
                out.octets(packet);
            }
            Self::Hello { buried, reply, section } => {
                out.u8(HELLO);
                out.u64(*buried);
                out.flag(*reply);
                emit_section(section, out);
            }
            Self::Suspicion(incarnation) => {
                out.u8(SUSPICION);
                out.u16(*incarnation);
            }
            Self::Delta { more, sections } => {
                out.u8(DELTA);
                out.flag(*more);
                out.u16(sections.len() as u16);
                sections.iter().for_each(|section| emit_section(section, out));
            }
            Self::Digest { tables, roster } => {
                out.u8(DIGEST);
                out.u64(*tables);
                out.u64(*roster);
            }
            Self::Buckets(hashes) => {
                out.u8(BUCKET_HASHES);
                hashes.iter().for_each(|hash| out.u64(*hash));
            }
            Self::Summaries { buckets, entries } => {
                out.u8(SUMMARIES);
                out.octets(&buckets.to_be_bytes());
                out.u16(entries.len() as u16);
                for entry in entries {
                    out.node(entry.origin);
                    out.u64(entry.version);
                    out.u64(entry.mark);
                }
            }
            Self::Pull(wanted) => {
                out.u8(PULL);
                out.u16(wanted.len() as u16);
                for (origin, have) in wanted {
                    out.node(*origin);
                    out.u64(*have);
                }
            }
            Self::Roster { reply, entries } => {
                out.u8(ROSTER);
                out.flag(*reply);
                out.u16(entries.len() as u16);
                for entry in entries {
                    entry.peer.emit(out);
                    out.u16(entry.incarnation);
                    out.flag(entry.alive);
                }
            }
            Self::Rpc(call) => {
                out.u8(RPC);
                call.emit(out);
            }
            Self::Twin(word) => {
                out.u8(TWIN);
                word.emit(out);
            }
        }
    }

    /// Reads one message that takes up all of `content`.
    pub(crate) fn parse(content: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(content);
        let message = match reader.u8()? {
            MEMBER => {
                return (reader.rest().len() <= MAX_CONTENT).then(|| Self::Member(reader.rest().to_vec()));
            }
            RPC => return Call::parse(reader.rest()).map(|call| Self::Rpc(Box::new(call))),
            HELLO => {
                let (buried, reply) = (reader.u64()?, reader.flag()?);
                Self::Hello { buried, reply, section: Box::new(parse_section(&mut reader)?) }
            }
            DELTA => {
                Self::Delta { more: reader.flag()?, sections: list(&mut reader, MAX_PULL, parse_section)? }
            }
            SUSPICION => Self::Suspicion(reader.u16()?),
            DIGEST => Self::Digest { tables: reader.u64()?, roster: reader.u64()? },
            BUCKET_HASHES => {
                let mut hashes = Box::new([0; BUCKETS]);
                for hash in hashes.iter_mut() {
                    *hash = reader.u64()?;
                }
                Self::Buckets(hashes)
            }
            SUMMARIES => Self::Summaries {
                buckets: BucketSet::from_be_bytes(reader.array()?),
                entries: list(&mut reader, MAX_NODES, |r| {
                    Some(Summary { origin: r.node()?, version: r.u64()?, mark: r.u64()? })
                })?,
            },
            PULL => Self::Pull(list(&mut reader, MAX_PULL, |r| Some((r.node()?, r.u64()?)))?),
            ROSTER => Self::Roster {
                reply: reader.flag()?,
                entries: list(&mut reader, MAX_NODES, |r| {
                    Some(RosterEntry { peer: Peer::parse(r)?, incarnation: r.u16()?, alive: r.flag()? })
                })?,
            },
            TWIN => Self::Twin(Box::new(Word::parse(&mut reader)?)),
            _ => return None,
        };
        reader.end()?;
        Some(message)
    }
}

impl Peer {
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.node(self.id);
        out.addr(&self.addr);
        out.u64(self.generation);
    }

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        let id = reader.node()?;
        let addr: SocketAddr = reader.addr()?;
        Some(Self { id, addr, generation: reader.u64()? })
    }
}

/// A counted list; grows only as items are really there.
fn list<T>(
    reader: &mut Reader<'_>,
    most: usize,
    mut item: impl FnMut(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = usize::from(reader.u16()?);
    if count > most {
        return None;
    }
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Some(items)
}

const PART: u8 = 0;
const SINCE: u8 = 1;
const FULL: u8 = 2;

fn emit_section(section: &Section, out: &mut Vec<u8>) {
    section.head.emit(out);
    match section.extent {
        Extent::Part => out.u8(PART),
        Extent::Since(base) => {
            out.u8(SINCE);
            out.u64(base);
        }
        Extent::Full => out.u8(FULL),
    }
    out.u16(section.records.len() as u16);
    section.records.iter().for_each(|(key, record)| record.emit(key, out));
}

fn parse_section(reader: &mut Reader<'_>) -> Option<Section> {
    let head = Head::parse(reader)?;
    let extent = match reader.u8()? {
        PART => Extent::Part,
        SINCE => Extent::Since(reader.u64()?),
        FULL => Extent::Full,
        _ => return None,
    };
    // A delta may hold as many withdrawals as live records.
    let records = list(reader, 2 * MAX_KEYS, Record::parse)?;
    Some(Section { head, extent, records })
}

/// Octets that a section takes in a message, at most.
pub(crate) fn section_len(section: &Section) -> usize {
    let records: usize = section.records.iter().map(|(key, record)| record.wire_len(key)).sum();
    HEAD_MOST + 11 + records
}

/// Octets of a head with the longest name and address.
pub(crate) const HEAD_MOST: usize = 32 + 1 + 63 + 19 + 2 + 8 + 8 + 4 + 4 + 16 + 1 + 64;
