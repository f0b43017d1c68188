//! A program that runs in a sandbox, and what it prints.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;

use super::Site;
use crate::interrupt::Interrupt;
use crate::sys::{self, Birth};
use crate::traffic::Station;

/// How long a server may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take beyond the time it was told, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);
/// State of a socket in `/proc/net/tcp` that listens.
const LISTENING: &str = "0A";
/// So much of what a program said is shown where it fails, lines.
const LAST_LINES: usize = 5;

/// A program in a sandbox. Dropping it ends it; it ends with us too.
pub(super) struct Running<'a> {
    child: Child,
    name: String,
    /// What it says, and what it complains about.
    said: [PathBuf; 2],
    interrupt: &'a Interrupt,
}

impl<'a> Running<'a> {
    /// Starts a program in one of the two sandboxes of `site`; what it says goes into files named for its role.
    ///
    /// # Errors
    /// It cannot be started.
    fn start(mut command: Command, role: &str, end: &Station, site: &Site<'a>) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let said = ["out", "err"].map(|kind| site.directory.join(format!("{role}.{kind}")));
        let [out, err] = &said;
        command.current_dir(&site.directory).stdin(Stdio::null());
        command.stdout(File::create(out).context("make a file for what a program says")?);
        command.stderr(File::create(err).context("make a file for what a program says")?);
        // A group of its own: Ctrl-C is for us to handle.
        command.process_group(0);
        let (namespace, mask) = (Some(end.namespace.try_clone()?), site.interrupt.mask_before());
        sys::prepare(&mut command, Birth { parent: Pid::this(), mask, namespace, descriptors: Vec::new() });
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { child, name, said, interrupt: site.interrupt })
    }

    /// Starts a server in the far sandbox and waits until it listens on a TCP port.
    ///
    /// # Errors
    /// It ends, or does not listen within 10 s.
    pub(super) fn serve(command: Command, port: u16, site: &Site<'a>) -> Result<Self> {
        let mut server = Self::start(command, "server", site.far, site)?;
        let sockets = format!("/proc/{}/net/tcp", server.child.id());
        let listening = server.interrupt.until(START_LIMIT, || {
            if let Some(status) = server.child.try_wait().context("look after a server")? {
                bail!("{} ended ({status}): {}", server.name, server.last_words());
            }
            let sockets = fs::read_to_string(&sockets).unwrap_or_default();
            Ok(listens(&sockets, port).then_some(()))
        })?;
        listening.with_context(|| format!("{} does not listen on port {port}", server.name))?;
        Ok(server)
    }

    /// Runs a client in the near sandbox that is to take `time`; what it prints.
    ///
    /// # Errors
    /// It fails, or takes two minutes more.
    pub(super) fn ask(command: Command, time: Duration, site: &Site<'a>) -> Result<String> {
        let mut client = Self::start(command, "client", site.near, site)?;
        let ended = client
            .interrupt
            .until(time + PATIENCE, || client.child.try_wait().context("look after a client"))?;
        let status = ended.with_context(|| format!("{} does not end", client.name))?;
        if !status.success() {
            bail!("{} failed ({status}): {}", client.name, client.last_words());
        }
        let [out, _] = &client.said;
        fs::read_to_string(out).with_context(|| format!("read what {} said", client.name))
    }

    /// What it said last.
    fn last_words(&self) -> String {
        let [out, err] = self.said.each_ref().map(|file| fs::read_to_string(file).unwrap_or_default());
        let lines: Vec<_> = out.lines().chain(err.lines()).filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("; ")
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Nothing of it is worth a farewell; it may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a table of sockets, as `/proc/net/tcp` shows it, has one that listens on a port.
pub(super) fn listens(table: &str, port: u16) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().and_then(|local| local.split_once(':'));
        let at = local.and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        at == Some(port) && fields.nth(1) == Some(LISTENING)
    })
}
