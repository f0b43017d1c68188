//! Counters: every drop has exactly one reason and every reason one counter.
//!
//! A [`Counters`] belongs to one worker, which alone writes it with plain relaxed stores; readers sum all of
//! them into [`Totals`]. Sums are racy by a few packets and never go backwards.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::offload::SplitError;
use crate::seal::Refusal;

/// Declares an enum whose variants have a stable snake_case name and a place in an array.
macro_rules! named {
    ($(#[$outer:meta])* $enum:ident { $($(#[$inner:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $enum { $($(#[$inner])* $variant,)* }

        impl $enum {
            /// Every variant, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its stable name in snake_case, as metrics and `--json` show it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

named! {
    /// Why a frame or datagram went no further. Drops are verdicts, not errors.
    DropReason {
        /// Datagram shorter than a VXLAN header.
        DatagramTooShort = "datagram_too_short",
        /// Datagram longer than the receive buffer; its tail was lost.
        DatagramTruncated = "datagram_truncated",
        /// VXLAN header without the I flag (RFC 7348 §5).
        VniFlagClear = "vni_flag_clear",
        /// Datagram for a VNI no segment of this node has.
        UnknownVni = "unknown_vni",
        /// Datagram from an address that is not a VTEP of the segment.
        UnknownVtep = "unknown_vtep",
        /// Datagram from this node's own address: a loop or a forgery.
        OwnAddress = "own_address",
        /// Datagram in clear for a sealed segment.
        ClearForSealed = "clear_for_sealed",
        /// Sealed datagram for a segment in clear.
        SealedForClear = "sealed_for_clear",
        /// Sealed datagram of a kind that is not known.
        SealedKind = "sealed_kind",
        /// Sealed datagram shorter than header and tag.
        SealedTooShort = "sealed_too_short",
        /// Sealed datagram of a session that this node has not, or no more.
        UnknownSession = "unknown_session",
        /// Sealed datagram that is not authentic.
        Forged = "forged",
        /// Sealed datagram that came before, or is too old to tell.
        Replayed = "replayed",
        /// Frame of a sealed segment to a peer there is no session with.
        NoSession = "no_session",
        /// Frame of a sealed segment to a peer whose session has sealed all it may.
        SessionSpent = "session_spent",
        /// Frame shorter than an Ethernet header.
        FrameTooShort = "frame_too_short",
        /// Frame with an inner 802.1Q or 802.1ad tag (RFC 7348 §6.1).
        VlanTagged = "vlan_tagged",
        /// IEEE 802.3 length in place of an EtherType (LLC, STP).
        NotEthernetII = "not_ethernet_ii",
        /// Frame to 01:80:c2:00:00:0x, which no bridge forwards (IEEE 802.1Q §8.6.3).
        LinkLocalGroup = "link_local_group",
        /// Inner IP packet larger than the segment's MTU.
        Oversize = "oversize",
        /// IP header that is truncated or contradicts the frame's length.
        MalformedIp = "malformed_ip",
        /// ARP packet that is not Ethernet/IPv4 or is truncated.
        MalformedArp = "malformed_arp",
        /// Neighbour discovery message that is truncated or has broken options.
        MalformedNd = "malformed_nd",
        /// Source MAC is not the port's endpoint's or not behind the sending VTEP.
        SpoofedMac = "spoofed_mac",
        /// Source IP is not one of the source endpoint's addresses.
        SpoofedIp = "spoofed_ip",
        /// ARP sender fields name somebody else.
        SpoofedArp = "spoofed_arp",
        /// Neighbour advertisement or solicitation speaks for somebody else.
        SpoofedNd = "spoofed_nd",
        /// Router advertisement from an endpoint (RFC 6105).
        RouterAdvertisement = "router_advertisement",
        /// ICMPv6 redirect from an endpoint.
        RouterRedirect = "router_redirect",
        /// DHCP server message from an endpoint.
        DhcpServer = "dhcp_server",
        /// Unicast frame to a MAC nobody is known to have.
        UnknownUnicast = "unknown_unicast",
        /// Frame to an endpoint of this node that came out of the port: the bridge already delivered it.
        LocalDestination = "local_destination",
        /// Frame from a VTEP to an endpoint that is not on this node.
        NotLocal = "not_local",
        /// Broadcast or multicast on a segment that keeps them on the node.
        BroadcastOff = "broadcast_off",
        /// ARP or ND question for an address nobody is known to have.
        UnknownNeighbour = "unknown_neighbour",
        /// ARP or ND question that this node's own endpoint answers, or that needs no answer.
        LocalNeighbour = "local_neighbour",
        /// Frame from a port whose segment is not configured (yet, or any more).
        NoSegment = "no_segment",
        /// Frame for a segment that has no port attached.
        NoPort = "no_port",
        /// The TAP asked for an offload that was never offered.
        OffloadUnsupported = "offload_unsupported",
        /// The TAP gave a super-frame with an impossible segment size.
        OffloadSegmentSize = "offload_segment_size",
        /// The TAP's header leads outside of its frame.
        OffloadOutsideFrame = "offload_outside_frame",
        /// The TAP's header does not fit the frame's protocol.
        OffloadMismatch = "offload_mismatch",
        /// The TAP gave a super-frame that is an IP fragment.
        OffloadFragment = "offload_fragment",
        /// The TAP gave a super-frame with longer headers than are split.
        OffloadHeaderTooLong = "offload_header_too_long",
        /// Inner super-frame of a kernel VTEP on this machine, with a wrong checksum.
        OversizeCorrupt = "oversize_corrupt",
        /// Receive buffer of an underlay socket full: more came than workers took. The kernel counts it; a run
        /// that UDP_GRO joined may count as one.
        ReceiveBufferFull = "receive_buffer_full",
        /// Queue of a TAP full: more came out of the network's bridge than workers took. The kernel counts it; a
        /// super-frame counts once.
        TapQueueFull = "tap_queue_full",
        /// Send buffer of the underlay socket full.
        SendBufferFull = "send_buffer_full",
        /// Datagram larger than the underlay's MTU.
        UnderlayMtu = "underlay_mtu",
        /// The kernel refused a datagram for another reason (no route, interface down).
        SendFailed = "send_failed",
        /// The kernel refused a frame written to the TAP.
        TapWriteFailed = "tap_write_failed",
    }
}

named! {
    /// What is counted besides drops.
    Counter {
        /// Frames read from ports; a super-frame counts once.
        FramesOut = "frames_out",
        /// Octets of those frames.
        FrameBytesOut = "frame_bytes_out",
        /// Frames read that were super-frames to be split.
        SuperFramesOut = "super_frames_out",
        /// Datagrams sent.
        DatagramsOut = "datagrams_out",
        /// Octets of those datagrams, VXLAN or sealed header included.
        DatagramBytesOut = "datagram_bytes_out",
        /// Datagrams sealed.
        SealedOut = "sealed_out",
        /// Runs sent: messages handed to the kernel.
        RunsOut = "runs_out",
        /// Datagrams received.
        DatagramsIn = "datagrams_in",
        /// Octets of those datagrams.
        DatagramBytesIn = "datagram_bytes_in",
        /// Datagrams opened.
        OpenedIn = "opened_in",
        /// Messages received that UDP_GRO made of several datagrams.
        BatchesIn = "batches_in",
        /// Inner frames delivered to ports.
        FramesIn = "frames_in",
        /// Octets of those frames.
        FrameBytesIn = "frame_bytes_in",
        /// Writes to ports; fewer than frames where some were merged.
        WritesIn = "writes_in",
        /// Writes to ports that were merged of several frames.
        MergedWritesIn = "merged_writes_in",
        /// ARP and ND questions answered from the tables.
        NeighbourReplies = "neighbour_replies",
        /// Source MACs learned or moved behind static VTEPs.
        Learned = "learned",
        /// Source MACs not learned because the table was full.
        LearnRefused = "learn_refused",
        /// Events lost because nobody drained them.
        EventsLost = "events_lost",
        /// Runs that the kernel would not segment and that went out one by one.
        SegmentationFallbacks = "segmentation_fallbacks",
        /// Returns from waiting.
        Wakeups = "wakeups",
    }
}

impl From<Refusal> for DropReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoSession => Self::NoSession,
            Refusal::Spent => Self::SessionSpent,
        }
    }
}

impl From<SplitError> for DropReason {
    fn from(error: SplitError) -> Self {
        match error {
            SplitError::Unsupported => Self::OffloadUnsupported,
            SplitError::SegmentSize => Self::OffloadSegmentSize,
            SplitError::OutsideFrame => Self::OffloadOutsideFrame,
            SplitError::Mismatch => Self::OffloadMismatch,
            SplitError::Fragment => Self::OffloadFragment,
            SplitError::HeaderTooLong => Self::OffloadHeaderTooLong,
        }
    }
}

/// The counters of one worker; 128 octets of alignment keep two workers off one cache line pair.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    values: [AtomicU64; Counter::ALL.len()],
    drops: [AtomicU64; DropReason::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self { values: [const { AtomicU64::new(0) }; _], drops: [const { AtomicU64::new(0) }; _] }
    }
}

