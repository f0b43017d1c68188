//! Congestion control of programs that have no switch for it: by their routes.
//!
//! A namespace may only have the machine's own default as its default; a route may name any (`ip route`, `congctl`).

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::traffic::{Station, congestion};

/// The program that changes routes.
pub(super) const PROGRAM: &str = "ip";

/// Has streams from one end to the other use what our own streams use.
///
/// # Errors
/// `ip` fails, or knows no way there.
pub(super) fn choose_congestion(from: &Station, to: IpAddr) -> Result<()> {
    let to = to.to_string();
    let way = ip(from, &["-oneline", "route", "get", &to])?;
    let device = device_of(&way).with_context(|| format!("there is no way to {to}"))?;
    ip(from, &["route", "replace", &to, "dev", device, "congctl", &congestion()]).map(drop)
}

/// The interface in what `ip route get` says.
pub(super) fn device_of(way: &str) -> Option<&str> {
    way.split_whitespace().skip_while(|word| *word != "dev").nth(1)
}

fn ip(inside: &Station, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(PROGRAM);
    let output = inside.namespace.run(|| command.args(arguments).output())?.context("start ip")?;
    ensure!(output.status.success(), "ip: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
