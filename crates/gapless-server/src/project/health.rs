//! The `health` block of a service: how a node is checked, and how often it must pass.

use super::task::command;
use crate::hcl::{Complaint, Section, show_time, text, time, whole};
use gapless_engine::declaration::{CheckKind, HealthCheck};
use gapless_wire::route::trial_interval;
use hcl_edit::expr::Expression;
use std::time::Duration;

/// How long a worker must stay up unless its file says how it is checked: a command that cannot run has ended by then.
const STAY_UP: Duration = Duration::from_secs(10);

/// The longest that a worker may have to stay up: longer than this is no gate but a bake window.
const STAY_UP_HIGHEST: Duration = Duration::from_secs(3600);

/// How a node is checked.
pub(super) struct Health {
    pub check: HealthCheck,
    pub passes: u32,
    pub failures: u32,
}

impl Health {
    /// The least time that a node needs to pass, from its first answer on.
    pub fn least(&self) -> Duration {
        let Health { check, passes, .. } = self;
        match &check.kind {
            CheckKind::Http { .. } => trial_interval(check.interval).saturating_mul(passes.saturating_sub(1)),
            CheckKind::Command { .. } => check.interval.saturating_mul(*passes),
            CheckKind::StayUp { span } => span.saturating_add(check.interval.saturating_mul(*passes)),
        }
    }

    /// How that time is made up, in words.
    pub fn least_in_words(&self) -> String {
        let Health { check, passes, .. } = self;
        let interval = show_time(check.interval);
        let least = show_time(self.least());
        match &check.kind {
            CheckKind::Http { .. } => {
                let more = passes.saturating_sub(1);
                let interval = show_time(trial_interval(check.interval));
                format!("{more} passes after the first × {interval} (from check to check of a node on trial) = {least}")
            }
            CheckKind::Command { .. } => format!("{passes} passes × {interval} = {least}"),
            CheckKind::StayUp { span } => format!("{} to stay up + {passes} passes × {interval} = {least}", show_time(*span)),
        }
    }
}

/// `serves`: the service has a port.
pub(super) fn read(service: &Section<'_>, serves: bool) -> Health {
    let default = || Health {
        check: HealthCheck { kind: default_kind(serves), interval: Duration::from_secs(1), timeout: Duration::from_secs(2) },
        passes: 2,
        failures: 3,
    };
    service.block("health", |health| settings(health, serves, &default())).unwrap_or_else(default)
}

fn default_kind(serves: bool) -> CheckKind {
    if serves { CheckKind::Http { path: "/".into() } } else { CheckKind::StayUp { span: STAY_UP } }
}

fn settings(health: &Section<'_>, serves: bool, default: &Health) -> Health {
    let bounds = |lowest: u64| time(Duration::from_millis(lowest), Duration::from_secs(300));
    let number = |attribute, default: u32| u32::try_from(health.or(attribute, u64::from(default), whole(1, 100))).unwrap_or(u32::MAX);
    Health {
        check: HealthCheck {
            kind: kind(health, serves),
            interval: health.or("interval", default.check.interval, bounds(50)),
            timeout: health.or("timeout", default.check.timeout, bounds(10)),
        },
        passes: number("passes", default.passes),
        failures: number("failures", default.failures),
    }
}

fn kind(health: &Section<'_>, serves: bool) -> CheckKind {
    let path = health.optional("path", url_path);
    let command = health.optional("command", command);
    let span = health.optional("stay_up", time(Duration::from_millis(100), STAY_UP_HIGHEST));
    if serves {
        for attribute in ["command", "stay_up"].into_iter().filter(|attribute| health.has(attribute)) {
            let what = format!("`{attribute}` is the check of a worker, but this service has a port");
            health.fault_at(attribute, what, "what answers requests is checked by one, such as `path = \"/healthz\"`");
        }
        return CheckKind::Http { path: path.unwrap_or_else(|| "/".into()) };
    }
    if health.has("path") {
        let hint = "add `port` to the service, or check a worker with `command = [\"/path/of/check\"]` or `stay_up = \"10s\"`";
        health.fault_at("path", "`path` is asked for by HTTP, but this service has no `port`", hint);
    }
    if health.has("command") && health.has("stay_up") {
        let hint = "keep `command` if there is something to ask, else `stay_up`";
        health.fault_at("stay_up", "`command` and `stay_up` are two checks, and there is one", hint);
    }
    match (command, span) {
        (Some(command), _) => CheckKind::Command { command },
        (None, Some(span)) => CheckKind::StayUp { span },
        (None, None) => default_kind(serves),
    }
}

fn url_path(value: &Expression) -> Result<String, Complaint> {
    let path = text(value)?;
    if path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic() && c != '#') {
        return Ok(path);
    }
    Err(Complaint::new(format!("is \"{path}\""), "a path that begins with `/`, such as \"/healthz\""))
}
