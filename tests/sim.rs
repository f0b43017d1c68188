//! Clusters of any size in one thread under a virtual clock: every run of a seed is the same.

#[path = "sim/chaos.rs"]
mod chaos;
#[path = "sim/cluster.rs"]
mod cluster;
#[path = "sim/gossip.rs"]
mod gossip;
#[path = "sim/gossip_node.rs"]
mod gossip_node;
#[path = "sim/keys.rs"]
mod keys;
#[path = "sim/network.rs"]
mod network;
#[path = "sim/ring.rs"]
mod ring;
