//! The witness against backends that do right and wrong: loopback only.

mod backend;
mod client;
mod hostile;
mod open_loop;
mod process;
mod tls;

use gapless_load::{ClassPlan, Control, Plan, Recording, Target, run};

/// A plan of `count` requests of one class at `rate` a second.
fn plan_of(url: &str, class: ClassPlan, rate: u32, count: u64) -> Plan {
    let mut plan = Plan::new(Target::url(url), vec![ClassPlan { share: 1000, ..class }]);
    plan.rate_per_second = rate;
    plan.duration_ms = Some(count * 1000 / u64::from(rate));
    plan
}

async fn run_plan(plan: Plan) -> Recording {
    run(plan, &Control::new()).await.expect("the plan runs")
}

/// The causes of all failures, as text, with their counts.
fn causes(recording: &Recording) -> Vec<(&str, u64)> {
    recording.report.failed_by_cause.iter().map(|(cause, count)| (cause.as_str(), *count)).collect()
}
