//! What a member knows of the others' papers: certificates, revocations, tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::papers::{TOKEN_ROW, row};
use super::{
    Chain, ChainError, Digest, Link, NodeCertificate, Revocation, Revoked, Role, RootHash, Signed, TOLERANCE,
    TokenCertificate, TokenId, Verified, root_hash,
};
use crate::identity::node_id;
use crate::model::NodeId;
use crate::storage::Write;
use crate::timestamp::UnixMillis;

/// How long the records of a node still count whose certificate has ended: clocks go wrong, and nobody new is let in.
const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most nodes whose certificates are kept.
const MAX_NODES: usize = 4096 + 64;
/// Most tokens and revocations that are kept.
const MAX_TOKENS: usize = 4096;
const MAX_REVOCATIONS: usize = 4096;

/// A token as its maker publishes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its certificate.
    pub certificate: Signed<TokenCertificate>,
    /// When it was taken back, if it was.
    pub revoked: Option<UnixMillis>,
}

impl TokenRecord {
    /// The row that an admin keeps it in.
    #[must_use]
    pub fn row(&self) -> Write {
        row(TOKEN_ROW, &self.certificate.statement.id().0, self)
    }
}

/// A token that is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownToken {
    /// Its certificate.
    pub certificate: Signed<TokenCertificate>,
    /// When it was taken back, if it was.
    pub revoked: Option<UnixMillis>,
    /// The admin that made it.
    pub maker: NodeId,
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRefusal {
    /// Nobody has told of it.
    Unknown,
    /// It was taken back.
    Revoked,
    /// It ended.
    Expired(UnixMillis),
    /// It was used so often, as it may be.
    Spent(u32),
}

/// Certificates, revocations and tokens of the cluster, as far as they are known here.
#[derive(Debug, Clone)]
pub struct Registry {
    pinned: RootHash,
    nodes: BTreeMap<NodeId, Known>,
    revocations: BTreeMap<NodeId, Revocation>,
    tokens: BTreeMap<TokenId, KnownToken>,
    /// Tokens that revoked nodes had joined with.
    burnt: BTreeMap<NodeId, TokenId>,
}

#[derive(Debug, Clone)]
struct Known {
    chain: Chain,
    verified: Verified,
}

impl Revoked for Registry {
    fn revocation(&self, node: NodeId) -> Option<&Revocation> {
        self.revocations.get(&node)
    }

    fn held(&self, certificate: &Signed<NodeCertificate>) -> bool {
        self.nodes.values().any(|known| known.chain.links.iter().any(|link| link.node == *certificate))
    }
}

/// Revocations as they bear on what is known already.
struct Before<'a>(&'a BTreeMap<NodeId, Revocation>);

impl Revoked for Before<'_> {
    fn revocation(&self, node: NodeId) -> Option<&Revocation> {
        self.0.get(&node)
    }

    fn held(&self, _: &Signed<NodeCertificate>) -> bool {
        true
    }
}

impl Registry {
    /// A registry of the cluster whose root this is.
    #[must_use]
    pub fn new(root: &[u8; 32]) -> Self {
        Self {
            pinned: root_hash(root),
            nodes: BTreeMap::new(),
            revocations: BTreeMap::new(),
            tokens: BTreeMap::new(),
            burnt: BTreeMap::new(),
        }
    }

    /// Takes in a node's certificate; whether it is news. One that is no better than the one known changes nothing.
    ///
    /// # Errors
    /// It proves nothing, or is another node's.
    pub fn hear_certificate(
        &mut self,
        now: UnixMillis,
        node: NodeId,
        chain: Chain,
    ) -> Result<bool, ChainError> {
        if self.nodes.get(&node).is_some_and(|known| known.chain == chain) {
            return Ok(false);
        }
        let verified = self.verify(now, &chain)?;
        if verified.id != node {
            return Err(ChainError::Overreach);
        }
        let known = self.nodes.get(&node);
        let better = known.is_none_or(|known| verified.not_after > known.verified.not_after);
        let room = known.is_some() || self.nodes.len() < MAX_NODES;
        if better && room {
            self.nodes.insert(node, Known { chain, verified });
        }
        Ok(better && room)
    }

