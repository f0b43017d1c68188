//! MAC addresses that move between nodes: one that moves too often is held where it was until there is quiet, so that
//! two nodes that claim it do not keep everybody busy (RFC 7432 §15.1).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use weft_dataplane::wire::MacAddr;

use crate::model::{NetworkId, NodeId};

/// Moves within [`PERIOD`] that are followed.
const MOVES: usize = 5;
const PERIOD: Duration = Duration::from_secs(180);
/// MAC addresses that are watched; further ones are followed as they move.
const MAX_WATCHED: usize = 4_096;

/// Where MAC addresses that have moved are.
#[derive(Debug, Default)]
pub(super) struct Mobility {
    watched: BTreeMap<(NetworkId, MacAddr), Watched>,
}

#[derive(Debug)]
struct Watched {
    /// Where it is held to be.
    place: NodeId,
    /// The last claim: by whom, and its mobility.
    claim: (NodeId, u32),
    moves: VecDeque<Instant>,
    held: bool,
}

impl Mobility {
    /// Notes the claim that would win a MAC address; answers whether it is held somewhere else from now on.
    pub(super) fn note(
        &mut self,
        now: Instant,
        network: NetworkId,
        mac: MacAddr,
        claim: (NodeId, u32),
    ) -> bool {
        let full = self.watched.len() >= MAX_WATCHED;
        let Some(watched) = self.watched.get_mut(&(network, mac)) else {
            if !full {
                let fresh = Watched { place: claim.0, claim, moves: VecDeque::new(), held: false };
                self.watched.insert((network, mac), fresh);
            }
            return false;
        };
        if watched.claim == claim {
            return false;
        }
        watched.claim = claim;
        watched.moves.push_back(now);
        watched.moves.retain(|&at| now.saturating_duration_since(at) < PERIOD);
        watched.moves.truncate(MOVES + 1);
        let before = watched.held;
        watched.held |= watched.moves.len() > MOVES;
        if !watched.held {
            watched.place = claim.0;
        }
        watched.held != before
    }

    /// Lets go of what has been quiet long enough; answers the networks in which something was held.
    pub(super) fn release(&mut self, now: Instant) -> BTreeSet<NetworkId> {
        let mut released = BTreeSet::new();
        self.watched.retain(|(network, _), watched| {
            let quiet = |&at: &Instant| now.saturating_duration_since(at) >= PERIOD;
            let over = watched.moves.back().is_none_or(quiet);
            if over && watched.held {
                released.insert(*network);
            }
            !over || watched.moves.is_empty() && !watched.held
        });
        released
    }

    /// Forgets a network that is gone.
    pub(super) fn forget(&mut self, network: NetworkId) {
        self.watched.retain(|(of, _), _| *of != network);
    }

    /// The MAC addresses of a network that are held, and where.
    pub(super) fn held(&self, network: NetworkId) -> BTreeMap<MacAddr, NodeId> {
        let of_network =
            self.watched.range((network, MacAddr([0; 6]))..).take_while(|((of, _), _)| *of == network);
        of_network
            .filter(|(_, watched)| watched.held)
            .map(|((_, mac), watched)| (*mac, watched.place))
            .collect()
    }

    /// Every MAC address that is held.
    pub(super) fn all_held(&self) -> impl Iterator<Item = (NetworkId, MacAddr, NodeId)> + '_ {
        let held = self.watched.iter().filter(|(_, watched)| watched.held);
        held.map(|((network, mac), watched)| (*network, *mac, watched.place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([7; 16]);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const A: NodeId = NodeId([1; 16]);
    const B: NodeId = NodeId([2; 16]);

    /// `count` moves, ten seconds apart.
    fn moved(mobility: &mut Mobility, start: Instant, count: u32) -> Vec<bool> {
        let place = |n: u32| if n.is_multiple_of(2) { A } else { B };
        let at = |n: u32| start + Duration::from_secs(10) * n;
        (0..=count).map(|n| mobility.note(at(n), NETWORK, MAC, (place(n), n))).collect()
    }

    #[test]
    fn a_mac_that_keeps_moving_is_held_where_it_was_until_there_is_quiet() {
        let start = crate::gossip::testing::start();
        let mut mobility = Mobility::default();
        assert_eq!(moved(&mut mobility, start, 6), [false, false, false, false, false, false, true]);
        assert_eq!(mobility.held(NETWORK), [(MAC, B)].into());
        let last = start + Duration::from_secs(60);
        assert!(!mobility.note(last, NETWORK, MAC, (B, 7)), "it is held already");
        assert!(mobility.release(last + PERIOD - Duration::from_secs(1)).is_empty());
        assert_eq!(mobility.release(last + PERIOD), [NETWORK].into());
        assert!(mobility.held(NETWORK).is_empty());
    }

    #[test]
    fn a_mac_that_moves_now_and_then_is_followed() {
        let start = crate::gossip::testing::start();
        let mut mobility = Mobility::default();
        for n in 0..50 {
            let now = start + Duration::from_secs(40) * n;
            assert!(!mobility.note(now, NETWORK, MAC, (if n % 2 == 0 { A } else { B }, n)));
        }
        assert!(mobility.held(NETWORK).is_empty());
    }
}
