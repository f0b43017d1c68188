//! Networks of Docker that are removed.

use super::super::errand::Errand;
use super::super::{Node, Reply, answer, now};
use super::{done, nothing, refused};
use crate::cluster::ClusterError;
use crate::docker::{Binding, DockerId};
use crate::io::server::{Refusal, explain};
use crate::io::worker::Purpose;
use crate::model::NetworkId;
use crate::network::NetworkError;

impl Node {
    /// Removes a network, on every host. One that is gone is removed already.
    ///
    /// An engine says the same when it takes back a network that it could not write down: that is no reason to remove one
    /// of the cluster, which other hosts have too.
    pub(super) fn delete_docker_network(&mut self, id: DockerId, reply: Reply) {
        let network = match self.docker.bindings.network(&id).cloned() {
            None => return answer(reply, done()),
            // It may have been made just now, or just before the agent ended.
            Some(Binding::Pending(_)) => id.network(),
            Some(Binding::Bound(network)) if self.is_taken_back(&id, network) => {
                self.forget_docker_network(&id);
                return answer(reply, done());
            }
            Some(Binding::Bound(network)) => network,
        };
        self.forget_lost_endpoints(Some(network), move |node| {
            if node.local.definition(network).is_some() {
                node.delete_local_docker_network(&id, network, reply);
            } else {
                node.delete_clusters_docker_network(&id, network, reply);
            }
        });
    }

    /// Answers when the kernel has done its part: the next network may want the same bridge or subnet.
    fn delete_local_docker_network(&mut self, id: &DockerId, network: NetworkId, reply: Reply) {
        let errand = self.errands.begin();
        if let Err(refusal) = self.remove_local_for_docker(network, Some(errand)) {
            return answer(reply, Err(refusal));
        }
        self.forget_docker_network(id);
        self.drain_cluster();
        self.answer_after(errand, reply, nothing(), format!("network {} is removed", id.short()));
    }

    /// Answers as soon as the removal is written down. The rest is in no other network's way, and done by the next start
    /// where this one does not come to it.
    fn delete_clusters_docker_network(&mut self, id: &DockerId, network: NetworkId, reply: Reply) {
        if let Err(refusal) = self.remove_from_cluster(network) {
            return answer(reply, Err(refusal));
        }
        answer(reply, done());
        self.forget_docker_network(id);
        self.drain_cluster();
        self.settle_for(network, Purpose::Removal, None);
    }

    /// Whether the engine may be taking back a network of the cluster that it removes, as it could not make it.
    fn is_taken_back(&mut self, id: &DockerId, network: NetworkId) -> bool {
        let engine = self.engine.as_mut().filter(|_| self.local.definition(network).is_none());
        engine.is_some_and(|engine| engine.may_take_back(id, network))
    }

    /// Removes a network of this host, or of all, and has the kernel follow; one that is gone is removed already.
    pub(in crate::io::node) fn remove_for_docker(&mut self, network: NetworkId) -> Result<(), Refusal> {
        if self.local.definition(network).is_some() {
            return self.remove_local_for_docker(network, None);
        }
        self.remove_from_cluster(network)?;
        self.drain_cluster();
        self.settle_for(network, Purpose::Removal, None);
        Ok(())
    }

    fn remove_local_for_docker(&mut self, network: NetworkId, errand: Option<Errand>) -> Result<(), Refusal> {
        self.local.remove(network).map_err(|fault| refused(explain(&fault)))?;
        self.settle_bridges(Purpose::Removal, errand);
        self.settle_firewall();
        Ok(())
    }

    /// Writes the removal down; a network that is gone is removed already.
    fn remove_from_cluster(&mut self, network: NetworkId) -> Result<(), Refusal> {
        match self.cluster.remove_network(now(), network) {
            Ok(()) | Err(ClusterError::Network(NetworkError::NoNetwork(_))) => Ok(()),
            Err(fault) => Err(fault.into()),
        }
    }
}
