//! Published ports as tables show them: `0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 443/tcp`.

use weft_control::publish::{Port, PortMap};

/// Ports next to each other that lead to ports next to each other.
#[derive(Debug)]
struct Run {
    host: Option<String>,
    first: (u16, u16),
    last: (u16, u16),
    port: Port,
}

/// The cell of a sandbox's ports, as Docker's: runs of ports in one, ports without binding by themselves.
pub(crate) fn ports_cell(ports: &PortMap) -> String {
    let mut found: Vec<(Port, Option<String>, u16)> = Vec::new();
    for (port, bindings) in ports {
        let Ok(port) = port.parse::<Port>() else { continue };
        match bindings.as_deref() {
            None | Some([]) => found.push((port, None, 0)),
            Some(bindings) => {
                found.extend(bindings.iter().map(|binding| {
                    (port, Some(binding.host_ip.clone()), binding.host_port.parse().unwrap_or(0))
                }));
            }
        }
    }
    found.sort_by(|a, b| (a.0.protocol, &a.1, a.0.number, a.2).cmp(&(b.0.protocol, &b.1, b.0.number, b.2)));
    let mut runs: Vec<Run> = Vec::new();
    for (port, host, on_host) in found {
        let at = (port.number, on_host);
        match runs.last_mut() {
            Some(run) if run.continues(port, host.as_ref(), at) => run.last = at,
            _ => runs.push(Run { host, first: at, last: at, port }),
        }
    }
    runs.sort_by_key(|run| (run.first.0, run.port.protocol, run.host.is_none()));
    runs.iter().map(Run::shown).collect::<Vec<_>>().join(", ")
}

impl Run {
    fn continues(&self, port: Port, host: Option<&String>, (number, on_host): (u16, u16)) -> bool {
        let next = number.checked_sub(1) == Some(self.last.0);
        let next_on_host = host.is_none() || on_host.checked_sub(1) == Some(self.last.1);
        self.port.protocol == port.protocol && self.host.as_ref() == host && next && next_on_host
    }

    fn shown(&self) -> String {
        let range = |first: u16, last: u16| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        let inner = format!("{}/{}", range(self.first.0, self.last.0), self.port.protocol);
        let Some(host) = &self.host else { return inner };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        format!("{host}:{}->{inner}", range(self.first.1, self.last.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(json: serde_json::Value) -> String {
        ports_cell(&serde_json::from_value(json).expect("ports"))
    }

    #[test]
    fn ports_are_shown_as_docker_shows_them() {
        let on = |host: &str, port: &str| serde_json::json!({"HostIp": host, "HostPort": port});
        let both = [on("0.0.0.0", "8080"), on("::", "8080")];
        let shown =
            cell(serde_json::json!({"80/tcp": both, "443/tcp": null, "53/udp": [on("127.0.0.1", "53")]}));
        assert_eq!(shown, "127.0.0.1:53->53/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 443/tcp");
        let shown = cell(serde_json::json!({
            "80/tcp": [on("0.0.0.0", "8000")], "81/tcp": [on("0.0.0.0", "8001")], "82/tcp": [on("0.0.0.0", "9")],
            "90/tcp": null, "91/tcp": null
        }));
        assert_eq!(shown, "0.0.0.0:8000-8001->80-81/tcp, 0.0.0.0:9->82/tcp, 90-91/tcp");
        assert_eq!(cell(serde_json::json!({})), "");
    }
}
