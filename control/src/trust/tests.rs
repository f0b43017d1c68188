//! Tokens, chains and revocations as people meet them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::identity::Identity;
use crate::model::NodeId;
use crate::storage::{Memory, Storage as _};
use crate::timestamp::UnixMillis;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn settings(name: &str) -> Settings {
    Settings { name: name.parse().expect("a name"), advertise: String::new(), gossip_port: 7946 }
}

fn first() -> Papers {
    Papers::found(&[1; 32], settings("a"), NOW)
}

fn seeds() -> Vec<SocketAddr> {
    ["192.0.2.1:7946", "[2001:db8::1]:7946"].map(|text| text.parse().expect("an address")).to_vec()
}

/// The chain of a node that joined by a token that `admin` made.
fn joined(admin: (&Identity, &Chain), node: &Identity, role: Role, now: UnixMillis) -> Chain {
    let token = Token::new(root_hash(&admin.1.root), [9; 16], &[]).key();
    let terms = TokenTerms { role, max_uses: 0, life: TOKEN_LIFE };
    let certificate = admin.1.certify_token(admin.0, token.public_key(), terms, now);
    let name = "b".parse().expect("a name");
    let node = NodeCertificate::by_token(node, name, &token, &certificate.statement, now);
    admin.1.extended(Link { token: Some(certificate), node })
}

struct Book(BTreeMap<NodeId, Revocation>);

impl Revoked for Book {
    fn revocation(&self, node: NodeId) -> Option<&Revocation> {
        self.0.get(&node)
    }

    fn held(&self, _: &Signed<NodeCertificate>) -> bool {
        false
    }
}

#[test]
fn papers_of_a_new_cluster_survive_the_state_and_say_nothing_in_debug_output() {
    let (storage, papers) = (Memory::default(), first());
    assert!(Papers::load(&storage).expect("readable").is_none(), "in no cluster yet");
    storage.commit("init", &papers.rows()).expect("written");
    let read = Papers::load(&storage).expect("readable").expect("in a cluster");
    assert_eq!(read.identity.node_id(), papers.identity.node_id());
    assert_eq!((read.cluster(), &read.ring), (papers.cluster(), &papers.ring));
    assert!(read.root.is_none(), "an agent has no use for it");
    let root = Papers::load_root(&storage).expect("readable").expect("kept");
    assert_eq!(root.public_key(), papers.chain.root);
    assert_eq!(
        format!("{papers:?}"),
        "Papers { settings: Settings { name: Name(\"a\"), advertise: \"\", gossip_port: 7946 }, .. }"
    );
    let secret = format!("{:?}", &papers.identity.secret()[..8]);
    let rows = format!("{:?} {storage:?}", papers.rows());
    assert!(rows.contains("Trust") && !rows.contains(secret.trim_matches(['[', ']'])), "{rows}");
}

#[test]
fn every_link_of_a_chain_holds_to_the_root() {
    let a = first();
    let verified = a.chain.verify(&a.root_hash(), NOW, &()).expect("the first admin");
    assert_eq!((verified.id, verified.role), (a.identity.node_id(), Role::Admin));
    let [b, c] = [2, 3].map(|octet| Identity::from_secret(&[octet; 32]));
    let admin = joined((&a.identity, &a.chain), &b, Role::Admin, NOW);
    assert_eq!(admin.verify(&a.root_hash(), NOW, &()).expect("b").role, Role::Admin);
    let node = joined((&b, &admin), &c, Role::Node, NOW);
    let verified = node.verify(&a.root_hash(), NOW, &()).expect("c, by b, by a");
    assert_eq!((verified.id, verified.static_key), (c.node_id(), c.static_public()));
    let late = NOW.after(HOUR * 24 * 60);
    let renewed = a.chain.certify_again(&a.identity, &verified, late);
    let verified = renewed.verify(&a.root_hash(), late.after(HOUR * 24 * 60), &()).expect("renewed");
    assert_eq!(verified.id, c.node_id());
    assert_eq!(renewed.links.len(), 1, "the first admin needs no link");
}

#[test]
fn a_chain_of_another_root_is_of_another_cluster() {
    let other = Papers::found(&[2; 32], settings("x"), NOW);
    assert_eq!(other.chain.verify(&first().root_hash(), NOW, &()), Err(ChainError::OtherCluster));
}

#[test]
fn plain_nodes_certify_nobody() {
    let a = first();
    let [b, c] = [2, 3].map(|octet| Identity::from_secret(&[octet; 32]));
    let plain = joined((&a.identity, &a.chain), &b, Role::Node, NOW);
    let by_plain = joined((&b, &plain), &c, Role::Node, NOW);
    assert_eq!(by_plain.verify(&a.root_hash(), NOW, &()), Err(ChainError::Overreach));
    let mut promoted = plain;
    promoted.links[0].node.statement.role = Role::Admin;
    assert!(promoted.verify(&a.root_hash(), NOW, &()).is_err());
}

