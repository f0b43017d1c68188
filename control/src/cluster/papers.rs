//! Papers of this node and of the others: who counts, who is let in, tokens, revocations.
//!
//! | key | body | published by |
//! |---|---|---|
//! | `c` | the origin's [`Chain`] | every node |
//! | `t/` token id | [`TokenRecord`] | the admin that made or took back the token |
//! | `r/` node id | [`Revocation`] | the admin that revoked, and the three alive with the lowest ids |
//!
//! No other record of an origin counts without a certificate in force.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Cluster;
use super::refused::Refused;
use crate::admission::{Answer, Presented, Question, Refusal, Terms, Welcome};
use crate::gossip::{CERTIFICATE, Credentials, RecordKey};
use crate::identity::Identity;
use crate::model::NodeId;
use crate::storage::Table;
use crate::timestamp::UnixMillis;
use crate::trust::{
    CERTIFICATE_ROW, Chain, Papers, REVOCATION_ROW as REVOCATION, Registry, Revocation, Revoked as _, Role,
    RootHash, TOKEN_ROW as TOKEN, TokenId, TokenRecord, TokenRefusal, Verified, chain_row, row,
};

/// Revocations and addresses that a joiner is told at once.
const TOLD: usize = 32;
/// Revocations verified in one turn; each costs the check of several signatures. The rest waits for the next turn.
const REVOCATIONS: usize = 64;
/// Alive nodes that hand on revocations.
const SPONSORS: usize = 3;

/// What this node has and knows of papers.
pub(super) struct Trust {
    pub(super) papers: Papers,
    pub(super) registry: Registry,
    /// Something is to be written down.
    dirty: bool,
    /// Revocations published here.
    told: BTreeSet<NodeId>,
    refused: Refused,
}

impl Trust {
    pub(super) fn new(papers: Papers) -> Self {
        let registry = Registry::new(&papers.chain.root);
        Self { papers, registry, dirty: false, told: BTreeSet::new(), refused: Refused::default() }
    }
}

/// Members are those whose certificate holds to the root.
#[derive(Debug)]
pub(super) struct Rooted(pub(super) RootHash);

impl Credentials for Rooted {
    /// As of when it was made: whether it is still good is a matter of the clock, and of revocations.
    fn admit(&self, public_key: &[u8; 32], certificate: &[u8]) -> bool {
        let verified = decode::<Chain>(certificate).and_then(|chain| {
            let issued = chain.subject()?.issued;
            chain.verify(&self.0, issued, &()).ok()
        });
        verified.is_some_and(|node| node.key == *public_key)
    }
}

impl Cluster {
    /// Takes up what was known before, and publishes what is this node's.
    pub(super) fn load_papers(&mut self, now: Instant) {
        let wall = self.trust_clock(now);
        let rows = |prefix| -> Vec<Vec<u8>> {
            self.ledger.rows(Table::Trust, prefix).map(|(_, value)| value.to_vec()).collect()
        };
        let (revocations, certificates, tokens) = (rows(REVOCATION), rows(CERTIFICATE_ROW), rows(TOKEN));
        let own = self.trust.papers.chain.clone();
        for chain in certificates.iter().filter_map(|row| decode::<Chain>(row)).chain([own]) {
            let Some(id) = chain.subject().map(crate::trust::NodeCertificate::id) else { continue };
            if id == self.me && chain != self.trust.papers.chain {
                continue;
            }
            // One that ended meanwhile, or was revoked, is of no use.
            let _ = self.trust.registry.hear_certificate(wall, id, chain);
        }
        // After the certificates: what was known before a revocation stands.
        for revocation in revocations.iter().filter_map(|row| decode(row)) {
            let _ = self.trust.registry.restore_revocation(revocation);
        }
        for node in self.trust.registry.revocations().map(Revocation::node) {
            self.gossip.ban(now, node);
        }
        for token in tokens.iter().filter_map(|row| decode::<TokenRecord>(row)) {
            self.tell_token(now, token);
        }
        self.tell_paper(now, CERTIFICATE, &self.trust.papers.chain.clone());
    }

    /// The wall clock for papers: never before this node's own certificate was made, for a clock that was lost is
    /// at 1970.
    pub(super) fn trust_clock(&self, now: Instant) -> UnixMillis {
        let issued = self.trust.papers.chain.subject().map_or(UnixMillis(0), |node| node.issued);
        self.now_wall(now).max(issued)
    }

