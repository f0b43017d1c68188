//! A sandbox as `docker inspect` shows a container; what weft adds stands at the end.

use std::collections::BTreeMap;

use serde::Serialize;
use weft_control::api::{Sandbox, SandboxEndpoint};
use weft_control::command::{Attachment, Command, State};
use weft_control::publish::PortMap;

/// Digits of the id that are the host name where none is given.
const SHORT: usize = 12;

/// A sandbox in Docker's shape.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Shape {
    id: String,
    created: String,
    path: String,
    args: Vec<String>,
    state: ShownState,
    log_path: String,
    name: String,
    restart_count: u32,
    host_config: HostConfig,
    config: Config,
    network_settings: NetworkSettings,
    namespace: String,
    ephemeral: bool,
    adopted: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownState {
    status: String,
    running: bool,
    paused: bool,
    restarting: bool,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    dead: bool,
    pid: u32,
    exit_code: u8,
    error: String,
    started_at: String,
    finished_at: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    network_mode: String,
    port_bindings: PortMap,
    auto_remove: bool,
    restart_policy: RestartPolicy,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    name: &'static str,
    maximum_retry_count: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    hostname: String,
    env: Vec<String>,
    cmd: Vec<String>,
    working_dir: String,
    labels: BTreeMap<String, String>,
    open_stdin: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(rename = "SandboxID")]
    sandbox_id: String,
    sandbox_key: String,
    ports: PortMap,
    networks: BTreeMap<String, Ends>,
}

/// An end of a network: what was wished for and what it got.
#[derive(Debug, Serialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Ends {
    #[serde(rename = "IPAMConfig")]
    ipam_config: Option<BTreeMap<&'static str, String>>,
    aliases: Option<Vec<String>>,
    #[serde(flatten)]
    got: Option<SandboxEndpoint>,
}

/// The sandbox as people see it.
pub(super) fn shape(sandbox: Sandbox) -> Shape {
    let command = sandbox.command.unwrap_or_default();
    let networks = networks(&command, &sandbox.networks);
    let first = sandbox.networks.keys().next().cloned().unwrap_or_else(|| "none".to_owned());
    let network_mode = if command.network_mode.is_empty() { first } else { command.network_mode };
    let hostname =
        if command.hostname.is_empty() { sandbox.id.chars().take(SHORT).collect() } else { command.hostname };
    Shape {
        path: command.cmd.first().cloned().unwrap_or_default(),
        args: command.cmd.iter().skip(1).cloned().collect(),
        state: shown(sandbox.state),
        log_path: if command.detached { format!("{}/log", sandbox.directory) } else { String::new() },
        restart_count: 0,
        host_config: HostConfig {
            network_mode,
            port_bindings: sandbox.host_config.port_bindings,
            auto_remove: command.auto_remove,
            restart_policy: RestartPolicy { name: "no", maximum_retry_count: 0 },
        },
        config: Config {
            hostname,
            env: command.env,
            cmd: command.cmd,
            working_dir: command.working_dir,
            labels: command.labels,
            open_stdin: command.open_stdin,
        },
        network_settings: NetworkSettings {
            sandbox_id: sandbox.id.clone(),
            sandbox_key: sandbox.namespace.clone(),
            ports: sandbox.network_settings.ports,
            networks,
        },
        id: sandbox.id,
        created: sandbox.created,
        name: sandbox.name,
        namespace: sandbox.namespace,
        ephemeral: sandbox.ephemeral,
        adopted: sandbox.adopted,
    }
}

fn shown(state: State) -> ShownState {
    let State { status, running, pid, exit_code, error, started_at, finished_at } = state;
    let (paused, restarting, oom_killed, dead) = (false, false, false, false);
    ShownState {
        status,
        running,
        paused,
        restarting,
        oom_killed,
        dead,
        pid,
        exit_code,
        error,
        started_at,
        finished_at,
    }
}

/// What it is attached to, or will be when its command starts.
fn networks(command: &Command, attached: &BTreeMap<String, SandboxEndpoint>) -> BTreeMap<String, Ends> {
    let mut ends: BTreeMap<String, Ends> =
        command.networks.iter().map(|wish| (wish.network.clone(), wished(wish))).collect();
    for (name, got) in attached {
        ends.entry(name.clone()).or_default().got = Some(got.clone());
    }
    if ends.is_empty() && ["none", "host"].contains(&command.network_mode.as_str()) {
        ends.insert(command.network_mode.clone(), Ends::default());
    }
    // Docker's entries have all their keys, empty where there is nothing yet.
    ends.values_mut().for_each(|end| {
        end.got.get_or_insert_default();
    });
    ends
}

fn wished(wish: &Attachment) -> Ends {
    let config = &wish.endpoint_config;
    let four = config.ipam_config.ipv4_address.map(|address| ("IPv4Address", address.to_string()));
    let six = config.ipam_config.ipv6_address.map(|address| ("IPv6Address", address.to_string()));
    let ipam: BTreeMap<_, _> = four.into_iter().chain(six).collect();
    Ends {
        ipam_config: (!ipam.is_empty()).then_some(ipam),
        aliases: (!config.aliases.is_empty()).then(|| config.aliases.clone()),
        got: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Template;

    fn print(sandbox: Sandbox, template: &str) -> String {
        let value = serde_json::to_value(shape(sandbox)).expect("JSON");
        Template::parse(template).expect("a template").print(&value.into()).expect("printed")
    }

    fn sandbox(mode: &str, networks: &[&str]) -> Sandbox {
        let wish = |name: &&str| Attachment { network: (*name).to_owned(), ..Attachment::default() };
        let command = Command {
            cmd: vec!["sleep".into(), "9".into()],
            network_mode: mode.into(),
            networks: networks.iter().map(wish).collect(),
            ..Command::default()
        };
        Sandbox {
            id: "0123456789abcdef".into(),
            name: "web".into(),
            command: Some(command),
            ..Sandbox::default()
        }
    }

    #[test]
    fn formats_of_docker_users_find_what_they_look_for() {
        let names = "{{range $net, $conf := .NetworkSettings.Networks}}{{$net}} {{end}}";
        assert_eq!(print(sandbox("front", &["front", "back"]), names), "back front ");
        assert_eq!(print(sandbox("host", &[]), names), "host ");
        assert_eq!(print(sandbox("none", &[]), "{{.HostConfig.NetworkMode}}"), "none");
        assert_eq!(print(sandbox("front", &["front"]), "{{.NetworkSettings.Networks.front.IPAddress}}"), "");
        assert_eq!(
            print(sandbox("front", &[]), "{{.Path}} {{.Args}} {{.Config.Hostname}}"),
            "sleep [9] 0123456789ab"
        );
        assert_eq!(print(sandbox("front", &[]), "{{.State.Running}} {{.State.ExitCode}}"), "false 0");
    }
}
