//! Queries as they come out of a sandbox, and replies to them. Everything in a query is the asker's fault.

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder, BinEncodable as _, BinEncoder};

/// Longest query looked at, octets; usual are below 100.
pub const MAX_QUERY: usize = 4096;
/// Octets of a header (RFC 1035 §4.1.1).
const HEADER: usize = 12;
/// Records after the question: EDNS, perhaps a signature, cookies.
const MAX_ADDITIONALS: u16 = 4;
/// Longest reply over UDP without EDNS (RFC 1035 §4.2.1), octets.
const PLAIN: u16 = 512;
/// Longest reply over UDP with EDNS, octets: it never leaves the host.
const EXTENDED: u16 = 4096;

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// In a stream, after its length.
    Tcp,
}

/// A query with one question of the Internet class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    metadata: Metadata,
    query: Option<Query>,
    extended: bool,
    limit: u16,
    /// Octets of the query that mean something.
    pub(super) length: usize,
}

/// What is not a query to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody waits for a reply, or it could not be told whose it is.
    Unanswerable,
    /// It gets this code.
    Refused(Box<Asked>, ResponseCode),
}

/// Reads a query.
pub(super) fn read(octets: &[u8], transport: Transport) -> Result<(Asked, Query), Fault> {
    if octets.len() < HEADER {
        return Err(Fault::Unanswerable);
    }
    let mut decoder = BinDecoder::new(octets.get(..MAX_QUERY).unwrap_or(octets));
    let header = Header::read(&mut decoder).map_err(|_| Fault::Unanswerable)?;
    if header.metadata.message_type != MessageType::Query {
        // Replies to replies would go round for ever.
        return Err(Fault::Unanswerable);
    }
    let limit = if transport == Transport::Tcp { u16::MAX } else { PLAIN };
    let mut asked = Asked { metadata: header.metadata, query: None, extended: false, limit, length: 0 };
    match asked.read_rest(octets, header, decoder, transport) {
        Ok(query) => Ok((asked, query)),
        Err(code) => Err(Fault::Refused(Box::new(asked), code)),
    }
}

impl Asked {
    fn read_rest(
        &mut self,
        octets: &[u8],
        header: Header,
        mut decoder: BinDecoder<'_>,
        transport: Transport,
    ) -> Result<Query, ResponseCode> {
        if header.metadata.op_code != OpCode::Query {
            return Err(ResponseCode::NotImp);
        }
        let counts = header.counts;
        let shape = (counts.queries, counts.answers, counts.authorities);
        if octets.len() > MAX_QUERY || shape != (1, 0, 0) || counts.additionals > MAX_ADDITIONALS {
            return Err(ResponseCode::FormErr);
        }
        let query = Query::read(&mut decoder).map_err(|_| ResponseCode::FormErr)?;
        self.query = Some(query.clone());
        for _ in 0..counts.additionals {
            let record = Record::read(&mut decoder).map_err(|_| ResponseCode::FormErr)?;
            self.note(&record, transport)?;
        }
        self.length = decoder.index();
        let transfer = matches!(query.query_type, RecordType::AXFR | RecordType::IXFR);
        if query.query_class != DNSClass::IN || transfer {
            return Err(ResponseCode::Refused);
        }
        Ok(query)
    }

    /// Takes in what EDNS says (RFC 6891 §6.1.2).
    fn note(&mut self, record: &Record, transport: Transport) -> Result<(), ResponseCode> {
        if record.record_type() != RecordType::OPT {
            return Ok(());
        }
        if self.extended || !record.name.is_root() {
            return Err(ResponseCode::FormErr);
        }
        self.extended = true;
        if transport == Transport::Udp {
            self.limit = u16::from(record.dns_class).clamp(PLAIN, EXTENDED);
        }
        let version = record.ttl.to_be_bytes()[1];
        if version == 0 { Ok(()) } else { Err(ResponseCode::BADVERS) }
    }

    /// The question, where there is one.
    pub(super) fn query(&self) -> Option<&Query> {
        self.query.as_ref()
    }

    pub(super) fn op_code(&self) -> OpCode {
        self.metadata.op_code
    }

    /// The query's id.
    pub(super) fn id(&self) -> u16 {
        self.metadata.id
    }

    /// Longest reply that the asker takes, octets.
    pub(super) fn limit(&self) -> usize {
        self.limit.into()
    }

    /// A reply with this code; as many of the answers as fit, marked where it is not all of them.
    #[must_use]
    pub(super) fn reply(&self, code: ResponseCode, answers: Vec<Record>) -> Vec<u8> {
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.recursion_available = true;
        metadata.response_code = code;
        let mut message = Message::new(self.id(), MessageType::Response, metadata.op_code);
        message.metadata = metadata;
        message.queries.extend(self.query.clone());
        message.answers = answers;
        if self.extended {
            let mut edns = Edns::new();
            edns.set_max_payload(EXTENDED);
            message.set_edns(edns);
        }
        let mut octets = Vec::with_capacity(PLAIN.into());
        let mut encoder = BinEncoder::new(&mut octets);
        encoder.set_max_size(self.limit);
        // A header, a question and EDNS always fit.
        if message.emit(&mut encoder).is_err() { Vec::new() } else { octets }
    }

    /// A reply that says nothing but that there is more: to be asked for over TCP.
    #[must_use]
    pub(super) fn truncated(&self) -> Vec<u8> {
        let mut octets = self.reply(ResponseCode::NoError, Vec::new());
        if let Some(flags) = octets.get_mut(2) {
            *flags |= 0x02;
        }
        octets
    }

    /// The reply to a question that nobody answered.
    #[must_use]
    pub fn unanswered(&self) -> Vec<u8> {
        self.reply(ResponseCode::ServFail, Vec::new())
    }

    /// The reply to one question too many.
    #[must_use]
    pub fn refused(&self) -> Vec<u8> {
        self.reply(ResponseCode::Refused, Vec::new())
    }
}