#[test]
fn nobody_has_a_certificate_made_for_the_key_of_another() {
    let a = first();
    let [b, thief] = [2, 3].map(|octet| Identity::from_secret(&[octet; 32]));
    let token = Token::new(a.root_hash(), [9; 16], &[]).key();
    let terms = TokenTerms { role: Role::Node, max_uses: 0, life: TOKEN_LIFE };
    let certificate = a.chain.certify_token(&a.identity, token.public_key(), terms, NOW);
    let name = "b".parse().expect("a name");
    let own = NodeCertificate::by_token(&thief, name, &token, &certificate.statement, NOW).statement;
    let genuine = joined((&a.identity, &a.chain), &b, Role::Node, NOW);
    let proof = genuine.subject().expect("b").proof;
    for proof in [own.proof, proof] {
        let stolen = NodeCertificate { key: b.public_key(), proof, ..own.clone() };
        let node = Signed::new(stolen, |octets| token.sign(octets));
        let chain = a.chain.extended(Link { token: Some(certificate.clone()), node });
        assert_eq!(chain.verify(&a.root_hash(), NOW, &()), Err(ChainError::Unheld));
    }
}

#[test]
fn certificates_end_and_clocks_may_differ_by_minutes_only() {
    let a = first();
    let b = Identity::from_secret(&[2; 32]);
    let chain = joined((&a.identity, &a.chain), &b, Role::Node, NOW);
    let at = |now| chain.verify(&a.root_hash(), now, &());
    assert!(at(UnixMillis(NOW.0 - 9 * 60_000)).is_ok());
    let early = at(UnixMillis(NOW.0 - 3_600_000)).expect_err("an hour off").to_string();
    assert!(early.contains("2027-01-15T08:00:00Z") && early.contains("2027-01-15T07:00:00Z"), "{early}");
    assert!(at(NOW.after(NODE_LIFE)).is_ok());
    assert!(matches!(at(NOW.after(NODE_LIFE + HOUR)), Err(ChainError::Expired { .. })));
    let late = NOW.after(TOKEN_LIFE + HOUR);
    let token = Token::new(a.root_hash(), [9; 16], &[]).key();
    let terms = TokenTerms { role: Role::Node, max_uses: 0, life: TOKEN_LIFE };
    let certificate = a.chain.certify_token(&a.identity, token.public_key(), terms, NOW);
    let node =
        NodeCertificate::by_token(&b, "b".parse().expect("a name"), &token, &certificate.statement, late);
    let chain = a.chain.extended(Link { token: Some(certificate), node });
    assert_eq!(chain.verify(&a.root_hash(), late, &()), Err(ChainError::Overreach), "after the token's end");
}

#[test]
fn revocation_is_an_admins_word_and_names_who_and_why() {
    let a = first();
    let b = Identity::from_secret(&[2; 32]);
    let chain = joined((&a.identity, &a.chain), &b, Role::Node, NOW);
    let revocation = Revocation::new(&a.identity, a.chain.clone(), b.node_id(), None, "stolen laptop", NOW);
    revocation.verify(&a.root_hash()).expect("an admin signed it");
    let book = Book(BTreeMap::from([(b.node_id(), revocation)]));
    let words = chain.verify(&a.root_hash(), NOW, &book).expect_err("revoked").to_string();
    assert_eq!(words, "revoked by a at 2027-01-15T08:00:00Z: stolen laptop");
    let forged = Revocation::new(&b, chain, a.identity.node_id(), None, "", NOW);
    assert_eq!(forged.verify(&a.root_hash()), Err(ChainError::Overreach), "b is no admin");
}

