//! What is asked of every proxy.

use crate::bench::load::{Load, Style};

/// A kind of traffic.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// As it stands in the results.
    pub name: &'static str,
    /// What is sent.
    pub load: Load,
    /// Through the listener with TLS.
    pub tls: bool,
}

const fn kept(name: &'static str, connections: usize, path: &'static str) -> Scenario {
    Scenario { name, load: Load { connections, path, style: Style::Kept }, tls: false }
}

/// All kinds, the first is the project's yardstick.
pub const SCENARIOS: &[Scenario] = &[
    kept("small-64", 64, "/small"),
    kept("small-1000", 1000, "/small"),
    Scenario { name: "one-shot", load: Load { connections: 64, path: "/small", style: Style::OneShot }, tls: false },
    kept("body-64k", 64, "/64k"),
    kept("body-10m", 16, "/10m"),
    Scenario { name: "upload-64k", load: Load { connections: 64, path: "/upload", style: Style::Upload(64 << 10) }, tls: false },
    Scenario { name: "upload-1m", load: Load { connections: 16, path: "/upload", style: Style::Upload(1 << 20) }, tls: false },
    Scenario { name: "tls", load: Load { connections: 64, path: "/small", style: Style::Kept }, tls: true },
    Scenario { name: "http2", load: Load { connections: 16, path: "/small", style: Style::Http2(8) }, tls: true },
];
