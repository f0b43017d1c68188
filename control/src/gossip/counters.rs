//! What gossip saw, as plain integers for the edge to export.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since start; they only grow.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter by its name.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Datagrams handed to the driver.
    datagrams_sent,
    /// Octets of those.
    datagram_bytes_sent,
    /// Stream messages handed to the driver.
    streams_sent,
    /// Octets of those.
    stream_bytes_sent,
    /// Messages opened and accepted.
    received,
    /// Octets of those.
    bytes_received,
    /// Dropped: too short, too long, or not of our kind and version.
    malformed_seal,
    /// Dropped: not sealed with this cluster's key, or altered.
    unauthentic,
    /// Dropped unopened: too many attempts of unknown senders.
    rate_limited,
    /// Dropped unopened: sealed with a key that is not on the ring, or no longer.
    unknown_epoch,
    /// Dropped: of a node that was banned, or about it.
    banned,
    /// Dropped: of a sender that did not prove to be a member, or contradicting what a member signed of itself.
    unproven,
    /// Dropped: message seen before, or older than the replay window.
    replayed,
    /// Dropped: names another node as its destination, or an earlier boot of ours.
    misaddressed,
    /// Dropped: our own message, sent back.
    reflected,
    /// Dropped: from an earlier boot of its sender.
    stale_boot,
    /// Dropped: authentic, but its content makes no sense.
    malformed,
    /// Membership packets that the membership engine refused.
    membership_refused,
    /// Heads or records with a wrong signature.
    bad_signature,
    /// Two contents under one version, both signed by their owner.
    equivocations,
    /// Claims of others about this node's own records.
    foreign_claims,
    /// Heads, records or members dropped because a table is full.
    over_limit,
    /// Dropped: of another start, elsewhere, of a member that answers.
    twins,
    /// Signatures checked.
    verifications,
    /// Tables pulled because a change was missed.
    pulls,
    /// Requests left unanswered to keep within the serving rate.
    serve_deferred,
    /// Transmits dropped because the driver did not take them.
    outbox_dropped,
    /// Calls dropped because nobody took them.
    rpc_dropped,
    /// Pauses of this node that moved its timers.
    pauses,
    /// Times this node was thought dead and came back.
    rejoins,
}
