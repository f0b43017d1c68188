//! Bounds of everything that other nodes can make this one hold, send or compute.

use std::time::Duration;

/// Largest datagram, octets, seal included: fits an IPv6 minimum MTU of 1,280 with its headers.
pub const MAX_DATAGRAM: usize = 1200;
/// Largest sealed message of a stream, octets.
pub const MAX_STREAM: usize = 1 << 20;
/// Largest body of [`Gossip::send_rpc`](super::Gossip::send_rpc), octets.
pub const MAX_RPC: usize = 1000;

/// Nodes whose tables are kept. Nodes that did not prove themselves have none.
pub const MAX_NODES: usize = 4096;
/// Live records per node.
pub const MAX_KEYS: usize = 4096;
/// Octets of a record's key.
pub const MAX_KEY: usize = 64;
/// Octets of a record's body.
pub const MAX_BODY: usize = 4096;
/// Octets of one node's records, [`RECORD_OVERHEAD`] each included. The whole table fits one stream message.
pub const MAX_TABLE: usize = 512 << 10;
/// What a record is charged beyond key and body, octets: at least its encoded version, lengths and signature.
pub(crate) const RECORD_OVERHEAD: usize = 80;
/// Octets of all other nodes' records together, as they are charged.
pub(crate) const MAX_TABLES: usize = 256 << 20;
/// Withdrawals remembered per node.
pub(crate) const MAX_TOMBSTONES: usize = 512;
/// Time for which withdrawals are remembered to keep deltas small; completeness does not rest on them.
pub(crate) const TOMBSTONE_LIFE: Duration = Duration::from_secs(15 * 60);

/// Members up to which a change goes straight to every one of them.
pub(crate) const DIRECT_MEMBERS: usize = 32;
/// Members that a change is sent or relayed to at once in a larger cluster.
pub(crate) const FANOUT: usize = 4;
/// Datagrams up to which a change is pushed as datagrams; beyond, members pull it.
pub(crate) const MAX_PUSH_DATAGRAMS: usize = 8;

/// Transmits waiting for the driver; the oldest goes first when there are more.
pub(crate) const MAX_OUTBOX: usize = 32_768;
/// Octets waiting for the driver.
pub(crate) const MAX_OUTBOX_BYTES: usize = 64 << 20;
/// Calls waiting for the driver.
pub(crate) const MAX_RPC_QUEUE: usize = 256;
/// Origins that one pull may name.
pub(crate) const MAX_PULL: usize = 256;
/// Addresses to join by.
pub(crate) const MAX_SEEDS: usize = 64;

/// Sealing contexts of other senders.
pub(crate) const MAX_CONTEXTS: usize = 2 * MAX_NODES;
/// Attempts per second to open messages of unknown senders, per bucket of source addresses.
pub(crate) const UNKNOWN_OPENS: u32 = 50;
/// The same, per address of a member.
pub(crate) const MEMBER_OPENS: u32 = 200;
/// Least time between two requests for the key ring.
pub(crate) const RING_NEEDED_EVERY: Duration = Duration::from_secs(1);
/// Messages that one sealing key protects before it is renewed (RFC 9001 §6.6 allows 2^28 at these sizes).
pub(crate) const MAX_SEALS: u64 = 1 << 28;
/// Age at which a sealing key is renewed.
pub(crate) const MAX_SEAL_AGE: Duration = Duration::from_secs(24 * 3600);

/// Octets of other nodes' tables that this node serves per second, and at once when it has rested.
pub(crate) const SERVE_RATE: u64 = 16 << 20;

/// Members are probed one at a time, each so long.
pub(crate) const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// Wait for an answer before others are asked to probe.
pub(crate) const PROBE_RTT: Duration = Duration::from_millis(400);
/// Interval of anti-entropy.
pub(crate) const DIGEST_PERIOD: Duration = Duration::from_secs(1);
/// Interval at which dead and remembered members are contacted.
pub(crate) const HEAL_PERIOD: Duration = Duration::from_secs(15);
/// Lateness of a timer that says this node itself slept, and nobody's silence proves anything.
pub(crate) const PAUSE: Duration = Duration::from_secs(2);

const _: () = assert!(MAX_TABLE + (64 << 10) < MAX_STREAM, "a whole table fits one stream message");
