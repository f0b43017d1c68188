//! The side that wants something: a joiner, or a member whose keys or certificate are old.

use snow::{HandshakeState, TransportState};
use zeroize::Zeroizing;

use super::message::{Answer, Ask, Hello, Join, Member, Proof, Request, Terms, Welcome, decode, encode};
use super::{AdmissionError, MAX_MESSAGE, PATTERN, PROLOGUE, TAG};
use crate::identity::Identity;
use crate::model::{Name, NodeId};
use crate::noise;
use crate::timestamp::UnixMillis;
use crate::trust::{
    Chain, ChainError, Link, NodeCertificate, RootHash, Signed, TOLERANCE, TokenKey, root_hash,
};

/// What is wanted.
#[derive(Debug)]
pub enum Errand {
    /// To become a member by a token.
    Join {
        /// The token's key.
        token: TokenKey,
        /// The root it pins.
        root: RootHash,
        /// The node's name.
        name: Name,
    },
    /// The gossip keys.
    Ring(Chain),
    /// A new certificate.
    Renew(Chain),
}

impl Errand {
    fn root(&self) -> RootHash {
        match self {
            Self::Join { root, .. } => *root,
            Self::Ring(chain) | Self::Renew(chain) => root_hash(&chain.root),
        }
    }
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send this and wait for the answer.
    Send(Vec<u8>),
    /// It is done.
    Done(Box<Outcome>),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The member that answered.
    pub member: NodeId,
    /// The node's chain: the new one, or the one it had.
    pub chain: Chain,
    /// Keys, revocations, addresses.
    pub welcome: Welcome,
}

/// One exchange.
pub struct Initiator<'node> {
    node: &'node Identity,
    errand: Errand,
    stage: Stage,
    member: NodeId,
    /// The chain made of a token's terms.
    chain: Option<Chain>,
}

enum Stage {
    Opening(Box<HandshakeState>),
    Open(Box<TransportState>),
    Over,
}

