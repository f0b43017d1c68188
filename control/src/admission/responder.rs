//! The side that is asked: any member.

use snow::{HandshakeState, TransportState};
use zeroize::Zeroizing;

use super::initiator::{read_transport, write_handshake, write_transport};
use super::message::{
    Answer, Ask, Certificate, Hello, Join, Member, Question, Refusal, Request, Terms, decode, encode,
};
use super::{AdmissionError, PATTERN, PROLOGUE};
use crate::identity::Identity;
use crate::noise;
use crate::timestamp::UnixMillis;
use crate::trust::{Chain, Link, TOLERANCE};

/// What a member proves itself with.
#[derive(Clone)]
pub struct Presented {
    chain: Chain,
    secret: Zeroizing<[u8; 32]>,
}

impl Presented {
    /// The node's chain and the static key that it names.
    #[must_use]
    pub fn new(node: &Identity, chain: Chain) -> Self {
        Self { chain, secret: node.static_secret() }
    }
}

/// One exchange.
pub struct Responder {
    stage: Stage,
}

enum Stage {
    Listening(Box<HandshakeState>, Chain),
    Greeted(Box<HandshakeState>),
    /// A joiner has shown which token it holds; its proof is checked against the token's certificate.
    Claimed(Box<TransportState>, Box<Join>, [u8; 32]),
    /// A joiner was told the terms and makes its certificate.
    Agreed(Box<TransportState>, Box<(Terms, [u8; 32], [u8; 32])>),
    /// Only the last answer is missing.
    Asked(Box<TransportState>),
    Over,
}

impl Responder {
    /// Waits for the first message.
    ///
    /// # Errors
    /// None that the other side could cause.
    pub fn new(presented: &Presented, seed: [u8; 32]) -> Result<Self, AdmissionError> {
        let builder = noise::builder(PATTERN.parse()?, seed).prologue(PROLOGUE)?;
        let handshake = builder.local_private_key(&*presented.secret)?.build_responder()?;
        Ok(Self { stage: Stage::Listening(Box::new(handshake), presented.chain.clone()) })
    }

    /// Takes in the first message and proves this node's membership.
    ///
    /// # Errors
    /// It is none.
    pub fn greet(&mut self, now: UnixMillis, message: &[u8]) -> Result<Vec<u8>, AdmissionError> {
        let Stage::Listening(mut handshake, chain) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(AdmissionError::Garbled);
        };
        let mut payload = vec![0; message.len()];
        handshake.read_message(message, &mut payload)?;
        let reply = write_handshake(&mut handshake, &encode(&Hello { chain, clock: now }))?;
        self.stage = Stage::Greeted(handshake);
        Ok(reply)
    }

    /// Takes in the request; what the cluster is to decide, or a refusal that is clear already.
    ///
    /// # Errors
    /// It is none, or its sender does not hold the key that its certificate names.
    pub fn listen(
        &mut self,
        now: UnixMillis,
        message: &[u8],
    ) -> Result<Result<Question, Refusal>, AdmissionError> {
        let Stage::Greeted(mut handshake) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(AdmissionError::Garbled);
        };
        let mut hash = [0; 32];
        hash.copy_from_slice(handshake.get_handshake_hash());
        let mut payload = vec![0; message.len()];
        let length = handshake.read_message(message, &mut payload)?;
        let request: Request = decode(&payload[..length])?;
        let mut remote = [0; 32];
        remote.copy_from_slice(handshake.get_remote_static().ok_or(AdmissionError::Garbled)?);
        let transport = Box::new(handshake.into_transport_mode()?);
        if request.clock.apart(now) > TOLERANCE {
            self.stage = Stage::Asked(transport);
            return Ok(Err(Refusal::Clock { asker: request.clock, member: now }));
        }
        let question = match request.ask {
            Ask::Join(join) => {
                let proof = &join.by_token.statement;
                if proof != &join.by_node.statement || proof.handshake != hash || proof.key != join.key {
                    return Err(AdmissionError::Garbled);
                }
                let (token, key) = (join.token, join.key);
                self.stage = Stage::Claimed(transport, Box::new(join), remote);
                return Ok(Ok(Question::Token(token, key)));
            }
            Ask::Ring(member) => Question::Ring(held(member, &remote, &hash)?),
            Ask::Renew(member) => Question::Renew(held(member, &remote, &hash)?),
        };
        self.stage = Stage::Asked(transport);
        Ok(Ok(question))
    }

    /// Gives an answer; a joiner whose proof does not match the terms gets none.
    ///
    /// # Errors
    /// The proof is wrong, or the answer is not due.
    pub fn answer(&mut self, answer: &Answer) -> Result<Vec<u8>, AdmissionError> {
        let (mut transport, next) = match (std::mem::replace(&mut self.stage, Stage::Over), answer) {
            (Stage::Claimed(transport, join, remote), Answer::Terms(terms)) => {
                let by_token = join.by_token.is_by(&terms.token.statement.key);
                if !by_token || !join.by_node.is_by(&join.key) || terms.token.statement.id() != join.token {
                    return Err(AdmissionError::Garbled);
                }
                (transport, Some((Terms::clone(terms), join.key, remote)))
            }
            (Stage::Claimed(transport, ..) | Stage::Asked(transport), Answer::Refused(_))
            | (Stage::Asked(transport), Answer::Welcome(_)) => (transport, None),
            _ => return Err(AdmissionError::Garbled),
        };
        let reply = write_transport(&mut transport, &encode(answer))?;
        if let Some(agreed) = next {
            self.stage = Stage::Agreed(transport, Box::new(agreed));
        }
        Ok(reply)
    }

    /// Takes in the certificate that a joiner made under the terms it was told.
    ///
    /// # Errors
    /// It is none, or not for the keys that took part in the handshake.
    pub fn certificate(&mut self, message: &[u8]) -> Result<Question, AdmissionError> {
        let Stage::Agreed(mut transport, agreed) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(AdmissionError::Garbled);
        };
        let (terms, key, remote) = *agreed;
        let node: Certificate = decode(&read_transport(&mut transport, message)?)?;
        if node.statement.key != key || node.statement.static_key != remote {
            return Err(AdmissionError::Garbled);
        }
        self.stage = Stage::Asked(transport);
        Ok(Question::Admit(terms.admin.extended(Link { token: Some(terms.token), node })))
    }
}

/// A chain whose node handshakes with the static key that it names, and signed that with the other one.
pub(super) fn held(member: Member, remote: &[u8; 32], handshake: &[u8; 32]) -> Result<Chain, AdmissionError> {
    let Member { chain, by_node } = member;
    let proof = &by_node.statement;
    match chain.subject() {
        Some(node)
            if node.static_key == *remote
                && proof.handshake == *handshake
                && proof.key == node.key
                && by_node.is_by(&node.key) =>
        {
            Ok(chain)
        }
        _ => Err(AdmissionError::Garbled),
    }
}