    fn tell_paper(&mut self, now: Instant, key: &[u8], body: &impl Serialize) {
        let Some(key) = RecordKey::new(key) else { return };
        if let Err(error) = self.gossip.set_record(now, key, super::record::encode(body)) {
            tracing::warn!(%error, "papers could not be published");
        }
    }

    pub(super) fn tell_token(&mut self, now: Instant, record: TokenRecord) {
        let key = [TOKEN, &record.certificate.statement.id().0].concat();
        self.tell_paper(now, &key, &record);
        let wall = self.trust_clock(now);
        self.trust.registry.hear_token(wall, self.me, record);
    }

    /// Takes in the papers among what these origins say, and leaves those origins whose records count. Answers whose
    /// papers were too many for one turn.
    pub(super) fn hear_papers(&mut self, now: Instant, origins: &mut BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let wall = self.trust_clock(now);
        for &origin in &*origins {
            let papers = self.gossip.records(origin).filter(|(key, _)| is_judged(key.as_bytes()));
            self.trust.refused.keep(origin, &papers.map(|(_, record)| *record.hash()).collect());
            self.hear_certificate(now, wall, origin);
        }
        let (mut late, mut budget) = (BTreeSet::new(), REVOCATIONS);
        for &origin in &*origins {
            if !self.hear_revocations(now, origin, &mut budget) {
                late.insert(origin);
            }
            self.hear_tokens(wall, origin);
        }
        let registry = &self.trust.registry;
        let out: Vec<NodeId> =
            origins.iter().copied().filter(|origin| registry.standing(wall, *origin).is_err()).collect();
        for origin in out {
            origins.remove(&origin);
            self.drop_view(origin);
        }
        late
    }

    /// Whether what a node says counts.
    pub(super) fn counts(&self, now: Instant, node: NodeId) -> bool {
        node == self.me || self.trust.registry.standing(self.trust_clock(now), node).is_ok()
    }

    fn hear_certificate(&mut self, now: Instant, wall: UnixMillis, origin: NodeId) {
        let record = RecordKey::new(CERTIFICATE).and_then(|key| self.gossip.record(origin, &key));
        let Some(hash) = record.map(|record| *record.hash()) else { return };
        if self.trust.refused.contains(now, origin, &hash) {
            return;
        }
        let Some(chain) = record.and_then(|record| decode::<Chain>(record.body())) else { return };
        let known = self.trust.registry.chain(origin) == Some(&chain);
        if !known && !self.hear_chain_of(wall, origin, chain) {
            self.trust.refused.note(now, origin, hash);
        }
    }

    /// Takes in the certificate of whoever it is of.
    pub(super) fn hear_chain(&mut self, wall: UnixMillis, chain: Chain) {
        if let Some(node) = chain.subject().map(crate::trust::NodeCertificate::id) {
            self.hear_chain_of(wall, node, chain);
        }
    }

    /// Whether it is news.
    fn hear_chain_of(&mut self, wall: UnixMillis, origin: NodeId, chain: Chain) -> bool {
        // What this node is it hears from nobody but who renews its certificate when asked.
        if origin == self.me {
            return false;
        }
        let news = self.trust.registry.hear_of_node(wall, origin, chain).unwrap_or_else(|fault| {
            tracing::debug!(node = %origin, %fault, "a certificate does not count");
            false
        });
        self.trust.dirty |= news;
        news
    }

    /// `false` if the budget was too small for all; those that are known, or were refused, cost nothing.
    fn hear_revocations(&mut self, now: Instant, origin: NodeId, budget: &mut usize) -> bool {
        let records = self.gossip.records(origin);
        let fresh = records.filter(|(key, record)| {
            key.as_bytes().starts_with(REVOCATION) && !self.trust.refused.contains(now, origin, record.hash())
        });
        let fresh =
            fresh.filter_map(|(_, record)| Some((*record.hash(), decode::<Revocation>(record.body())?)));
        let registry = &self.trust.registry;
        let unknown =
            fresh.filter(|(_, revocation)| registry.revocation(revocation.node()) != Some(revocation));
        let mut unknown: Vec<_> = unknown.take(*budget + 1).collect();
        let all = unknown.len() <= *budget;
        unknown.truncate(*budget);
        *budget -= unknown.len();
        for (hash, revocation) in unknown {
            if !self.hear_revocation(now, revocation) {
                self.trust.refused.note(now, origin, hash);
            }
        }
        all
    }

