//! What is told of a peer at most once a second.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use crate::fdb::Seconds;

/// Peers remembered before old ones are forgotten.
const PEERS: usize = 1024;

/// Lets one event per peer and second pass. Packets never wait here: who finds it in use is not let through.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    last: Mutex<HashMap<SocketAddr, Seconds>>,
}

impl Limiter {
    /// Whether something may be told of the peer at `vtep` now.
    pub(crate) fn admits(&self, vtep: SocketAddr, now: Seconds) -> bool {
        let Ok(mut last) = self.last.try_lock() else { return false };
        if last.get(&vtep) == Some(&now) {
            return false;
        }
        if last.len() >= PEERS {
            last.retain(|_, at| *at == now);
        }
        last.insert(vtep, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_per_peer_and_second_passes() {
        let limiter = Limiter::default();
        let vtep = |n: u32| SocketAddr::from((std::net::Ipv4Addr::from_bits(n), 4789));
        assert!(limiter.admits(vtep(1), Seconds(5)));
        assert!(!limiter.admits(vtep(1), Seconds(5)));
        assert!(limiter.admits(vtep(2), Seconds(5)));
        assert!(limiter.admits(vtep(1), Seconds(6)));
    }

    #[test]
    fn peers_of_earlier_seconds_are_forgotten_and_those_of_this_one_are_not() {
        let limiter = Limiter::default();
        for second in 0..4 {
            for n in 0..1000 {
                let vtep = SocketAddr::from((std::net::Ipv4Addr::from_bits(second * 1000 + n), 4789));
                assert!(limiter.admits(vtep, Seconds(second)));
                assert!(!limiter.admits(vtep, Seconds(second)));
            }
        }
        assert!(limiter.last.lock().expect("nobody panicked").len() <= PEERS + 1000);
    }
}