    /// As [`Registry::hear_certificate`], of a node that others let in: a token that was taken back before, or used as
    /// often as it may be, lets in nobody who is not known.
    ///
    /// # Errors
    /// Such a token, or as there.
    pub fn hear_of_node(&mut self, now: UnixMillis, node: NodeId, chain: Chain) -> Result<bool, ChainError> {
        let unknown = chain.links.iter().filter(|link| !self.knows(&link.node.statement));
        if unknown.filter(|link| !self.could_join(link)).count() > 0 {
            return Err(ChainError::Closed);
        }
        self.hear_certificate(now, node, chain)
    }

    /// Whether a node could join as this link says, as far as is known here of its token.
    fn could_join(&self, link: &Link) -> bool {
        let Some(Signed { statement: terms, .. }) = &link.token else { return true };
        let revoked = self.tokens.get(&terms.id()).and_then(|token| token.revoked);
        let in_time = revoked.is_none_or(|revoked| link.node.statement.issued <= revoked);
        in_time && (terms.max_uses == 0 || self.uses(terms.id()) < terms.max_uses as usize)
    }

    /// Traces a chain to the root with what is known of revocations.
    ///
    /// # Errors
    /// Why it proves nothing.
    pub fn verify(&self, now: UnixMillis, chain: &Chain) -> Result<Verified, ChainError> {
        chain.verify(&self.pinned, now, self)
    }

    /// Takes in a revocation; whether it is news. The earliest of a node counts. Nodes that the revoked one certified
    /// afterwards are dropped.
    ///
    /// # Errors
    /// No admin signed it, or one that was revoked, which can date it back.
    pub fn hear_revocation(&mut self, revocation: Revocation) -> Result<bool, ChainError> {
        if self.revocations.get(&revocation.node()) == Some(&revocation) {
            return Ok(false);
        }
        if let Some(maker) = self.revocations.get(&revocation.maker())
            && (revocation.at() > maker.at() || !maker.spares(&revocation.digest()))
        {
            return Err(ChainError::Revoked(format!("the admin that signed it was {}", maker.words())));
        }
        self.restore_revocation(revocation)
    }

    /// Takes in a revocation that this node knew before it was started; else as [`Registry::hear_revocation`].
    ///
    /// # Errors
    /// No admin signed it.
    pub fn restore_revocation(&mut self, revocation: Revocation) -> Result<bool, ChainError> {
        revocation.verify(&self.pinned)?;
        let known = self.revocations.get(&revocation.node());
        let news = match known {
            Some(known) => revocation.at() < known.at(),
            None => self.revocations.len() < MAX_REVOCATIONS,
        };
        if news {
            let node = revocation.node();
            let token = self.nodes.get(&node).and_then(|known| known.verified.token);
            self.burnt.extend(token.map(|token| (node, token)));
            self.revocations.insert(node, revocation);
            let (pinned, before) = (self.pinned, Before(&self.revocations));
            let stands = |known: &Known| known.chain.verify(&pinned, known.verified.issued, &before).is_ok();
            let untouched = |known: &Known| known.verified.id != node && !known.chain.is_certified_by(node);
            self.nodes.retain(|_, known| untouched(known) || stands(known));
        }
        Ok(news)
    }

    /// Takes in what `teller` says of a token; whether it is news. Any admin may take one back.
    pub fn hear_token(&mut self, now: UnixMillis, teller: NodeId, record: TokenRecord) -> bool {
        let Ok(&Verified { role: Role::Admin, key, .. }) = self.standing(now, teller) else { return false };
        let TokenRecord { certificate, revoked } = record;
        let id = certificate.statement.id();
        if let Some(known) = self.tokens.get_mut(&id) {
            let news = known.revoked.is_none() && revoked.is_some();
            known.revoked = known.revoked.or(revoked);
            return news;
        }
        let sound = certificate.is_by(&key) && self.tokens.len() < MAX_TOKENS;
        if sound {
            self.tokens.insert(id, KnownToken { certificate, revoked, maker: teller });
        }
        sound
    }

    /// Drops tokens that ended long ago.
    pub fn forget_tokens(&mut self, now: UnixMillis) {
        let day = Duration::from_secs(24 * 3600);
        self.tokens.retain(|_, token| now <= token.certificate.statement.not_after.after(day));
    }

