//! Who is alive: SWIM by `foca` (probes, indirect probes, suspicion, refutation), with what it leaves to its user:
//! timers, bounds, and patience after a pause of this very node.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use foca::{Config, Foca, Notification, PeriodicParams, State};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::engine::{BoundedCodec, Claim, HeadRumours, Judgement, Shared, lock};
use super::limits::{PAUSE, PROBE_PERIOD, PROBE_RTT};
use super::message::{MAX_CONTENT, RosterEntry};
use super::record::{ClusterId, Head};
use crate::model::NodeId;

/// A member as the membership engine names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) addr: std::net::SocketAddr,
    /// Boot epoch in the upper half, returns from the dead and changes of address since in the lower.
    pub(crate) generation: u64,
}

impl Peer {
    pub(crate) fn boot_epoch(&self) -> u32 {
        (self.generation >> 32) as u32
    }
}

impl foca::Identity for Peer {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        self.generation.checked_add(1).map(|generation| Self { generation, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.id
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        (self.generation, self.addr) > (other.generation, other.addr)
    }
}

/// What the engine wants done after an interaction.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) packets: Vec<(Peer, Vec<u8>)>,
    /// Members whose state may have changed.
    pub(crate) touched: BTreeSet<NodeId>,
    /// Verified heads that came along with packets, newest known first seen here.
    pub(crate) heads: Vec<(Head, NodeId)>,
    /// What was said of members beyond what they signed.
    pub(super) claims: Vec<Claim>,
    /// Heads whose signature was wrong.
    pub(crate) forged: u64,
    /// Claims about members that contradict what those signed.
    pub(crate) unproven: u64,
    pub(crate) rejoined: bool,
    /// Members that are suspected in this incarnation and should be told straight away.
    pub(crate) accused: Vec<(Peer, u16)>,
    timers: Vec<(Duration, foca::Timer<Peer>)>,
}

impl foca::Runtime<Peer> for &mut Effects {
    fn notify(&mut self, notification: Notification<'_, Peer>) {
        match notification {
            Notification::MemberUp(peer) | Notification::MemberDown(peer) | Notification::Rename(_, peer) => {
                self.touched.insert(peer.id);
            }
            Notification::Rejoin(_) => self.rejoined = true,
            Notification::Active | Notification::Idle | Notification::Defunct => {}
        }
    }

    fn send_to(&mut self, to: Peer, data: &[u8]) {
        self.packets.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: foca::Timer<Peer>, after: Duration) {
        self.timers.push((after, event));
    }
}

/// What a timer is for.
enum Due {
    Engine(foca::Timer<Peer>),
    /// Tell a member once more that it is suspected in this incarnation.
    Reminder(Peer, u16),
}

/// A suspected member is told at once and after these, so that one lost datagram does not kill it. Rumours alone
/// miss the one they are about now and then, as each node passes them on only so often.
const REMINDERS: [Duration; 3] =
    [Duration::from_millis(800), Duration::from_millis(1600), Duration::from_millis(2600)];

/// The engine with its timers.
pub(crate) struct Membership {
    foca: Foca<Peer, BoundedCodec, StdRng, HeadRumours>,
    timers: BTreeMap<(Instant, u64), Due>,
    /// When a dead member is forgotten; one entry per member, however often it died.
    burials: BTreeMap<NodeId, (Instant, Peer)>,
    sequence: u64,
    shared: Arc<Mutex<Shared>>,
    sized_for: usize,
    /// Members by id, for questions that come with every message.
    index: BTreeMap<NodeId, (Peer, bool)>,
}

impl Membership {
    pub(crate) fn new(us: Peer, cluster: ClusterId, seed: u64) -> Self {
        let shared = Arc::new(Mutex::new(Shared::new(cluster, us)));
        let foca = Foca::with_custom_broadcast(
            us,
            config(1),
            StdRng::seed_from_u64(seed),
            BoundedCodec(shared.clone()),
            HeadRumours(shared.clone()),
        );
        Self {
            foca,
            timers: BTreeMap::new(),
            burials: BTreeMap::new(),
            sequence: 0,
            shared,
            sized_for: 1,
            index: BTreeMap::new(),
        }
    }

