//! What a user wants of a sandbox's names: `--hostname`, `--dns`, `--dns-search`, `--dns-option`, `--add-host`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Most servers, domains, options or hosts.
const MAX: usize = 64;
/// Longest of them, octets.
const MAX_LEN: usize = 255;

/// Wishes, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wishes {
    /// What the sandbox calls itself; empty for the first 12 digits of its id.
    pub hostname: String,
    /// Servers for names outside, instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Domains a name is looked for in, instead of the host's; `.` alone for none.
    pub search: Vec<String>,
    /// Options of the resolver, instead of the host's.
    pub options: Vec<String>,
    /// Further lines of the hosts file: name and address.
    pub hosts: Vec<(String, IpAddr)>,
}

/// A wish that cannot be fulfilled: its writer's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// As Docker says it.
    #[error("invalid hostname format: {0}")]
    Hostname(String),
    /// As Docker says it.
    #[error("{0} is not an ip address")]
    Server(String),
    /// As Docker says it.
    #[error("{0} is not a valid domain")]
    Domain(String),
    /// A line's end in it would be a line of its own.
    #[error("{0:?} is not an option of resolv.conf")]
    Option(String),
    /// As Docker says it.
    #[error("bad format for add-host: {0:?}")]
    HostFormat(String),
    /// As Docker says it.
    #[error("invalid IP address in add-host: {0:?}")]
    HostAddress(String),
    /// More than anybody needs.
    #[error("too many DNS servers, domains, options or hosts: {MAX} of each at most")]
    TooMany,
}

impl Wishes {
    /// Checks what a user wrote; `hosts` are `NAME:ADDRESS` or `NAME=ADDRESS`.
    ///
    /// # Errors
    /// The first wish that cannot be fulfilled.
    pub fn check(
        hostname: &str,
        dns: &[String],
        search: &[String],
        options: &[String],
        hosts: &[String],
    ) -> Result<Self, WishError> {
        if [dns, search, options, hosts].iter().any(|list| list.len() > MAX) {
            return Err(WishError::TooMany);
        }
        if !hostname.is_empty() && !is_host(hostname) {
            return Err(WishError::Hostname(shorten(hostname)));
        }
        Ok(Self {
            hostname: hostname.to_owned(),
            dns: each(dns, |text| text.parse().map_err(|_| WishError::Server(shorten(text))))?,
            search: each(search, search_domain)?,
            options: each(options, option)?,
            hosts: each(hosts, host)?,
        })
    }
}

fn each<T>(texts: &[String], read: impl Fn(&str) -> Result<T, WishError>) -> Result<Vec<T>, WishError> {
    texts.iter().map(|text| read(text)).collect()
}

fn search_domain(text: &str) -> Result<String, WishError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if text == "." || is_host(name) { Ok(text.to_owned()) } else { Err(WishError::Domain(shorten(text))) }
}

fn option(text: &str) -> Result<String, WishError> {
    let sound =
        !text.is_empty() && text.len() <= MAX_LEN && text.bytes().all(|octet| octet.is_ascii_graphic());
    if sound { Ok(text.to_owned()) } else { Err(WishError::Option(shorten(text))) }
}

fn host(text: &str) -> Result<(String, IpAddr), WishError> {
    let format = || WishError::HostFormat(shorten(text));
    let at = text.find(['=', ':']).ok_or_else(format)?;
    let (name, address) = (&text[..at], &text[at + 1..]);
    if !is_host(name) {
        return Err(format());
    }
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    let address = bare.parse().map_err(|_| WishError::HostAddress(shorten(address)))?;
    Ok((name.to_owned(), address))
}

/// Labels of letters, digits, `-` and `_`, 253 octets in all.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let usual = label.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet));
        usual && (1..=63).contains(&label.len()) && !label.starts_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hostname: &str, dns: &str, search: &str, option: &str, host: &str) -> Result<Wishes, WishError> {
        let list = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
        Wishes::check(hostname, &list(dns), &list(search), &list(option), &list(host))
    }

    #[test]
    fn what_docker_takes_is_taken() {
        let wishes =
            check("web-1.example", "192.0.2.53", "example.org.", "ndots:2", "db:192.0.2.7").expect("sound");
        assert_eq!(wishes.dns, ["192.0.2.53".parse::<IpAddr>().expect("address")]);
        assert_eq!(wishes.hosts, [("db".to_owned(), "192.0.2.7".parse().expect("address"))]);
        for host in ["db=2001:db8::1", "db:2001:db8::1", "db:[2001:db8::1]"] {
            let wishes = check("", "", ".", "", host).expect(host);
            assert_eq!(wishes.hosts[0].1, "2001:db8::1".parse::<IpAddr>().expect("address"), "{host}");
        }
    }

    #[test]
    fn what_would_be_another_line_of_a_file_is_refused_in_dockers_words() {
        let texts = [
            (check("a b", "", "", "", ""), "invalid hostname format: a b"),
            (check("-a", "", "", "", ""), "invalid hostname format: -a"),
            (check("", "dns.example", "", "", ""), "dns.example is not an ip address"),
            (
                check("", "", "a\nnameserver 192.0.2.1", "", ""),
                "a\nnameserver 192.0.2.1 is not a valid domain",
            ),
            (check("", "", "", "ndots:1\nx", ""), "\"ndots:1\\nx\" is not an option of resolv.conf"),
            (check("", "", "", "", "db"), "bad format for add-host: \"db\""),
            (check("", "", "", "", "d b:192.0.2.1"), "bad format for add-host: \"d b:192.0.2.1\""),
            (check("", "", "", "", "db:nowhere"), "invalid IP address in add-host: \"nowhere\""),
        ];
        for (outcome, text) in texts {
            assert_eq!(outcome.expect_err(text).to_string(), text);
        }
        let many = vec!["192.0.2.1".to_owned(); MAX + 1];
        assert_eq!(Wishes::check("", &many, &[], &[], &[]), Err(WishError::TooMany));
    }
}
