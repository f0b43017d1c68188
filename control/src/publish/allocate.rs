//! Which port of the host a wish gets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::{Protocol, Published, Wish};

/// Ports tried for one wish before it is given up: each may be in use by a program that we know nothing of.
pub const MAX_ATTEMPTS: usize = 64;

/// Why a wish gets no port; texts as Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Another sandbox has it.
    #[error("Bind for {0}:{1} failed: port is already allocated")]
    Allocated(IpAddr, u16),
    /// A program of the host has it.
    #[error("failed to bind host port {0}/{1}: address already in use")]
    InUse(std::net::SocketAddr, Protocol),
    /// The host cannot, for example for lack of the address.
    #[error("failed to bind host port {0}/{1}: {2}")]
    Unbindable(std::net::SocketAddr, Protocol, String),
    /// None of the range is free.
    #[error("all ports are allocated")]
    Exhausted,
}

/// Addresses that a wish is published on: the one asked for, else the network's, else all of both families.
#[must_use]
pub fn addresses_of(wish: &Wish, of_network: Option<IpAddr>, ipv6: bool) -> Vec<IpAddr> {
    let of_network = of_network.filter(|address| !address.is_unspecified());
    if let Some(address) = wish.host.or(of_network) {
        return vec![address];
    }
    let both = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    both.into_iter().filter(|address: &IpAddr| ipv6 || address.is_ipv4()).collect()
}

/// A wish fulfilled on paper: one port on each of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant(pub Vec<Published>);

/// Ports of the host that sandboxes have.
#[derive(Debug, Clone, Default)]
pub struct Taken(BTreeMap<(Protocol, u16), Vec<IpAddr>>);

impl Taken {
    /// What `published` takes.
    pub fn by<'p>(published: impl IntoIterator<Item = &'p Published>) -> Self {
        let mut taken = Self::default();
        published.into_iter().for_each(|one| taken.take(one));
        taken
    }

    /// Takes one more.
    pub fn take(&mut self, one: &Published) {
        self.0.entry((one.port.protocol, one.host_port)).or_default().push(one.host);
    }

    /// Grants for a wish on `addresses`, best first; the operating system may know why one of them cannot be.
    ///
    /// # Errors
    /// Other sandboxes have what it asks for.
    pub fn grants(
        &self,
        wish: &Wish,
        addresses: &[IpAddr],
        ephemeral: RangeInclusive<u16>,
    ) -> Result<Vec<Grant>, Conflict> {
        let protocol = wish.port.protocol;
        let choice = wish.host_ports.clone().unwrap_or_else(|| self.rotated(protocol, &ephemeral));
        let wrapped = if wish.host_ports.is_none() { ephemeral } else { choice.clone() };
        let numbers = choice.clone().chain(wrapped.filter(|number| !choice.contains(number)));
        let free = numbers.filter(|number| self.holder(protocol, *number, addresses).is_none());
        let grant = |host_port| {
            Grant(addresses.iter().map(|&host| Published { port: wish.port, host, host_port }).collect())
        };
        let grants: Vec<_> = free.take(MAX_ATTEMPTS).map(grant).collect();
        match (grants.is_empty(), choice.len()) {
            (false, _) => Ok(grants),
            (true, 1) => {
                let number = *choice.start();
                let holder = self.holder(protocol, number, addresses);
                Err(holder.map_or(Conflict::Exhausted, |address| Conflict::Allocated(address, number)))
            }
            (true, _) => Err(Conflict::Exhausted),
        }
    }

    /// What follows the highest port given so far: a port that was just let go rests for a while.
    fn rotated(&self, protocol: Protocol, range: &RangeInclusive<u16>) -> RangeInclusive<u16> {
        let highest = self.0.keys().filter(|(of, number)| *of == protocol && range.contains(number)).max();
        highest.map_or(range.clone(), |(_, number)| number.saturating_add(1)..=*range.end())
    }

    /// Which of `addresses` somebody has at this port.
    fn holder(&self, protocol: Protocol, number: u16, addresses: &[IpAddr]) -> Option<IpAddr> {
        let held = self.0.get(&(protocol, number))?;
        addresses.iter().copied().find(|address| held.iter().any(|other| overlap(*address, *other)))
    }
}

fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::parse_publish;

    const EPHEMERAL: RangeInclusive<u16> = 32768..=32770;

    fn wish(text: &str) -> Wish {
        parse_publish(text).expect("a binding").remove(0)
    }

    fn first(taken: &Taken, text: &str) -> Result<Grant, String> {
        let wish = wish(text);
        let grants = taken.grants(&wish, &addresses_of(&wish, None, true), EPHEMERAL);
        grants.map(|mut grants| grants.remove(0)).map_err(|fault| fault.to_string())
    }

    fn give(taken: &mut Taken, text: &str) -> Vec<String> {
        let Grant(given) = first(taken, text).expect("it is free");
        given.iter().for_each(|one| taken.take(one));
        given.iter().map(|one| format!("{}:{}", one.host, one.host_port)).collect()
    }

    #[test]
    fn a_port_is_given_once_on_overlapping_addresses_of_one_protocol() {
        let mut taken = Taken::default();
        assert_eq!(give(&mut taken, "8080:80"), ["0.0.0.0:8080", ":::8080"]);
        let text = "Bind for 0.0.0.0:8080 failed: port is already allocated";
        assert_eq!(first(&taken, "8080:81"), Err(text.to_owned()));
        let text = "Bind for 127.0.0.1:8080 failed: port is already allocated";
        assert_eq!(first(&taken, "127.0.0.1:8080:81"), Err(text.to_owned()));
        assert_eq!(give(&mut taken, "8080:80/udp"), ["0.0.0.0:8080", ":::8080"]);
        assert_eq!(give(&mut taken, "127.0.0.1:9000:80"), ["127.0.0.1:9000"]);
        assert_eq!(give(&mut taken, "127.0.0.2:9000:80"), ["127.0.0.2:9000"]);
        let text = "Bind for 0.0.0.0:9000 failed: port is already allocated";
        assert_eq!(first(&taken, "9000:80"), Err(text.to_owned()));
    }

    #[test]
    fn a_range_gives_what_is_left_of_it() {
        let mut taken = Taken::default();
        assert_eq!(give(&mut taken, "8000-8001:80")[0], "0.0.0.0:8000");
        assert_eq!(give(&mut taken, "8000-8001:80")[0], "0.0.0.0:8001");
        assert_eq!(first(&taken, "8000-8001:80"), Err("all ports are allocated".to_owned()));
    }

    #[test]
    fn any_port_comes_from_the_ephemeral_ones_in_turn_until_they_are_used_up() {
        let mut taken = Taken::default();
        let given: Vec<_> = (0..3).map(|_| give(&mut taken, "80").remove(0)).collect();
        assert_eq!(given, ["0.0.0.0:32768", "0.0.0.0:32769", "0.0.0.0:32770"]);
        assert_eq!(first(&taken, "80"), Err("all ports are allocated".to_owned()));
        let last = Taken::by(&[Published { port: wish("80").port, host: [0; 4].into(), host_port: 32770 }]);
        assert_eq!(first(&last, "80").expect("two are free").0[0].host_port, 32768);
    }

    #[test]
    fn a_network_may_say_where_ports_are_published() {
        let local = Some(IpAddr::from([127, 0, 0, 1]));
        assert_eq!(addresses_of(&wish("80"), local, true), [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(addresses_of(&wish("192.0.2.1::80"), local, true), [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(addresses_of(&wish("80"), Some([0; 4].into()), false), [IpAddr::from([0; 4])]);
    }
}
