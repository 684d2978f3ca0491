//! Declarations that no rollout could ever fulfil. The server says it better, with the place in the file; this is the last line of defence.

use crate::effect::Task;
use crate::policy::{CanaryStep, Policy, Strategy};
use crate::release::Declaration;
use alloc::format;
use alloc::string::{String, ToString};

type Why = (String, &'static str);

/// Why no rollout could ever fulfil this declaration, and what to do.
pub(crate) fn unsound(declaration: &Declaration) -> Option<Why> {
    let policy = &declaration.policy;
    if declaration.nodes == 0 {
        return Some(("the declaration wants 0 nodes".into(), "declare at least 1 node"));
    }
    if policy.floor > declaration.nodes {
        return Some((
            format!("the floor of {} is above the {} nodes", policy.floor, declaration.nodes),
            "lower the floor or declare more nodes",
        ));
    }
    if policy.gate_passes == 0 || policy.gate_failures == 0 {
        return Some(("the health gate asks for no check at all".into(), "set passes and failures of the gate to at least 1"));
    }
    if policy.progress_deadline.is_zero() {
        return Some(("the progress deadline is 0".to_string(), "give the new nodes time to start, such as \"2m\""));
    }
    if policy.keep == 0 {
        return Some(("no earlier release would be kept".into(), "keep at least 1, or there is nothing to go back to"));
    }
    if policy.task_deadline.is_zero() && !declaration.tasks.is_empty() {
        return Some(("the release's tasks have no time to run".into(), "give them some, such as \"10m\""));
    }
    if !declaration.serves && !policy.bake.is_zero() {
        let reason = "the old nodes of a worker would work on beside the new ones in the bake window";
        return Some((reason.into(), "leave the bake window out: going back is an ordinary rollout"));
    }
    unsound_strategy(declaration, policy)
}

fn unsound_strategy(declaration: &Declaration, policy: &Policy) -> Option<Why> {
    match &policy.strategy {
        Strategy::BlueGreen => None,
        Strategy::Rolling { .. } | Strategy::Recreate if !policy.bake.is_zero() => Some((
            "there is a bake window, but this strategy keeps no old group warm".into(),
            "leave the bake window out, or choose blue-green or canary",
        )),
        Strategy::Rolling { .. } | Strategy::Recreate if declaration.tasks.contains(&Task::AfterShift) => Some((
            "there is a hook after the shift, but with this strategy no old node is left then that could take the traffic back".into(),
            "leave the hook out, or choose blue-green or canary",
        )),
        Strategy::Rolling { surge: 0 } if policy.floor == 0 => Some((
            format!("a rolling rollout without surge and with a floor of 0 of {} nodes takes all of them away first", declaration.nodes),
            "allow a surge of at least 1, or choose recreate, which counts the outage",
        )),
        Strategy::Rolling { surge: 0 } if policy.floor >= declaration.nodes => Some((
            format!("a rolling rollout without surge and with a floor of {} of {} nodes can never begin", policy.floor, declaration.nodes),
            "allow a surge of at least 1, or lower the floor",
        )),
        Strategy::Rolling { .. } => None,
        Strategy::Recreate if policy.floor > 0 => Some((
            format!("the floor is {}, but the old nodes leave before there are new ones", policy.floor),
            "set the floor to 0, or choose another strategy",
        )),
        Strategy::Recreate => None,
        Strategy::Canary { .. } if !declaration.serves => {
            Some(("a worker has no traffic that could be shared out".into(), "choose blue-green, rolling or recreate"))
        }
        Strategy::Canary { steps, .. } if steps.is_empty() => {
            Some(("the canary has no step".into(), "give it some, such as 5, 25 and 50 percent, or choose blue-green"))
        }
        Strategy::Canary { analysis: Some(analysis), .. } if analysis.minimum_requests == 0 => {
            Some(("the analysis asks for no request at all".into(), "set its minimum to at least 1 request"))
        }
        Strategy::Canary { analysis: Some(analysis), .. } if analysis.error_margin == 0 || analysis.latency_margin == 0 => Some((
            "the analysis allows no margin, and no number of requests shows that two equal releases differ by nothing".into(),
            "set its margins to more than 0, such as 0.5 % for errors and 20 % for latencies",
        )),
        Strategy::Canary { steps, .. } => unsound_steps(steps),
    }
}

fn unsound_steps(steps: &[CanaryStep]) -> Option<Why> {
    if let Some(step) = steps.iter().find(|step| !(1..100).contains(&step.percent)) {
        return Some((
            format!("a canary step gives {} percent of the traffic", step.percent),
            "a share is from 1 to 99 percent; all of it comes last by itself",
        ));
    }
    let falls = steps.windows(2).find(|pair| matches!(pair, [first, second] if second.percent <= first.percent))?;
    let [first, second] = falls else { return None };
    Some((format!("a canary step of {} percent follows one of {}", second.percent, first.percent), "let the shares grow from step to step"))
}
