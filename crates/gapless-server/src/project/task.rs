//! What is run once for a release: the release command and the hooks of a service.

use crate::hcl::{Complaint, Section, list, text};
use gapless_engine::declaration::{Hook, Tasks};
use hcl_edit::expr::Expression;

pub(super) fn read(service: &Section<'_>) -> Tasks {
    let release_command = service.optional("release_command", command);
    let hooks = |hooks: &Section<'_>| (hooks.optional("before_shift", hook), hooks.optional("after_shift", hook));
    let (before_shift, after_shift) = service.block("hooks", hooks).unwrap_or_default();
    Tasks { release_command, before_shift, after_shift }
}

/// A program and its arguments.
pub(super) fn command(value: &Expression) -> Result<Vec<String>, Complaint> {
    let hint = "a list of the program and its arguments, such as [\"/usr/bin/program\", \"--option\"]; the program is an absolute path";
    let command = list(text)(value).map_err(|_| Complaint::new("is no list of texts", hint))?;
    match command.first() {
        Some(program) if program.starts_with('/') => Ok(command),
        Some(program) => Err(Complaint::new(format!("begins with \"{program}\""), hint)),
        None => Err(Complaint::new("is empty", hint)),
    }
}

/// A command, or an address that is called.
fn hook(value: &Expression) -> Result<Hook, Complaint> {
    if value.as_array().is_some() {
        return command(value).map(Hook::Command);
    }
    let url = text(value).map_err(|_| Complaint::new("is neither a command nor an address", HOOK))?;
    let parsed = url.parse::<hyper::Uri>().ok();
    let is_http = parsed.is_some_and(|parsed| parsed.scheme_str() == Some("http") && parsed.host().is_some_and(|host| !host.is_empty()));
    if is_http { Ok(Hook::Http { url }) } else { Err(Complaint::new(format!("is \"{url}\""), HOOK)) }
}

const HOOK: &str = "a command, such as [\"/usr/bin/smoke-test\"], or an address that is called with POST and begins with `http://`, such as \"http://127.0.0.1:9000/hook\"";
