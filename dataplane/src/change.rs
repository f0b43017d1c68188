//! What control tells the dataplane, and what the dataplane tells control.

use std::net::SocketAddr;

use crate::seal::PeerSpec;
use crate::segment::SegmentSpec;
use crate::wire::{MacAddr, Vni};

/// A change of the tables, applied whole: packets see the state before or after, never between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Creates the segment or replaces it; MACs learned behind VTEPs it keeps stay known.
    SetSegment(SegmentSpec),
    /// Removes the segment; its datagrams count as `unknown_vni` from then on.
    RemoveSegment(Vni),
    /// Sets the sessions with a peer, all of them; those it does not name are gone with their keys.
    SetPeer(PeerSpec),
    /// Removes the peer at this tunnel end with all its sessions.
    RemovePeer(SocketAddr),
}

/// Something packets taught us. Events are hints: they may be lost (and are counted then).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A MAC appeared behind a static VTEP, or moved there from another one.
    Learned {
        /// Segment it was seen on.
        vni: Vni,
        /// The inner source MAC.
        mac: MacAddr,
        /// The VTEP as configured, not the varying source port.
        vtep: SocketAddr,
    },
    /// A MAC was not learned behind a static VTEP because the table is full: somebody floods it.
    LearnRefused {
        /// Segment whose table is full.
        vni: Vni,
    },
    /// The TAP behind a segment's port went away, or a worker cannot use it any more.
    PortLost {
        /// Segment whose port it was.
        vni: Vni,
    },
    /// A frame of a sealed segment had no send session and was dropped; told at most once a second per peer.
    SessionWanted {
        /// The peer it was for.
        vtep: SocketAddr,
    },
    /// The first datagram was opened with a receive session: the peer has the key and uses it.
    SessionConfirmed {
        /// The peer.
        vtep: SocketAddr,
        /// The session's index.
        index: u32,
    },
    /// A send session has sealed so much that it should be replaced; told again until it is.
    SessionWorn {
        /// The peer it leads to.
        vtep: SocketAddr,
    },
}
