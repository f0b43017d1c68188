//! Who may be connected: hosts of members have seats of their own, so that strangers can't take them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections that proved themselves or come from a member's address; of them from one address.
const MEMBERS: usize = 128;
const PER_MEMBER: usize = 32;
/// Connections of everybody else; of them from one address, or one network of 64 bits of IPv6.
const STRANGERS: usize = 32;
const PER_STRANGER: usize = 4;

/// All seats. Shared between who accepts connections and who knows the members.
#[derive(Debug, Default)]
pub(crate) struct Seats(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    members: BTreeSet<IpAddr>,
    known: BTreeMap<IpAddr, usize>,
    strangers: BTreeMap<IpAddr, usize>,
}

impl Seats {
    /// From now on connections from these addresses sit with the members.
    pub(crate) fn set_members(&self, members: BTreeSet<IpAddr>) {
        self.lock().members = members;
    }

    /// A seat for a connection from `host`, if there is one left for its kind.
    pub(super) fn take(self: &Arc<Self>, host: IpAddr) -> Option<Seat> {
        let mut taken = self.lock();
        let known = taken.members.contains(&host);
        taken.sit(host, known).then(|| Seat { seats: Arc::clone(self), host, known })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has one address of an IPv6 network has all of them.
fn network(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(_) => host,
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) >> 64 << 64).to_be_bytes()),
    }
}

impl Taken {
    fn sit(&mut self, host: IpAddr, known: bool) -> bool {
        let (table, most, per_host, host) = match known {
            true => (&mut self.known, MEMBERS, PER_MEMBER, host),
            false => (&mut self.strangers, STRANGERS, PER_STRANGER, network(host)),
        };
        let here = table.get(&host).copied().unwrap_or(0);
        let free = here < per_host && table.values().sum::<usize>() < most;
        if free {
            table.insert(host, here + 1);
        }
        free
    }

    fn rise(&mut self, host: IpAddr, known: bool) {
        let (table, host) = match known {
            true => (&mut self.known, host),
            false => (&mut self.strangers, network(host)),
        };
        match table.get(&host).copied().unwrap_or(0) {
            0 | 1 => drop(table.remove(&host)),
            here => drop(table.insert(host, here - 1)),
        }
    }
}

/// One connection's seat, free again when this is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    host: IpAddr,
    known: bool,
}

impl Seat {
    /// Whether it is one of the seats for members.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// The connection proved to be a member's: it moves over, if there is room.
    pub(super) fn prove(&mut self) {
        let mut taken = self.seats.lock();
        if !self.known && taken.sit(self.host, true) {
            taken.rise(self.host, false);
            self.known = true;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().rise(self.host, self.known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: usize) -> IpAddr {
        IpAddr::from([198, 51, (number >> 8) as u8, number as u8])
    }

    #[test]
    fn strangers_fill_their_own_seats_only() {
        let seats = Arc::new(Seats::default());
        seats.set_members([host(1000)].into());
        let taken: Vec<_> = (0..500).filter_map(|number| seats.take(host(number))).collect();
        assert_eq!(taken.len(), STRANGERS);
        assert!(seats.take(host(1000)).is_some(), "a member still finds one");
        drop(taken);
        assert!(seats.take(host(1)).is_some(), "and so does everybody once they are gone");
    }

    #[test]
    fn one_host_takes_only_its_share() {
        let seats = Arc::new(Seats::default());
        seats.set_members([host(2)].into());
        let of = |host| std::iter::from_fn(|| seats.take(host)).take(1000).collect::<Vec<_>>().len();
        assert_eq!((of(host(1)), of(host(2))), (PER_STRANGER, PER_MEMBER));
    }

    #[test]
    fn a_network_of_ipv6_has_as_many_seats_as_a_host_and_a_member_in_it_has_its_own() {
        let seats = Arc::new(Seats::default());
        let host = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, last]);
        seats.set_members([host(9)].into());
        let taken: Vec<_> = (100..200).filter_map(|last| seats.take(host(last))).collect();
        assert_eq!(taken.len(), PER_STRANGER);
        assert!(seats.take(host(9)).is_some());
        assert!(seats.take(IpAddr::from([0x2001, 0xdb8, 0, 8, 0, 0, 0, 1])).is_some(), "another network");
        drop(taken);
        assert!(seats.lock().strangers.is_empty());
    }

    #[test]
    fn who_proves_itself_makes_room_for_other_strangers() {
        let seats = Arc::new(Seats::default());
        let mut taken: Vec<_> = (0..100).filter_map(|number| seats.take(host(number))).collect();
        assert!(seats.take(host(200)).is_none());
        taken[0].prove();
        assert!(taken[0].is_known());
        let late = seats.take(host(200));
        assert!(late.is_some());
        drop((taken, late));
        let state = seats.lock();
        assert!(state.known.is_empty() && state.strangers.is_empty(), "{state:?}");
    }
}
