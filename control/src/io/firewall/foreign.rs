//! Whether somebody else's firewall drops what sandboxes send and get. Looked at to warn, never to decide.

use std::io;

use super::nfnetlink::{BODY, Netfilter, attribute};
use crate::firewall::{MARK, TABLE};
use crate::io::namespace::Namespace;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE`, `… | NFT_MSG_GETCHAIN`, `… | NFT_MSG_GETRULE` (nf_tables.h).
const TABLES: u16 = 0x0a01;
const CHAINS: u16 = 0x0a04;
const RULES: u16 = 0x0a07;
/// `NFTA_CHAIN_TABLE`, `NFTA_CHAIN_NAME`, `NFTA_CHAIN_HOOK`, `NFTA_CHAIN_POLICY`; `NFTA_HOOK_HOOKNUM`.
const OF_TABLE: u16 = 1;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const POLICY: u16 = 5;
const NUMBER: u16 = 1;
/// `NF_INET_LOCAL_IN`.
const INPUT: [u8; 4] = [0, 0, 0, 1];
/// `NF_INET_FORWARD`.
const FORWARD: [u8; 4] = [0, 0, 0, 2];
/// `NF_DROP`.
const DROP: [u8; 4] = [0; 4];

/// What an operator should know and do, if a chain of others drops forwarded packets by default and no rule of theirs
/// speaks of our mark.
pub(crate) fn obstacle(host: &Namespace) -> Option<String> {
    let look = || -> io::Result<_> {
        let netfilter = Netfilter::open()?;
        Ok((netfilter.dump(CHAINS, 0)?, netfilter.dump(RULES, 0)?))
    };
    let (chains, rules) = host.run(look).ok()?.ok()?;
    let chain = chains.iter().find(|message| drops_by_default(message, FORWARD))?;
    let told = rules.iter().any(|rule| name(rule, OF_TABLE) != Some(TABLE.into()) && speaks_of_mark(rule));
    if told {
        return None;
    }
    let docker = chains.iter().any(|message| name(message, NAME).as_deref() == Some("DOCKER-USER"));
    let (table, chain) = (name(chain, OF_TABLE)?, name(chain, NAME)?);
    let accept = format!("-m mark --mark {MARK:#x}/{MARK:#x} -j ACCEPT");
    let way_out = if docker {
        format!("'iptables -I DOCKER-USER {accept}' (and ip6tables), or dockerd --ip-forward-no-drop")
    } else {
        format!(
            "'iptables -I FORWARD {accept}' (and ip6tables), or 'meta mark & {MARK:#x} != 0 accept' there"
        )
    };
    Some(format!(
        "chain {chain} of table {table} drops what is forwarded, also between sandboxes and the rest: let weft's pass by \
         {way_out}"
    ))
}

/// What is in the firewall of the calling thread's namespace.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Chains of others that drop by default what comes in, where no rule of their table speaks of one of the ports.
    pub(crate) closed: Vec<String>,
    /// Every table, as `FAMILY NAME`.
    pub(crate) tables: Vec<String>,
}

/// Looks at the firewall; whoever may not sees nothing.
pub(crate) fn seen(ports: &[u16]) -> Seen {
    let look = || -> io::Result<_> {
        let netfilter = Netfilter::open()?;
        Ok((netfilter.dump(TABLES, 0)?, netfilter.dump(CHAINS, 0)?, netfilter.dump(RULES, 0)?))
    };
    let Ok((tables, chains, rules)) = look() else { return Seen::default() };
    let told = |table: &str| {
        let mut theirs = rules.iter().filter(|rule| name(rule, OF_TABLE).as_deref() == Some(table));
        // Ports in a set are not looked up: a rule that may mean ours is taken for one that does.
        theirs.any(|rule| ports.iter().any(|port| speaks_of_port(rule, *port)) || speaks_of_set(rule))
    };
    let closed = chains.iter().filter(|chain| drops_by_default(chain, INPUT)).filter_map(|chain| {
        let (table, chain) = (name(chain, OF_TABLE)?, name(chain, NAME)?);
        (!told(&table)).then(|| format!("chain {chain} of table {table}"))
    });
    let called = |table: &Vec<u8>| Some(format!("{} {}", family(*table.first()?)?, name(table, OF_TABLE)?));
    Seen { closed: closed.collect(), tables: tables.iter().filter_map(called).collect() }
}

/// NFPROTO_* as `nft` names it.
fn family(number: u8) -> Option<&'static str> {
    let names = [(1, "inet"), (2, "ip"), (3, "arp"), (5, "netdev"), (7, "bridge"), (10, "ip6")];
    names.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// Whether a port, in the order of the wire, is an operand of a rule, or stands in an extension's range of ports.
fn speaks_of_port(rule: &[u8], port: u16) -> bool {
    let operand = [&6u16.to_ne_bytes()[..], &1u16.to_ne_bytes(), &port.to_be_bytes()].concat();
    let range = [port.to_ne_bytes(), port.to_ne_bytes()].concat();
    rule.windows(6).any(|octets| octets == operand) || rule.windows(4).any(|octets| octets == range)
}

/// Whether a rule looks something up in a set.
fn speaks_of_set(rule: &[u8]) -> bool {
    rule.windows(7).any(|octets| octets == b"lookup\0")
}

fn drops_by_default(message: &[u8], at: [u8; 4]) -> bool {
    // NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6
    let of_ip = message.first().is_some_and(|family| [1, 2, 10].contains(family));
    let hook = attribute(message, BODY, HOOK).and_then(|hook| attribute(hook, 0, NUMBER));
    of_ip && hook == Some(&at[..]) && attribute(message, BODY, POLICY) == Some(&DROP[..])
}

fn name(message: &[u8], kind: u16) -> Option<String> {
    let value = attribute(message, BODY, kind)?;
    Some(String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned())
}

/// Whether our mark is in a rule: as mark and mask of the extension `mark`, or as an operand of nftables' own.
fn speaks_of_mark(rule: &[u8]) -> bool {
    let mark = MARK.to_ne_bytes();
    let extension = [mark, mark].concat();
    let operand = [&8u16.to_ne_bytes()[..], &1u16.to_ne_bytes(), &mark].concat();
    rule.windows(8).any(|octets| octets == extension || octets == operand)
}
