//! What people write after `-p` and `--expose`; texts as Docker's.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::{Port, Protocol, Wish};

/// Why what was written cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Neither `tcp`, `udp` nor `sctp`.
    #[error("invalid proto: {0}")]
    Protocol(String),
    /// Not an address.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// A bracket that does not end.
    #[error("invalid IP address {0}: address {0}: missing ']' in address")]
    Bracket(String),
    /// Nothing behind the last colon.
    #[error("no port specified: {0}<empty>")]
    Empty(String),
    /// The sandbox's port is none.
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    /// The host's port is none.
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    /// Two ranges of different lengths.
    #[error("invalid ranges specified for container and host Ports: {0} and {1}")]
    Ranges(String, String),
    /// The long form without a `=`.
    #[error("invalid publish opts format (should be name=value but got '{0}')")]
    LongForm(String),
    /// What is exposed is no port.
    #[error("invalid range format for --expose: {0}")]
    Expose(String),
}

/// Reads `[IP:][HOST:]CONTAINER[/PROTOCOL]`, ports or ranges, or `published=HOST,target=CONTAINER,protocol=PROTOCOL`.
///
/// # Errors
/// What is wrong with it, in Docker's words.
pub fn parse_publish(text: &str) -> Result<Vec<Wish>, SpecError> {
    if text.contains('=') { parse_short(&short_form(text)?) } else { parse_short(text) }
}

fn short_form(text: &str) -> Result<String, SpecError> {
    let (mut host, mut port, mut protocol) = ("", "", "tcp");
    for pair in text.split(',') {
        match pair.split_once('=') {
            Some(("published", value)) => host = value,
            Some(("target", value)) => port = value,
            Some(("protocol", value)) => protocol = value,
            Some((key, _)) if !key.is_empty() => {}
            _ => return Err(SpecError::LongForm(pair.to_owned())),
        }
    }
    Ok(format!("{host}:{port}/{protocol}"))
}

fn parse_short(text: &str) -> Result<Vec<Wish>, SpecError> {
    let (address, host, container) = split(text);
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    let protocol: Protocol =
        protocol.parse().map_err(|_| SpecError::Protocol(protocol.to_ascii_lowercase()))?;
    let address = if address.is_empty() { None } else { Some(parse_address(address)?) };
    if container.is_empty() {
        return Err(SpecError::Empty(text.to_owned()));
    }
    let ports = range(container).filter(|ports| *ports.start() != 0);
    let ports = ports.ok_or_else(|| SpecError::ContainerPort(container.to_owned()))?;
    let hosts = match host {
        "" => None,
        text => Some(range(text).ok_or_else(|| SpecError::HostPort(text.to_owned()))?),
    };
    if let Some(hosts) = &hosts
        && ports.len() != 1
        && ports.len() != hosts.len()
    {
        return Err(SpecError::Ranges(container.to_owned(), host.to_owned()));
    }
    let single = ports.len() == 1;
    let wish = |(place, number): (u16, u16)| {
        let of_host = |hosts: &RangeInclusive<u16>| {
            let first = hosts.start() + if single { 0 } else { place };
            // Port 0 is any port, as for bind(2).
            (first != 0).then(|| first..=if single { *hosts.end() } else { first })
        };
        Wish { port: Port { number, protocol }, host: address, host_ports: hosts.as_ref().and_then(of_host) }
    };
    Ok((0..).zip(ports).map(wish).collect())
}

/// Address, host port, container port; the address may be IPv6 without brackets.
fn split(text: &str) -> (&str, &str, &str) {
    let Some((before, container)) = text.rsplit_once(':') else { return ("", "", text) };
    match before.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", before, container),
    }
}

fn parse_address(text: &str) -> Result<IpAddr, SpecError> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(|| SpecError::Bracket(text.to_owned()))?,
        None => text,
    };
    bare.parse().map_err(|_| SpecError::Address(bare.to_owned()))
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
    let range: RangeInclusive<u16> = digits(first)?..=digits(last)?;
    (!range.is_empty()).then_some(range)
}

