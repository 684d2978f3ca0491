//! How a proxy treats its clients and the services: what a person sets, as `proxy.hcl` says it. It is told on the holder's admin socket (see [`crate::route`]) and takes effect without a restart.
//!
//! Everything has a default, so `{"version": 1}` is whole. Sizes are in bytes and times in milliseconds.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The version of this language. A proxy refuses another one.
pub const SETTINGS_VERSION: u32 = 1;

/// All settings of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// [`SETTINGS_VERSION`].
    pub version: u32,
    /// Where clients come, beside the addresses of the command line.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// The certificates of all listeners with TLS. The first one is for clients that name no host, or one that none of them has.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    /// Where certificates are got from.
    #[serde(default)]
    pub acme: Option<Acme>,
    /// The file that a line of JSON is written to for each request. A file that was moved away is made anew.
    #[serde(default)]
    pub access_log: Option<PathBuf>,
    /// Where Prometheus finds `/metrics`: a loopback address. The admin socket of a worker has them, too.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// What holds for all clients, before their service is known.
    #[serde(default)]
    pub clients: Clients,
    /// By full service name.
    #[serde(default)]
    pub services: BTreeMap<String, Treatment>,
}

/// An address that clients come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The address.
    pub address: SocketAddr,
    /// What is spoken there.
    pub speaks: Speaks,
    /// The balancers before this proxy, that say in the PROXY protocol (version 1 or 2) who the client is. Whoever comes from another address is refused. Empty: nobody is before it.
    #[serde(default)]
    pub balancers: Vec<IpAddr>,
}

/// What is spoken on a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Speaks {
    /// HTTP/1.1, HTTP/1.0, and HTTP/2 to those who begin with it.
    Http,
    /// The same over TLS, with ALPN.
    Https,
    /// HTTP, and every request is sent on to `https` at this port.
    RedirectToHttps(u16),
    /// Whatever the nodes of this service speak: bytes are passed on.
    Tcp(String),
}

/// A certificate in PEM files. Files that change are taken up without a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate and those between it and its authority's root.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// An authority that gives certificates by ACME (RFC 8555), to whoever answers for a host on port 80.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// The address of its directory.
    pub directory: String,
    /// The e-mail address that it may write to.
    #[serde(default)]
    pub contact: Option<String>,
    /// Somebody has read the authority's terms of service and agrees to them; without that there is no account (RFC 8555, section 7.3).
    #[serde(default)]
    pub agrees_to_terms: bool,
    /// The hosts, all in one certificate.
    pub hosts: Vec<String>,
    /// A PEM file with the authorities that prove the directory itself, beside those that this machine trusts.
    #[serde(default)]
    pub authorities: Option<PathBuf>,
}

/// What holds for all clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clients {
    /// How long a connection may wait for its next request.
    pub idle_ms: u64,
    /// How long a request's head may take from its first byte on.
    pub head_ms: u64,
    /// The largest head of a request.
    pub head_bytes: usize,
    /// The most fields in it.
    pub head_fields: usize,
    /// How many connections one address may have; `None`: as many as there is room for.
    pub connections_per_address: Option<u32>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { idle_ms: 300_000, head_ms: 30_000, head_bytes: 64 * 1024, head_fields: 128, connections_per_address: None }
    }
}

/// How the requests of one service are treated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Treatment {
    /// More addresses that it answers, beside the one that it declares: `host`, or `host/path`.
    pub also: Vec<String>,
    /// What its nodes speak.
    pub nodes_speak: NodesSpeak,
    /// How a node is chosen among equal ones.
    pub balance: Balance,
    /// Keeps a client on one release, and on one node while that is there.
    pub sticky: Option<Sticky>,
    /// Whose requests go to the newest release that has any share of the traffic.
    pub testers: Option<Testers>,
    /// The largest body of a request; `None`: any.
    pub body_bytes: Option<u64>,
    /// How many requests may be on their way to its nodes at a time, through this proxy; `None`: as many as come.
    pub requests_in_flight: Option<u32>,
    /// How many requests one client's address may send.
    pub rate: Option<Rate>,
    /// How long the parts of a request may take.
    pub timeouts: Timeouts,
    /// Nobody gets further than this page.
    pub maintenance: Option<Maintenance>,
    /// Answers say in their head which release and node they are from.
    pub tells_release: bool,
    /// For so long after it gets its first share a node's share grows to what it is to be; 0: it has it at once.
    pub slow_start_ms: u64,
    /// After so many requests in a row that came to nothing on a node it is left alone for 10 s, while there are other nodes of its release and weight; `None`: its checks alone decide.
    pub eject_after: Option<u32>,
}

impl Default for Treatment {
    fn default() -> Self {
        Self {
            also: Vec::new(),
            nodes_speak: NodesSpeak::default(),
            balance: Balance::default(),
            sticky: None,
            testers: None,
            body_bytes: None,
            requests_in_flight: None,
            rate: None,
            timeouts: Timeouts::default(),
            maintenance: None,
            tells_release: true,
            slow_start_ms: 0,
            eject_after: Some(5),
        }
    }
}

/// What the nodes of a service speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodesSpeak {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, from its first byte on (RFC 9113, section 3.3): what gRPC needs.
    Http2,
}

/// How a node is chosen among those of one release and one weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The less busy one of two that are drawn.
    #[default]
    TwoChoices,
    /// One after the other.
    RoundRobin,
}

/// A cookie that keeps a client where it is. When its release has no share of the traffic any more, the client moves, and gets a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
}

/// Who tries a new release first. One of the two is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Testers {
    /// A header's name and value.
    pub header: Option<(String, String)>,
    /// A cookie's name and value.
    pub cookie: Option<(String, String)>,
}

/// How many requests may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// So many in a second, in the long run.
    pub per_second: u32,
    /// So many at once.
    pub burst: u32,
}

/// How long the parts of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Silence of the client inside its body.
    pub body_ms: u64,
    /// Connecting to a node.
    pub connect_ms: u64,
    /// From the last byte of the request to the first of the answer.
    pub answer_ms: u64,
    /// Silence of the node inside its answer; 0: any, as long streams of events need.
    pub answer_body_ms: u64,
    /// How long a client may leave what it gets unread.
    pub unread_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { body_ms: 60_000, connect_ms: 2_000, answer_ms: 60_000, answer_body_ms: 0, unread_ms: 300_000 }
    }
}

/// A page instead of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Maintenance {
    /// What it says; as HTML when it begins with `<`.
    pub page: String,
    /// When to come again, in seconds.
    pub retry_after_s: Option<u32>,
}
