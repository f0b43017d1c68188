//! Joiners and members, wired together in memory.

use std::time::Duration;

use super::*;
use crate::identity::Identity;
use crate::model::NodeId;
use crate::timestamp::UnixMillis;
use crate::trust::{
    Chain, Papers, Registry, Role, Settings, TOKEN_LIFE, Token, TokenRecord, TokenRefusal, TokenTerms,
    Verified,
};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

/// A member with what its cluster knows.
struct Member {
    papers: Papers,
    registry: Registry,
    clock: UnixMillis,
}

impl Member {
    fn first(seed: u8) -> Self {
        let settings =
            Settings { name: "a".parse().expect("a name"), advertise: String::new(), gossip_port: 7946 };
        let papers = Papers::found(&[seed; 32], settings, NOW);
        let mut registry = Registry::new(&papers.chain.root);
        let own = (papers.identity.node_id(), papers.chain.clone());
        assert!(registry.hear_certificate(NOW, own.0, own.1).expect("its own"));
        Self { papers, registry, clock: NOW }
    }

    fn token(&mut self, max_uses: u32, role: Role) -> Token {
        let token = Token::new(self.papers.root_hash(), [9; 16], &[]);
        let terms = TokenTerms { role, max_uses, life: TOKEN_LIFE };
        let Papers { identity, chain, .. } = &self.papers;
        let certificate = chain.certify_token(identity, token.key().public_key(), terms, NOW);
        let us = identity.node_id();
        assert!(self.registry.hear_token(NOW, us, TokenRecord { certificate, revoked: None }));
        token
    }

    /// As a cluster decides, without what only it can know.
    fn decide(&mut self, question: Question) -> Answer {
        match question {
            Question::Token(id, _) => match self.registry.usable_token(self.clock, id) {
                Ok(token) => Answer::Terms(Box::new(Terms {
                    token: token.certificate.clone(),
                    admin: self.papers.chain.clone(),
                })),
                Err(TokenRefusal::Unknown) => Answer::Refused(Refusal::UnknownToken),
                Err(TokenRefusal::Revoked) => Answer::Refused(Refusal::TokenRevoked),
                Err(TokenRefusal::Spent(uses)) => Answer::Refused(Refusal::Spent(uses)),
                Err(TokenRefusal::Expired(not_after)) => {
                    Answer::Refused(Refusal::Expired { not_after, now: self.clock })
                }
            },
            Question::Admit(chain) | Question::Ring(chain) | Question::Renew(chain) => {
                let id = chain.subject().map_or(NodeId([0; 16]), |node| node.id());
                match self.registry.hear_certificate(self.clock, id, chain) {
                    Ok(_) => self.welcome(),
                    Err(fault) => Answer::Refused(Refusal::NotAccepted(fault.to_string())),
                }
            }
        }
    }

    fn welcome(&self) -> Answer {
        let peer = (self.papers.identity.node_id(), "192.0.2.1:7946".parse().expect("an address"));
        let ring = self.papers.ring.clone();
        Answer::Welcome(Box::new(Welcome {
            chain: None,
            ring,
            makers: Vec::new(),
            revocations: Vec::new(),
            peers: vec![peer],
        }))
    }
}

/// Every message of an exchange, and what came of it.
struct Run {
    wire: Vec<Vec<u8>>,
    outcome: Result<Outcome, AdmissionError>,
}

fn run(member: &mut Member, node: &Identity, errand: Errand, clock: UnixMillis) -> Run {
    let mut wire = Vec::new();
    let outcome = exchange(member, node, errand, clock, &mut wire);
    Run { wire, outcome }
}