#[test]
fn what_a_revoked_admin_dates_back_counts_for_nothing_but_what_was_known_stands() {
    let a = first();
    let [b, c, d, e] = [2, 3, 4, 5].map(|octet| Identity::from_secret(&[octet; 32]));
    let admin = joined((&a.identity, &a.chain), &b, Role::Admin, NOW);
    let [known, spared, new] = [&c, &d, &e].map(|node| joined((&b, &admin), node, Role::Node, NOW));
    let mut registry = Registry::new(&a.chain.root);
    for (node, chain) in [(&a.identity, &a.chain), (&b, &admin), (&c, &known)] {
        assert!(registry.hear_certificate(NOW, node.node_id(), chain.clone()).expect("sound"));
    }
    let other = Registry::clone(&registry);
    let mut told = Registry::new(&a.chain.root);
    told.hear_certificate(NOW, d.node_id(), spared.clone()).expect("sound");
    let list = told.signed_by(b.node_id());
    let at = NOW.after(HOUR);
    let by_a = |reason, list| {
        let (node, chain) = (b.node_id(), a.chain.clone());
        Revocation::sparing(&a.identity, chain, node, None, (reason, list), at)
    };
    assert!(registry.hear_revocation(by_a("sold", &list)).expect("an admin's"));
    assert!(registry.chain(c.node_id()).is_some(), "known before");
    registry.hear_certificate(at, d.node_id(), spared).expect("in the list");
    let words = registry.hear_certificate(at, e.node_id(), new).expect_err("dated back").to_string();
    assert!(words.contains("revoked by a") && words.contains("not known here before"), "{words}");
    let revoking = Revocation::new(&b, admin, c.node_id(), None, "revenge", NOW);
    assert!(matches!(registry.hear_revocation(revoking.clone()), Err(ChainError::Revoked(_))));
    let mut heard = other;
    assert!(heard.hear_revocation(revoking.clone()).expect("an admin's still"));
    let list = heard.signed_by(b.node_id());
    assert!(registry.revocations().all(|revocation| !revocation.spares(&revoking.digest())));
    let mut newcomer = Registry::new(&a.chain.root);
    assert!(newcomer.hear_revocation(by_a("", &list)).expect("an admin's"));
    assert!(newcomer.hear_revocation(revoking).expect("in the list"));
}

#[test]
fn a_revoked_node_takes_its_token_with_it_and_closed_tokens_bring_in_nobody_unheard_of() {
    let a = first();
    let [b, c, d] = [2, 3, 4].map(|octet| Identity::from_secret(&[octet; 32]));
    let token = Token::new(a.root_hash(), [9; 16], &[]).key();
    let terms = TokenTerms { role: Role::Node, max_uses: 2, life: TOKEN_LIFE };
    let certificate = a.chain.certify_token(&a.identity, token.public_key(), terms, NOW);
    let by_token = |node: &Identity, now| {
        let name = "b".parse().expect("a name");
        let node = NodeCertificate::by_token(node, name, &token, &certificate.statement, now);
        a.chain.extended(Link { token: Some(certificate.clone()), node })
    };
    let mut registry = Registry::new(&a.chain.root);
    registry.hear_certificate(NOW, a.identity.node_id(), a.chain.clone()).expect("sound");
    let record = TokenRecord { certificate: certificate.clone(), revoked: None };
    assert!(registry.hear_token(NOW, a.identity.node_id(), record.clone()));
    let mut other = registry.clone();
    assert!(registry.hear_of_node(NOW, b.node_id(), by_token(&b, NOW)).expect("the first use"));
    let revocation = Revocation::new(&a.identity, a.chain.clone(), b.node_id(), None, "", NOW);
    assert!(registry.hear_revocation(revocation).expect("an admin's"));
    assert_eq!(registry.uses(token.id()), 1, "revoked nodes count");
    assert_eq!(registry.usable_token(NOW, token.id()), Err(TokenRefusal::Revoked));
    assert!(registry.hear_of_node(NOW, c.node_id(), by_token(&c, NOW)).expect("the second use"));
    assert_eq!(registry.hear_of_node(NOW, d.node_id(), by_token(&d, NOW)), Err(ChainError::Closed));
    assert!(!registry.hear_of_node(NOW, c.node_id(), by_token(&c, NOW)).expect("known already"));
    let revoked = Some(NOW.after(HOUR));
    assert!(other.hear_token(NOW, a.identity.node_id(), TokenRecord { revoked, ..record }));
    let late = NOW.after(HOUR * 2);
    assert_eq!(other.hear_of_node(late, c.node_id(), by_token(&c, late)), Err(ChainError::Closed));
    assert!(other.hear_of_node(late, c.node_id(), by_token(&c, NOW)).expect("in time"));
}

#[test]
fn no_token_is_good_for_more_than_thirty_days() {
    let a = first();
    let token = Token::new(a.root_hash(), [9; 16], &[]).key();
    let life = MAX_TOKEN_LIFE + HOUR;
    let terms = TokenTerms { role: Role::Node, max_uses: 0, life };
    let certificate = a.chain.certify_token(&a.identity, token.public_key(), terms, NOW);
    assert_eq!(certificate.statement.not_after, NOW.after(MAX_TOKEN_LIFE), "cut");
    let long = TokenCertificate { not_after: NOW.after(life), ..certificate.statement };
    let long = Signed::new(long, |octets| a.identity.sign(octets));
    let b = Identity::from_secret(&[2; 32]);
    let node = NodeCertificate::by_token(&b, "b".parse().expect("a name"), &token, &long.statement, NOW);
    let chain = a.chain.extended(Link { token: Some(long), node });
    assert_eq!(chain.verify(&a.root_hash(), NOW, &()), Err(ChainError::Overreach));
}

