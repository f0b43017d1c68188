//! Peers of sealed networks as control describes them, and what is counted for each.

use std::net::SocketAddr;
use std::time::Duration;

use super::Key;

/// The session datagrams to a peer are sealed with.
///
/// Once removed or replaced it must never come back with the same key: its counters would start over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendSession {
    /// The receiver's choice; it goes into the header.
    pub index: u32,
    /// Known to the two nodes only, and used in this direction only.
    pub key: Key,
}

/// A session datagrams of a peer are opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveSession {
    /// This node's choice, unique among all its peers.
    pub index: u32,
    /// Known to the two nodes only, and used in this direction only.
    pub key: Key,
}

/// The sessions with one peer; plain data, made whole by control each time.
///
/// Sessions that are known already by index and key keep their counters and windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpec {
    /// The peer's tunnel end, as segments name it.
    pub vtep: SocketAddr,
    /// What frames to it are sealed with; without one they are dropped.
    pub send: Option<SendSession>,
    /// What its datagrams are opened with: the previous session, the current and the next one. Further ones
    /// are ignored.
    pub receive: Vec<ReceiveSession>,
}

/// What was counted for one peer since it was first set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTotals {
    /// The peer's tunnel end.
    pub vtep: SocketAddr,
    /// Index of the session frames to it are sealed with, if there is one.
    pub send_index: Option<u32>,
    /// Datagrams sealed for it.
    pub sent: u64,
    /// Datagrams of it that were opened.
    pub received: u64,
    /// How long ago the last one was sealed, in whole seconds.
    pub last_sent: Option<Duration>,
    /// How long ago the last one was opened, in whole seconds.
    pub last_received: Option<Duration>,
    /// Datagrams that were authentic, but had been opened before or are too old to tell.
    pub replayed: u64,
    /// Datagrams for a session with it that are not authentic.
    pub forged: u64,
    /// Datagrams in clear for a sealed network, from its address.
    pub clear: u64,
}