fn exchange(
    member: &mut Member,
    node: &Identity,
    errand: Errand,
    clock: UnixMillis,
    wire: &mut Vec<Vec<u8>>,
) -> Result<Outcome, AdmissionError> {
    let presented = Presented::new(&member.papers.identity, member.papers.chain.clone());
    let mut responder = Responder::new(&presented, [3; 32])?;
    let (mut initiator, first) = Initiator::new(node, errand, [4; 32])?;
    wire.push(first);
    let hello = responder.greet(member.clock, &wire[0])?;
    wire.push(hello.clone());
    let Step::Send(request) = initiator.handle(clock, &hello)? else { panic!("done too early") };
    wire.push(request.clone());
    let mut answer = match responder.listen(member.clock, &request)? {
        Ok(question) => member.decide(question),
        Err(refusal) => Answer::Refused(refusal),
    };
    loop {
        let reply = responder.answer(&answer)?;
        wire.push(reply.clone());
        match initiator.handle(clock, &reply)? {
            Step::Done(outcome) => return Ok(*outcome),
            Step::Send(certificate) => {
                wire.push(certificate.clone());
                answer = member.decide(responder.certificate(&certificate)?);
            }
        }
    }
}

fn errand(token: &Token) -> Errand {
    Errand::Join { token: token.key(), root: token.root(), name: "b".parse().expect("a name") }
}

fn node(octet: u8) -> Identity {
    Identity::from_secret(&[octet; 32])
}

fn verified(member: &Member, chain: &Chain) -> Verified {
    chain.verify(&member.papers.root_hash(), NOW, &()).expect("it holds to the root")
}

#[test]
fn a_token_makes_a_member_that_gets_the_gossip_keys() {
    let mut member = Member::first(1);
    let token = member.token(0, Role::Node);
    let joiner = node(2);
    let outcome = run(&mut member, &joiner, errand(&token), NOW).outcome.expect("joined");
    assert_eq!(outcome.member, member.papers.identity.node_id());
    assert_eq!(outcome.welcome.ring, member.papers.ring);
    let certificate = verified(&member, &outcome.chain);
    assert_eq!((certificate.id, certificate.role), (joiner.node_id(), Role::Node));
    assert_eq!(certificate.name.expect("a name").as_str(), "b");
    assert_eq!(member.registry.uses(token.key().id()), 1);
}

#[test]
fn nothing_that_crosses_the_wire_holds_the_token_or_a_key() {
    let mut member = Member::first(1);
    let token = member.token(0, Role::Node);
    let joiner = node(2);
    let wire = run(&mut member, &joiner, errand(&token), NOW).wire.concat();
    let shows = |octets: &[u8]| wire.windows(octets.len()).any(|window| window == octets);
    assert!(!shows(&[9; 16]), "the token's secret");
    assert!(!shows(&member.papers.ring.to_octets()[11..43]), "the gossip key");
    let public = [joiner.public_key(), joiner.static_public(), token.key().public_key()];
    assert!(!public.iter().any(|key| shows(key)), "not even public keys of the joiner");
    assert!(!shows(&member.papers.chain.root), "nor those of the member");
}

#[test]
fn a_member_of_another_cluster_learns_nothing_of_the_joiner() {
    let (mut member, mut other) = (Member::first(1), Member::first(2));
    let token = member.token(0, Role::Node);
    let run = run(&mut other, &node(3), errand(&token), NOW);
    assert_eq!(run.outcome, Err(AdmissionError::OtherCluster));
    assert_eq!(run.wire.len(), 2, "the joiner said nothing but a fresh key");
}

#[test]
fn expired_spent_revoked_and_unknown_tokens_are_refused_each_with_its_words() {
    let mut member = Member::first(1);
    let token = member.token(1, Role::Node);
    let unknown = Token::new(member.papers.root_hash(), [8; 16], &[]);
    let refused = |member: &mut Member, octet, token: &Token, clock| {
        run(member, &node(octet), errand(token), clock).outcome.expect_err("refused").to_string()
    };
    let words = refused(&mut member, 2, &unknown, NOW);
    assert!(words.contains("not known there yet"), "{words}");
    run(&mut member, &node(2), errand(&token), NOW).outcome.expect("the one use");
    let words = refused(&mut member, 3, &token, NOW);
    assert!(words.contains("spent"), "{words}");
    member.clock = NOW.after(25 * HOUR);
    let late = member.clock;
    let words = refused(&mut member, 3, &token, late);
    assert!(words.contains("expired at 2027-01-16T08:00:00Z (it is 2027-01-16T09:00:00Z there)"), "{words}");
}