    fn hear_tokens(&mut self, wall: UnixMillis, origin: NodeId) {
        let records = self.gossip.records(origin).filter(|(key, _)| key.as_bytes().starts_with(TOKEN));
        let tokens: Vec<TokenRecord> = records.filter_map(|(_, record)| decode(record.body())).collect();
        for token in tokens {
            self.trust.registry.hear_token(wall, origin, token);
        }
    }

    /// Whether it is news.
    pub(super) fn hear_revocation(&mut self, now: Instant, revocation: Revocation) -> bool {
        let node = revocation.node();
        let by_us = revocation.is_by(&self.identity.public_key());
        match self.trust.registry.hear_revocation(revocation) {
            Ok(true) => {
                self.trust.dirty = true;
                self.keep_papers();
                self.tell_revocations(now);
                if let Some(token) = self.trust.registry.burnt_token(node).filter(|_| by_us) {
                    self.close_token(now, token);
                }
                self.shut_out(now, node, by_us);
                true
            }
            Ok(false) => false,
            Err(fault) => {
                tracing::debug!(%node, %fault, "a revocation does not count");
                false
            }
        }
    }

    /// Nothing that a node said counts any more.
    fn drop_view(&mut self, node: NodeId) {
        if self.views.contains_key(&node) {
            self.member_changed(node);
            self.views.remove(&node);
        }
    }

    /// Takes back the token of a node that was revoked, for those too who never knew the node.
    fn close_token(&mut self, now: Instant, id: TokenId) {
        let known = self.trust.registry.tokens().find(|(known, _)| *known == id);
        let open = known.filter(|(_, token)| token.revoked.is_none());
        let Some(certificate) = open.map(|(_, token)| token.certificate.clone()) else { return };
        let record = TokenRecord { certificate, revoked: Some(self.trust_clock(now)) };
        if let Err(error) = self.ledger.commit("token", vec![record.row()]) {
            tracing::warn!(%error, "that a token was taken back is not written down");
        }
        self.tell_token(now, record);
    }

    /// Publishes revocations that are this node's to publish.
    pub(super) fn tell_revocations(&mut self, now: Instant) {
        let mut alive: Vec<NodeId> = self.alive().collect();
        alive.sort();
        let sponsor = alive.iter().take(SPONSORS).any(|id| *id == self.me);
        let us = self.identity.public_key();
        let due: Vec<Revocation> = (self.trust.registry.revocations())
            .filter(|revocation| sponsor || revocation.is_by(&us))
            .filter(|revocation| !self.trust.told.contains(&revocation.node()))
            .cloned()
            .collect();
        for revocation in due {
            self.tell_paper(now, &[REVOCATION, &revocation.node().0].concat(), &revocation);
            self.trust.told.insert(revocation.node());
        }
    }

    /// Writes down what was learned; no promise, so a failure waits.
    pub(super) fn keep_papers(&mut self) {
        if !std::mem::take(&mut self.trust.dirty) {
            return;
        }
        let registry = &self.trust.registry;
        let certificates =
            registry.certificates().map(|(node, chain)| row(CERTIFICATE_ROW, &node.id.0, chain));
        let revocations = registry.revocations().map(Revocation::row);
        let writes = certificates.chain(revocations).collect();
        self.trust.dirty = self.ledger.commit("papers", writes).is_err();
    }

    /// What this node proves itself with to a joiner.
    #[must_use]
    pub fn presented(&self) -> Presented {
        Presented::new(&self.identity, self.trust.papers.chain.clone())
    }

    /// Answers what somebody wants who came to this node's door.
    pub fn admit(&mut self, now: Instant, question: Question) -> Answer {
        let answer = match question {
            Question::Token(id, key) => self.terms(now, id, &key).map(|terms| Answer::Terms(Box::new(terms))),
            Question::Admit(chain) => self.let_in(now, chain),
            Question::Ring(chain) => self.vouch(now, &chain).map(|_| self.welcome(None)),
            Question::Renew(chain) => self.renew(now, &chain),
        };
        let answer = answer.unwrap_or_else(Answer::Refused);
        self.drain(now);
        answer
    }

    fn terms(&self, now: Instant, id: TokenId, key: &[u8; 32]) -> Result<Terms, Refusal> {
        let wall = self.trust_clock(now);
        let token = self.trust.registry.usable_token_of(wall, id, key);
        let token = token.map_err(|refusal| refused(refusal, wall))?;
        let admin = self.trust.registry.chain(token.maker).ok_or(Refusal::UnknownToken)?;
        Ok(Terms { token: token.certificate.clone(), admin: admin.clone() })
    }

