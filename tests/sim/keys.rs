//! The keys of whole clusters: rotated by an admin, fetched by members, kept from whoever was revoked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_control::admission::{AdmissionError, Answer, Errand, Question, Refusal, Welcome};
use weft_control::api::NetworkCreate;
use weft_control::cluster::{Attach, ClusterError};
use weft_control::gossip::{Epoch, Ring};
use weft_control::identity::Identity;
use weft_control::model::{NodeId, SandboxId};
use weft_control::storage::{Memory, Storage as _};
use weft_control::timestamp::UnixMillis;
use weft_control::trust::{
    Chain, Link, NodeCertificate, Papers, Revocation, Role, Settings, Token, TokenTerms,
};

use crate::cluster::{FOUNDED, Node, node};
use crate::network::{Network, addr};

fn founder() -> Papers {
    let settings =
        Settings { name: "n0".parse().expect("a name"), advertise: String::new(), gossip_port: 7946 };
    Papers::found(&[1; 32], settings, FOUNDED)
}

/// Nodes that have joined the first, which is the admin, and their disks.
struct Bench {
    net: Network<Node>,
    disks: Vec<Arc<Memory>>,
    starts: u64,
}

impl Bench {
    fn new(count: usize) -> Self {
        let disks: Vec<Arc<Memory>> = (0..count).map(|_| Arc::default()).collect();
        disks[0].commit("init", &founder().rows()).expect("written");
        let mut bench = Self { net: Network::new(1), disks, starts: 0 };
        (0..count).for_each(|number| bench.start(number));
        bench.run(Duration::from_secs(5));
        assert!(bench.net.nodes().all(|(_, n)| n.cluster.status().members_alive == count));
        bench
    }

    fn start(&mut self, number: usize) {
        // No randomness is used twice; who a node is comes from that of its first start.
        let seed = if self.starts < self.disks.len() as u64 { 77 } else { 77 + self.starts };
        self.starts += 1;
        let mut node = node(number, self.disks[number].clone(), seed, self.net.now(), FOUNDED.0);
        node.cluster.join(self.net.now(), &[addr(0)]);
        self.net.start(addr(number), node);
    }

    /// Runs for `span`; nodes fetch the ring of each other as agents do, by question and answer.
    fn run(&mut self, span: Duration) {
        let end = self.net.elapsed() + span;
        while self.net.elapsed() < end {
            self.net.run_for(Duration::from_millis(20));
            let asked: Vec<(SocketAddr, SocketAddr)> = self
                .net
                .nodes()
                .flat_map(|(at, node)| node.ring_at.iter().map(move |to| (at, *to)))
                .collect();
            for (at, to) in asked {
                let answer = self.ask(at, to);
                self.net.with(at, |node, now| {
                    node.ring_at.retain(|other| *other != to);
                    answer.into_iter().for_each(|answer| node.cluster.ring_fetched(now, answer));
                });
            }
        }
    }

    fn ask(&mut self, at: SocketAddr, to: SocketAddr) -> Option<Result<(NodeId, Welcome), AdmissionError>> {
        let Errand::Ring(chain) = self.net.node(at)?.cluster.ring_errand().1 else { return None };
        let asked =
            |node: &mut Node, now| (node.cluster.node_id(), node.cluster.admit(now, Question::Ring(chain)));
        let (member, answer) = self.net.with(to, asked)?;
        match answer {
            Answer::Welcome(welcome) => Some(Ok((member, *welcome))),
            Answer::Refused(refusal) => Some(Err(AdmissionError::Refused(refusal))),
            Answer::Terms(_) => None,
        }
    }

    /// Sets the clocks of all to so many days after the cluster was founded.
    fn set_day(&mut self, day: u64) {
        let wall = UnixMillis(FOUNDED.0 + day * 24 * 3_600_000);
        for at in 0..self.disks.len() {
            self.net.with(addr(at), |node, now| node.cluster.set_wall(now, wall));
        }
    }

    fn rotate(&mut self, at: usize) -> Result<Epoch, ClusterError> {
        self.net.with(addr(at), |node, now| node.cluster.rotate_keys(now)).expect("it runs")
    }

