//! Members to join by: names resolved, again and again, for a name may come to mean something later.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::mpsc;

/// Waits between attempts, the last one for good.
const WAITS: [u64; 6] = [1, 1, 2, 4, 8, 15];

/// Resolves `join` for as long as anybody listens. Own addresses are left out.
pub(super) async fn resolve(join: Vec<String>, own: SocketAddr, seeds: mpsc::Sender<Vec<SocketAddr>>) {
    let waits = WAITS.into_iter().chain(std::iter::repeat(WAITS[WAITS.len() - 1]));
    for (attempt, wait) in waits.enumerate() {
        let mut found = Vec::new();
        for text in &join {
            match tokio::net::lookup_host(endpoint(text, own.port())).await {
                Ok(addresses) => {
                    found.extend(addresses.filter(|to| to.is_ipv4() == own.is_ipv4() && *to != own));
                }
                Err(fault) if attempt == 0 => {
                    tracing::warn!(host = text, %fault, "cannot be resolved; tried again");
                }
                Err(fault) => tracing::debug!(host = text, %fault, "cannot be resolved"),
            }
        }
        if !found.is_empty() && seeds.send(found).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(wait)).await;
        if seeds.is_closed() {
            return;
        }
    }
}

/// `HOST` or `HOST:PORT` as something to look up; a bare IPv6 address needs no brackets.
fn endpoint(text: &str, port: u16) -> String {
    let address: Result<IpAddr, _> = text.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) if text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            text.to_owned()
        }
        Err(_) => format!("{text}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_added_where_there_is_none() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:7946"),
            ("192.0.2.1:1", "192.0.2.1:1"),
            ("2001:db8::1", "[2001:db8::1]:7946"),
            ("[2001:db8::1]", "[2001:db8::1]:7946"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
            ("host.example", "host.example:7946"),
            ("host.example:1", "host.example:1"),
        ] {
            assert_eq!(endpoint(text, 7946), expected);
        }
    }

    #[tokio::test]
    async fn own_addresses_are_not_tried() {
        let (seeds, mut found) = mpsc::channel(1);
        let own: SocketAddr = "127.0.0.1:7946".parse().expect("an address");
        let join = ["127.0.0.1", "127.0.0.2", "::1"].map(str::to_owned).to_vec();
        tokio::spawn(resolve(join, own, seeds));
        let found = found.recv().await.expect("one is not ours");
        assert_eq!(found, ["127.0.0.2:7946".parse().expect("an address")]);
    }
}
