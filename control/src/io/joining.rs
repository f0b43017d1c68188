//! Becoming a member: a cluster of one's own, or somebody else's by a token. No agent is needed.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::admission::{AskError, ask};
use super::agent::{Advertise, AgentError};
use super::node::wall;
use super::server::explain;
use super::store::{OpenError, Store};
use super::underlay;
use crate::admission::{AdmissionError, Errand, Outcome, Refusal};
use crate::identity::Identity;
use crate::model::NodeId;
use crate::storage::{Storage, StorageError, Table, Write};
use crate::timestamp::UnixMillis;
use crate::trust::{
    ClusterId, InvalidToken, Papers, PapersError, Settings, Token, TokenRecord, identity_row,
};

/// Longest token file read, octets.
const MAX_FILE: u64 = 4096;
/// Wait before a cluster that could not be reached is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// What a new member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// How it is set up.
    pub settings: Settings,
}

/// Why a host did not become a member; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is one.
    #[error(
        "this host is in cluster {} already, as node {name}; 'weft leave' takes it out",
        short(.cluster)
    )]
    Member {
        /// The cluster.
        cluster: ClusterId,
        /// What it is called there.
        name: String,
    },
    /// An agent runs on the state.
    #[error(
        "this host is in a cluster already: its agent runs ({0}); 'weft status' shows it, 'weft leave' takes it out"
    )]
    Running(OpenError),
    /// The state cannot be used.
    #[error(transparent)]
    Open(OpenError),
    /// The state cannot be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The state is damaged.
    #[error(transparent)]
    Papers(#[from] PapersError),
    /// A token file holds none.
    #[error("{path}: {fault}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: InvalidToken,
    },
    /// The token names nobody to ask.
    #[error("the join token names no node to ask: make a new one with 'weft token create'")]
    NoSeed,
    /// Nobody could be asked.
    #[error("no node of the cluster lets this host in:{}", listed(.0))]
    Nobody(Vec<(SocketAddr, String)>),
    /// A member said no.
    #[error("{at} does not let this host in: {reason}")]
    Refused {
        /// Who.
        at: SocketAddr,
        /// Why.
        reason: AdmissionError,
    },
    /// No underlay address.
    #[error("{0}")]
    Underlay(String),
    /// A file cannot be read or written.
    #[error("cannot {attempt}")]
    File {
        /// What was attempted.
        attempt: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

fn short(cluster: &ClusterId) -> String {
    NodeId(*cluster).short()
}

fn listed(faults: &[(SocketAddr, String)]) -> String {
    faults.iter().map(|(at, fault)| format!("\n  {at}: {fault}")).collect()
}

impl JoinError {
    /// Whether it may be different in a while.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Nobody(_))
    }
}

/// Opens the state of a host that is in no cluster yet.
///
/// # Errors
/// It is, or the state cannot be used.
pub fn open(directory: &Path) -> Result<Store, JoinError> {
    let store = Store::open(directory).map_err(|fault| match fault {
        OpenError::InUse { .. } => JoinError::Running(fault),
        other => JoinError::Open(other),
    })?;
    match Papers::load(&store)? {
        None => Ok(store),
        Some(papers) => {
            Err(JoinError::Member { cluster: papers.cluster(), name: papers.settings.name.to_string() })
        }
    }
}

/// Makes a cluster; the token lets other hosts in.
///
/// # Errors
/// The state cannot be written, or there is no address that others could be told.
pub async fn init(store: &dyn Storage, settings: Settings) -> Result<(Membership, Token), JoinError> {
    let advertise: Advertise = settings.advertise.parse().unwrap_or_default();
    let underlay = underlay::find(&advertise).await.map_err(|fault| JoinError::Underlay(words(&fault)))?;
    let seed = Zeroizing::new(random::<32>()?);
    let papers = Papers::found(&seed, settings, now());
    let here = SocketAddr::new(underlay.address, papers.settings.gossip_port);
    let (token, certificate) = papers.first_token(random()?, &[here], now());
    let mut rows = papers.rows();
    rows.push(TokenRecord { certificate, revoked: None }.row());
    store.commit("init", &rows)?;
    Ok((membership(&papers), token))
}

/// Joins the cluster that a token is of; `progress` is told who is asked and what came of it.
///
/// # Errors
/// Nobody lets this host in, and why.
pub async fn join(
    store: &dyn Storage,
    token: &Token,
    settings: Settings,
    progress: &mut dyn FnMut(String),
) -> Result<Membership, JoinError> {
    let identity = identity(store)?;
    let mut faults = Vec::new();
    for &seed in token.seeds() {
        progress(format!("asking {seed}"));
        let errand = Errand::Join { token: token.key(), root: token.root(), name: settings.name.clone() };
        match ask(seed, None, &identity, errand).await {
            Ok(outcome) => return enter(store, identity, outcome, settings, seed),
            Err(AskError::Admission(reason)) if is_final(&reason) => {
                return Err(JoinError::Refused { at: seed, reason });
            }
            Err(fault) => {
                let fault = explain(&fault);
                progress(format!("{seed}: {fault}"));
                faults.push((seed, fault));
            }
        }
    }
    if faults.is_empty() { Err(JoinError::NoSeed) } else { Err(JoinError::Nobody(faults)) }
}

/// The keys of this host, written down before anybody hears of them: if the last word of a member is lost, the next
/// attempt is that of the same node.
fn identity(store: &dyn Storage) -> Result<Identity, JoinError> {
    if let Some(identity) = Papers::load_identity(store)? {
        return Ok(identity);
    }
    let identity = Identity::from_secret(&Zeroizing::new(random::<32>()?));
    store.commit("identity", &[identity_row(&identity)])?;
    Ok(identity)
}