    fn ring(&self, at: usize) -> &Ring {
        self.net.node(addr(at)).expect("it runs").cluster.gossip().ring()
    }

    fn id(&self, at: usize) -> NodeId {
        self.net.node(addr(at)).expect("it runs").cluster.node_id()
    }

    /// Lets the admin hear what it has signed itself: that a node is revoked.
    fn revoke(&mut self, number: usize) {
        let papers = founder();
        let admin = Identity::from_secret(&papers.identity.secret());
        let (node, at) = (self.id(number), UnixMillis(FOUNDED.0 + 1000));
        let revocation = Revocation::new(&admin, papers.chain, node, None, "stolen", at);
        let ring = self.ring(0).clone();
        let (makers, peers) = (Vec::new(), Vec::new());
        let told = Welcome { chain: None, ring, makers, revocations: vec![revocation], peers };
        let member = founder().identity.node_id();
        self.net.with(addr(0), |node, now| node.cluster.ring_fetched(now, Ok((member, told))));
    }
}

/// A node of that identity as the admin certifies it.
fn certified(identity: &Identity, role: Role) -> Chain {
    let papers = founder();
    let token = Token::new(papers.root_hash(), [5; 16], &[]).key();
    let terms = TokenTerms { role, max_uses: 0, life: Duration::from_secs(3600) };
    let terms = papers.chain.certify_token(&papers.identity, token.public_key(), terms, FOUNDED);
    let name = "x".parse().expect("a name");
    let node = NodeCertificate::by_token(identity, name, &token, &terms.statement, FOUNDED);
    let chain = papers.chain.extended(Link { token: Some(terms), node });
    let node = chain.verify(&papers.root_hash(), FOUNDED, &()).expect("it holds to the root");
    papers.chain.certify_again(&papers.identity, &node, FOUNDED)
}

#[test]
fn certificates_are_renewed_for_known_nodes_only_and_never_for_more_than_they_had() {
    let mut bench = Bench::new(2);
    let mut ask =
        |question| bench.net.with(addr(0), |node, now| node.cluster.admit(now, question)).expect("it runs");
    let stranger = certified(&Identity::from_secret(&[9; 32]), Role::Node);
    assert!(matches!(ask(Question::Renew(stranger)), Answer::Refused(Refusal::NotAccepted(_))));
    for question in [Question::Renew, Question::Ring, Question::Admit] {
        let own = certified(&founder().identity, Role::Node);
        assert!(matches!(ask(question(own)), Answer::Refused(Refusal::Clash(_))), "the admin's own");
    }
    let mut secret = [1; 32];
    secret[..8].copy_from_slice(&77u64.to_be_bytes());
    let risen = certified(&Identity::from_secret(&secret), Role::Admin);
    let Answer::Welcome(welcome) = ask(Question::Renew(risen)) else { panic!("a member is renewed") };
    let renewed = welcome.chain.expect("a new chain");
    assert_eq!(renewed.subject().expect("a node").role, Role::Node, "as it was");
}

#[test]
fn an_admin_rotates_and_everybody_follows_within_two_seconds_and_remembers() {
    let mut bench = Bench::new(4);
    let before = bench.ring(0).active();
    assert!(matches!(bench.rotate(1), Err(ClusterError::NotAdmin(_))));
    let epoch = bench.rotate(0).expect("an admin may");
    bench.run(Duration::from_secs(2));
    for number in 0..4 {
        assert_eq!(bench.ring(number).active(), epoch, "node {number}");
        let shown = bench.net.node(addr(number)).expect("it runs").cluster.keys(bench.net.now());
        let shown: Vec<_> = shown.iter().map(|key| (key.epoch.clone(), key.active, key.members)).collect();
        assert_eq!(shown, [(epoch.to_string(), true, 4), (before.to_string(), false, 4)], "node {number}");
        let stored = Papers::load(&*bench.disks[number]).expect("readable").expect("it is a member");
        assert_eq!(&stored.ring, bench.ring(number), "node {number}");
    }
    let counters = bench.net.nodes().map(|(_, node)| node.cluster.gossip().counters().unknown_epoch);
    assert_eq!(counters.sum::<u64>(), 0, "no message was lost");
}

