//! Durable state in one redb file, `state.redb` in the state directory.
//!
//! Beside it lies `state.lock`, which the running agent holds locked and which names its process, so that a second
//! agent can say who is in its way. The file is opened again after an error of the medium: a full disk refuses
//! promises while it is full and needs no restart afterwards.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::kill::{self, Side};
use crate::storage::{Row, Storage, StorageError, Table, Write};

/// Version of the rows' encodings; a file of another version is refused, not guessed at.
const SCHEMA: u32 = 1;
const SCHEMA_KEY: &[u8] = b"schema";
const META: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("meta");
const FILE: &str = "state.redb";
const LOCK: &str = "state.lock";
/// redb's default page cache is 1 GiB; the agent's whole state is a few hundred kilobytes.
const CACHE: usize = 1 << 20;

/// State of one agent in one directory.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// `None` after an error of the medium, until the file opens again.
    database: Mutex<Option<Database>>,
    /// Held as long as the store lives.
    _lock: Flock<File>,
}

/// The state cannot be opened; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another agent runs on it.
    #[error("state directory {directory} is in use by {holder}")]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The process that holds it, as it named itself.
        holder: String,
    },
    /// The directory or a file in it cannot be used.
    #[error("cannot open state in {directory}")]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What the file system says.
        #[source]
        source: std::io::Error,
    },
    /// Others than the agent's user can read or write it, or own it: it holds secrets.
    #[error(
        "{path} {fault}: it holds the keys of this host; '{remedy}' closes it (and if somebody else may have read it, 'weft node revoke' this node and join as a new one)"
    )]
    Exposed {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
        /// A command that puts it right.
        remedy: String,
    },
    /// The file is not one of ours or is damaged.
    #[error("cannot open state file {path}: {reason}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What the store says.
        reason: String,
    },
    /// Written by another version of weft.
    #[error("state file {path} has schema {found:?}, this version of weft knows {SCHEMA}")]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
}

impl Store {
    /// Opens the state in `directory`, making both (mode 0700 and 0600) where they are missing.
    ///
    /// # Errors
    /// Another agent holds it, others can get at it, or the medium or the file is unfit; nothing was changed.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { directory: directory.to_owned(), source };
        make_directory(directory).map_err(io)?;
        let path = directory.join(FILE);
        check_private(directory, 0o700)?;
        if path.exists() {
            check_private(&path, 0o600)?;
        }
        let lock = lock(directory)?;
        // redb makes its file with the process's umask; the state names every network and address.
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        drop(file.map_err(io)?);
        let database = open_database(&path)?;
        check_schema(&database, &path)?;
        Ok(Self { path, database: Mutex::new(Some(database)), _lock: lock })
    }

    /// Runs `work` on the open file, which is closed for good when it fails: after an error of the medium redb
    /// accepts nothing more until it is opened again.
    fn with<T>(
        &self,
        step: &'static str,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let fail = |reason: String| StorageError { step, reason };
        let database = match slot.take() {
            Some(database) => database,
            None => open_database(&self.path).map_err(|e| fail(e.to_string()))?,
        };
        let result = work(&database).map_err(|e| fail(format!("{}: {e}", self.path.display())));
        if result.is_ok() {
            *slot = Some(database);
        }
        result
    }
}

impl Storage for Store {
    fn commit(&self, step: &'static str, writes: &[Write]) -> Result<(), StorageError> {
        kill::point(step, Side::Before);
        self.with(step, |database| {
            let transaction = database.begin_write()?;
            for table in Table::ALL {
                let mut of_table = writes.iter().filter(|write| write.table == table).peekable();
                if of_table.peek().is_none() {
                    continue;
                }
                let mut open = transaction.open_table(definition(table))?;
                for write in of_table {
                    match &write.value {
                        Some(value) => drop(open.insert(write.key.as_slice(), value.as_slice())?),
                        None => drop(open.remove(write.key.as_slice())?),
                    }
                }
            }
            // Durability::Immediate is redb's default: the commit returns after fsync.
            transaction.commit()?;
            Ok(())
        })?;
        kill::point(step, Side::After);
        Ok(())
    }