impl Counters {
    /// Adds `n`; only the owning worker may call it, which is why no read-modify-write is needed.
    pub fn add(&self, counter: Counter, n: u64) {
        bump(&self.values[counter as usize], n);
    }

    /// Counts `n` frames or datagrams dropped for `reason`; same owner rule.
    pub fn dropped(&self, reason: DropReason, n: u64) {
        bump(&self.drops[reason as usize], n);
    }
}

fn bump(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// Sums over all workers at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    values: [u64; Counter::ALL.len()],
    drops: [u64; DropReason::ALL.len()],
}

impl Default for Totals {
    fn default() -> Self {
        Self { values: [0; _], drops: [0; _] }
    }
}

impl Totals {
    /// Adds what one worker counted.
    pub fn add(&mut self, counters: &Counters) {
        for (sum, cell) in self.values.iter_mut().zip(&counters.values) {
            *sum += cell.load(Ordering::Relaxed);
        }
        for (sum, cell) in self.drops.iter_mut().zip(&counters.drops) {
            *sum += cell.load(Ordering::Relaxed);
        }
    }

    /// Adds what the kernel dropped before any worker saw it.
    pub fn add_dropped(&mut self, reason: DropReason, n: u64) {
        self.drops[reason as usize] += n;
    }

    /// The value of one counter.
    #[must_use]
    pub fn of(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }

    /// How much was dropped for one reason.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Every counter with its name, in declaration order.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Counter::ALL.iter().map(|&counter| (counter.name(), self.of(counter)))
    }

    /// Every drop reason with its count, in declaration order.
    pub fn drops_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason.name(), self.drops(reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_snake_case() {
        let names: Vec<&str> =
            Counter::ALL.iter().map(|c| c.name()).chain(DropReason::ALL.iter().map(|r| r.name())).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for name in names {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        }
    }

    #[test]
    fn totals_sum_the_workers() {
        let (one, two) = (Counters::default(), Counters::default());
        one.add(Counter::FramesIn, 2);
        two.add(Counter::FramesIn, 3);
        two.dropped(DropReason::UnknownVni, 1);
        let mut totals = Totals::default();
        totals.add(&one);
        totals.add(&two);
        assert_eq!(totals.of(Counter::FramesIn), 5);
        assert_eq!(totals.drops(DropReason::UnknownVni), 1);
        assert_eq!(totals.drops_by_reason().map(|(_, n)| n).sum::<u64>(), 1);
    }
}
