//! Among good answers one is cut, one is reset and one is changed: exactly three failures, one of each cause.

use std::collections::BTreeMap;

use gapless_load::{Check, ClassPlan, Plan, Target};

use crate::backend::{Answer, Backend, hex, response, self_digested};
use crate::{causes, run_plan};

fn good(path: &str, body: &[u8]) -> Vec<u8> {
    match path {
        "/upload" => hex(body).into_bytes(),
        "/slow" => b"done".to_vec(),
        "/large" => {
            let numbers: String = (1..20_000).map(|number| format!("{number}\n")).collect();
            numbers.into_bytes()[..100_000].to_vec()
        }
        _ => self_digested(b"some content\n"),
    }
}

fn classes() -> Vec<ClassPlan> {
    vec![
        ClassPlan::get("small", 500, "/check.txt", Check::SelfDigest),
        ClassPlan::get("small-one-shot", 300, "/check.txt", Check::SelfDigest).one_shot(),
        ClassPlan::upload("upload", 100, "/upload", 50_000, 20),
        ClassPlan::get("slow", 50, "/slow", Check::Complete),
        ClassPlan::get("large", 50, "/large", Check::Sequence { bytes: 100_000 }),
    ]
}

#[tokio::test]
async fn exactly_what_was_broken_is_counted_by_cause() {
    let backend = Backend::start(|request| {
        let content = good(&request.path, &request.body);
        let whole = response(200, &content);
        match request.number {
            100 => Answer::Close(whole[..whole.len() - 1].to_vec()),
            200 => Answer::Reset(Vec::new()),
            300 => {
                let mut changed = whole;
                let last = changed.len() - 1;
                changed[last] ^= 1;
                Answer::Keep(changed)
            }
            _ if request.one_shot => Answer::Close(whole),
            _ => Answer::Keep(whole),
        }
    })
    .await;
    // Whichever class the three meet, its check looks at the content.
    let mut classes = classes();
    classes.retain(|class| class.check != Check::Complete);
    classes[0].share += 50;
    let mut plan = Plan::new(Target::url(backend.url()), classes);
    plan.rate_per_second = 1000;
    plan.duration_ms = Some(1000);
    let recording = run_plan(plan).await;
    assert_eq!(causes(&recording), [("corrupt", 1), ("reset", 1), ("truncated", 1)]);
    assert_eq!((recording.report.requests, recording.report.failed), (1000, 3));
    assert_eq!(backend.requests(), 1000, "each request was sent once");
    let examples: Vec<_> = recording.report.failure_examples.iter().map(|example| example.cause.as_str()).collect();
    assert_eq!(examples.len(), 3, "{examples:?}");
}

#[tokio::test]
async fn a_faultless_backend_has_no_failures_in_any_class() {
    let backend = Backend::start(|request| Answer::Keep(response(200, &good(&request.path, &request.body)))).await;
    let mut plan = Plan::new(Target::url(backend.url()), classes());
    plan.rate_per_second = 1000;
    plan.duration_ms = Some(1000);
    let report = run_plan(plan).await.report;
    assert_eq!((report.requests, report.failed), (1000, 0), "{:?}", report.failure_examples);
    let counts: BTreeMap<&str, u64> = report.by_class.iter().map(|(name, class)| (name.as_str(), class.ok)).collect();
    let expected = [("large", 50), ("slow", 50), ("small", 500), ("small-one-shot", 300), ("upload", 100)];
    assert_eq!(counts, BTreeMap::from(expected));
}