    fn load(&self, table: Table) -> Result<Vec<Row>, StorageError> {
        self.with("load", |database| {
            let transaction = database.begin_read()?;
            let open = match transaction.open_table(definition(table)) {
                Ok(open) => open,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut rows = Vec::new();
            for row in open.iter()? {
                let (key, value) = row?;
                rows.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(rows)
        })
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(match table {
        Table::Node => "node",
        Table::Networks => "networks",
        Table::Removed => "removed",
        Table::Ranges => "ranges",
        Table::Endpoints => "endpoints",
        Table::Quarantine => "quarantine",
        Table::Sandboxes => "sandboxes",
        Table::Peers => "peers",
        Table::Trust => "trust",
        Table::Ring => "ring",
        Table::Ports => "ports",
        Table::LocalNetworks => "local_networks",
        Table::LocalEndpoints => "local_endpoints",
        Table::Holds => "holds",
        Table::DockerNetworks => "docker_networks",
        Table::DockerEndpoints => "docker_endpoints",
    })
}

fn make_directory(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // A volume that was made for us is open to others as a rule, and holds no secret yet.
    if std::fs::read_dir(directory)?.next().is_none() {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Refuses what others may have read or can change.
fn check_private(path: &Path, mode: u32) -> Result<(), OpenError> {
    let meta = std::fs::metadata(path);
    let meta = meta.map_err(|source| OpenError::Io { directory: path.to_owned(), source })?;
    let us = nix::unistd::geteuid().as_raw();
    let exposed = |fault: String, command: &str| {
        let remedy = format!("{command} {}", path.display());
        Err(OpenError::Exposed { path: path.to_owned(), fault, remedy })
    };
    if meta.uid() != us {
        return exposed(format!("belongs to user {}, not to {us}", meta.uid()), &format!("chown {us}"));
    }
    if meta.mode() & 0o077 != 0 {
        let fault = format!("is open to others (mode {:04o})", meta.mode() & 0o7777);
        return exposed(fault, &format!("chmod {mode:03o}"));
    }
    Ok(())
}

fn open_database(path: &Path) -> Result<Database, OpenError> {
    let opened = redb::Builder::new().set_cache_size(CACHE).create(path);
    opened.map_err(|error| {
        let reason = match error {
            DatabaseError::DatabaseAlreadyOpen => "another process has it open".to_owned(),
            other => other.to_string(),
        };
        OpenError::Broken { path: path.to_owned(), reason }
    })
}

fn check_schema(database: &Database, path: &Path) -> Result<(), OpenError> {
    let found =
        schema(database).map_err(|e| OpenError::Broken { path: path.to_owned(), reason: e.to_string() })?;
    if found == SCHEMA.to_string().as_bytes() {
        return Ok(());
    }
    let found = String::from_utf8_lossy(&found).chars().take(20).collect();
    Err(OpenError::Schema { path: path.to_owned(), found })
}

/// The file's schema, written first where there is none.
fn schema(database: &Database) -> Result<Vec<u8>, redb::Error> {
    let transaction = database.begin_write()?;
    let found = {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get(SCHEMA_KEY)?.map(|value| value.value().to_vec());
        match found {
            Some(found) => found,
            None => {
                let ours = SCHEMA.to_string().into_bytes();
                meta.insert(SCHEMA_KEY, ours.as_slice())?;
                ours
            }
        }
    };
    transaction.commit()?;
    Ok(found)
}

/// Locks the directory for this process and writes down who that is.
fn lock(directory: &Path) -> Result<Flock<File>, OpenError> {
    let io = |source| OpenError::Io { directory: directory.to_owned(), source };
    let path = directory.join(LOCK);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    match Flock::lock(file.map_err(io)?, FlockArg::LockExclusiveNonblock) {
        Ok(mut held) => {
            let named = held.set_len(0).and_then(|()| held.rewind());
            named.and_then(|()| writeln!(held, "weft agent, process {}", std::process::id())).map_err(io)?;
            Ok(held)
        }
        Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            // An unreadable name is no reason to hide that somebody holds it.
            let _ = file.take(200).read_to_string(&mut holder);
            let holder =
                Some(holder.trim()).filter(|h| !h.is_empty()).unwrap_or("another process").to_owned();
            Err(OpenError::InUse { directory: directory.to_owned(), holder })
        }
        Err((_, errno)) => Err(io(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(table: Table, key: &[u8], value: &[u8]) -> Write {
        Write { table, key: key.to_vec(), value: Some(value.to_vec()) }
    }

    fn delete(table: Table, key: &[u8]) -> Write {
        Write { table, key: key.to_vec(), value: None }
    }

    #[test]
    fn rows_survive_reopening_in_key_order_and_tables_are_apart() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let directory = scratch.path().join("state");
        let store = Store::open(&directory).expect("opens");
        let writes =
            [put(Table::Node, b"b", b"2"), put(Table::Node, b"a", b"1"), put(Table::Peers, b"a", b"p")];
        store.commit("first", &writes).expect("committed");
        store
            .commit("second", &[delete(Table::Peers, b"a"), put(Table::Node, b"b", b"3")])
            .expect("committed");
        drop(store);
        let store = Store::open(&directory).expect("opens again");
        let node = store.load(Table::Node).expect("loads");
        assert_eq!(node, [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"3".to_vec())]);
        assert_eq!(store.load(Table::Peers).expect("loads"), []);
        assert_eq!(store.load(Table::Ranges).expect("loads"), [], "a table never written is empty");
    }

    #[test]
    fn nobody_else_can_read_the_state() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let directory = scratch.path().join("state");
        let _store = Store::open(&directory).expect("opens");
        let mode = |path: &Path| std::fs::metadata(path).expect("exists").permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join(FILE)), 0o600);
    }

    #[test]
    fn state_that_others_can_read_is_refused_with_a_way_out() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let directory = scratch.path().join("state");
        std::fs::create_dir(&directory).expect("made");
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
        };
        set(&directory, 0o755);
        drop(Store::open(&directory).expect("an empty directory holds no secret"));
        let file = directory.join(FILE);
        let way_out = |path: &Path, mode, command: &str| {
            let good = std::fs::metadata(path).expect("there").permissions().mode();
            set(path, mode);
            let error = Store::open(&directory).expect_err("open to others").to_string();
            let expected =
                format!("(mode {mode:04o}): it holds the keys of this host; '{command} {}'", path.display());
            assert!(error.contains(&expected), "{error}");
            set(path, good);
        };
        for mode in [0o750, 0o705, 0o711] {
            way_out(&directory, mode, "chmod 700");
        }
        for mode in [0o640, 0o604, 0o620] {
            way_out(&file, mode, "chmod 600");
        }
        Store::open(&directory).expect("it is closed again");
    }