/// Reads what stands after `--expose`: `PORT[-PORT][/PROTOCOL]`.
///
/// # Errors
/// It is no port.
pub fn parse_expose(text: &str) -> Result<Vec<Port>, SpecError> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, ""));
    let protocol: Protocol = protocol.parse().map_err(|_| SpecError::Protocol(protocol.to_owned()))?;
    let ports = range(ports).filter(|ports| *ports.start() != 0);
    let ports = ports.ok_or_else(|| SpecError::Expose(text.to_owned()))?;
    Ok(ports.map(|number| Port { number, protocol }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `HOST-ADDRESS HOST-PORTS PORT`, one a wish.
    fn read(text: &str) -> Vec<String> {
        let wishes = parse_publish(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        let shown = |wish: &Wish| {
            let host = wish.host.map_or("-".to_owned(), |host| host.to_string());
            let ports = wish.host_ports.as_ref().map_or("-".to_owned(), |ports| format!("{ports:?}"));
            format!("{host} {ports} {}", wish.port)
        };
        wishes.iter().map(shown).collect()
    }

    #[test]
    fn every_form_of_a_binding_is_read() {
        assert_eq!(read("80"), ["- - 80/tcp"]);
        assert_eq!(read("8080:80/UDP"), ["- 8080..=8080 80/udp"]);
        assert_eq!(read("127.0.0.1:8080:80"), ["127.0.0.1 8080..=8080 80/tcp"]);
        assert_eq!(read("127.0.0.1::80/sctp"), ["127.0.0.1 - 80/sctp"]);
        assert_eq!(read("[::1]:8080:80"), ["::1 8080..=8080 80/tcp"]);
        assert_eq!(read("::1:8080:80"), ["::1 8080..=8080 80/tcp"]);
        assert_eq!(read("8000-8001:80-81"), ["- 8000..=8000 80/tcp", "- 8001..=8001 81/tcp"]);
        assert_eq!(read("8000-8010:80"), ["- 8000..=8010 80/tcp"]);
        assert_eq!(read("80-81"), ["- - 80/tcp", "- - 81/tcp"]);
        assert_eq!(read("0:80"), ["- - 80/tcp"]);
        assert_eq!(read("published=8080,target=80,protocol=udp,mode=host"), ["- 8080..=8080 80/udp"]);
    }

    #[test]
    fn what_is_no_binding_is_refused_in_dockers_words() {
        for (bad, text) in [
            ("", "no port specified: <empty>"),
            (":", "no port specified: :<empty>"),
            ("80:", "no port specified: 80:<empty>"),
            ("abc:80", "invalid hostPort: abc"),
            ("70000:80", "invalid hostPort: 70000"),
            ("-1:80", "invalid hostPort: -1"),
            ("+1:80", "invalid hostPort: +1"),
            ("80:abc", "invalid containerPort: abc"),
            ("80:0", "invalid containerPort: 0"),
            ("65536", "invalid containerPort: 65536"),
            ("80-70:80-70", "invalid containerPort: 80-70"),
            ("8080:80/foo", "invalid proto: foo"),
            ("1.2.3.4.5:80:80", "invalid IP address: 1.2.3.4.5"),
            ("a:b:c:80", "invalid IP address: a:b"),
            ("[::1:80:80", "invalid IP address [::1: address [::1: missing ']' in address"),
            ("8000-8010:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000-8010"),
            ("target=80,x", "invalid publish opts format (should be name=value but got 'x')"),
        ] {
            assert_eq!(parse_publish(bad).expect_err(bad).to_string(), text, "{bad}");
        }
    }

    #[test]
    fn ports_are_exposed_singly_and_by_ranges() {
        let ports = parse_expose("80-81/udp").expect("ports");
        assert_eq!(ports.iter().map(ToString::to_string).collect::<Vec<_>>(), ["80/udp", "81/udp"]);
        for bad in ["", "0", "a", "2-1", "65536", "80/x"] {
            assert!(parse_expose(bad).is_err(), "{bad}");
        }
    }
}
