//! The agent's settings: a flag wins over its environment variable, that over the file, that over the default.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use weft_control::io::agent::{
    Advertise, AgentConfig, DEFAULT_DATA_PORT, DEFAULT_GOSSIP_PORT, DockerConfig, FirstStart,
};
use weft_control::local::Defaults;
use weft_control::model::Name;
use weft_control::session::REKEY_AFTER;
use weft_control::trust::Settings;

use crate::args::{AgentArgs, DoctorArgs, HostArgs, PlaceArgs};

/// The file read where none is named.
const DEFAULT_FILE: &str = "/etc/weft/weft.toml";
const DEFAULT_STATE_DIR: &str = "/var/lib/weft";
const DEFAULT_RUN_DIR: &str = "/run/weft";
const DEFAULT_RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where engines look first.
pub(crate) const DEFAULT_PLUGIN_DIR: &str = "/run/docker/plugins";
/// Name of the join token in a directory of systemd credentials (`LoadCredential=weft.token:…`, systemd.exec(5)).
const CREDENTIAL: &str = "weft.token";
/// Where Docker's engine usually answers.
pub(crate) const USUAL_ENGINE: &str = "/var/run/docker.sock";
/// Most packet workers without being asked for: more only pays with as many receive queues on the NIC.
const MAX_DEFAULT_WORKERS: usize = 8;

/// The file's settings; names are those of the flags.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct FileSettings {
    name: Option<String>,
    advertise: Option<String>,
    init: bool,
    token_file: Option<PathBuf>,
    join: Vec<String>,
    data_port: Option<u16>,
    gossip_port: Option<u16>,
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    workers: Option<NonZeroUsize>,
    resolv_conf: Option<PathBuf>,
    bip: Option<String>,
    bridge: Option<String>,
    docker: Option<String>,
    docker_plugin_dir: Option<PathBuf>,
    require_encryption: bool,
    teardown_on_stop: bool,
}

/// Puts all sources together. Flags and variables are already one in `args`.
///
/// `credentials` is systemd's `CREDENTIALS_DIRECTORY`.
///
/// # Errors
/// A file that can't be read or says something unknown, or a value that can't be.
pub(crate) fn compose(args: &AgentArgs, credentials: Option<OsString>) -> Result<AgentConfig> {
    let file = read_file(args.config.as_deref())?;
    let credential = credentials.map(|dir| Path::new(&dir).join(CREDENTIAL)).filter(|path| path.exists());
    let token_file = args.token_file.clone().or(file.token_file).or(credential);
    let advertise = args.advertise.clone().or(file.advertise).unwrap_or_default();
    let name = args.name.clone().or(file.name);
    let gossip_port = args.gossip_port.or(file.gossip_port);
    let settings = || settings(name.clone(), &advertise, gossip_port);
    let first = match (args.init || file.init, token_file) {
        (true, token_file) => FirstStart::Init { settings: settings()?, token_file },
        (false, Some(token_file)) => FirstStart::Join { settings: settings()?, token_file },
        (false, None) => FirstStart::Refuse,
    };
    Ok(AgentConfig {
        name: name.map(|name| name.parse()).transpose()?,
        advertise: advertise.parse::<Advertise>().unwrap_or_default(),
        first,
        join: if args.join.is_empty() { file.join } else { args.join.clone() },
        data_port: args.data_port.or(file.data_port).unwrap_or(DEFAULT_DATA_PORT),
        gossip_port,
        state_dir: args.state_dir.clone().or(file.state_dir).unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
        run_dir: args.run_dir.clone().or(file.run_dir).unwrap_or_else(|| DEFAULT_RUN_DIR.into()),
        socket: None,
        workers: args.workers.or(file.workers).unwrap_or_else(default_workers),
        resolv_conf: args
            .resolv_conf
            .clone()
            .or(file.resolv_conf)
            .unwrap_or_else(|| DEFAULT_RESOLV_CONF.into()),
        docker: docker(
            args.docker.clone().or(file.docker),
            args.docker_plugin_dir.clone().or(file.docker_plugin_dir),
        )?,
        bridge: bridge(args.bip.clone().or(file.bip), args.bridge.clone().or(file.bridge))?,
        require_encryption: args.require_encryption || file.require_encryption,
        rekey_after: args.rekey_after.map_or(REKEY_AFTER, Duration::from_secs),
        teardown_on_stop: args.teardown_on_stop || file.teardown_on_stop,
    })
}

