//! All networks a user can name on this node: the cluster's and this host's own.

use crate::cluster::{Cluster, ClusterError};
use crate::local::Local;
use crate::model::NetworkId;
use crate::network::{NetworkError, admit_name, choose};

/// A network by its reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It spans hosts.
    Cluster(NetworkId),
    /// It is this host's alone.
    Local(NetworkId),
}

/// The network meant by an id, a name, or the beginning of an id.
///
/// # Errors
/// None or several could be meant.
pub fn resolve(cluster: &Cluster, local: &Local, text: &str) -> Result<Reach, NetworkError> {
    let names = cluster.names();
    let all = names.iter().map(|(id, name)| (Reach::Cluster(*id), *id, name.as_str()));
    let all: Vec<_> = all.chain(local.names().map(|(id, name)| (Reach::Local(id), id, name))).collect();
    choose(&all, text)
}

/// Whether a new network may have this name.
///
/// # Errors
/// It is none, or another has it.
pub fn admit(cluster: &Cluster, local: &Local, name: &str) -> Result<(), ClusterError> {
    admit_name(name)?;
    let taken =
        cluster.names().values().any(|taken| taken == name) || local.names().any(|(_, taken)| taken == name);
    if taken { Err(NetworkError::NameTaken(name.to_owned()).into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str) -> Result<Reach, String> {
        let id = |n: u8| NetworkId([n; 16]);
        let all = [
            (Reach::Cluster(id(0x11)), id(0x11), "blue"),
            (Reach::Local(id(0x12)), id(0x12), "red"),
            (Reach::Local(id(0x22)), id(0x22), "12"),
            (Reach::Cluster(id(0x33)), id(0x33), "both"),
            (Reach::Local(id(0x44)), id(0x44), "both"),
        ];
        choose(&all, text).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_network_is_found_by_name_by_id_and_by_the_beginning_of_an_id() {
        assert_eq!(find("blue"), Ok(Reach::Cluster(NetworkId([0x11; 16]))));
        assert_eq!(find("red"), Ok(Reach::Local(NetworkId([0x12; 16]))));
        assert_eq!(
            find("12"),
            Ok(Reach::Local(NetworkId([0x22; 16]))),
            "a name wins over the beginning of an id"
        );
        assert_eq!(find("121"), Ok(Reach::Local(NetworkId([0x12; 16]))));
        assert_eq!(find(&NetworkId([0x44; 16]).long()), Ok(Reach::Local(NetworkId([0x44; 16]))));
    }

    #[test]
    fn what_could_mean_several_networks_or_none_is_refused() {
        assert_eq!(find("both"), Err("network both is ambiguous (2 matches found on name)".into()));
        assert_eq!(find("1"), Err("network 1 is ambiguous (2 matches found based on ID prefix)".into()));
        assert_eq!(find("green"), Err("network green not found".into()));
        assert_eq!(find(""), Err("network  not found".into()));
    }
}