    fn let_in(&mut self, now: Instant, chain: Chain) -> Result<Answer, Refusal> {
        let node = self.vouch(now, &chain)?;
        let wall = self.trust_clock(now);
        let id = node.id;
        self.trust.registry.hear_certificate(wall, id, chain).map_err(|fault| not_accepted(&fault))?;
        self.trust.dirty = true;
        self.keep_papers();
        tracing::info!(node = %id, name = node.name.map(String::from), "a node has joined");
        Ok(self.welcome(None))
    }

    /// Whether a chain is that of another member: known here, or made by admins and tokens that still let in.
    fn vouch(&self, now: Instant, chain: &Chain) -> Result<Verified, Refusal> {
        let wall = self.trust_clock(now);
        let registry = &self.trust.registry;
        let node = registry.verify(wall, chain).map_err(|fault| not_accepted(&fault))?;
        if node.id == self.me {
            return Err(Refusal::Clash(
                "this node's identity is that of the node asked: a copy of its state".to_owned(),
            ));
        }
        if chain.links.last().is_some_and(|link| registry.knows(&link.node.statement)) {
            return Ok(node);
        }
        // A certificate can be dated back by whoever holds an old token; whoever is unknown must come in time.
        let unknown = chain.links.iter().filter(|link| !registry.knows(&link.node.statement));
        for token in unknown.filter_map(|link| link.token.as_ref()) {
            let id = token.statement.id();
            registry.usable_token(wall, id).map_err(|refusal| refused(refusal, wall))?;
        }
        Ok(node)
    }

    fn renew(&mut self, now: Instant, chain: &Chain) -> Result<Answer, Refusal> {
        let node = self.vouch(now, chain)?;
        let wall = self.trust_clock(now);
        if self.role(wall) != Some(Role::Admin) {
            return Err(Refusal::NotAdmin);
        }
        // As it is known here: who asks chooses neither its keys nor what it may do.
        let known = self.trust.registry.standing(wall, node.id).ok();
        let known = known.filter(|known| known.key == node.key && known.static_key == node.static_key);
        let Some(node) = known.cloned() else {
            return Err(Refusal::NotAccepted("its node is not known there yet".to_owned()));
        };
        let renewed = self.trust.papers.chain.certify_again(&self.identity, &node, wall);
        let heard = self.trust.registry.hear_certificate(wall, node.id, renewed.clone());
        heard.map_err(|fault| not_accepted(&fault))?;
        self.trust.dirty = true;
        Ok(self.welcome(Some(renewed)))
    }

    /// This node's keys and chain, for errands to other members.
    #[must_use]
    pub fn papers(&self) -> (&Identity, &Chain) {
        (&self.identity, &self.trust.papers.chain)
    }

    /// Whether a third or less of this node's certificate is left, and if so which admins could make a new one.
    #[must_use]
    pub fn renewal(&self, now: Instant) -> Option<Vec<SocketAddr>> {
        let wall = self.now_wall(now);
        let own = self.trust.papers.chain.subject()?;
        let life = own.not_after.0.saturating_sub(own.issued.0);
        let chain = &self.trust.papers.chain;
        let orphaned = self.trust.registry.revocations().any(|revocation| chain.rests_on(revocation.node()));
        if wall.0.saturating_add(life / 3) < own.not_after.0 && !orphaned {
            return None;
        }
        let certified = self.trust.registry.certificates().map(|(node, _)| node);
        let admins = certified.filter(|node| node.role == Role::Admin && self.is_alive(node.id));
        Some(admins.filter_map(|node| self.gossip.member(node.id)).map(|member| member.addr).collect())
    }

    /// Renews this node's certificate itself, if it may.
    pub fn renew_own(&mut self, now: Instant) {
        let wall = self.trust_clock(now);
        let chain = self.trust.papers.chain.clone();
        let first = chain.admin.statement.key == self.identity.public_key();
        if let (true, Ok(own)) = (first, self.trust.registry.verify(wall, &chain)) {
            let renewed = chain.certify_again(&self.identity, &own, wall);
            self.use_chain(now, renewed);
        }
    }

    /// Uses a renewed chain from now on, once it is durable.
    pub fn use_chain(&mut self, now: Instant, chain: Chain) {
        let wall = self.trust_clock(now);
        if self.trust.registry.hear_certificate(wall, self.me, chain.clone()).is_err()
            || self.ledger.commit("papers", vec![chain_row(&chain)]).is_err()
        {
            return;
        }
        self.tell_paper(now, CERTIFICATE, &chain);
        self.trust.papers.chain = chain;
        self.drain(now);
    }

