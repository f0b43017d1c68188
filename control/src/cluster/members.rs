//! Tokens and nodes as an operator handles them.

use std::time::Instant;

use super::{Cluster, ClusterError};
use crate::api;
use crate::gossip::MemberState;
use crate::model::NodeId;
use crate::timestamp::UnixMillis;
use crate::trust::{
    KnownToken, MAX_SEEDS, Revocation, Role, Token, TokenId, TokenRecord, TokenRefusal, TokenTerms, Verified,
};

impl Cluster {
    /// Makes a token; `secret` is from the operating system's generator. Durable before it is told.
    ///
    /// # Errors
    /// This node is no admin, or the state cannot be written.
    pub fn create_token(
        &mut self,
        now: Instant,
        secret: [u8; 16],
        terms: TokenTerms,
    ) -> Result<(Token, api::TokenShown), ClusterError> {
        let wall = self.admins_clock(now)?;
        let seeds = self.seeds();
        let token = Token::new(self.trust.papers.root_hash(), secret, &seeds);
        let chain = &self.trust.papers.chain;
        let certificate = chain.certify_token(&self.identity, token.key().public_key(), terms, wall);
        let record = TokenRecord { certificate, revoked: None };
        self.ledger.commit("token", vec![record.row()])?;
        self.tell_token(now, record);
        let id = token.key().id();
        let shown = self.tokens(now).into_iter().find(|shown| shown.id == id.to_string());
        self.drain(now);
        Ok((token, shown.ok_or(ClusterError::Full("tokens"))?))
    }

    /// Where a joiner can ask: this node, then others that answer.
    fn seeds(&self) -> Vec<std::net::SocketAddr> {
        let others = self.gossip.members().filter(|m| m.id != self.me && m.state == MemberState::Alive);
        let others = others.map(|member| member.addr).take(MAX_SEEDS - 1);
        [self.config.advertise].into_iter().chain(others).collect()
    }

    /// Every token that is known here and has not ended long ago, latest first.
    #[must_use]
    pub fn tokens(&self, now: Instant) -> Vec<api::TokenShown> {
        let wall = self.trust_clock(now);
        let mut tokens: Vec<_> = self.trust.registry.tokens().collect();
        tokens.sort_by_key(|(_, token)| std::cmp::Reverse(token.certificate.statement.issued));
        tokens.into_iter().map(|(id, token)| self.show_token(wall, id, token)).collect()
    }

    fn show_token(&self, wall: UnixMillis, id: TokenId, token: &KnownToken) -> api::TokenShown {
        let terms = &token.certificate.statement;
        let state = match self.trust.registry.usable_token(wall, id) {
            Ok(_) => "valid",
            Err(TokenRefusal::Revoked) => "revoked",
            Err(TokenRefusal::Expired(_)) => "expired",
            Err(TokenRefusal::Spent(_)) => "spent",
            Err(TokenRefusal::Unknown) => "unknown",
        };
        api::TokenShown {
            id: id.to_string(),
            role: terms.role.to_string(),
            created: terms.issued.to_string(),
            expires: terms.not_after.to_string(),
            uses: self.trust.registry.uses(id),
            max_uses: terms.max_uses,
            made_by: self.name_of_node(token.maker),
            state: state.to_owned(),
        }
    }

    /// Takes a token back, by its id or the beginning of it.
    ///
    /// # Errors
    /// This node is no admin, there is no such token, or the state cannot be written.
    pub fn revoke_token(&mut self, now: Instant, id: &str) -> Result<(), ClusterError> {
        let wall = self.admins_clock(now)?;
        let known = self.trust.registry.tokens().filter(|(known, _)| known.to_string().starts_with(id));
        let known: Vec<_> = known.map(|(_, token)| token.certificate.clone()).collect();
        let [certificate] = known.as_slice() else {
            return Err(ClusterError::NoToken(id.chars().take(80).collect()));
        };
        let record = TokenRecord { certificate: certificate.clone(), revoked: Some(wall) };
        self.ledger.commit("token", vec![record.row()])?;
        self.tell_token(now, record);
        self.drain(now);
        Ok(())
    }

    /// Every node with a certificate, and those that were revoked.
    #[must_use]
    pub fn nodes(&self, now: Instant) -> Vec<api::Node> {
        let wall = self.trust_clock(now);
        let registry = &self.trust.registry;
        let certified = registry.certificates().map(|(node, _)| self.show_node(wall, node));
        let gone = registry.revocations().filter(|r| registry.chain(r.node()).is_none());
        let gone = gone.map(|revocation| api::Node {
            name: revocation.name().map(ToString::to_string).unwrap_or_default(),
            node_id: revocation.node().to_string(),
            state: "revoked".to_owned(),
            note: revocation.words(),
            ..api::Node::default()
        });
        let mut nodes: Vec<_> = certified.chain(gone).collect();
        nodes.sort_by(|a, b| (&a.name, &a.node_id).cmp(&(&b.name, &b.node_id)));
        nodes
    }

