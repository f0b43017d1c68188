//! Sandboxes of this node: what holds endpoints, as a rule a network namespace, and which interface each endpoint is.
//!
//! Plain state. Every change is first offered as [`Write`]s, made durable by the owner, and only then applied, so
//! memory never runs ahead of the disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::driver::End;
use crate::model::{EndpointId, Name, NodeId, SandboxId};
use crate::names::Wishes;
use crate::plan::{Place, Plan, Step};
use crate::storage::{Row, Table, Write};

/// Most sandboxes of one node; each costs a namespace, which the kernel bounds too.
pub const MAX_SANDBOXES: usize = 16_384;

/// A network namespace, or a virtual machine, that holds endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its identity.
    pub id: SandboxId,
    /// Unique on this node; also the name of its pin.
    pub name: Name,
    /// Milliseconds since 1970.
    pub created: u64,
    /// Where the namespace comes from.
    pub origin: Origin,
    /// The process it goes with, if it is ephemeral.
    pub owner: Option<Owner>,
    /// Names of its endpoints' interfaces.
    pub interfaces: BTreeMap<EndpointId, String>,
    /// What its user wants of names.
    pub wishes: Wishes,
}

/// Where a sandbox's namespace comes from, if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// weft made it, and may make it anew.
    Made,
    /// Somebody handed it over: it is only let go, and lost when it is gone.
    Adopted,
    /// There is none: its endpoints are TAPs, whose descriptors its command gets.
    Machine,
    /// There is none: its endpoint is a TAP in the host's namespace, of its name.
    Device {
        /// The user whose processes may open it.
        owner: u32,
    },
    /// A container of Docker, as far as one endpoint goes: its interface is given to the engine.
    Docker,
}

/// A process, safe against reuse of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Number in the agent's PID namespace.
    pub pid: u32,
    /// When it started, clock ticks since boot (`/proc/{pid}/stat`, field 22).
    pub started: u64,
}

/// Why a sandbox cannot be had; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    /// No sandbox by that name or id.
    #[error("sandbox {0} not found")]
    NotFound(String),
    /// Several ids begin so.
    #[error("sandbox {0} is ambiguous ({1} matches found based on ID prefix)")]
    Ambiguous(String, usize),
    /// The name is taken.
    #[error("sandbox with name {0} already exists")]
    Exists(Name),
    /// [`MAX_SANDBOXES`] are there.
    #[error("this node has {MAX_SANDBOXES} sandboxes, which is the most it may have")]
    TooMany,
}

/// A row of the state file that is no sandbox: written by another version, or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the row {0} of the sandboxes is not one of this version's")]
pub struct Unreadable(pub String);

/// The sandboxes of this node.
#[derive(Debug, Clone, Default)]
pub struct Sandboxes(BTreeMap<SandboxId, Sandbox>);

impl Sandboxes {
    /// Reads what [`save`] wrote.
    ///
    /// # Errors
    /// The first row that cannot be read.
    pub fn load(rows: Vec<Row>) -> Result<Self, Unreadable> {
        let read = |(key, value): Row| {
            let sandbox: Sandbox = postcard::from_bytes(&value)
                .map_err(|_| Unreadable(key.iter().map(|octet| format!("{octet:02x}")).collect()))?;
            Ok((sandbox.id, sandbox))
        };
        rows.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Sandbox> {
        self.0.values()
    }

    /// The sandbox with this id.
    #[must_use]
    pub fn get(&self, id: SandboxId) -> Option<&Sandbox> {
        self.0.get(&id)
    }

    /// The sandbox a user means: by name, by id, or by what an id begins with.
    ///
    /// # Errors
    /// None, or several.
    pub fn resolve(&self, text: &str) -> Result<&Sandbox, SandboxError> {
        if let Some(named) = self.0.values().find(|sandbox| sandbox.name.as_str() == text) {
            return Ok(named);
        }
        let begins = |sandbox: &&Sandbox| !text.is_empty() && sandbox.id.long().starts_with(text);
        let mut found = self.0.values().filter(begins);
        match (found.next(), found.count()) {
            (Some(one), 0) => Ok(one),
            (None, _) => Err(SandboxError::NotFound(text.to_owned())),
            (Some(_), more) => Err(SandboxError::Ambiguous(text.to_owned(), more + 1)),
        }
    }

    /// Whether a sandbox of this name may be made.
    ///
    /// # Errors
    /// The name is taken, or there are too many.
    pub fn admit(&self, name: &Name) -> Result<(), SandboxError> {
        if self.0.values().any(|sandbox| sandbox.name == *name) {
            return Err(SandboxError::Exists(name.clone()));
        }
        if self.0.len() >= MAX_SANDBOXES { Err(SandboxError::TooMany) } else { Ok(()) }
    }

    /// Adds or replaces a sandbox that has been made durable.
    pub fn put(&mut self, sandbox: Sandbox) {
        self.0.insert(sandbox.id, sandbox);
    }

    /// Forgets a sandbox whose removal has been made durable.
    pub fn remove(&mut self, id: SandboxId) -> Option<Sandbox> {
        self.0.remove(&id)
    }
}

/// The write that makes `sandbox` durable.
#[must_use]
pub fn save(sandbox: &Sandbox) -> Write {
    let value = postcard::to_stdvec(sandbox).expect("plain data of bounded size has an encoding");
    Write { table: Table::Sandboxes, key: sandbox.id.0.to_vec(), value: Some(value) }
}

/// The write that forgets the sandbox.
#[must_use]
pub fn forget(id: SandboxId) -> Write {
    Write { table: Table::Sandboxes, key: id.0.to_vec(), value: None }
}

/// Steps that make an empty sandbox.
#[must_use]
pub fn plan_made(id: SandboxId) -> Plan {
    let at = Place::Sandbox(id);
    Plan(vec![Step::MakeNamespace { at }, Step::SetUp { at, name: "lo".into() }])
}

/// Steps that let a sandbox go; its endpoints are gone already.
#[must_use]
pub fn plan_removed(id: SandboxId) -> Plan {
    Plan(vec![Step::RemoveNamespace { at: Place::Sandbox(id) }])
}

/// What a restarted agent does about a sandbox it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// Its namespace is still there.
    Keep,
    /// Its namespace is gone (the host restarted): an empty one takes its place, with the same endpoints.
    MakeAnew,
    /// It cannot come back: it was adopted, or its process is gone, or it is a device of no network.
    Remove,
}