/// How the agent works for Docker's engine.
fn docker(engine: Option<String>, plugin_dir: Option<PathBuf>) -> Result<DockerConfig> {
    let path = |text: String| match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        None if text.starts_with('/') => Ok(PathBuf::from(text)),
        _ => bail!(
            "invalid value '{text}' for --docker: it must be a unix socket, e.g. unix:///var/run/docker.sock"
        ),
    };
    let engine = engine.map(path).transpose()?;
    let plugin_dir = plugin_dir.or_else(|| engine.is_some().then(|| DEFAULT_PLUGIN_DIR.into()));
    Ok(DockerConfig { engine, plugin_dir })
}

/// How the network `bridge` is to be.
fn bridge(bip: Option<String>, interface: Option<String>) -> Result<Defaults> {
    let bip = bip.map(|text| Defaults::parse_bip(&text)).transpose()?;
    Ok(Defaults { bip, interface: interface.map(|name| Defaults::parse_interface(&name)).transpose()? })
}

/// How a host is set up that is to become a member.
#[derive(Debug)]
pub(crate) struct HostConfig {
    /// How the node is set up.
    pub(crate) settings: Settings,
    /// Where that is kept.
    pub(crate) state_dir: PathBuf,
}

/// Puts together what `weft init` and `weft join` need.
///
/// # Errors
/// A file that can't be read or says something unknown, or a value that can't be.
pub(crate) fn host(args: &HostArgs) -> Result<HostConfig> {
    let file = read_file(args.config.as_deref())?;
    let advertise = args.advertise.clone().or(file.advertise).unwrap_or_default();
    let name = args.name.clone().or(file.name);
    Ok(HostConfig {
        settings: settings(name, &advertise, args.gossip_port.or(file.gossip_port))?,
        state_dir: args.state_dir.clone().or(file.state_dir).unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
    })
}

/// Where an agent of this host is, or would be, and what it would be reached by.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Its state.
    pub(crate) state_dir: PathBuf,
    /// Its socket and namespaces.
    pub(crate) run_dir: PathBuf,
    /// Address it would advertise.
    pub(crate) advertise: Advertise,
    /// UDP port of its data path.
    pub(crate) data_port: u16,
    /// UDP and TCP port of its gossip.
    pub(crate) gossip_port: u16,
    /// Docker's engine and its plugins, where something was said about them.
    pub(crate) docker: DockerConfig,
}

/// Puts together what `weft doctor` looks at.
///
/// # Errors
/// A file that can't be read or says something unknown.
pub(crate) fn layout(args: &DoctorArgs) -> Result<Layout> {
    let file = read_file(args.place.config.as_deref())?;
    let advertise = args.advertise.clone().or_else(|| file.advertise.clone()).unwrap_or_default();
    let ports = (args.data_port.or(file.data_port), args.gossip_port.or(file.gossip_port));
    let docker = docker(
        args.docker.clone().or_else(|| file.docker.clone()),
        args.docker_plugin_dir.clone().or_else(|| file.docker_plugin_dir.clone()),
    )?;
    let (state_dir, run_dir) = directories(&args.place, file);
    Ok(Layout {
        docker,
        state_dir,
        run_dir,
        advertise: advertise.parse().unwrap_or_default(),
        data_port: ports.0.unwrap_or(DEFAULT_DATA_PORT),
        gossip_port: ports.1.unwrap_or(DEFAULT_GOSSIP_PORT),
    })
}

/// State and run directory of this host's agent.
///
/// # Errors
/// A file that can't be read or says something unknown.
pub(crate) fn places(args: &PlaceArgs) -> Result<(PathBuf, PathBuf)> {
    Ok(directories(args, read_file(args.config.as_deref())?))
}

