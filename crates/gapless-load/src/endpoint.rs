//! Where to connect and as whom to ask: a target, read once.

use std::net::{IpAddr, SocketAddr};

use crate::error::LoadError;
use crate::plan::Target;

/// A target after reading: every part is known to be well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether TLS is spoken.
    pub secure: bool,
    /// Name or address of the host, without brackets; the name TLS has to prove.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Where to connect without asking DNS.
    pub address: Option<SocketAddr>,
    /// The `Host` header.
    pub host_header: String,
}

/// A URL cut into the endpoint and the rest, which starts with a slash.
pub fn parse_url(url: &str) -> Result<(Endpoint, String), LoadError> {
    let wrong =
        |what: &str| LoadError::new(format!("the URL {url:?} {what}"), "write it as http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH");
    let (secure, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err(wrong("is neither http nor https")),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let cut = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(cut);
    if authority.contains('@') {
        return Err(wrong("carries a user name"));
    }
    let (host, port) = split_authority(authority).ok_or_else(|| wrong("has no proper host and port"))?;
    let port = port.unwrap_or(if secure { 443 } else { 80 });
    let address = host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port));
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let host_header = authority.to_owned();
    Ok((Endpoint { secure, host: host.to_owned(), port, address, host_header }, path))
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if host.is_empty() || !host.bytes().all(named) {
        return None;
    }
    match port {
        None => Some((host, None)),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((host, Some(digits.parse().ok().filter(|port| *port != 0)?)))
        }
        Some(_) => None,
    }
}

impl Endpoint {
    /// Reads a plan's target; its URL has no path, for the classes have theirs.
    pub fn of_target(target: &Target) -> Result<Self, LoadError> {
        let (mut endpoint, path) = parse_url(&target.url)?;
        if path != "/" {
            return Err(LoadError::new(format!("the target {:?} has a path", target.url), "leave the path to the classes of the plan"));
        }
        if let Some(host) = &target.host {
            endpoint.host_header = checked_host(host)?.to_owned();
        }
        if target.address.is_some() {
            endpoint.address = target.address;
        }
        Ok(endpoint)
    }
}

fn checked_host(host: &str) -> Result<&str, LoadError> {
    if !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(host);
    }
    Err(LoadError::new(format!("the Host header {host:?} cannot be sent"), "use a name of printable ASCII characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts_ports_and_paths() {
        let table = [
            ("http://a", false, "a", 80, "a", "/"),
            ("https://a.example", true, "a.example", 443, "a.example", "/"),
            ("http://a:8080/x?y=1#z", false, "a", 8080, "a:8080", "/x?y=1"),
            ("http://a?q", false, "a", 80, "a", "/?q"),
            ("http://[::1]:81/", false, "::1", 81, "[::1]:81", "/"),
            ("http://127.0.0.1", false, "127.0.0.1", 80, "127.0.0.1", "/"),
        ];
        for (url, secure, host, port, header, path) in table {
            let (endpoint, rest) = parse_url(url).unwrap();
            assert_eq!((endpoint.secure, endpoint.port), (secure, port), "{url}");
            assert_eq!((endpoint.host.as_str(), endpoint.host_header.as_str()), (host, header), "{url}");
            assert_eq!(rest, path, "{url}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_url() {
        let table = [
            "",
            "a",
            "ftp://a",
            "http://",
            "http://:80",
            "http://a:",
            "http://a:x",
            "http://a:0",
            "http://a:65536",
            "http://u@a",
            "http://[::1",
            "http://[x]",
            "http://[::1]x",
            "http://a b",
        ];
        for url in table {
            assert!(parse_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_target_overrides_host_and_address() {
        let target = Target::address("127.0.0.1:9".parse().unwrap(), "web.example");
        let endpoint = Endpoint::of_target(&target).unwrap();
        assert_eq!(endpoint.host_header, "web.example");
        assert_eq!(endpoint.address, Some("127.0.0.1:9".parse().unwrap()));
        assert!(Endpoint::of_target(&Target::url("http://a/b")).is_err());
        assert!(Endpoint::of_target(&Target::address("127.0.0.1:9".parse().unwrap(), "a\r\nb")).is_err());
    }
}
