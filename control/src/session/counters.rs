//! What sessions saw, as plain integers for the edge to export.

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
    /// Initiations sent, retries included.
    initiations_sent,
    /// Responses sent, repeated ones not included.
    responses_sent,
    /// Responses repeated, as nothing confirmed them.
    responses_repeated,
    /// Cookie replies sent: this node was under load.
    cookies_sent,
    /// Confirmations sent, repeated ones not included.
    confirmations_sent,
    /// Confirmations repeated, as a response came again.
    confirmations_repeated,
    /// Handshakes finished, as either end.
    handshakes,
    /// Handshakes whose initiator was heard on the new session.
    confirmed,
    /// Confirmations of a session that is confirmed: repeated, or a first frame was faster.
    confirmed_again,
    /// Cookies received and used.
    cookies_used,
    /// Dropped: no kind, version and size of ours.
    malformed,
    /// Dropped: not made by anyone who knows whom it is for.
    bad_mac,
    /// Dropped: more handshakes than are worked on.
    rate_limited,
    /// Dropped: not made by the holder of the static key it claims, under another ring key, or altered.
    unauthentic,
    /// Dropped: authentic, but from nobody who is a peer.
    unknown_peer,
    /// Dropped: an initiation that is not newer than the newest of its sender.
    replayed,
    /// Dropped: authentic, but under a ring key that is not here.
    unknown_epoch,
    /// Dropped: names no handshake or session of this node.
    unknown_index,
    /// Dropped: crossed an initiation of ours, which outranks it.
    crossed,
    /// Handshakes given up, as nothing answered and nobody wanted them any more.
    given_up,
    /// Peers refused: too many, or with a static key or a tunnel end that another one has.
    peers_refused,
    /// Datagrams dropped because the driver did not take them.
    outbox_dropped,
}
