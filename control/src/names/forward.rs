//! Questions handed on to other servers: what is sent, and which replies count.

use hickory_proto::op::{Header, MessageType, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

use super::query::Asked;

/// What a datagram or message of a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The reply, as the asker gets it.
    Reply(Vec<u8>),
    /// The server's reply, as the asker gets it, that it cannot or will not answer: another may.
    Failure(Vec<u8>),
    /// Not a reply to this question: forged, or late.
    Other,
}

/// The query as it goes out: with an id of our own, so that only who hears it can answer it.
///
/// `octets` are those that `asked` was read from.
#[must_use]
pub fn outgoing(asked: &Asked, octets: &[u8], id: u16) -> Vec<u8> {
    let mut query = octets.get(..asked.length).unwrap_or(octets).to_vec();
    set_id(&mut query, id);
    query
}

/// Judges what came from a server that was sent [`outgoing`] with `id`.
#[must_use]
pub fn hear(asked: &Asked, id: u16, octets: &[u8]) -> Heard {
    let mut decoder = BinDecoder::new(octets);
    let Ok(header) = Header::read(&mut decoder) else { return Heard::Other };
    let answers_us = header.metadata.id == id
        && header.metadata.message_type == MessageType::Response
        && header.metadata.op_code == asked.op_code();
    if !answers_us {
        return Heard::Other;
    }
    let failed = matches!(
        header.metadata.response_code,
        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::FormErr
    );
    // Some servers repeat no question when they refuse it.
    if header.counts.queries == 0 && failed {
        return Heard::Failure(asked.unanswered());
    }
    if header.counts.queries != 1 || !repeats(&mut decoder, asked) {
        return Heard::Other;
    }
    let reply = returned(asked, octets);
    if failed { Heard::Failure(reply) } else { Heard::Reply(reply) }
}

fn repeats(decoder: &mut BinDecoder<'_>, asked: &Asked) -> bool {
    Query::read(decoder).is_ok_and(|query| asked.query() == Some(&query))
}

/// The server's words with the asker's id; only that there is more, where they are too many.
fn returned(asked: &Asked, octets: &[u8]) -> Vec<u8> {
    if octets.len() > asked.limit() {
        return asked.truncated();
    }
    let mut reply = octets.to_vec();
    set_id(&mut reply, asked.id());
    reply
}

fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
}