#[test]
fn a_node_that_was_away_for_three_rotations_fetches_the_ring_from_who_it_remembers() {
    let mut bench = Bench::new(3);
    bench.net.crash(addr(2));
    bench.run(Duration::from_secs(15));
    for _ in 0..3 {
        bench.rotate(0).expect("an admin may");
        bench.run(Duration::from_secs(3));
    }
    bench.start(2);
    bench.run(Duration::from_secs(20));
    assert_eq!(bench.ring(2).active(), bench.ring(0).active());
    assert!(bench.net.nodes().all(|(_, node)| node.cluster.status().members_alive == 3));
}

#[test]
fn packets_are_no_longer_sealed_for_a_revoked_node_and_still_for_the_others() {
    let mut bench = Bench::new(3);
    let options = [("encrypted".to_owned(), String::new())].into();
    let request = NetworkCreate { name: "web".to_owned(), options, ..Default::default() };
    let made = bench.net.with(addr(0), |node, now| node.cluster.create_network(now, request));
    let network = made.expect("it runs").expect("created");
    bench.run(Duration::from_secs(2));
    for number in 0..3u8 {
        let wish = Attach {
            network,
            sandbox: SandboxId([number; 16]),
            name: format!("c{number}").parse().expect("a name"),
            ip4: None,
            ip6: None,
            mac: None,
            aliases: Vec::new(),
        };
        let asked = bench.net.with(addr(number.into()), |node, now| node.cluster.attach(now, wish).is_ok());
        assert_eq!(asked, Some(true));
    }
    bench.run(Duration::from_secs(5));
    let sealed = |bench: &Bench, from: usize, to: usize| {
        let peers = &bench.net.node(addr(from)).expect("it runs").peers;
        let peer = peers.values().find(|peer| peer.vtep.ip() == addr(to).ip());
        peer.map(|peer| (peer.send.is_some(), peer.receive.len()))
    };
    assert!(sealed(&bench, 0, 2).is_some_and(|(sends, opens)| sends && opens > 0));
    bench.revoke(2);
    bench.run(Duration::from_secs(3));
    for number in 0..2 {
        assert_eq!(sealed(&bench, number, 2), None, "node {number}");
        assert!(sealed(&bench, number, 1 - number).is_some_and(|(sends, opens)| sends && opens > 0));
    }
}

#[test]
fn a_revoked_node_is_shut_out_at_once_and_is_told_why() {
    let mut bench = Bench::new(4);
    let revoked = bench.id(3);
    bench.revoke(3);
    bench.run(Duration::from_secs(3));
    let epoch = bench.ring(0).active();
    assert!(bench.ring(0).is_urgent(epoch));
    for number in 0..3 {
        let cluster = &bench.net.node(addr(number)).expect("it runs").cluster;
        assert_eq!(cluster.gossip().ring().active(), epoch, "node {number}");
        assert!(cluster.gossip().is_banned(revoked) && cluster.gossip().member(revoked).is_none());
        assert_eq!(cluster.gossip().records(revoked).count(), 0, "node {number}");
    }
    assert!(!bench.ring(3).has(epoch));
    let received =
        |bench: &Bench| bench.net.node(addr(3)).expect("it runs").cluster.gossip().counters().received;
    let before = received(&bench);
    bench.run(Duration::from_secs(90));
    assert_eq!(received(&bench), before, "nothing is said to it");
    assert!(!bench.ring(3).has(epoch) && bench.ring(0).epochs().eq([epoch]), "old keys are gone");
    let warnings = bench.net.node(addr(3)).expect("it runs").cluster.status().warnings;
    assert!(
        warnings.iter().any(|warning| warning.contains("revoked") && warning.contains("stolen")),
        "{warnings:?}"
    );
    // Refused in so many words, whoever it asks.
    let answer = bench.ask(addr(3), addr(1));
    assert!(matches!(answer, Some(Err(AdmissionError::Refused(Refusal::Revoked(_))))), "{answer:?}");
    // And a restart of the others does not bring it back.
    bench.net.crash(addr(1));
    bench.start(1);
    bench.run(Duration::from_secs(10));
    assert!(bench.net.node(addr(1)).expect("it runs").cluster.gossip().is_banned(revoked));
    assert_eq!(bench.ring(1).active(), epoch);
}

