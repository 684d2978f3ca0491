//! The doctor: what is not as it should be, and what a restart would do.

use super::answer::{Answer, json};
use super::{Call, to_its_end};
use crate::journal::damage;
use crate::problem::Refused;
use crate::server::Server;
use crate::story;
use gapless_engine::error::Error;
use gapless_engine::recovery::Diagnosis;
use gapless_wire::doctor::{Examination, Finding, RestartPlan, Treatment};
use hyper::Response;

pub(super) async fn examine(call: &Call) -> Result<Response<Answer>, Refused> {
    json(&examination(&call.server, Vec::new()).await?)
}

pub(super) async fn treat(call: Call) -> Result<Response<Answer>, Refused> {
    let (server, wish): (_, Treatment) = call.read().await?;
    let treated = async move {
        let removed = if wish.remove_leftovers { server.parts.host.remove_leftovers().await? } else { Vec::new() };
        Ok(examination(&server, removed).await?)
    };
    json(&to_its_end(treated).await?)
}

async fn examination(server: &Server, removed: Vec<String>) -> Result<Examination, Error> {
    let mut findings = Vec::new();
    let mut restart = Vec::new();
    for diagnosis in server.parts.engine.doctor().await? {
        findings.extend(findings_of(server, &diagnosis));
        findings.extend(behind(server, &diagnosis).await);
        restart.push(restart_of(&diagnosis));
    }
    findings.extend(server.parts.host.examine().await?);
    Ok(Examination { findings, restart, removed })
}

fn findings_of(server: &Server, diagnosis: &Diagnosis) -> Vec<Finding> {
    let broken = diagnosis.state.as_ref().err().map(|error| finding("journal", diagnosis, error));
    let unseen = diagnosis.unseen.as_ref().map(|error| finding("world", diagnosis, error));
    let trouble = server.parts.engine.trouble(&diagnosis.service).map(|error| finding("service", diagnosis, &error));
    broken.into_iter().chain(unseen).chain(trouble).collect()
}

/// What is damaged behind the state that a restart would begin at.
async fn behind(server: &Server, diagnosis: &Diagnosis) -> Option<Finding> {
    let (journal, service) = (server.parts.journal.clone(), diagnosis.service.clone());
    let looked = tokio::task::spawn_blocking(move || damage(&*journal, &service)).await;
    let error = looked.unwrap_or_else(|error| Some(Error::new(format!("a call to the store did not end: {error}"))))?;
    Some(finding("journal", diagnosis, &error))
}

fn finding(kind: &str, diagnosis: &Diagnosis, error: &Error) -> Finding {
    Finding {
        kind: kind.into(),
        what: diagnosis.service.to_string(),
        why: error.to_string(),
        hint: error.hint_text().map(str::to_string),
        removable: false,
    }
}

fn restart_of(diagnosis: &Diagnosis) -> RestartPlan {
    let tell = |effects: &[(gapless_core::effect::EffectId, gapless_core::effect::Effect)]| {
        effects.iter().map(|(id, effect)| format!("{id} {}", story::effect(&diagnosis.service, effect))).collect()
    };
    let state = diagnosis.state.as_ref().map_or_else(|_| String::new(), |state| story::going_on(&diagnosis.service, state));
    RestartPlan { service: diagnosis.service.to_string(), state, pending: tell(&diagnosis.pending), next: tell(&diagnosis.would_do) }
}
