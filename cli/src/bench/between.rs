//! `weft bench FROM TO`: two sandboxes in a network they share, the far one here or on another host.

use std::net::IpAddr;

use anyhow::{Context, anyhow};
use weft_control::api::{Network, Sandbox};
use weft_control::io::namespace::Namespace;

use super::contender::{Contender, SEALED_BY};
use super::progress::Progress;
use super::report::Report;
use super::run::Run;
use super::steps::Steps;
use crate::client::{Client, segment};
use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::output::Screen;
use crate::traffic::{self, REMOTE_PORT, Remote, Station};

/// The option of a network that is sealed.
const ENCRYPTED: &str = "encrypted";

/// Measures.
pub(super) fn measure(
    from: &str,
    to: &str,
    network: Option<&str>,
    client: Client,
    steps: &Steps,
    report: &mut Report,
) -> Outcome {
    if from == to {
        return Err(Failure::Usage(format!("a path from '{from}' to itself: name two sandboxes")));
    }
    if let Some(program) = steps.programs().first() {
        let words = "goes with --self alone; between sandboxes of yours run such programs by 'weft exec'";
        return Err(Failure::Usage(format!("--only {} {words}", program.name())));
    }
    require_root()?;
    let contender = contender(from, to, network, &client)?;
    // It has no use any more, and its event loop would be there while we measure.
    drop(client);
    let interrupt = Interrupt::watch().context("watch for Ctrl-C")?;
    contender.await_answer(&interrupt)?;
    let place = format!("{from} to {to}");
    let (contenders, progress) = (&[contender], &mut Progress::new(steps.estimate(1)));
    let run = Run { place: &place, contenders, steps, interrupt: &interrupt, directory: None, progress };
    Ok(run.measure(report)?)
}

/// Is the far end for a measurement from another host, until Ctrl-C.
pub(super) fn serve(name: &str, client: Client, screen: &mut Screen) -> Outcome {
    require_root()?;
    let namespace = namespace(&sandbox(name, &client)?, &client)?;
    drop(client);
    let interrupt = Interrupt::watch().context("watch for Ctrl-C")?;
    traffic::serve(&namespace)?;
    screen.line(&format!(
        "'{name}' is a far end for 'weft bench' on other hosts (TCP port {REMOTE_PORT}); Ctrl-C ends it"
    ))?;
    interrupt.wait();
    Ok(())
}

fn require_root() -> Outcome {
    if nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    Err(anyhow!("measuring from inside sandboxes needs root: run it again with sudo").into())
}

/// A sandbox of this host.
fn sandbox(name: &str, client: &Client) -> Outcome<Sandbox> {
    let sandbox: Sandbox = client.read(&format!("/sandboxes/{}", segment(name)))?;
    if sandbox.namespace.is_empty() {
        return Err(anyhow!("'{name}' is a virtual machine, which cannot be measured from inside").into());
    }
    Ok(sandbox)
}

fn namespace(sandbox: &Sandbox, client: &Client) -> Outcome<Namespace> {
    Ok(Namespace::from_descriptor(client.namespace(&sandbox.name)?).map_err(anyhow::Error::from)?)
}

fn contender(from: &str, to: &str, wanted: Option<&str>, client: &Client) -> Outcome<Contender> {
    let near = sandbox(from, client)?;
    let here = match sandbox(to, client) {
        Ok(sandbox) => Some(sandbox),
        Err(failure) if failure.is_not_found() => None,
        Err(failure) => return Err(failure),
    };
    let path = choose(paths(&near, to, client)?, from, to, wanted)?;
    let cipher = path.network.options.contains_key(ENCRYPTED).then_some(SEALED_BY);
    let source = Station::new(namespace(&near, client)?, path.from, None, None);
    let name = &path.network.name;
    match here {
        Some(sandbox) => {
            let sink = Station::new(namespace(&sandbox, client)?, path.to, None, None);
            Ok(Contender::new(name, cipher, source, sink))
        }
        None => Ok(Contender::new(name, cipher, source, remote(to, &path, namespace(&near, client)?)?)),
    }
}

/// A network that leads from one sandbox to the other.
struct Path {
    network: Network,
    from: IpAddr,
    to: IpAddr,
    /// The host of the far one.
    node: String,
}

/// All networks of `near` that `to` is in, wherever it is.
fn paths(near: &Sandbox, to: &str, client: &Client) -> Outcome<Vec<Path>> {
    let mut paths = Vec::new();
    for (name, end) in &near.networks {
        let network: Network = client.read(&format!("/networks/{}", segment(name)))?;
        let far = network.containers.values().find(|endpoint| endpoint.name == to);
        let Some((far, node)) = far.map(|far| ([&far.ipv4_address, &far.ipv6_address], far.node.clone()))
        else {
            continue;
        };
        let near = [&end.ip_address, &end.global_ipv6_address];
        let found = near.into_iter().zip(far).find_map(|(near, far)| Some((address(near)?, address(far)?)));
        if let Some((from, to)) = found {
            paths.push(Path { network, from, to, node });
        }
    }
    Ok(paths)
}

/// An address, with or without the length of its prefix.
fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

fn choose(mut paths: Vec<Path>, from: &str, to: &str, wanted: Option<&str>) -> Outcome<Path> {
    if let Some(wanted) = wanted {
        paths.retain(|path| path.network.name == wanted);
    }
    match (paths.len(), wanted) {
        (1, _) => paths.pop().context("there is one").map_err(Failure::from),
        (0, Some(wanted)) => Err(anyhow!(
            "'{from}' and '{to}' are not both in network '{wanted}': connect them with 'weft network connect {wanted} SANDBOX'"
        )
        .into()),
        (0, None) => Err(anyhow!(
            "'{from}' and '{to}' share no network: connect both to one with 'weft network connect NETWORK SANDBOX'"
        )
        .into()),
        _ => {
            let names: Vec<_> = paths.iter().map(|path| path.network.name.as_str()).collect();
            Err(anyhow!("'{from}' and '{to}' share several networks ({}): choose one with --network", names.join(", "))
                .into())
        }
    }
}

fn remote(to: &str, path: &Path, from: Namespace) -> Outcome<Remote> {
    let remote = Remote::new(path.to, from);
    remote.check().with_context(|| {
        format!(
            "'{to}' is on host {} and does not listen: run 'weft bench --serve {to}' there meanwhile",
            path.node
        )
    })?;
    Ok(remote)
}
