//! Docker's side: networks and containers of one run, removed at its end.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use weft::traffic::Station;
use weft_control::io::namespace::Namespace;

/// The network the ends are on from the start.
pub(crate) const FIRST: &str = "first";

/// What was made. Dropping it removes what it can.
pub(crate) struct Stack {
    project: String,
    networks: Vec<String>,
    ends: Vec<String>,
}

impl Stack {
    /// An image of busybox, bridge networks, and a container per end on the first of them.
    pub(crate) fn up(networks: &[&str], ends: &[&str]) -> Result<Self> {
        let project = format!("weft-bench-{}", std::process::id());
        let mut stack = Self { project, networks: Vec::new(), ends: Vec::new() };
        docker(&["info", "--format", "{{.ServerVersion}}"])
            .context("no Docker engine answers; start one (dockerd)")?;
        let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/compose/busybox.sh");
        output(Command::new(recipe).arg(&stack.project))?;
        for network in networks {
            docker(&["network", "create", &stack.named(network)])?;
            stack.networks.push(stack.named(network));
        }
        for end in ends {
            let (name, network) = (stack.named(end), stack.named(FIRST));
            docker(&["run", "-d", "--name", &name, "--network", &network, &stack.project, "sleep", "3600"])?;
            stack.ends.push(name);
        }
        Ok(stack)
    }

    fn named(&self, name: &str) -> String {
        format!("{}-{name}", self.project)
    }

    /// An end as something traffic can be measured from.
    pub(crate) fn station(&self, end: &str) -> Result<Station> {
        let of = |template: &str| docker(&["inspect", "-f", template, &self.named(end)]);
        let address = of("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")?;
        let namespace = Namespace::of_process(of("{{.State.Pid}}")?.parse()?)?;
        Ok(Station::new(namespace, address.parse()?, None, None))
    }

    /// Connects an end to another network.
    pub(crate) fn connect(&self, network: &str, end: &str) -> Result<()> {
        docker(&["network", "connect", &self.named(network), &self.named(end)]).map(drop)
    }

    /// The engine's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        let host = std::env::var("DOCKER_HOST").unwrap_or_default();
        host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").into()
    }

    /// What the second network and the first end are called.
    pub(crate) fn names(&self) -> [String; 2] {
        [self.networks[1].clone(), self.ends[0].clone()]
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // What cannot be removed here has the run's name, for `docker ps` to show.
        for end in &self.ends {
            let _ = docker(&["rm", "-f", end]);
        }
        for network in &self.networks {
            let _ = docker(&["network", "rm", network]);
        }
        let _ = docker(&["rmi", &self.project]);
    }
}

fn docker(arguments: &[&str]) -> Result<String> {
    output(Command::new("docker").args(arguments))
}

/// What a command says, which must succeed.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