impl Sandbox {
    /// Whether it is a namespace, and no virtual machine.
    #[must_use]
    pub fn has_namespace(&self) -> bool {
        matches!(self.origin, Origin::Made | Origin::Adopted)
    }

    /// What its endpoints end in, on this node.
    #[must_use]
    pub fn end(&self, node: NodeId) -> End {
        match self.origin {
            Origin::Made | Origin::Adopted => End::Namespace,
            Origin::Machine => End::Descriptor,
            Origin::Device { owner } => End::Device { node, owner },
            Origin::Docker => End::Handed { fresh: false },
        }
    }

    /// What it calls itself: as its user wants, or the first 12 digits of its id.
    #[must_use]
    pub fn hostname(&self) -> String {
        if self.wishes.hostname.is_empty() { self.id.short() } else { self.wishes.hostname.clone() }
    }

    /// Decides after a restart, given whether its namespace and its owner are still there.
    #[must_use]
    pub fn comes_back(&self, namespace_there: bool, owner_there: bool) -> Return {
        match (self.owner.is_none() || owner_there, namespace_there, self.origin) {
            // It is there for its attachment, which came to nothing.
            (true, _, Origin::Device { .. }) if self.interfaces.is_empty() => Return::Remove,
            // Of a container only its engine knows.
            (true, _, Origin::Machine | Origin::Device { .. } | Origin::Docker) => Return::Keep,
            (false, _, _) | (_, false, Origin::Adopted) => Return::Remove,
            (true, true, _) => Return::Keep,
            // A process that lost its namespace cannot be given another one.
            (true, false, Origin::Made) if self.owner.is_some() => Return::Remove,
            (true, false, Origin::Made) => Return::MakeAnew,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(n: u8, name: &str) -> Sandbox {
        Sandbox {
            id: SandboxId([n; 16]),
            name: name.parse().expect("a name"),
            created: 1,
            origin: Origin::Made,
            owner: None,
            interfaces: BTreeMap::from([(EndpointId([9; 16]), "eth0".to_owned())]),
            wishes: Wishes { hostname: "h".to_owned(), ..Wishes::default() },
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let saved = save(&sandbox(1, "web"));
        let row = (saved.key, saved.value.expect("a value"));
        let loaded = Sandboxes::load(vec![row.clone()]).expect("it was saved");
        assert_eq!(loaded.iter().collect::<Vec<_>>(), [&sandbox(1, "web")]);
        for cut in 0..row.1.len() {
            let damaged = (row.0.clone(), row.1[..cut].to_vec());
            assert!(Sandboxes::load(vec![damaged]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_name_wins_over_an_id_that_begins_alike() {
        let mut all = Sandboxes::default();
        all.put(sandbox(0x11, "web"));
        all.put(sandbox(0x22, "11"));
        all.put(sandbox(0x12, "db"));
        assert_eq!(all.resolve("11").map(|s| s.id.0[0]), Ok(0x22));
        assert_eq!(all.resolve("111").map(|s| s.id.0[0]), Ok(0x11));
        assert_eq!(all.resolve("1").expect_err("two begin so"), SandboxError::Ambiguous("1".into(), 2));
        assert_eq!(all.resolve("").expect_err("nothing asked"), SandboxError::NotFound(String::new()));
        let taken = all.admit(&"web".parse().expect("a name")).expect_err("it is taken");
        assert_eq!(taken.to_string(), "sandbox with name web already exists");
    }

    #[test]
    fn only_what_weft_made_and_nobody_owns_is_made_anew() {
        let owner = Some(Owner { pid: 1, started: 1 });
        let made = sandbox(1, "made");
        let adopted = Sandbox { origin: Origin::Adopted, ..made.clone() };
        let ephemeral = Sandbox { owner, ..made.clone() };
        assert_eq!(made.comes_back(true, false), Return::Keep);
        assert_eq!(made.comes_back(false, false), Return::MakeAnew);
        assert_eq!(adopted.comes_back(true, false), Return::Keep);
        assert_eq!(adopted.comes_back(false, false), Return::Remove);
        assert_eq!(ephemeral.comes_back(true, true), Return::Keep);
        assert_eq!(ephemeral.comes_back(true, false), Return::Remove);
        assert_eq!(ephemeral.comes_back(false, true), Return::Remove);
        let machine = Sandbox { origin: Origin::Machine, ..ephemeral };
        assert_eq!(machine.comes_back(false, true), Return::Keep, "it never had a namespace");
        assert_eq!(machine.comes_back(false, false), Return::Remove);
        let device = Sandbox { origin: Origin::Device { owner: 0 }, owner: None, ..machine };
        assert_eq!(device.comes_back(false, false), Return::Keep);
        let unused = Sandbox { interfaces: BTreeMap::new(), ..device };
        assert_eq!(unused.comes_back(false, false), Return::Remove, "nobody could take it back");
        let container = Sandbox { origin: Origin::Docker, ..unused };
        assert_eq!(container.comes_back(false, false), Return::Keep, "its engine says when it is gone");
    }
}
