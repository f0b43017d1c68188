//! What every host should see, put together from what each host has, and whether it does.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::rig::{Host, Rig};
use crate::wait::eventually;

/// One endpoint as all hosts should see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    mac: String,
    ips: BTreeSet<String>,
    node: String,
    endpoint: String,
    vtep: Option<String>,
    state: String,
}

impl Rig {
    /// Waits until every running host's FDB of `network` equals the endpoints the running hosts have; no MAC
    /// and no address may be there twice at any look.
    pub(crate) fn converge(&self, network: &str) {
        let hosts: Vec<&Host> = self.running().collect();
        for viewer in &hosts {
            eventually(&format!("{} sees {network} as it is", viewer.name), || {
                let truth: BTreeSet<Entry> =
                    hosts.iter().flat_map(|owner| owned(owner, viewer, network)).collect();
                assert_no_doubles(&truth);
                let view = view(viewer, network)?;
                if view == truth { Ok(()) } else { Err(format!("sees {view:#?}, truth {truth:#?}")) }
            });
        }
    }
}

/// The endpoints of `owner` in `network`, as `viewer` should see them.
fn owned(owner: &Host, viewer: &Host, network: &str) -> Vec<Entry> {
    let local = owner.name == viewer.name;
    let advertised = owner.json(&["status"])["Advertise"].as_str().expect("an address").to_owned();
    let vtep =
        if advertised.contains(':') { format!("[{advertised}]:4789") } else { format!("{advertised}:4789") };
    let sandboxes = owner.json(&["sandbox", "ls"]);
    let attached =
        sandboxes.as_array().into_iter().flatten().filter(|sandbox| sandbox["Networks"][network].is_object());
    let entry = |sandbox: &Value| {
        let end = &sandbox["Networks"][network];
        let ips = ["IPAddress", "GlobalIPv6Address"]
            .map(|field| end[field].as_str().unwrap_or_default().to_owned());
        Entry {
            mac: text(&end["MacAddress"]),
            ips: ips.into_iter().filter(|ip| !ip.is_empty()).collect(),
            node: owner.name.clone(),
            endpoint: text(&sandbox["Name"]),
            vtep: if local { None } else { Some(vtep.clone()) },
            state: if local { "local" } else { "remote" }.to_owned(),
        }
    };
    attached.map(entry).collect()
}

/// What `viewer` sees of `network`.
pub(crate) fn view(viewer: &Host, network: &str) -> Result<BTreeSet<Entry>, String> {
    let answer = viewer.weft(&["fdb", network, "--json"]);
    if answer.code != 0 {
        return Err(format!("{answer:?}"));
    }
    let entry = |row: &Value| Entry {
        mac: text(&row["Mac"]),
        ips: row["Ips"].as_array().into_iter().flatten().map(text).collect(),
        node: text(&row["Node"]),
        endpoint: text(&row["Endpoint"]),
        vtep: row["Vtep"].as_str().map(str::to_owned),
        state: text(&row["State"]),
    };
    Ok(answer.json().as_array().into_iter().flatten().map(entry).collect())
}

/// Names of the endpoints `viewer` sees in `state`.
pub(crate) fn in_state(viewer: &Host, network: &str, state: &str) -> BTreeSet<String> {
    view(viewer, network)
        .unwrap_or_default()
        .into_iter()
        .filter(|e| e.state == state)
        .map(|e| e.endpoint)
        .collect()
}

fn assert_no_doubles(entries: &BTreeSet<Entry>) {
    let mut owners: BTreeMap<&str, &Entry> = BTreeMap::new();
    for entry in entries {
        for key in entry.ips.iter().map(String::as_str).chain([entry.mac.as_str()]) {
            let other = owners.insert(key, entry);
            assert!(other.is_none(), "{key} is there twice: {entry:?} and {other:?}");
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
