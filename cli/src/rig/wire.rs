//! A cable as wires are: what a plain network card has no offload for is switched off.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Rig, UPLINK};

/// Features of a link that a plain card has not (`ethtool -K`).
const OFF: [&str; 7] = [
    "tso",
    "gso",
    "tx",
    "rx",
    "tx-udp-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
];

impl Rig {
    /// Switches segmentation and checksum offloads of every host's uplink off, and GRO on.
    ///
    /// # Errors
    /// The program `ethtool` is not installed, or the kernel refuses.
    pub fn make_wire_like(&self) -> Result<()> {
        for host in &self.hosts {
            let mut command = Command::new("ethtool");
            command.args(["-K", UPLINK, "gro", "on"]);
            command.args(OFF.iter().flat_map(|feature| [*feature, "off"]));
            let output = host.namespace.run(|| command.output())?.context(
                "a wire-like underlay needs the program 'ethtool': install it, or measure on '--underlay veth' alone",
            )?;
            ensure!(output.status.success(), "ethtool: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}