    /// This node, as others should know it.
    pub(crate) fn us(&self) -> Peer {
        *self.foca.identity()
    }

    /// Active members other than this node.
    pub(crate) fn active(&self) -> impl Iterator<Item = Peer> {
        self.index.values().filter(|(_, alive)| *alive).map(|(peer, _)| *peer)
    }

    pub(crate) fn active_count(&self) -> usize {
        self.foca.num_members()
    }

    /// The member and whether it is active.
    pub(crate) fn find(&self, id: NodeId) -> Option<(Peer, bool)> {
        self.index.get(&id).copied()
    }

    pub(crate) fn is_active(&self, id: NodeId) -> bool {
        self.find(id).is_some_and(|(_, alive)| alive)
    }

    /// Members held dead.
    pub(crate) fn dead(&self) -> impl Iterator<Item = Peer> {
        self.index.values().filter(|(_, alive)| !*alive).map(|(peer, _)| *peer)
    }

    /// Generation up to which `id` is held dead, or 0.
    pub(crate) fn buried(&self, id: NodeId) -> u64 {
        self.find(id).map_or(0, |(peer, alive)| if alive { 0 } else { peer.generation })
    }

    /// Everybody as seen from here, this node first.
    pub(crate) fn roster(&self) -> Vec<RosterEntry> {
        let us = RosterEntry { peer: self.us(), incarnation: 0, alive: true };
        let others = self.foca.iter_membership_state().map(|member| RosterEntry {
            peer: *member.id(),
            incarnation: member.incarnation(),
            alive: member.state() != State::Down,
        });
        std::iter::once(us).chain(others).collect()
    }