    fn show_node(&self, wall: UnixMillis, node: &Verified) -> api::Node {
        let member = self.gossip.member(node.id);
        let revocation = self.trust.registry.revocations().find(|r| r.node() == node.id);
        let state = match (&revocation, &member) {
            (Some(_), _) => "revoked",
            (None, _) if wall > node.not_after => "expired",
            (None, _) if node.id == self.me => "alive",
            (None, Some(member)) => match member.state {
                MemberState::Alive => "alive",
                MemberState::Down => "dead",
                MemberState::Left => "left",
            },
            (None, None) => "unseen",
        };
        api::Node {
            name: self.name_of_node(node.id),
            node_id: node.id.to_string(),
            role: node.role.to_string(),
            address: member.map(|member| member.addr),
            joined: node.issued.to_string(),
            expires: node.not_after.to_string(),
            token: node.token.map(|token| token.to_string()).unwrap_or_default(),
            state: state.to_owned(),
            this_node: node.id == self.me,
            note: revocation.map(Revocation::words).unwrap_or_default(),
        }
    }

    /// Revokes a node, by its name, its id or the beginning of it. Durable before it is told.
    ///
    /// # Errors
    /// This node is no admin, there is no such node, it is this one, or the state cannot be written.
    pub fn revoke_node(&mut self, now: Instant, node: &str, reason: &str) -> Result<NodeId, ClusterError> {
        let wall = self.admins_clock(now)?;
        let id = self.resolve_node(node)?;
        if id == self.me {
            return Err(ClusterError::Itself);
        }
        let name = self.name_of_node(id).parse().ok();
        let chain = self.trust.papers.chain.clone();
        let spared = self.trust.registry.signed_by(id);
        let revocation = Revocation::sparing(&self.identity, chain, id, name, (reason, &spared), wall);
        self.ledger.commit("revoke", vec![revocation.row()])?;
        self.hear_revocation(now, revocation);
        self.drain(now);
        Ok(id)
    }

    /// Revokes a node that does not answer and will not come back.
    ///
    /// # Errors
    /// It answers; else as [`Cluster::revoke_node`].
    pub fn remove_node(&mut self, now: Instant, node: &str) -> Result<NodeId, ClusterError> {
        let id = self.resolve_node(node)?;
        if self.is_alive(id) {
            return Err(ClusterError::NodeAlive(self.name_of_node(id)));
        }
        self.revoke_node(now, node, "removed")
    }

    /// Whether nobody else could make tokens, or renew certificates, if this node left.
    #[must_use]
    pub fn is_last_admin(&self, now: Instant) -> bool {
        let wall = self.trust_clock(now);
        let counts = |node: &Verified| self.trust.registry.standing(wall, node.id).is_ok();
        let mut others =
            self.trust.registry.certificates().map(|(node, _)| node).filter(|n| n.id != self.me && counts(n));
        let alone = others.next().is_none();
        let mut admins = self.trust.registry.certificates().map(|(node, _)| node);
        !alone
            && self.role(wall) == Some(Role::Admin)
            && !admins.any(|node| node.id != self.me && node.role == Role::Admin && counts(node))
    }

    /// The wall clock, if this node is an admin.
    pub(super) fn admins_clock(&self, now: Instant) -> Result<UnixMillis, ClusterError> {
        let wall = self.trust_clock(now);
        if self.role(wall) == Some(Role::Admin) {
            return Ok(wall);
        }
        let certified = self.trust.registry.certificates().map(|(node, _)| node);
        let admins = certified.filter(|node| node.role == Role::Admin).map(|node| self.name_of_node(node.id));
        Err(ClusterError::NotAdmin(admins.collect::<Vec<_>>().join(", ")))
    }

    fn resolve_node(&self, node: &str) -> Result<NodeId, ClusterError> {
        let ids: Vec<NodeId> = self.trust.registry.certificates().map(|(node, _)| node.id).collect();
        let exact = ids.iter().copied().find(|id| id.to_string() == node);
        let named: Vec<NodeId> = ids.iter().copied().filter(|id| self.name_of_node(*id) == node).collect();
        let begun: Vec<NodeId> =
            ids.iter().copied().filter(|id| node.len() >= 2 && id.to_string().starts_with(node)).collect();
        match (exact.as_ref(), named.as_slice(), begun.as_slice()) {
            (Some(id), ..) | (None, [id], _) | (None, [], [id]) => Ok(*id),
            (None, [], []) => Err(ClusterError::NoNode(node.chars().take(80).collect())),
            (None, [], several) | (None, several, _) => {
                Err(ClusterError::SeveralNodes { node: node.to_owned(), count: several.len() })
            }
        }
    }

    fn name_of_node(&self, id: NodeId) -> String {
        let certified = || self.trust.registry.chain(id)?.subject()?.name.as_ref().map(ToString::to_string);
        match self.gossip.member(id) {
            Some(member) => member.name.to_string(),
            None => certified().unwrap_or_else(|| id.short()),
        }
    }
}