#[test]
fn a_revoked_admin_certifies_nobody_after_that() {
    let a = first();
    let [b, c] = [2, 3].map(|octet| Identity::from_secret(&[octet; 32]));
    let admin = joined((&a.identity, &a.chain), &b, Role::Admin, NOW);
    let at = NOW.after(HOUR);
    let before = joined((&b, &admin), &c, Role::Node, NOW);
    let spared = [before.links.last().expect("c").node.digest()];
    let (node, chain) = (b.node_id(), a.chain.clone());
    let revocation = Revocation::sparing(&a.identity, chain, node, None, ("", &spared), at);
    let book = Book(BTreeMap::from([(b.node_id(), revocation)]));
    assert!(before.verify(&a.root_hash(), at, &book).is_ok());
    let after = joined((&b, &admin), &c, Role::Node, at.after(HOUR));
    assert!(matches!(after.verify(&a.root_hash(), at.after(HOUR), &book), Err(ChainError::Revoked(_))));
}

#[test]
fn the_token_printed_at_init_reads_back_and_has_a_certificate() {
    let a = first();
    let (token, certificate) = a.first_token([7; 16], &seeds(), NOW);
    let text = token.to_text();
    let read: Token = text.parse().expect("its own text");
    assert_eq!(read.seeds(), seeds());
    assert_eq!(read.key().public_key(), certificate.statement.key);
    assert!(certificate.is_by(&a.identity.public_key()));
    assert!(text.len() <= 120, "{} characters", text.len());
    assert_eq!(format!("{token:?}"), format!("Token {{ seeds: {:?}, .. }}", seeds()));
    assert_eq!(text.to_ascii_uppercase().replacen("WEFT1_", "weft1_", 1).parse::<Token>(), Ok(read));
}

#[test]
fn what_is_wrong_with_a_token_is_said_without_repeating_it() {
    let text = first().first_token([7; 16], &seeds(), NOW).0.to_text();
    let fault = |text: &str| {
        let fault = text.parse::<Token>().expect_err("no token");
        let said = fault.to_string();
        assert!(text.len() < 20 || !said.contains(&text[6..20]), "{said}");
        fault
    };
    assert_eq!(fault("hello"), InvalidToken::Prefix);
    assert_eq!(fault(""), InvalidToken::Prefix);
    assert_eq!(fault("weft2_abc"), InvalidToken::Version);
    assert_eq!(fault("weft1_"), InvalidToken::Truncated);
    assert_eq!(fault(&text.replacen("weft1_a", "weft1_b", 1)), InvalidToken::Version);
    for length in 7..text.len() {
        assert_eq!(fault(&text[..length]), InvalidToken::Truncated, "{length} characters");
    }
    assert_eq!(fault(&format!("{}aaaaaaaa", *text)), InvalidToken::TooLong);
    let marred = format!("{}!{}", &text[..20], &text[21..]);
    assert_eq!(fault(&marred), InvalidToken::Character(21));
}

proptest! {
    #[test]
    fn any_single_changed_character_of_a_token_is_noticed(place in 6usize..100, other in 0usize..32) {
        let text = first().first_token([7; 16], &seeds(), NOW).0.to_text();
        let place = 6 + place % (text.len() - 6);
        let letter = b"abcdefghijklmnopqrstuvwxyz234567"[other];
        let mut changed = text.as_bytes().to_vec();
        prop_assume!(changed[place] != letter);
        changed[place] = letter;
        prop_assert!(String::from_utf8(changed).expect("text").parse::<Token>().is_err());
    }

    #[test]
    fn any_text_is_a_token_or_a_fault(text in "(weft1_)?\\PC{0,200}") {
        let _ = text.parse::<Token>();
    }

    #[test]
    fn any_flipped_bit_of_a_chain_breaks_it(place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let a = first();
        let chain = joined((&a.identity, &a.chain), &Identity::from_secret(&[2; 32]), Role::Node, NOW);
        let mut octets = postcard::to_stdvec(&chain).expect("encoded");
        let place = place.index(octets.len());
        octets[place] ^= 1 << bit;
        if let Ok(read) = postcard::from_bytes::<Chain>(&octets) {
            prop_assert!(read == chain || read.verify(&a.root_hash(), NOW, &()).is_err());
        }
    }
}
