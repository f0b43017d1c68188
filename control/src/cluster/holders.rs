//! Whose each tunnel end is. Nodes name their own, so that one could name another's: then packets sealed for the one
//! would go, and those of the other would count, as the other's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::model::NodeId;

/// What a node says of its tunnel end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) vtep: SocketAddr,
    /// Whether the node answers.
    pub(super) alive: bool,
}

/// Each tunnel end with the one node that has it; all others that claim it are refused.
#[derive(Debug, Default)]
pub(super) struct Holders {
    held: BTreeMap<SocketAddr, NodeId>,
    ends: BTreeMap<NodeId, SocketAddr>,
    /// Given up, but packets still go there for the node that had them.
    vacating: BTreeSet<SocketAddr>,
    refused: BTreeMap<NodeId, SocketAddr>,
}

impl Holders {
    /// Takes in what every node claims; answers which nodes have got or lost a tunnel end.
    ///
    /// Who has a tunnel end keeps it as long as it claims it, and answers or nobody else does who answers. What is
    /// given up is nobody's until [`Holders::vacated`]. `own` is this node's.
    pub(super) fn settle(&mut self, own: SocketAddr, claims: &BTreeMap<NodeId, Claim>) -> BTreeSet<NodeId> {
        let before = std::mem::take(&mut self.ends);
        self.leave(own, claims);
        self.refused.clear();
        let mut order: Vec<(NodeId, &Claim)> = claims.iter().map(|(node, claim)| (*node, claim)).collect();
        order.sort_by_key(|(node, claim)| (!claim.alive, *node));
        for (node, claim) in order {
            let free = claim.vtep != own && !self.vacating.contains(&claim.vtep);
            if free && *self.held.entry(claim.vtep).or_insert(node) == node {
                self.ends.insert(node, claim.vtep);
            } else {
                self.refused.insert(node, claim.vtep);
            }
        }
        let nodes: BTreeSet<NodeId> = before.keys().chain(self.ends.keys()).copied().collect();
        nodes.into_iter().filter(|node| before.get(node) != self.ends.get(node)).collect()
    }

    /// Takes tunnel ends from those who are to have them no longer.
    fn leave(&mut self, own: SocketAddr, claims: &BTreeMap<NodeId, Claim>) {
        let wanted: BTreeSet<SocketAddr> = claims.values().filter(|c| c.alive).map(|c| c.vtep).collect();
        let vacating = &mut self.vacating;
        self.held.retain(|vtep, node| {
            let claim = claims.get(node).filter(|claim| claim.vtep == *vtep && *vtep != own);
            let keeps = claim.is_some_and(|claim| claim.alive || !wanted.contains(vtep));
            if !keeps {
                vacating.insert(*vtep);
            }
            keeps
        });
    }

    /// Packets go nowhere any more but to who has the tunnel end now; answers whether that lets somebody have one.
    pub(super) fn vacated(&mut self) -> bool {
        !std::mem::take(&mut self.vacating).is_empty()
    }

    /// The tunnel end that is this node's and nobody else's.
    pub(super) fn end_of(&self, node: NodeId) -> Option<SocketAddr> {
        self.ends.get(&node).copied()
    }

    /// Nodes that claim a tunnel end that is another's.
    pub(super) fn refused(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> + '_ {
        self.refused.iter().map(|(node, vtep)| (*node, *vtep))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: NodeId = NodeId([5; 16]);
    const M: NodeId = NodeId([2; 16]);

    fn vtep(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 4789))
    }

    fn settle(holders: &mut Holders, claims: &[(NodeId, u8, bool)]) -> Vec<NodeId> {
        let claims = claims.iter().map(|&(node, last, alive)| (node, Claim { vtep: vtep(last), alive }));
        holders.settle(vtep(1), &claims.collect());
        holders.refused().map(|(node, _)| node).collect()
    }

    #[test]
    fn who_has_a_tunnel_end_keeps_it_while_it_answers() {
        let mut holders = Holders::default();
        assert_eq!(settle(&mut holders, &[(B, 2, true)]), []);
        for _ in 0..2 {
            assert_eq!(settle(&mut holders, &[(B, 2, true), (M, 2, true)]), [M]);
            assert_eq!((holders.end_of(B), holders.end_of(M)), (Some(vtep(2)), None));
            assert!(!holders.vacated());
        }
        assert_eq!(settle(&mut holders, &[(B, 2, true), (M, 3, true)]), []);
        assert_eq!(settle(&mut holders, &[(B, 2, false), (M, 3, true)]), [], "nobody else wants it");
    }

    #[test]
    fn what_is_given_up_is_nobodys_until_no_packet_goes_there_for_who_had_it() {
        for gone in [vec![(M, 2, true)], vec![(B, 3, true), (M, 2, true)], vec![(B, 2, false), (M, 2, true)]]
        {
            let mut holders = Holders::default();
            settle(&mut holders, &[(B, 2, true)]);
            assert!(settle(&mut holders, &gone).contains(&M), "{gone:?}");
            assert!(holders.vacated());
            assert!(!settle(&mut holders, &gone).contains(&M), "{gone:?}");
            assert_eq!(holders.end_of(M), Some(vtep(2)));
        }
    }

    #[test]
    fn the_tunnel_end_of_this_node_is_nobody_elses() {
        let mut holders = Holders::default();
        assert_eq!(settle(&mut holders, &[(M, 1, true)]), [M]);
        settle(&mut holders, &[(M, 2, true)]);
        let lost = holders.settle(vtep(2), &[(M, Claim { vtep: vtep(2), alive: true })].into());
        assert_eq!((lost, holders.end_of(M)), ([M].into(), None), "it has become this node's");
    }
}
