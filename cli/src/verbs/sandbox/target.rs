//! What `network connect` and `disconnect` name: sandboxes, processes, namespaces.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;

use crate::args::Target;
use crate::client::Client;
use crate::failure::{Failure, Outcome};

/// The name the agent knows the target by; a namespace it does not know yet is handed to it.
pub(crate) fn resolve(target: &Target, client: &Client) -> Outcome<String> {
    match target {
        Target::Sandbox(name) => Ok(name.clone()),
        Target::Process(pid) => {
            adopt(&format!("pid-{pid}"), Path::new(&format!("/proc/{pid}/ns/net")), client)
        }
        Target::Path(namespace) => adopt(&name_of(namespace)?, namespace, client),
    }
}

fn adopt(name: &str, namespace: &Path, client: &Client) -> Outcome<String> {
    let file =
        File::open(namespace).with_context(|| format!("open the namespace {}", namespace.display()))?;
    Ok(client.adopt(name, file.as_fd())?.name)
}

/// The last part of the path, with what a name may not hold replaced.
fn name_of(namespace: &Path) -> Outcome<String> {
    let Some(last) = namespace.file_name() else {
        return Err(Failure::Usage(format!("{} is not the path of a namespace", namespace.display())));
    };
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
    let name: String = last.to_string_lossy().chars().map(allowed).collect();
    Ok(name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).chars().take(63).collect())
}