impl<'node> Initiator<'node> {
    /// Starts an exchange in the name of `node`; the second part is the first message.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn new(
        node: &'node Identity,
        errand: Errand,
        seed: [u8; 32],
    ) -> Result<(Self, Vec<u8>), AdmissionError> {
        let secret = node.static_secret();
        let builder = noise::builder(PATTERN.parse()?, seed);
        let mut handshake = builder.prologue(PROLOGUE)?.local_private_key(&*secret)?.build_initiator()?;
        let first = write_handshake(&mut handshake, &[])?;
        let stage = Stage::Opening(Box::new(handshake));
        Ok((Self { node, errand, stage, member: NodeId([0; 16]), chain: None }, first))
    }

    /// Takes in an answer; `now` is the wall clock.
    ///
    /// # Errors
    /// Why it came to nothing; the exchange is over.
    pub fn handle(&mut self, now: UnixMillis, message: &[u8]) -> Result<Step, AdmissionError> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Opening(handshake) => self.answer_hello(now, *handshake, message),
            Stage::Open(transport) => self.handle_answer(now, *transport, message),
            Stage::Over => Err(AdmissionError::Garbled),
        }
    }

    /// Nothing is revealed before the member's chain holds to the pinned root and names the key it handshakes with.
    fn answer_hello(
        &mut self,
        now: UnixMillis,
        mut handshake: HandshakeState,
        message: &[u8],
    ) -> Result<Step, AdmissionError> {
        let mut payload = vec![0; message.len()];
        let length = handshake.read_message(message, &mut payload)?;
        let hello: Hello = decode(&payload[..length])?;
        if hello.clock.apart(now) > TOLERANCE {
            // Only a member's word is worth telling the user to set a clock.
            self.check(&hello, hello.clock, &handshake)?;
            return Err(AdmissionError::Clock { here: now, there: hello.clock });
        }
        self.check(&hello, now, &handshake)?;
        let mut hash = [0; 32];
        hash.copy_from_slice(handshake.get_handshake_hash());
        let request = encode(&Request { clock: now, ask: self.ask(hash) });
        let reply = write_handshake(&mut handshake, &request)?;
        self.stage = Stage::Open(Box::new(handshake.into_transport_mode()?));
        Ok(Step::Send(reply))
    }

    fn check(
        &mut self,
        hello: &Hello,
        now: UnixMillis,
        handshake: &HandshakeState,
    ) -> Result<(), AdmissionError> {
        let verified = match hello.chain.verify(&self.errand.root(), now, &()) {
            Err(ChainError::OtherCluster) => return Err(AdmissionError::OtherCluster),
            other => other.map_err(AdmissionError::Unproved)?,
        };
        if handshake.get_remote_static() != Some(&verified.static_key) {
            return Err(AdmissionError::Garbled);
        }
        self.member = verified.id;
        Ok(())
    }

    fn ask(&self, handshake: [u8; 32]) -> Ask {
        let key = self.node.public_key();
        let proof = Proof { handshake, key };
        let by_node = Signed::new(proof.clone(), |octets| self.node.sign(octets));
        match &self.errand {
            Errand::Join { token, .. } => {
                let by_token = Signed::new(proof, |octets| token.sign(octets));
                Ask::Join(Join { token: token.id(), key, by_token, by_node })
            }
            Errand::Ring(chain) => Ask::Ring(Member { chain: chain.clone(), by_node }),
            Errand::Renew(chain) => Ask::Renew(Member { chain: chain.clone(), by_node }),
        }
    }

    fn handle_answer(
        &mut self,
        now: UnixMillis,
        mut transport: TransportState,
        message: &[u8],
    ) -> Result<Step, AdmissionError> {
        let answer = decode(&read_transport(&mut transport, message)?)?;
        match answer {
            Answer::Refused(refusal) => Err(AdmissionError::Refused(refusal)),
            Answer::Terms(terms) => self.accept_terms(now, transport, *terms),
            Answer::Welcome(welcome) => self.finish(now, *welcome),
        }
    }

    fn accept_terms(
        &mut self,
        now: UnixMillis,
        mut transport: TransportState,
        terms: Terms,
    ) -> Result<Step, AdmissionError> {
        let Errand::Join { token, root, name } = &self.errand else { return Err(AdmissionError::Garbled) };
        let node = NodeCertificate::by_token(self.node, name.clone(), token, &terms.token.statement, now);
        let chain = terms.admin.extended(Link { token: Some(terms.token), node: node.clone() });
        chain.verify(root, now, &()).map_err(AdmissionError::Unproved)?;
        self.chain = Some(chain);
        let reply = write_transport(&mut transport, &encode(&node))?;
        self.stage = Stage::Open(Box::new(transport));
        Ok(Step::Send(reply))
    }

    fn finish(&mut self, now: UnixMillis, welcome: Welcome) -> Result<Step, AdmissionError> {
        let had = match &self.errand {
            Errand::Join { .. } => self.chain.take(),
            Errand::Ring(chain) | Errand::Renew(chain) => Some(chain.clone()),
        };
        let chain = match &self.errand {
            Errand::Renew(_) => welcome.chain.clone().or(had),
            _ => had,
        }
        .ok_or(AdmissionError::Garbled)?;
        let verified = chain.verify(&self.errand.root(), now, &()).map_err(AdmissionError::Unproved)?;
        if verified.id != self.node.node_id() {
            return Err(AdmissionError::Garbled);
        }
        Ok(Step::Done(Box::new(Outcome { member: self.member, chain, welcome })))
    }
}

pub(super) fn write_handshake(
    handshake: &mut HandshakeState,
    payload: &[u8],
) -> Result<Vec<u8>, AdmissionError> {
    // Two keys of 32 octets and two tags are the most a message of this pattern adds.
    let mut message = vec![0; payload.len() + 2 * 32 + 2 * TAG];
    let length = handshake.write_message(payload, &mut message)?;
    message.truncate(length);
    Ok(message)
}

pub(super) fn write_transport(
    transport: &mut TransportState,
    payload: &[u8],
) -> Result<Vec<u8>, AdmissionError> {
    if payload.len() + TAG > MAX_MESSAGE {
        return Err(AdmissionError::Garbled);
    }
    let mut message = vec![0; payload.len() + TAG];
    let length = transport.write_message(payload, &mut message)?;
    message.truncate(length);
    Ok(message)
}

pub(super) fn read_transport(
    transport: &mut TransportState,
    message: &[u8],
) -> Result<Zeroizing<Vec<u8>>, AdmissionError> {
    let mut payload = Zeroizing::new(vec![0; message.len()]);
    let length = transport.read_message(message, &mut payload)?;
    payload.truncate(length);
    Ok(payload)
}
