//! A dataplane that knows keys only: who could open what.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use weft_dataplane::seal::{Key, PeerSpec, ReceiveSession, SendSession};

/// What one node's dataplane was told.
#[derive(Default)]
pub(super) struct Dataplane {
    peers: BTreeMap<SocketAddr, PeerSpec>,
    /// Every send session there ever was, and whether it is gone.
    history: Vec<(SocketAddr, SendSession, bool)>,
    confirmed: Vec<u32>,
    pub(super) totals: BTreeMap<SocketAddr, (u64, u64)>,
}

impl Dataplane {
    pub(super) fn set(&mut self, spec: PeerSpec) {
        assert!(spec.receive.len() <= 3, "no more than previous, current and next");
        for (index, session) in spec.receive.iter().enumerate() {
            assert!(session.index != 0 && !spec.receive[..index].iter().any(|s| s.index == session.index));
        }
        let vtep = spec.vtep;
        self.peers.insert(vtep, spec.clone());
        self.note_history(vtep, spec.send);
    }

    pub(super) fn remove(&mut self, vtep: SocketAddr) {
        self.peers.remove(&vtep);
        self.note_history(vtep, None);
    }

    fn note_history(&mut self, vtep: SocketAddr, send: Option<SendSession>) {
        for (at, session, gone) in &mut self.history {
            let current = *at == vtep && Some(&*session) == send.as_ref();
            assert!(!(*gone && Some(&session.key) == send.as_ref().map(|send| &send.key)), "a key came back");
            *gone |= *at == vtep && !current;
        }
        if let Some(send) = send.filter(|send| !self.history.iter().any(|(.., session, _)| session == send)) {
            self.history.push((vtep, send, false));
        }
    }

    /// Keys that frames were or could have been sealed with.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.history.iter().map(|(_, session, _)| &session.key)
    }

    pub(super) fn spec(&self, vtep: SocketAddr) -> Option<&PeerSpec> {
        self.peers.get(&vtep)
    }

    pub(super) fn specs(&self) -> impl Iterator<Item = &PeerSpec> {
        self.peers.values()
    }

    pub(super) fn send(&self, vtep: SocketAddr) -> Option<&SendSession> {
        self.peers.get(&vtep)?.send.as_ref()
    }

    /// Whether a datagram sealed with `session` by the node at `vtep` would be opened.
    pub(super) fn opens(&self, vtep: SocketAddr, session: &SendSession) -> bool {
        let wanted = ReceiveSession { index: session.index, key: session.key.clone() };
        self.peers.get(&vtep).is_some_and(|spec| spec.receive.contains(&wanted))
    }

    /// Whether this is the first datagram opened with a session.
    pub(super) fn is_first(&mut self, index: u32) -> bool {
        let first = !self.confirmed.contains(&index);
        if first {
            self.confirmed.push(index);
        }
        first
    }
}