#[test]
fn a_clock_off_by_hours_is_told_with_both_times() {
    let mut member = Member::first(1);
    let token = member.token(0, Role::Node);
    for clock in [NOW.after(5 * HOUR), UnixMillis(NOW.0 - 5 * 3_600_000)] {
        let words = run(&mut member, &node(2), errand(&token), clock).outcome.expect_err("off").to_string();
        assert!(
            words.contains(&NOW.to_seconds_text()) && words.contains(&clock.to_seconds_text()),
            "{words}"
        );
    }
    let minutes = NOW.after(Duration::from_secs(9 * 60));
    assert!(run(&mut member, &node(2), errand(&token), minutes).outcome.is_ok());
}

#[test]
fn members_get_the_keys_again_and_strangers_with_their_certificate_do_not() {
    let mut member = Member::first(1);
    let token = member.token(0, Role::Node);
    let joiner = node(2);
    let chain = run(&mut member, &joiner, errand(&token), NOW).outcome.expect("joined").chain;
    let again = run(&mut member, &joiner, Errand::Ring(chain.clone()), NOW).outcome.expect("a member");
    assert_eq!(again.welcome.ring, member.papers.ring);
    let thief = run(&mut member, &node(3), Errand::Ring(chain), NOW).outcome;
    assert_eq!(thief, Err(AdmissionError::Garbled), "the key is not in the certificate");
}

#[test]
fn a_member_proves_the_key_that_names_it_besides_the_one_it_handshakes_with() {
    let mut member = Member::first(1);
    let token = member.token(0, Role::Node);
    let joiner = node(2);
    let chain = run(&mut member, &joiner, errand(&token), NOW).outcome.expect("joined").chain;
    let asked = |signer: &Identity, handshake| {
        let proof = message::Proof { handshake, key: joiner.public_key() };
        let by_node = crate::trust::Signed::new(proof, |octets| signer.sign(octets));
        let member = message::Member { chain: chain.clone(), by_node };
        responder::held(member, &joiner.static_public(), &[7; 32])
    };
    assert!(asked(&joiner, [7; 32]).is_ok());
    assert_eq!(asked(&node(3), [7; 32]), Err(AdmissionError::Garbled), "another's signature");
    assert_eq!(asked(&joiner, [8; 32]), Err(AdmissionError::Garbled), "of another handshake");
}

#[test]
fn any_altered_message_ends_the_exchange() {
    let mut member = Member::first(1);
    let token = member.token(0, Role::Node);
    let presented = Presented::new(&member.papers.identity, member.papers.chain.clone());
    let joiner = node(2);
    for place in 0..200 {
        let mut responder = Responder::new(&presented, [3; 32]).expect("made");
        let (mut initiator, mut first) = Initiator::new(&joiner, errand(&token), [4; 32]).expect("made");
        if place < first.len() {
            first[place] ^= 1;
        }
        let Ok(mut hello) = responder.greet(NOW, &first) else { continue };
        if place >= first.len() {
            let last = hello.len() - 1;
            hello[(place * 7).min(last)] ^= 1;
        }
        assert!(initiator.handle(NOW, &hello).is_err(), "octet {place}");
    }
}

#[test]
fn noise_of_any_length_is_no_message() {
    let member = Member::first(1);
    let presented = Presented::new(&member.papers.identity, member.papers.chain.clone());
    for length in [0, 1, 31, 33, 500] {
        let mut responder = Responder::new(&presented, [3; 32]).expect("made");
        let greeted = responder.greet(NOW, &vec![7; length]);
        let listened = responder.listen(NOW, &vec![7; length]);
        assert!(listened.is_err(), "{length} octets, greeted: {}", greeted.is_ok());
    }
}