    /// Drops the certificate of a node that left for good.
    pub fn forget_node(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// Whether a node counts, and as what.
    ///
    /// # Errors
    /// Why it does not; `None` where nothing is known of it.
    pub fn standing(&self, now: UnixMillis, node: NodeId) -> Result<&Verified, Option<ChainError>> {
        if let Some(revocation) = self.revocations.get(&node) {
            return Err(Some(ChainError::Revoked(revocation.words())));
        }
        let Known { verified, .. } = self.nodes.get(&node).ok_or(None)?;
        if now > verified.not_after.after(GRACE) {
            return Err(Some(ChainError::Expired { what: "node", not_after: verified.not_after, now }));
        }
        Ok(verified)
    }

    /// Whether a node is known to be revoked.
    #[must_use]
    pub fn is_revoked(&self, node: NodeId) -> bool {
        self.revocations.contains_key(&node)
    }

    /// Whether a node with these keys is known and may do as much.
    #[must_use]
    pub fn knows(&self, node: &NodeCertificate) -> bool {
        self.nodes.get(&node.id()).is_some_and(|Known { verified, .. }| {
            verified.key == node.key && verified.static_key == node.static_key && node.role <= verified.role
        })
    }

    /// A node's chain.
    #[must_use]
    pub fn chain(&self, node: NodeId) -> Option<&Chain> {
        self.nodes.get(&node).map(|known| &known.chain)
    }

    /// Digests of everything known here that a node signed: certificates of nodes, revocations.
    #[must_use]
    pub fn signed_by(&self, node: NodeId) -> Vec<Digest> {
        let revocations = self.revocations().filter(|revocation| revocation.maker() == node);
        let mut signed: Vec<Digest> = revocations.map(Revocation::digest).collect();
        let chains = self.nodes.values().map(|known| &known.chain);
        signed.extend(chains.flat_map(|chain| chain.certified_by(node)).map(Signed::digest));
        signed.sort_unstable();
        signed.dedup();
        signed
    }

    /// Every certificate known, in force or not.
    pub fn certificates(&self) -> impl Iterator<Item = (&Verified, &Chain)> {
        self.nodes.values().map(|known| (&known.verified, &known.chain))
    }

    /// Every revocation known.
    pub fn revocations(&self) -> impl Iterator<Item = &Revocation> {
        self.revocations.values()
    }

    /// Every token known.
    pub fn tokens(&self) -> impl Iterator<Item = (TokenId, &KnownToken)> {
        self.tokens.iter().map(|(id, token)| (*id, token))
    }

    /// The token that a revoked node had joined with.
    #[must_use]
    pub fn burnt_token(&self, node: NodeId) -> Option<TokenId> {
        self.burnt.get(&node).copied()
    }

    /// How many nodes are known to have joined with a token, those that were revoked since with them.
    #[must_use]
    pub fn uses(&self, token: TokenId) -> usize {
        let nodes = self.nodes.values().filter(|known| known.verified.token == Some(token));
        nodes.count() + self.burnt.values().filter(|burnt| **burnt == token).count()
    }

    /// Whether a node that joined with a token was revoked: who has the node may have the token too.
    fn is_burnt(&self, token: TokenId) -> bool {
        self.burnt.values().any(|burnt| *burnt == token)
    }

    /// As [`Registry::usable_token`], for the node with this Ed25519 key: who has joined with it, and may not have heard
    /// so, uses it no second time.
    ///
    /// # Errors
    /// Why it does not let that node in.
    pub fn usable_token_of(
        &self,
        now: UnixMillis,
        id: TokenId,
        key: &[u8; 32],
    ) -> Result<&KnownToken, TokenRefusal> {
        let joined = self.nodes.get(&node_id(key)).is_some_and(|known| known.verified.token == Some(id));
        match self.usable_token(now, id) {
            Err(TokenRefusal::Spent(_)) if joined => self.tokens.get(&id).ok_or(TokenRefusal::Unknown),
            other => other,
        }
    }

    /// A token that lets somebody in now.
    ///
    /// # Errors
    /// Why it does not.
    pub fn usable_token(&self, now: UnixMillis, id: TokenId) -> Result<&KnownToken, TokenRefusal> {
        let token = self.tokens.get(&id).ok_or(TokenRefusal::Unknown)?;
        let terms = &token.certificate.statement;
        let uses = u32::try_from(self.uses(id)).unwrap_or(u32::MAX);
        match () {
            () if token.revoked.is_some() || self.is_burnt(id) => Err(TokenRefusal::Revoked),
            () if now > terms.not_after => Err(TokenRefusal::Expired(terms.not_after)),
            () if terms.issued > now.after(TOLERANCE) => Err(TokenRefusal::Unknown),
            () if terms.max_uses > 0 && uses >= terms.max_uses => Err(TokenRefusal::Spent(terms.max_uses)),
            () => Ok(token),
        }
    }
}
