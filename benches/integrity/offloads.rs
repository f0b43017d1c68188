//! Offloads of a sandbox's interface, by `ethtool`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use weft_control::io::namespace::Namespace;

/// Which offloads an interface is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offloads {
    /// Checksums of what it sends.
    checksum: bool,
    /// Segmentation of what it sends: TSO and GSO.
    segmentation: bool,
    /// GRO of what it receives.
    gro: bool,
}

/// What `ethtool -K` calls a feature, and how `ethtool -k` shows what has become of it.
const TX: (&str, &str) = ("tx", "tx-checksum-ip-generic");
const TSO: (&str, &str) = ("tso", "tx-tcp-segmentation");
const GSO: (&str, &str) = ("gso", "generic-segmentation-offload");
const GRO: (&str, &str) = ("gro", "generic-receive-offload");

impl Offloads {
    /// All combinations.
    pub(crate) fn all() -> [Self; 8] {
        std::array::from_fn(|number| Self {
            checksum: number & 4 == 0,
            segmentation: number & 2 == 0,
            gro: number & 1 == 0,
        })
    }

    /// Gives an interface these, and tells in words which it has then: without checksums the kernel takes
    /// segmentation away as well.
    ///
    /// # Errors
    /// `ethtool` is missing, or the interface has not what does not hang on something else.
    pub(crate) fn choose(self, namespace: &Namespace, interface: &str) -> Result<String> {
        let wanted =
            [(TX, self.checksum), (TSO, self.segmentation), (GSO, self.segmentation), (GRO, self.gro)];
        let switches = wanted.iter().flat_map(|((switch, _), on)| [*switch, word(*on)]);
        // Its exit status also complains of a wish that is granted later, together with what it hangs on.
        ethtool(namespace, [&["-K", interface], switches.collect::<Vec<_>>().as_slice()].concat())?;
        let features = ethtool(namespace, vec!["-k", interface])?;
        let mut words = Vec::new();
        for (feature, on) in wanted {
            let has = is_on(&features, feature.1)?;
            let hangs_on_checksums = !self.checksum && [TSO, GSO].contains(&feature);
            ensure!(has == on || hangs_on_checksums, "{} stays {} on {interface}", feature.1, word(has));
            let fate = if has == on { word(on).to_owned() } else { format!("{}→{}", word(on), word(has)) };
            words.push(format!("{} {fate}", feature.0));
        }
        Ok(words.join(" "))
    }
}

fn word(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn ethtool(namespace: &Namespace, arguments: Vec<&str>) -> Result<String> {
    let mut command = Command::new("ethtool");
    command.args(arguments);
    let output = namespace.run(|| command.output())?.context("this needs the program 'ethtool'")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_on(features: &str, feature: &str) -> Result<bool> {
    let mut lines = features.lines().filter_map(|line| line.trim().split_once(':'));
    let (_, state) = lines.find(|(name, _)| *name == feature).with_context(|| format!("no {feature}"))?;
    Ok(state.trim().starts_with("on"))
}
