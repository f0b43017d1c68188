//! Pairs up `--subnet`, `--ip-range`, `--gateway` and `--aux-address`, refusing what can't be with Docker's words.
//!
//! Docker's client checks this before it asks the daemon; scripts and tests know the texts. Whether a subnet's
//! host bits are zero, or collides with another network's, is the agent's to say.

use std::net::IpAddr;

use anyhow::{Result, anyhow, bail};
use ipnet::IpNet;
use weft_control::api::IpamConfig;

use crate::args::{CreateArgs, KeyValue};

/// A subnet as typed, with what has been assigned to it.
struct Subnet {
    prefix: IpNet,
    config: IpamConfig,
}

/// One configuration per subnet.
pub(crate) fn pair_up(args: &CreateArgs) -> Result<Vec<IpamConfig>> {
    if args.subnet.len() < args.ip_range.len() || args.subnet.len() < args.gateway.len() {
        bail!("every ip-range or gateway must have a corresponding subnet");
    }
    let mut subnets = parse_subnets(&args.subnet)?;
    for range in &args.ip_range {
        assign_range(&mut subnets, range)?;
    }
    for gateway in &args.gateway {
        assign_gateway(&mut subnets, gateway)?;
    }
    for aux in &args.aux_address {
        assign_aux(&mut subnets, aux)?;
    }
    Ok(subnets.into_iter().map(|subnet| subnet.config).collect())
}

fn parse_subnets(texts: &[String]) -> Result<Vec<Subnet>> {
    let mut subnets: Vec<Subnet> = Vec::new();
    for text in texts {
        let prefix = cidr(text)?;
        if subnets.iter().any(|other| overlap(&other.prefix, &prefix)) {
            bail!("multiple overlapping subnet configuration is not supported");
        }
        subnets.push(Subnet { prefix, config: IpamConfig { subnet: text.clone(), ..IpamConfig::default() } });
    }
    Ok(subnets)
}

fn assign_range(subnets: &mut [Subnet], range: &str) -> Result<()> {
    let prefix = cidr(range)?;
    let subnet =
        holding(subnets, prefix.addr()).ok_or_else(|| anyhow!("no matching subnet for range {range}"))?;
    let other = std::mem::replace(&mut subnet.config.ip_range, range.to_owned());
    if !other.is_empty() {
        bail!(
            "cannot configure multiple ranges ({range}, {other}) on the same subnet ({})",
            subnet.config.subnet
        );
    }
    Ok(())
}

fn assign_gateway(subnets: &mut [Subnet], gateway: &str) -> Result<()> {
    let address = ip(gateway)?;
    let subnet =
        holding(subnets, address).ok_or_else(|| anyhow!("no matching subnet for gateway {gateway}"))?;
    let other = std::mem::replace(&mut subnet.config.gateway, gateway.to_owned());
    if !other.is_empty() {
        bail!(
            "cannot configure multiple gateways ({gateway}, {other}) for the same subnet ({})",
            subnet.config.subnet
        );
    }
    Ok(())
}

fn assign_aux(subnets: &mut [Subnet], aux: &KeyValue) -> Result<()> {
    let address = ip(&aux.value)?;
    let subnet = holding(subnets, address)
        .ok_or_else(|| anyhow!("no matching subnet for aux-address {}", aux.value))?;
    subnet.config.auxiliary_addresses.insert(aux.key.clone(), aux.value.clone());
    Ok(())
}

fn holding(subnets: &mut [Subnet], address: IpAddr) -> Option<&mut Subnet> {
    subnets.iter_mut().find(|subnet| subnet.prefix.contains(&address))
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn cidr(text: &str) -> Result<IpNet> {
    text.parse().map_err(|_| anyhow!("invalid CIDR address: {text}"))
}

fn ip(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| anyhow!("invalid IP address: {text}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, NetworkVerb, Verb};

    fn parse(flags: &str) -> Box<CreateArgs> {
        let words = ["weft", "network", "create"].into_iter().chain(flags.split_whitespace()).chain(["n"]);
        match Cli::try_parse_from(words).expect("parses").verb {
            Verb::Network(NetworkVerb::Create(args)) => args,
            other => panic!("parsed as {other:?}"),
        }
    }

    fn pair(flags: &str) -> Result<Vec<IpamConfig>> {
        pair_up(&parse(flags))
    }

    fn refusal(flags: &str) -> String {
        pair(flags).expect_err(flags).to_string()
    }

    #[test]
    fn ranges_gateways_and_kept_addresses_go_to_the_subnet_they_lie_in() {
        let configs = pair(
            "--subnet 2001:db8::/64 --subnet 172.28.0.0/16 --ip-range 172.28.5.0/24 --gateway 2001:db8::9 \
             --gateway 172.28.5.254 --aux-address router=172.28.1.1",
        )
        .expect("fits");
        assert_eq!(
            (configs[0].subnet.as_str(), configs[0].gateway.as_str()),
            ("2001:db8::/64", "2001:db8::9")
        );
        assert_eq!(configs[1].ip_range, "172.28.5.0/24");
        assert_eq!(configs[1].gateway, "172.28.5.254");
        assert_eq!(configs[1].auxiliary_addresses["router"], "172.28.1.1");
        assert_eq!(pair("").expect("none"), Vec::new());
    }

    #[test]
    fn what_docker_refuses_is_refused_with_its_words() {
        for (flags, text) in [
            ("--gateway 10.0.0.1", "every ip-range or gateway must have a corresponding subnet"),
            ("--ip-range 10.0.0.0/25", "every ip-range or gateway must have a corresponding subnet"),
            (
                "--subnet 10.0.0.0/8 --subnet 10.1.0.0/16",
                "multiple overlapping subnet configuration is not supported",
            ),
            ("--subnet 10.0.0.0/24 --ip-range 10.0.1.0/25", "no matching subnet for range 10.0.1.0/25"),
            ("--subnet 10.0.0.0/24 --gateway 10.0.1.1", "no matching subnet for gateway 10.0.1.1"),
            ("--subnet 10.0.0.0/24 --aux-address a=10.0.1.1", "no matching subnet for aux-address 10.0.1.1"),
            (
                "--subnet 10.0.0.0/24 --subnet 10.0.1.0/24 --ip-range 10.0.0.0/26 --ip-range 10.0.0.64/26",
                "cannot configure multiple ranges (10.0.0.64/26, 10.0.0.0/26) on the same subnet (10.0.0.0/24)",
            ),
            (
                "--subnet 10.0.0.0/24 --subnet 10.0.1.0/24 --gateway 10.0.0.1 --gateway 10.0.0.2",
                "cannot configure multiple gateways (10.0.0.2, 10.0.0.1) for the same subnet (10.0.0.0/24)",
            ),
            ("--subnet ten", "invalid CIDR address: ten"),
            ("--subnet 10.0.0.0/24 --gateway x", "invalid IP address: x"),
        ] {
            assert_eq!(refusal(flags), text, "{flags}");
        }
    }
}