    /// A packet of another member's engine. `false` if the engine refused it.
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: &[u8], effects: &mut Effects) -> bool {
        self.interact(now, effects, |foca, effects| foca.handle_data(packet, effects).is_ok())
    }

    /// Takes `peers` for alive, as `teller` says, unless they are known to be dead in this generation. They must be as
    /// they signed themselves.
    pub(crate) fn welcome(
        &mut self,
        now: Instant,
        teller: NodeId,
        peers: impl Iterator<Item = (Peer, u16)>,
        effects: &mut Effects,
    ) {
        let us = self.us().id;
        let mut shared = lock(&self.shared);
        let peers: Vec<_> = peers
            .filter(|(peer, _)| peer.id != us)
            .filter(|(peer, incarnation)| shared.judge(peer, *incarnation, teller) == Judgement::Proven)
            .map(|(peer, incarnation)| foca::Member::new(peer, incarnation, State::Alive))
            .collect();
        drop(shared);
        self.interact(now, effects, |foca, effects| {
            foca.apply_many(peers.into_iter(), true, effects).is_ok()
        });
    }

    /// Asks `peer` for members.
    pub(crate) fn announce(&mut self, now: Instant, peer: Peer, effects: &mut Effects) {
        self.interact(now, effects, |foca, effects| foca.announce(peer, effects).is_ok());
    }

    /// Spreads the news that `us` is another than before: a new address, or a return from the dead.
    pub(crate) fn become_peer(&mut self, now: Instant, us: Peer, effects: &mut Effects) {
        self.interact(now, effects, |foca, effects| {
            // The engine stops probing then, until somebody is heard of: whoever moved to where nobody is would never
            // learn it. Applying nothing has it go on.
            foca.change_identity(us, &mut *effects).is_ok()
                && foca.apply_many(std::iter::empty(), false, effects).is_ok()
        });
    }

    /// Answers a suspicion of this node: a higher incarnation, to some members and to who raised it.
    pub(crate) fn refute(&mut self, now: Instant, incarnation: u16, accuser: Peer, effects: &mut Effects) {
        let suspicion = foca::Member::new(self.us(), incarnation, State::Suspect);
        self.interact(now, effects, |foca, effects| {
            foca.apply_many([suspicion].into_iter(), true, effects).is_ok()
        });
        self.announce(now, accuser, effects);
    }

    /// Lets `head` travel with the engine's packets.
    pub(crate) fn spread(&mut self, head: &Head) {
        let mut octets = Vec::new();
        head.emit(&mut octets);
        let _ = self.foca.add_broadcast(&octets);
        self.lock().heads.clear();
    }

    /// Tells what version of `origin`'s head is known, so that only newer ones are taken and spread.
    pub(crate) fn known(&mut self, origin: NodeId, version: u64) {
        let mut shared = self.lock();
        let known = shared.known.entry(origin).or_default();
        *known = version.max(*known);
    }

    /// Takes newer heads of `origin` than this version for news again.
    pub(crate) fn unlearn(&mut self, origin: NodeId, version: u64) {
        self.lock().known.insert(origin, version);
    }

    /// Takes over a member as its own head, verified and that of a member, has it.
    pub(crate) fn prove(&mut self, peer: Peer) {
        self.lock().proven.insert(peer.id, peer);
    }

    /// The member as its own newest head has it.
    pub(crate) fn proven(&self, id: NodeId) -> Option<Peer> {
        self.lock().proven.get(&id).copied()
    }

    /// Forgets everything about `id`, without a word to others.
    pub(crate) fn remove(&mut self, now: Instant, id: NodeId) {
        let mut effects = Effects::default();
        if let Some((peer, _)) = self.find(id) {
            let down = foca::Member::new(peer, u16::MAX, State::Down);
            self.interact(now, &mut effects, |foca, effects| {
                foca.apply_many([down].into_iter(), false, &mut *effects).is_ok()
                    && foca.handle_timer(foca::Timer::RemoveDown(peer), effects).is_ok()
            });
            self.index.remove(&id);
        }
        self.burials.remove(&id);
        let mut shared = self.lock();
        shared.proven.remove(&id);
        shared.known.remove(&id);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let burial = self.burials.values().map(|(at, _)| *at).min();
        self.timers.keys().next().map(|(at, _)| *at).into_iter().chain(burial).min()
    }

    /// Runs due timers. `true` if this node slept through them: then nobody is judged by them, they move on.
    pub(crate) fn handle_timeout(&mut self, now: Instant, effects: &mut Effects) -> bool {
        let due = self.timers.keys().next().map_or(now, |(at, _)| *at);
        let late = now.saturating_duration_since(due);
        if late > PAUSE {
            let moved = std::mem::take(&mut self.timers);
            self.timers =
                moved.into_iter().map(|((at, sequence), timer)| ((at + late, sequence), timer)).collect();
        }
        while let Some((&(at, sequence), _)) = self.timers.first_key_value()
            && at <= now
        {
            match self.timers.remove(&(at, sequence)).expect("its key was just read") {
                Due::Engine(timer) => {
                    self.interact(now, effects, |foca, effects| foca.handle_timer(timer, effects).is_ok());
                }
                Due::Reminder(peer, incarnation) => self.accuse(peer, incarnation, effects),
            }
        }
        let forget: Vec<_> =
            self.burials.iter().filter(|(_, (at, _))| *at <= now).map(|(id, _)| *id).collect();
        for id in forget {
            let Some((_, peer)) = self.burials.remove(&id) else { continue };
            let timer = foca::Timer::RemoveDown(peer);
            self.interact(now, effects, |foca, effects| foca.handle_timer(timer, effects).is_ok());
        }
        late > PAUSE
    }

    fn interact<T>(
        &mut self,
        now: Instant,
        effects: &mut Effects,
        act: impl FnOnce(&mut Foca<Peer, BoundedCodec, StdRng, HeadRumours>, &mut Effects) -> T,
    ) -> T {
        let backlog = self.foca.custom_broadcast_backlog();
        let us = self.us();
        let mut shared = self.lock();
        (shared.backlog, shared.us) = (backlog, us);
        drop(shared);
        let mut earlier = std::mem::take(&mut effects.touched);
        let result = act(&mut self.foca, effects);
        self.schedule(now, effects);
        self.reindex(&effects.touched);
        effects.touched.append(&mut earlier);
        self.collect(effects);
        self.resize();
        result
    }

    fn collect(&mut self, effects: &mut Effects) {
        let mut shared = lock(&self.shared);
        effects.heads.append(&mut shared.heads);
        effects.claims.append(&mut shared.claims);
        effects.unproven += std::mem::take(&mut shared.unproven);
        effects.forged += std::mem::take(&mut shared.forged);
    }

    fn schedule(&mut self, now: Instant, effects: &mut Effects) {
        for (after, timer) in std::mem::take(&mut effects.timers) {
            if let foca::Timer::RemoveDown(peer) = timer {
                self.burials.insert(peer.id, (now + after, peer));
                continue;
            }
            if let foca::Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer {
                effects.accused.push((*member_id, *incarnation));
                for wait in REMINDERS {
                    self.at(now + wait, Due::Reminder(*member_id, *incarnation));
                }
            }
            self.at(now + after, Due::Engine(timer));
        }
    }

    fn at(&mut self, at: Instant, due: Due) {
        self.sequence += 1;
        self.timers.insert((at, self.sequence), due);
    }

    fn accuse(&self, peer: Peer, incarnation: u16, effects: &mut Effects) {
        let suspected = |member: &foca::Member<Peer>| {
            *member.id() == peer && member.incarnation() == incarnation && member.state() == State::Suspect
        };
        if self.foca.iter_membership_state().any(suspected) {
            effects.accused.push((peer, incarnation));
        }
    }

    fn reindex(&mut self, touched: &BTreeSet<NodeId>) {
        let seen = |member: &foca::Member<Peer>| (*member.id(), member.state() != State::Down);
        for id in touched {
            let member = self.foca.iter_membership_state().find(|member| member.id().id == *id);
            member.map(|member| self.index.insert(*id, seen(member)));
        }
        // Members that are first heard of as dead, or forgotten, come without a notification.
        if self.index.len() != self.foca.iter_membership_state().len() {
            self.index =
                self.foca.iter_membership_state().map(|member| (member.id().id, seen(member))).collect();
        }
    }

    fn resize(&mut self) {
        let size = self.foca.num_members() + 1;
        if size != self.sized_for {
            self.sized_for = size;
            let _ = self.foca.set_config(config(size));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

/// Settings for a cluster of `size`, after memberlist's for LANs, with suspicion short enough that 100 nodes learn
/// of a death in 10 s: a refutation needs two sweeps of gossip, some 1.5 s at 100 nodes and 20 % loss.
fn config(size: usize) -> Config {
    let decades = (size.max(1) as f64).log10();
    let every = |seconds: u64, members| {
        Some(PeriodicParams { frequency: Duration::from_secs(seconds), num_members: at_least_one(members) })
    };
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        num_indirect_probes: at_least_one(3),
        // Twice memberlist's: at 20 % loss a rumour then misses a given node once in 10^5.
        max_transmissions: NonZeroU8::new((8.0 * (size as f64 + 1.0).log10()).clamp(3.0, 40.0) as u8)
            .unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: Duration::from_secs_f64((2.0 * decades).max(4.0)),
        remove_down_after: Some(Duration::from_secs(24 * 3600)),
        max_packet_size: at_least_one(MAX_CONTENT),
        notify_down_members: true,
        periodic_announce: every(30, 1),
        periodic_announce_to_down_members: every(65, 2),
        periodic_gossip: Some(PeriodicParams {
            frequency: Duration::from_millis(200),
            num_members: at_least_one(3),
        }),
    }
}

fn at_least_one(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}
