//! Values of `proxy.hcl`: each reader says what it accepts.

use crate::hcl::{Complaint, map, suggestion, text, time};
use gapless_core::name::ServiceName;
use hcl_edit::expr::Expression;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest of all times.
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The longest name of a header or a cookie, in bytes: a bound against slips.
const TOKEN_LIMIT: usize = 64;

/// The longest value of a header or a cookie that is compared, in bytes: a bound against slips.
const VALUE_LIMIT: usize = 256;

/// A span of time within bounds, in milliseconds.
pub(super) fn milliseconds(lowest: Duration, highest: Duration) -> impl Fn(&Expression) -> Result<u64, Complaint> {
    let read = time(lowest, highest);
    move |value| Ok(u64::try_from(read(value)?.as_millis()).unwrap_or(u64::MAX))
}

/// A span of time within bounds, in whole seconds.
pub(super) fn seconds(lowest: Duration, highest: Duration) -> impl Fn(&Expression) -> Result<u32, Complaint> {
    let read = time(lowest, highest);
    move |value| {
        let span = read(value)?;
        let whole = u32::try_from(span.as_secs()).ok().filter(|_| span.subsec_millis() == 0);
        whole.ok_or_else(|| Complaint::new(format!("is \"{}\"", value.as_str().unwrap_or_default()), "whole seconds, such as \"60s\""))
    }
}

/// A path; a relative one begins in `folder`.
pub(super) fn path(folder: &Path) -> impl Fn(&Expression) -> Result<PathBuf, Complaint> {
    move |value| {
        let path = text(value)?;
        if path.is_empty() || path.contains('\0') {
            return Err(Complaint::new(format!("is \"{}\"", path.escape_debug()), "a path, absolute or from the folder of this file on"));
        }
        Ok(folder.join(path))
    }
}

/// An address with a port, or what is wrong with it.
pub(super) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    let hint = "an IP address and a port from 1 to 65535, such as \"0.0.0.0:443\" or \"[::]:443\"";
    text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0).ok_or(hint)
}

/// An address that only this machine reaches.
pub(super) fn loopback(value: &Expression) -> Result<SocketAddr, Complaint> {
    let shown = text(value)?;
    let wrong = |hint: &str| Complaint::new(format!("is \"{shown}\""), hint);
    let address = address(&shown).map_err(|_| wrong("a loopback address and a port, such as \"127.0.0.1:9180\""))?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(wrong("a loopback address, such as \"127.0.0.1:9180\": whoever collects from elsewhere asks a program on this machine"))
}

/// A service's full name.
pub(super) fn service_name(value: &Expression) -> Result<String, Complaint> {
    let name = text(value)?;
    match name.parse::<ServiceName>() {
        Ok(_) => Ok(name),
        Err(_) => Err(Complaint::new(format!("is \"{name}\""), "a service by its full name, such as \"shop/database\"")),
    }
}

/// The name of a cookie.
pub(super) fn cookie_name(value: &Expression) -> Result<String, Complaint> {
    let name = text(value)?;
    if is_token(&name) { Ok(name) } else { Err(Complaint::new(format!("is \"{name}\""), TOKEN_HINT)) }
}

/// A header's name, which is told in lower case, and its value.
pub(super) fn header(value: &Expression) -> Result<(String, String), Complaint> {
    let (name, value) = pair(value)?;
    let plain = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) && value.trim() == value;
    if plain {
        Ok((name.to_ascii_lowercase(), value))
    } else {
        Err(Complaint::new(format!("has the value \"{}\"", value.escape_debug()), VALUE_HINT))
    }
}

/// A cookie's name and value (RFC 6265, section 4.1.1).
pub(super) fn cookie(value: &Expression) -> Result<(String, String), Complaint> {
    let (name, value) = pair(value)?;
    let plain = value.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte));
    let hint = "visible ASCII characters, but none of `\" , ; \\`";
    if plain { Ok((name, value)) } else { Err(Complaint::new(format!("has the value \"{}\"", value.escape_debug()), hint)) }
}

const PARTS: [&str; 2] = ["name", "value"];

const PAIR_HINT: &str = "write `{ name = \"NAME\", value = \"VALUE\" }`";

const TOKEN_HINT: &str = "letters, digits and `! # $ % & ' * + - . ^ _ | ~` and backquotes, at most 64";

const VALUE_HINT: &str = "visible ASCII characters, with spaces only between them";

fn pair(value: &Expression) -> Result<(String, String), Complaint> {
    let mut parts = map(text)(value).map_err(|complaint| complaint.or(PAIR_HINT))?;
    if let Some(unknown) = parts.keys().find(|part| !PARTS.contains(&part.as_str())) {
        return Err(Complaint::new(format!("has \"{unknown}\""), suggestion(unknown, PARTS.into_iter(), "parts of it")));
    }
    let mut part = |name: &str| parts.remove(name).ok_or_else(|| Complaint::new(format!("has no \"{name}\""), PAIR_HINT));
    let (name, value) = (part("name")?, part("value")?);
    if !is_token(&name) {
        return Err(Complaint::new(format!("has the name \"{name}\""), TOKEN_HINT));
    }
    if value.is_empty() || value.len() > VALUE_LIMIT {
        return Err(Complaint::new(format!("has a value of {} bytes", value.len()), format!("1 to {VALUE_LIMIT} bytes")));
    }
    Ok((name, value))
}

/// Whether a text is a token (RFC 9110, section 5.6.2), as names of headers and cookies are.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.len() <= TOKEN_LIMIT && text.bytes().all(allowed)
}