/// Part of every name in the network that is tapped.
const NAME: &[u8] = b"plainmark";

#[test]
fn nothing_the_network_carries_can_be_read_and_no_nonce_is_used_twice() {
    let mut bench = Bench::new(4);
    bench.net.capture = Some(Vec::new());
    bench.net.conditions.loss = 0.05;
    bench.net.conditions.duplicates = 0.05;
    let options = [("encrypted".to_owned(), String::new())].into();
    let labels = [("plainmark-key".to_owned(), "plainmark-value".to_owned())].into();
    let request = NetworkCreate { name: "plainmark-net".to_owned(), options, labels, ..Default::default() };
    let made = bench.net.with(addr(0), |node, now| node.cluster.create_network(now, request));
    let network = made.expect("it runs").expect("created");
    bench.run(Duration::from_secs(2));
    for number in 0..4u8 {
        let wish = Attach {
            network,
            sandbox: SandboxId([number; 16]),
            name: format!("plainmark-{number}").parse().expect("a name"),
            ip4: None,
            ip6: None,
            mac: None,
            aliases: vec!["plainmark-alias".parse().expect("a name")],
        };
        bench.net.with(addr(number.into()), |node, now| node.cluster.attach(now, wish).expect("attached"));
    }
    bench.run(Duration::from_secs(5));
    for restarted in [1, 2, 1] {
        bench.rotate(0).expect("an admin may");
        bench.run(Duration::from_secs(2));
        bench.net.crash(addr(restarted));
        bench.start(restarted);
        bench.run(Duration::from_secs(5));
    }
    bench.revoke(3);
    bench.run(Duration::from_secs(130));
    let keys = bench.ring(0).to_octets();
    let sent = bench.net.capture.take().expect("captured");
    let (handshakes, gossip): (Vec<_>, Vec<_>) =
        sent.iter().map(|(_, sent)| &sent.bytes[..]).partition(|octets| octets[0] & 0xf0 == 0x10);
    for octets in handshakes.iter().chain(&gossip) {
        assert!(!octets.windows(NAME.len()).any(|window| window == NAME));
        // of each epoch: name, whether it is urgent, key, maker, signature
        for epoch in keys[6..].chunks(133) {
            assert!(!octets.windows(32).any(|window| *window == epoch[5..37]));
        }
    }
    // epoch, sender, boot nonce and counter of gossip; ephemeral keys of handshakes, each with one message
    let nonces: BTreeSet<_> = gossip.iter().map(|octets| &octets[2..46]).collect();
    assert_eq!(nonces.len(), gossip.len(), "a nonce came again under its key");
    let epochs: BTreeSet<_> = gossip.iter().map(|octets| &octets[2..6]).collect();
    assert_eq!(epochs.len(), 5, "three rotations and a revocation");
    let mut messages = BTreeMap::new();
    for octets in &handshakes {
        let (key, message) = match octets[0] {
            0x10 => (&octets[12..44], &octets[..142]),
            0x11 => (&octets[8..40], *octets),
            _ => continue,
        };
        assert_eq!(*messages.entry(key).or_insert(message), message, "an ephemeral key was used twice");
    }
    assert!(messages.len() > 20, "{} handshake messages", messages.len());
}

