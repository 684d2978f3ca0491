//! Why a rollout was rejected, with its evidence.

use super::text::task_words;
use gapless_core::node::NodeId;
use gapless_core::notice::Rejection;
use gapless_core::observation::Evidence;
use gapless_wire::rollout::Reason;

/// Why a rollout was rejected, with its evidence.
#[must_use]
pub fn reason(rejection: &Rejection) -> Reason {
    match rejection {
        Rejection::GateFailed { node, evidence: Evidence { check, result, times } } => Reason {
            check: Some(check.clone()),
            result: Some(result.clone()),
            times: Some(*times),
            ..on(*node, "gate-failed", format!("{check} on node {node} failed {times} times in a row: {result}"))
        },
        Rejection::NodeExited { node, code, output } => exited(*node, *code, output),
        Rejection::ProgressDeadline { waiting_for } => {
            plain("progress-deadline", format!("the new nodes were not ready at the progress deadline: {waiting_for}"))
        }
        Rejection::WrongImage { node } => {
            on(*node, "wrong-image", format!("node {node} was made from another image than the release names"))
        }
        Rejection::EffectFailed { effect, reason } => plain("effect-failed", format!("{effect} could not be carried out: {reason}")),
        Rejection::TakenBack => {
            plain("taken-back", "somebody wanted the old release back before every proxy had acknowledged the new one".into())
        }
        Rejection::Cancelled => plain("cancelled", "somebody cancelled it".into()),
        Rejection::Superseded => plain("superseded", "a later declaration took its place".into()),
        Rejection::TaskFailed { task, reason } => {
            Reason { output: Some(reason.clone()), ..plain("task-failed", format!("{} did not end well: {reason}", task_words(*task))) }
        }
        Rejection::AnalysisFailed { evidence } => {
            plain("analysis-failed", format!("the new nodes' answers were worse than the old ones' at the same time: {evidence}"))
        }
        Rejection::Inconclusive { evidence } => {
            plain("inconclusive", format!("the comparison with the old nodes' answers came to no verdict in time: {evidence}"))
        }
        Rejection::Revoked => plain("revoked", "the artifact of the new release was revoked".into()),
        Rejection::PartnerTakenBack { reason } => plain("partner-taken-back", reason.clone()),
        Rejection::PartnerFailed { reason } => {
            plain("partner-failed", format!("a service that moves together with this one could not: {reason}"))
        }
    }
}

fn exited(node: NodeId, code: Option<i32>, output: &str) -> Reason {
    let code = code.map_or("for an unknown reason".to_string(), |code| format!("with status {code}"));
    let text = match output.trim() {
        "" => format!("the command of node {node} ended by itself {code} and wrote nothing"),
        output => format!("the command of node {node} ended by itself {code}: {output}"),
    };
    Reason { output: Some(output.to_string()), ..on(node, "node-exited", text) }
}

fn plain(kind: &str, text: String) -> Reason {
    Reason { kind: kind.into(), text, node: None, check: None, result: None, times: None, output: None }
}

fn on(node: NodeId, kind: &str, text: String) -> Reason {
    Reason { node: Some(node.to_string()), ..plain(kind, text) }
}
