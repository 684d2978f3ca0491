//! `proxy.hcl`: how a proxy treats its clients and the services.
//!
//! As with `gapless.hcl`, every fault is told at the same time, and what comes out is within every limit. Whether an address is free and a certificate is one, only the proxy can tell.

mod certificate;
mod listener;
mod service;
mod value;

#[cfg(test)]
mod tests;

pub use crate::hcl::{Fault, Faults};

use crate::hcl::{self, FILE_LIMIT, Section, number, size, span_of, whole};
use gapless_wire::api::Problem;
use gapless_wire::settings::{Clients, SETTINGS_VERSION, Settings, Speaks};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;
use value::{DAY, loopback, milliseconds, path};

/// The file's name, in the state folder of a proxy.
pub const FILE: &str = "proxy.hcl";

/// The shortest time that a client is given, where it is not 0: in less, nothing comes over a slow line.
const WAIT_LOWEST: Duration = Duration::from_millis(100);

/// The longest time for one head: what takes longer only holds a place.
const HEAD_HIGHEST: Duration = Duration::from_secs(3600);

/// Between these sizes the limit of a head may be, in bytes: below, ordinary requests are refused; above, a client without a request holds too much.
const HEAD_SIZE: (u64, u64) = (1024, 1024 * 1024);

/// Between these numbers the limit of a head's fields may be: a browser alone sends a dozen, and the proxy has room for no more than the highest.
const HEAD_FIELDS: (u64, u64) = (16, 128);

/// The highest limit of connections for one address: a proxy has not more file descriptors.
const CONNECTIONS_HIGHEST: u64 = 1_000_000;

/// The port where an authority asks for the proof of a host (RFC 8555, section 8.3).
const CHALLENGE_PORT: u16 = 80;

/// Reads a `proxy.hcl`, and the pages that it names.
///
/// # Errors
/// When the file cannot be read, or with all of its faults.
pub fn read(path: &Path) -> Result<Settings, Problem> {
    let shown = path.display().to_string();
    let problem = |what: String, hint: &str| Problem { what, place: None, hint: Some(hint.into()) };
    let cannot = |error: std::io::Error| {
        let hint = match error.kind() {
            ErrorKind::NotFound => "write it, or name another file with `--settings`",
            _ => "look at the file and its rights",
        };
        problem(format!("{shown} cannot be read: {error}"), hint)
    };
    let path = std::path::absolute(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    // One more than may be, so that a file that is too long is told from one that just fits.
    let most = u64::try_from(FILE_LIMIT).unwrap_or(u64::MAX).saturating_add(1);
    File::open(&path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(cannot)?;
    let text = String::from_utf8(bytes).map_err(|_| problem(format!("{shown} is no UTF-8 text"), "save it as UTF-8"))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    parse(&shown, &text, folder).map_err(|faults| faults.problem("correct it; until then the proxy goes on with the settings that it has"))
}

/// Reads the text of a `proxy.hcl`. `file` is the name that faults are told with, `folder` is where its relative paths begin.
///
/// # Errors
/// Every fault of the text.
pub fn parse(file: &str, text: &str, folder: &Path) -> Result<Settings, Faults> {
    hcl::parse(file, text, |top| {
        let settings = settings(top, folder);
        top.close();
        check_fit(top, &settings);
        settings
    })
}

fn settings(top: &Section<'_>, folder: &Path) -> Settings {
    Settings {
        version: SETTINGS_VERSION,
        listeners: listener::read(top),
        certificates: certificate::read(top, folder),
        acme: certificate::acme(top, folder),
        access_log: top.optional("access_log", path(folder)),
        metrics: top.optional("metrics", loopback),
        clients: top.block("clients", clients).unwrap_or_default(),
        services: service::read(top, folder),
    }
}

fn clients(section: &Section<'_>) -> Clients {
    let default = Clients::default();
    let as_size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Clients {
        idle_ms: section.or("idle", default.idle_ms, milliseconds(WAIT_LOWEST, DAY)),
        head_ms: section.or("head", default.head_ms, milliseconds(WAIT_LOWEST, HEAD_HIGHEST)),
        head_bytes: section.optional("head_size", size(HEAD_SIZE.0, HEAD_SIZE.1)).map_or(default.head_bytes, as_size),
        head_fields: section.optional("head_fields", whole(HEAD_FIELDS.0, HEAD_FIELDS.1)).map_or(default.head_fields, as_size),
        connections_per_address: section.optional("connections_per_address", whole(1, CONNECTIONS_HIGHEST)).map(number),
    }
}

/// What must fit together.
fn check_fit(top: &Section<'_>, settings: &Settings) {
    let listener_of = |wanted: &dyn Fn(&Speaks) -> bool| settings.listeners.iter().position(|listener| wanted(&listener.speaks));
    let blocks = top.blocks("listener");
    if blocks.len() != settings.listeners.len() {
        // One of them has no address; whether the others fit is seen when it has.
        return;
    }
    if settings.certificates.is_empty()
        && settings.acme.is_none()
        && let Some(at) = listener_of(&|speaks| *speaks == Speaks::Https)
    {
        let place = span_of(&blocks[at].ident);
        top.fault(place, "this listener speaks `https`, but there is no certificate", "add a `certificate` block, or `acme`");
    }
    let challenged = |speaks: &Speaks| matches!(speaks, Speaks::Http | Speaks::RedirectToHttps(_));
    let is_asked = settings.listeners.iter().any(|listener| listener.address.port() == CHALLENGE_PORT && challenged(&listener.speaks));
    if let (Some(acme), false) = (top.blocks("acme").first(), is_asked) {
        let what = "an authority asks for its proof on port 80, where no listener of this file speaks HTTP";
        let hint = "add `listener \"0.0.0.0:80\" {}`, with `redirect_to_https = 443` if it serves nothing else; one that the command line names is written here, too";
        top.fault(span_of(&acme.ident), what, hint);
    }
    if let Some(metrics) = settings.metrics.filter(|metrics| settings.listeners.iter().any(|listener| listener.address == *metrics)) {
        top.fault_at("metrics", format!("`metrics` is {metrics}, where a listener serves clients"), "give it a port of its own");
    }
}