#[test]
fn a_certificate_is_renewed_before_it_ends_and_whose_has_ended_counts_no_more() {
    let mut bench = Bench::new(3);
    let request = NetworkCreate { name: "web".to_owned(), ..Default::default() };
    let created = bench.net.with(addr(0), |node, now| node.cluster.create_network(now, request));
    let network = created.expect("it runs").expect("created");
    bench.run(Duration::from_secs(1));
    for at in 0..3u8 {
        let wish = Attach {
            network,
            sandbox: SandboxId([at; 16]),
            name: format!("c{at}").parse().expect("a name"),
            ip4: None,
            ip6: None,
            mac: None,
            aliases: Vec::new(),
        };
        let asked = bench.net.with(addr(at.into()), |node, now| node.cluster.attach(now, wish));
        asked.expect("it runs").expect("possible");
    }
    bench.run(Duration::from_secs(2));
    let others = |bench: &Bench| -> Vec<usize> {
        bench.net.nodes().map(|(_, node)| node.cluster.status().endpoints_remote).collect()
    };
    assert_eq!(others(&bench), [2, 2, 2]);
    let asks = |bench: &mut Bench, at| bench.net.with(addr(at), |n, now| n.cluster.renewal(now)).flatten();
    bench.set_day(59);
    assert_eq!(asks(&mut bench, 1), None, "a third of its life is left");
    bench.set_day(61);
    assert_eq!(asks(&mut bench, 1), Some(vec![addr(0)]));
    bench.net.with(addr(0), |node, now| node.cluster.renew_own(now));
    let chain = bench.net.node(addr(1)).expect("it runs").cluster.papers().1.clone();
    let answer = bench.net.with(addr(0), |node, now| node.cluster.admit(now, Question::Renew(chain)));
    let Some(Answer::Welcome(welcome)) = answer else { panic!("a member is renewed: {answer:?}") };
    let renewed = welcome.chain.expect("a new chain");
    bench.net.with(addr(1), |node, now| node.cluster.use_chain(now, renewed));
    assert_eq!((asks(&mut bench, 0), asks(&mut bench, 1)), (None, None));
    bench.run(Duration::from_secs(2));
    // Node 2 was not asked for anything; a week after its end its certificate is of no use.
    bench.set_day(98);
    bench.run(Duration::from_secs(12));
    assert_eq!(others(&bench)[..2], [1, 1]);
    let (node, now) = (bench.net.node(addr(0)).expect("it runs"), bench.net.now());
    let states: Vec<_> = node.cluster.nodes(now).into_iter().map(|node| (node.name, node.state)).collect();
    let expected = [("n0", "alive"), ("n1", "alive"), ("n2", "expired")];
    assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state.to_owned())));
    // It was a clock.
    bench.set_day(62);
    bench.run(Duration::from_secs(12));
    assert_eq!(others(&bench), [2, 2, 2]);
}

#[test]
fn a_node_that_did_not_hear_that_it_joined_does_so_again_at_no_cost() {
    let mut bench = Bench::new(2);
    let terms = TokenTerms { role: Role::Node, max_uses: 1, life: Duration::from_secs(3600) };
    let made = bench.net.with(addr(0), |node, now| node.cluster.create_token(now, [4; 16], terms));
    let (token, _) = made.expect("it runs").expect("made");
    let key = token.key();
    let mut ask =
        |question| bench.net.with(addr(0), |node, now| node.cluster.admit(now, question)).expect("it runs");
    let (joiner, other) = (Identity::from_secret(&[8; 32]), Identity::from_secret(&[9; 32]));
    for second in 1..=3 {
        let told = ask(Question::Token(key.id(), joiner.public_key()));
        let Answer::Terms(terms) = told else { panic!("attempt {second}: {told:?}") };
        let (name, made) = ("x".parse().expect("a name"), UnixMillis(FOUNDED.0 + second * 1000));
        let node = NodeCertificate::by_token(&joiner, name, &key, &terms.token.statement, made);
        let chain = terms.admin.extended(Link { token: Some(terms.token), node });
        let let_in = ask(Question::Admit(chain));
        assert!(matches!(let_in, Answer::Welcome(_)), "attempt {second}: {let_in:?}");
    }
    let refused = ask(Question::Token(key.id(), other.public_key()));
    assert!(matches!(refused, Answer::Refused(Refusal::Spent(1))), "{refused:?}");
    let shown = bench.net.with(addr(0), |node, now| node.cluster.tokens(now)).expect("it runs");
    assert_eq!(shown.iter().map(|token| token.uses).collect::<Vec<_>>(), [1]);
}