    /// What an operator should know of this node's papers.
    pub(super) fn paper_warnings(&self) -> Vec<String> {
        let own = self.trust.registry.revocations().find(|revocation| revocation.node() == self.me);
        let words = own.map(Revocation::words);
        let revoked = words.map(|words| {
            format!("this node was {words}; 'weft leave --force' cleans it, a new token lets it in again")
        });
        revoked.into_iter().collect()
    }

    /// What this node may do; `None` when its certificate has ended or it was revoked.
    pub(super) fn role(&self, wall: UnixMillis) -> Option<Role> {
        self.trust.registry.standing(wall, self.me).ok().map(|own| own.role)
    }

    fn welcome(&self, chain: Option<Chain>) -> Answer {
        let mut revocations: Vec<Revocation> = self.trust.registry.revocations().cloned().collect();
        revocations.sort_by_key(|revocation| std::cmp::Reverse(revocation.at()));
        revocations.truncate(TOLD);
        let members = self.gossip.members().filter(|member| self.is_alive(member.id));
        let peers = members.map(|member| (member.id, member.addr)).take(TOLD).collect();
        let ring = self.trust.papers.ring.clone();
        let makers = ring.makers().into_iter().filter_map(|maker| self.trust.registry.chain(maker)).cloned();
        let makers = makers.collect();
        Answer::Welcome(Box::new(Welcome { chain, ring, makers, revocations, peers }))
    }
}

fn decode<T: DeserializeOwned>(octets: &[u8]) -> Option<T> {
    super::record::decode(octets)
}

/// Whether a record under this key is verified when it is heard, at the cost of several signatures.
fn is_judged(key: &[u8]) -> bool {
    key == CERTIFICATE || key.starts_with(REVOCATION)
}

fn not_accepted(fault: &crate::trust::ChainError) -> Refusal {
    match fault {
        crate::trust::ChainError::Revoked(words) => Refusal::Revoked(words.clone()),
        other => Refusal::NotAccepted(other.to_string()),
    }
}

fn refused(refusal: TokenRefusal, now: UnixMillis) -> Refusal {
    match refusal {
        TokenRefusal::Unknown => Refusal::UnknownToken,
        TokenRefusal::Revoked => Refusal::TokenRevoked,
        TokenRefusal::Expired(not_after) => Refusal::Expired { not_after, now },
        TokenRefusal::Spent(uses) => Refusal::Spent(uses),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::cluster::{ClusterConfig, Timing};
    use crate::storage::{Memory, Storage as _};
    use crate::trust::Settings;

    fn founder(seed: u8) -> Papers {
        let settings =
            Settings { name: "a".parse().expect("a name"), advertise: String::new(), gossip_port: 7946 };
        Papers::found(&[seed; 32], settings, UnixMillis(1_000_000))
    }

    fn started(now: Instant) -> Cluster {
        let disk = Arc::new(Memory::default());
        disk.commit("init", &founder(1).rows()).expect("written");
        let config = ClusterConfig {
            name: "a".parse().expect("a name"),
            advertise: SocketAddr::from(([192, 0, 2, 1], 7946)),
            data_port: 4789,
            underlay_mtu: 1500,
            require_encryption: false,
            timing: Timing::default(),
        };
        Cluster::start(config, disk, [7; 32], now, UnixMillis(1_000_000)).expect("starts")
    }

    #[test]
    fn junk_is_verified_once_in_a_while_and_not_all_of_it_at_once() {
        let now = crate::gossip::testing::start();
        let (mut cluster, other) = (started(now), founder(2));
        let origin = cluster.me;
        for n in 0..100 {
            let (node, at) = (NodeId([n; 16]), UnixMillis(1_000_000));
            let junk = Revocation::new(&other.identity, other.chain.clone(), node, None, "", at);
            cluster.tell_paper(now, &[REVOCATION, &node.0].concat(), &junk);
        }
        let verified = |cluster: &mut Cluster, now: Instant| {
            let mut budget = REVOCATIONS;
            let all = cluster.hear_revocations(now, origin, &mut budget);
            (all, REVOCATIONS - budget)
        };
        assert_eq!(verified(&mut cluster, now), (false, REVOCATIONS));
        assert_eq!(verified(&mut cluster, now), (true, 100 - REVOCATIONS));
        assert_eq!(verified(&mut cluster, now), (true, 0));
        assert_eq!(verified(&mut cluster, now + Duration::from_secs(60)), (false, REVOCATIONS));
    }
}
