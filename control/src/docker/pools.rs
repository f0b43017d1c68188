//! Pools of addresses as Docker's engine knows them: by a text that says all there is to say, so that none has to be
//! remembered. Only those of networks to come are, for a while, so that no two get the same subnet.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::model::NetworkId;
use crate::network::{default_gateway, free_global, overlap, unique_local};

/// Time within which the network of a pool must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pools of networks to come.
const MAX_PENDING: usize = 256;

/// A pool: `weft/NETWORK/SUBNET`, with `-` for a network to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolId {
    /// The network, where it is known.
    pub network: Option<NetworkId>,
    /// The subnet.
    pub subnet: IpNet,
}

impl PoolId {
    /// The gateway where none is named; nothing where there is no room.
    #[must_use]
    pub fn default_gateway(&self) -> Option<IpAddr> {
        default_gateway(self.subnet, None, &[])
    }
}

/// A pool that cannot be had; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Not one of ours.
    #[error("unknown pool {0:?}")]
    Unknown(String),
    /// Docker's text for a subnet that is in use, and what to do.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space: name another with --subnet, or have \
         weft choose one with --ipam-driver weft"
    )]
    Overlap,
    /// Every default subnet is in use.
    #[error("no subnet of 10.0.0.0/8 is free: name one with --subnet")]
    Full,
    /// [`MAX_PENDING`] wait.
    #[error("{MAX_PENDING} pools wait for their networks already: try again in a minute")]
    TooMany,
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network {
            Some(network) => write!(f, "weft/{network}/{}", self.subnet),
            None => write!(f, "weft/-/{}", self.subnet),
        }
    }
}

impl FromStr for PoolId {
    type Err = PoolError;

    fn from_str(text: &str) -> Result<Self, PoolError> {
        let read = || {
            let (network, subnet) = text.strip_prefix("weft/")?.split_once('/')?;
            let network = match network {
                "-" => None,
                digits => Some(NetworkId(u128::from_str_radix(digits, 16).ok()?.to_be_bytes())),
            };
            let id = Self { network, subnet: subnet.parse().ok()? };
            (id.to_string() == text).then_some(id)
        };
        read().ok_or_else(|| PoolError::Unknown(text.chars().take(80).collect()))
    }
}

/// Pools whose networks have not come yet.
#[derive(Debug, Default)]
pub struct PendingPools(BTreeMap<IpNet, Instant>);

impl PendingPools {
    /// Sets a subnet aside.
    ///
    /// # Errors
    /// It overlaps another one, or there are too many.
    pub fn add(&mut self, now: Instant, subnet: IpNet) -> Result<(), PoolError> {
        self.expire(now);
        if self.0.keys().any(|&other| overlap(other, subnet)) {
            return Err(PoolError::Overlap);
        }
        if self.0.len() >= MAX_PENDING {
            return Err(PoolError::TooMany);
        }
        self.0.insert(subnet, now + PATIENCE);
        Ok(())
    }

    /// Sets a subnet aside that is free beside those in use, IPv4 of Docker's pool or, from a random network id, IPv6.
    ///
    /// # Errors
    /// Nothing is free, or there are too many.
    pub fn choose(
        &mut self,
        now: Instant,
        used: &[IpNet],
        v6: Option<NetworkId>,
    ) -> Result<IpNet, PoolError> {
        self.expire(now);
        let used: Vec<IpNet> = used.iter().chain(self.0.keys()).copied().collect();
        let subnet = match v6 {
            Some(random) => unique_local(random),
            None => free_global(None, &used).ok_or(PoolError::Full)?,
        };
        self.add(now, subnet)?;
        Ok(subnet)
    }

    /// The network has come, or nobody wants it any more.
    pub fn remove(&mut self, subnet: IpNet) {
        self.0.remove(&subnet);
    }

    /// Whether the subnet is set aside.
    pub fn has(&mut self, now: Instant, subnet: IpNet) -> bool {
        self.expire(now);
        self.0.contains_key(&subnet)
    }

    fn expire(&mut self, now: Instant) {
        self.0.retain(|_, until| *until > now);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's time starts somewhere")]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    #[test]
    fn a_pool_is_known_again_by_its_text_and_others_texts_are_refused() {
        for network in [None, Some(NetworkId([7; 16]))] {
            for subnet in ["10.1.0.0/24", "fd00::/64"] {
                let id = PoolId { network, subnet: net(subnet) };
                assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
        for bad in [
            "",
            "weft/",
            "weft/-/",
            "weft/-/10.1.0.0",
            "weft/x/10.1.0.0/24",
            "LocalDefault/10.1.0.0/24",
            "weft/-/10.1.0.0/24/x",
            "weft/+7/10.1.0.0/24",
            "weft/7/10.1.0.0/24",
        ] {
            assert!(bad.parse::<PoolId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pools_of_networks_to_come_keep_apart_for_a_minute_and_are_bounded() {
        let (mut pools, now) = (PendingPools::default(), Instant::now());
        pools.add(now, net("10.1.0.0/16")).expect("free");
        assert_eq!(pools.add(now, net("10.1.2.0/24")), Err(PoolError::Overlap));
        pools.add(now + PATIENCE, net("10.1.2.0/24")).expect("nobody came for the other");
        for n in 1..MAX_PENDING {
            let subnet = format!("10.{}.{}.0/24", 2 + n / 256, n % 256);
            pools.add(now + PATIENCE, net(&subnet)).expect("room");
        }
        assert_eq!(pools.add(now + PATIENCE, net("10.99.0.0/24")), Err(PoolError::TooMany));
        pools.remove(net("10.1.2.0/24"));
        pools.add(now + PATIENCE, net("10.99.0.0/24")).expect("room again");
    }
}