/// As [`join`], with the token in a file that may come later, again and again until somebody lets this host in.
///
/// # Errors
/// A member said no, or the file holds no token.
pub async fn join_when_possible(
    store: &dyn Storage,
    file: &Path,
    settings: Settings,
) -> Result<Membership, JoinError> {
    let mut said = String::new();
    loop {
        let problem = match read_token(file) {
            Ok(token) => match join(store, &token, settings.clone(), &mut |_| {}).await {
                Err(fault) if fault.may_pass() => fault.to_string(),
                outcome => return outcome,
            },
            Err(JoinError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                format!("waiting for the join token in {}", file.display())
            }
            Err(fault) => return Err(fault),
        };
        if problem != said {
            tracing::info!(problem, "not in the cluster yet; trying again");
            said = problem;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Reads a token file.
///
/// # Errors
/// It cannot be read, or holds no token; nothing of its content is repeated.
pub fn read_token(path: &Path) -> Result<Token, JoinError> {
    let mut text = Zeroizing::new(String::new());
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(|source| JoinError::File {
        attempt: format!("read the token from {}", path.display()),
        source,
    })?;
    text.parse().map_err(|fault| JoinError::TokenFile { path: path.to_owned(), fault })
}

/// Writes a token file, mode 0600, whole or not at all. A regular file there is replaced, anything else is not.
///
/// # Errors
/// The file system's; something else is there.
pub fn write_token(path: &Path, token: &Token) -> Result<(), JoinError> {
    let failed =
        |source| JoinError::File { attempt: format!("write the token to {}", path.display()), source };
    if std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        let fault = "what is there is no regular file; name another one";
        return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, fault)));
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:016x}", u64::from_be_bytes(random()?)));
    let draft = PathBuf::from(draft);
    let write = || {
        // Nobody else's file, and through nobody's link.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        writeln!(file, "{}", *token.to_text())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().map_err(|fault| {
        // Left behind it would be a secret that nobody knows of.
        let _ = std::fs::remove_file(&draft);
        failed(fault)
    })
}

/// Another seed may know more, or answer later.
fn is_final(reason: &AdmissionError) -> bool {
    !matches!(
        reason,
        AdmissionError::Garbled | AdmissionError::Refused(Refusal::UnknownToken | Refusal::Trouble(_))
    )
}

/// Writes down what a new member needs.
fn enter(
    store: &dyn Storage,
    identity: Identity,
    outcome: Outcome,
    settings: Settings,
    seed: SocketAddr,
) -> Result<Membership, JoinError> {
    let Outcome { chain, welcome, member } = outcome;
    let papers = Papers { identity, root: None, chain, ring: welcome.ring, settings };
    let mut rows = papers.rows();
    rows.extend(welcome.revocations.iter().map(crate::trust::Revocation::row));
    // What the token names is reachable from here; what the member calls itself may not be.
    let mut peers = welcome.peers;
    peers.retain(|(id, _)| *id != member);
    peers.push((member, seed));
    rows.extend(peers.iter().map(|(id, address)| Write {
        table: Table::Peers,
        key: id.0.to_vec(),
        value: postcard::to_stdvec(address).ok(),
    }));
    store.commit("join", &rows)?;
    Ok(membership(&papers))
}

fn membership(papers: &Papers) -> Membership {
    Membership {
        cluster: papers.cluster(),
        node: papers.identity.node_id(),
        settings: papers.settings.clone(),
    }
}

fn words(fault: &AgentError) -> String {
    explain(fault)
}

fn random<const N: usize>() -> Result<[u8; N], JoinError> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).map_err(|fault| JoinError::File {
        attempt: "draw randomness".to_owned(),
        source: io::Error::other(fault),
    })?;
    Ok(octets)
}

fn now() -> UnixMillis {
    UnixMillis(wall())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::storage::Memory;

    fn token(seeds: &[SocketAddr]) -> Token {
        Token::new([1; 16], [2; 16], seeds)
    }

    fn settings() -> Settings {
        Settings { name: "b".parse().expect("a name"), advertise: String::new(), gossip_port: 7946 }
    }

    #[tokio::test]
    async fn every_attempt_to_join_is_that_of_the_same_node() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let nobody = listener.local_addr().expect("bound");
        drop(listener);
        let store = Memory::default();
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let outcome = join(&store, &token(&[nobody]), settings(), &mut |_| {}).await;
            assert!(matches!(outcome, Err(JoinError::Nobody(_))), "{outcome:?}");
            let identity = Papers::load_identity(&store).expect("readable").expect("written down");
            nodes.push(identity.node_id());
        }
        assert_eq!(nodes[0], nodes[1]);
        assert!(Papers::load(&store).expect("readable").is_none(), "it is in no cluster for that");
    }

    #[test]
    fn a_token_file_is_made_anew_for_its_owner_alone_and_through_no_link() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, target) = (directory.path().join("token"), directory.path().join("theirs"));
        std::fs::write(&path, "old").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("ours");
        write_token(&path, &token(&[])).expect("written");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(read_token(&path).expect("a token").to_text(), token(&[]).to_text());
        let link = directory.path().join("link");
        std::fs::write(&target, "theirs").expect("written");
        std::os::unix::fs::symlink(&target, &link).expect("made");
        assert!(matches!(write_token(&link, &token(&[])), Err(JoinError::File { .. })));
        assert_eq!(std::fs::read(&target).expect("there"), b"theirs");
        assert_eq!(std::fs::read_dir(directory.path()).expect("there").count(), 3, "no draft is left");
    }
}
