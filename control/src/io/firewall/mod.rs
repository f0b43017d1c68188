//! Brings the host's kernel to the firewall that is wanted: routing rules and tables.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use super::namespace::Namespace;
use super::netlink::{Links, NetlinkError, write_rule};
use super::nft::{self, NftError};
use super::server::explain;
use crate::firewall::{Family, Firewall, Rule};

mod conntrack;
mod foreign;
mod nfnetlink;
mod watch;

pub(crate) use foreign::{Seen, seen};
pub(crate) use watch::{Disturbed, Ours, Watch};

/// Why the kernel does not do as the firewall says.
#[derive(Debug, thiserror::Error)]
enum FirewallError {
    /// Routing rules.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Tables.
    #[error(transparent)]
    Nft(#[from] NftError),
}

/// The firewall of one network namespace, as it was loaded last.
pub(crate) struct Loader {
    host: Namespace,
    runtime: tokio::runtime::Runtime,
    loaded: Option<Firewall>,
    /// Whether routing rules may have gone.
    rules_doubted: bool,
    /// What was loaded last, even if it may be no longer.
    known: Firewall,
    ours: Ours,
}

impl Loader {
    /// A loader for the host's namespace, which may hold what an agent before us left; `ours` gets to know which
    /// changes of tables are its own.
    ///
    /// # Errors
    /// No descriptors for netlink's event loop.
    pub(crate) fn new(host: Namespace, ours: Ours) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { host, runtime, loaded: None, rules_doubted: false, known: Firewall::default(), ours })
    }

    /// Has the next load do everything again that somebody may have changed.
    pub(crate) fn doubt(&mut self, what: Disturbed) {
        match what {
            Disturbed::Tables => self.loaded = None,
            Disturbed::Rules => self.rules_doubted = true,
        }
    }

    /// Makes the kernel's firewall so. Rules come first and go last, so that nothing is open meanwhile.
    ///
    /// # Errors
    /// In words; what is there by then is closed rather than open.
    pub(crate) fn load(&mut self, wanted: Firewall) -> Result<(), String> {
        let tables = self.loaded.as_ref() != Some(&wanted);
        if !tables && !self.rules_doubted {
            return Ok(());
        }
        self.loaded = None;
        self.try_load(&wanted, tables).map_err(|fault| explain(&fault))?;
        conntrack::forget(&self.host, &wanted.stale(&self.known));
        self.known = wanted.clone();
        self.loaded = Some(wanted);
        self.rules_doubted = false;
        Ok(())
    }

    /// What an operator should know and do about other firewalls of this host.
    pub(crate) fn obstacle(&self) -> Option<String> {
        self.loaded.as_ref().filter(|loaded| !loaded.is_empty()).and_then(|_| foreign::obstacle(&self.host))
    }

    fn try_load(&mut self, wanted: &Firewall, tables: bool) -> Result<(), FirewallError> {
        let links = {
            let _context = self.runtime.enter();
            Links::open(&self.host)?
        };
        let rules = wanted.rules();
        self.runtime.block_on(complete(&links, &rules))?;
        if tables {
            match nft::apply_known(&self.host, &wanted.batch(), |pid| self.ours.add(pid)) {
                // Whoever has no nft has no tables of ours.
                Err(NftError::Missing) if wanted.is_empty() => {}
                other => other?,
            }
        }
        Ok(self.runtime.block_on(trim(&links, &rules))?)
    }
}

/// Families that this host has.
fn families() -> impl Iterator<Item = Family> {
    let ipv6 = fs::exists("/proc/sys/net/ipv6").unwrap_or(false);
    Family::BOTH.into_iter().filter(move |family| *family == Family::V4 || ipv6)
}

/// Adds the rules that are not there.
async fn complete(links: &Links, wanted: &BTreeSet<Rule>) -> Result<(), NetlinkError> {
    for family in families() {
        let (ours, _) = links.rules(family).await?;
        for rule in wanted.iter().filter(|rule| rule.family == family && !ours.contains(rule)) {
            links.add_rule(rule).await?;
        }
    }
    Ok(())
}

/// Removes the rules that are not wanted.
async fn trim(links: &Links, wanted: &BTreeSet<Rule>) -> Result<(), NetlinkError> {
    for family in families() {
        let (ours, foreign) = links.rules(family).await?;
        let surplus = ours.iter().filter(|rule| !wanted.contains(rule)).map(write_rule);
        for message in surplus.chain(foreign) {
            links.delete_rule(message).await?;
        }
    }
    Ok(())
}