    #[test]
    fn a_second_agent_is_told_who_holds_the_state() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let _store = Store::open(scratch.path()).expect("opens");
        let error = Store::open(scratch.path()).expect_err("held").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let file = scratch.path().join(FILE);
        std::fs::write(&file, b"not a database".repeat(1000)).expect("written");
        for (path, mode) in [(scratch.path(), 0o700), (&file, 0o600)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
        }
        assert!(matches!(Store::open(scratch.path()), Err(OpenError::Broken { .. })));
    }

    #[test]
    fn a_file_of_another_schema_is_refused() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let store = Store::open(scratch.path()).expect("opens");
        store
            .with("test", |database| {
                let transaction = database.begin_write()?;
                transaction.open_table(META)?.insert(SCHEMA_KEY, b"99".as_slice())?;
                transaction.commit()?;
                Ok(())
            })
            .expect("written");
        drop(store);
        let error = Store::open(scratch.path()).expect_err("another schema").to_string();
        assert!(error.contains("99"), "{error}");
    }

    #[test]
    fn a_failed_commit_changes_nothing_and_the_next_one_works() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let store = Store::open(scratch.path()).expect("opens");
        store.commit("first", &[put(Table::Node, b"a", b"1")]).expect("committed");
        let failed: Result<(), _> = store.with("full", |database| {
            let transaction = database.begin_write()?;
            transaction.open_table(definition(Table::Node))?.insert(b"a".as_slice(), b"2".as_slice())?;
            Err(redb::Error::Io(std::io::ErrorKind::StorageFull.into()))
        });
        assert!(failed.expect_err("full").to_string().starts_with("state at full:"));
        assert_eq!(store.load(Table::Node).expect("loads"), [(b"a".to_vec(), b"1".to_vec())]);
        store.commit("second", &[put(Table::Node, b"a", b"3")]).expect("committed");
    }
}