fn directories(args: &PlaceArgs, file: FileSettings) -> (PathBuf, PathBuf) {
    let state_dir = args.state_dir.clone().or(file.state_dir).unwrap_or_else(|| DEFAULT_STATE_DIR.into());
    (state_dir, args.run_dir.clone().or(file.run_dir).unwrap_or_else(|| DEFAULT_RUN_DIR.into()))
}

fn settings(name: Option<String>, advertise: &str, gossip_port: Option<u16>) -> Result<Settings> {
    Ok(Settings {
        name: node_name(name)?,
        advertise: advertise.to_owned(),
        gossip_port: gossip_port.unwrap_or(DEFAULT_GOSSIP_PORT),
    })
}

/// The named file must be there, the default one may be.
fn read_file(named: Option<&Path>) -> Result<FileSettings> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let text = match fs::read_to_string(path) {
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.with_context(|| format!("read {}", path.display()))?,
    };
    toml::from_str(&text).with_context(|| format!("understand {}", path.display()))
}

/// The given name, or the host's; of a host name with parts that no name may have, the allowed characters.
fn node_name(given: Option<String>) -> Result<Name> {
    if let Some(given) = given {
        return Ok(given.parse()?);
    }
    let host = nix::sys::utsname::uname().context("read the host name")?;
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "_.-".contains(*c);
    let name: String = host.nodename().to_string_lossy().chars().filter(allowed).collect();
    let name: String = name.trim_start_matches(['_', '.', '-']).chars().take(Name::MAX_LEN).collect();
    name.parse().context("the host name is no name for a node; give one with --name")
}

fn default_workers() -> NonZeroUsize {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(processors.min(MAX_DEFAULT_WORKERS)).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    fn args(line: &str) -> AgentArgs {
        match Cli::try_parse_from(line.split_whitespace()).expect("parses").verb {
            Verb::Agent(args) => *args,
            other => panic!("parsed as {other:?}"),
        }
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("weft.toml");
        fs::write(&path, text).expect("write");
        (directory, path)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let (_directory, path) =
            file("name = 'f'\nadvertise = '192.0.2.7'\njoin = ['x', 'y:1']\ndata-port = 5000\n");
        let config =
            compose(&args(&format!("weft agent --name n --config {}", path.display())), None).expect("good");
        assert_eq!(config.name.as_ref().map(Name::as_str), Some("n"));
        assert_eq!(config.advertise, Advertise::Address("192.0.2.7".parse().expect("address")));
        assert_eq!(config.join, ["x", "y:1"]);
        assert_eq!((config.data_port, config.gossip_port), (5000, None));
        assert_eq!(config.state_dir, Path::new(DEFAULT_STATE_DIR));
        assert!(!config.teardown_on_stop && config.first == FirstStart::Refuse);
        let joins = format!("weft agent --join z --config {}", path.display());
        assert_eq!(compose(&args(&joins), None).expect("good").join, ["z"]);
    }

    #[test]
    fn a_file_with_a_mistake_is_refused_and_named() {
        for text in ["frob = 1", "data-port = 'x'", "name = "] {
            let (_directory, path) = file(text);
            let error =
                compose(&args(&format!("weft agent --config {}", path.display())), None).expect_err(text);
            assert!(format!("{error:#}").contains("weft.toml"), "{error:#}");
        }
        assert!(compose(&args("weft agent --config /nonexistent.toml"), None).is_err());
    }

    #[test]
    fn a_name_that_could_be_a_path_is_refused() {
        assert!(compose(&args("weft agent --name ../x"), None).is_err());
    }

    #[test]
    fn a_systemd_credential_is_the_token_where_no_flag_names_one() {
        let directory = tempfile::tempdir().expect("directory");
        let token = directory.path().join(CREDENTIAL);
        fs::write(&token, "later").expect("write");
        let first = |line: &str| compose(&args(line), Some(directory.path().into())).expect("good").first;
        assert!(
            matches!(first("weft agent --name n"), FirstStart::Join { token_file, .. } if token_file == token)
        );
        assert!(matches!(first("weft agent --name n --init"), FirstStart::Init { .. }));
        let given = first("weft agent --name n --token-file /given");
        assert!(matches!(given, FirstStart::Join { token_file, .. } if token_file == Path::new("/given")));
    }
}
