//! Joining and leaving, many at once: what comes while the kernel is at work on a network is done together, when it is
//! done. A network's guard is loaded once for all of them, so that a hundred containers take little longer than one.

use std::collections::BTreeMap;

use super::super::{Node, Reply, answer, internal};
use super::done;
use crate::docker::protocol::Joined;
use crate::driver::far_name;
use crate::io::worker::Settled;
use crate::model::{EndpointId, NetworkId, SandboxId};
use crate::network::Lease;

/// What is to be done in a network.
#[derive(Default)]
pub(super) struct Round {
    /// Whether the kernel is at work on the round before.
    busy: bool,
    joins: Vec<Joining>,
    /// Who waits for interfaces to be gone.
    leaves: Vec<Reply>,
}

/// An endpoint whose interface is to be made.
pub(super) struct Joining {
    pub(super) lease: Lease,
    pub(super) sandbox: SandboxId,
    pub(super) joined: Joined,
    pub(super) reply: Reply,
}

impl Node {
    /// Has an interface made with the next round.
    pub(super) fn join_next(&mut self, joining: Joining) {
        let network = joining.lease.network;
        self.fresh.insert(joining.lease.endpoint);
        self.docker.rounds.entry(network).or_default().joins.push(joining);
        self.begin_round(network);
    }

    /// Answers when the interface of an endpoint that is no longer wanted is gone.
    pub(super) fn leave_next(&mut self, network: NetworkId, reply: Reply) {
        self.docker.rounds.entry(network).or_default().leaves.push(reply);
        self.begin_round(network);
    }

    fn begin_round(&mut self, network: NetworkId) {
        let Some(round) = self.docker.rounds.get_mut(&network).filter(|round| !round.busy) else { return };
        let (joins, leaves) = (std::mem::take(&mut round.joins), std::mem::take(&mut round.leaves));
        if joins.is_empty() && leaves.is_empty() {
            self.docker.rounds.remove(&network);
            return;
        }
        round.busy = true;
        self.names.doubt();
        self.settle_names();
        self.segment_changed(network);
        let wanted = self.wanted(network);
        let fresh = joins.iter().map(|joining| joining.lease.endpoint).collect();
        self.worker.hand(move |bench| {
            let outcome = bench.settle_handed(wanted, &fresh);
            move |node: &mut Self| node.end_round(network, (joins, leaves), outcome)
        });
    }

    fn end_round(
        &mut self,
        network: NetworkId,
        (joins, leaves): (Vec<Joining>, Vec<Reply>),
        outcome: Result<BTreeMap<EndpointId, String>, String>,
    ) {
        for joining in joins {
            let endpoint = joining.lease.endpoint;
            let made = match &outcome {
                Err(fault) => Err(fault.clone()),
                Ok(failed) => failed.get(&endpoint).cloned().map_or_else(
                    || Ok(Settled { interface: Some(far_name(endpoint)), ..Settled::default() }),
                    Err,
                ),
            };
            self.docker_joined(joining, made);
        }
        for reply in leaves {
            answer(reply, outcome.as_ref().map_err(internal).and_then(|_| done()));
        }
        self.names.doubt();
        self.drain_cluster();
        if let Some(round) = self.docker.rounds.get_mut(&network) {
            round.busy = false;
        }
        self.begin_round(network);
    }
}
