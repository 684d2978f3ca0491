//! Act 8: the receipts, and whether everything held.

use crate::demo::paint::{Tone, causes, duration, thousands};
use crate::demo::receipt::{self, Client, Receipt};
use crate::demo::reconcile::{Count, Known, Reconciliation, reconcile};
use crate::demo::script::{Demo, Played};
use crate::demo::stage;
use crate::demo::timeline::Timeline;
use crate::demo::{chart, page, seen, table};
use gapless_engine::error::{Context, Error};
use gapless_load::{Recording, Report};
use gapless_server::receipt::verify;
use gapless_wire::record::Record;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the proxy's count may take to hold the witness's last requests: a slice is told when it is over, 100 ms after it began.
const COUNT_WITHIN: Duration = Duration::from_secs(3);

/// How often it is asked.
const COUNT_AGAIN: Duration = Duration::from_millis(100);

/// The longest time that `make demo` may take when everything is compiled and the base image is cached.
const BUDGET_MS: u64 = 90_000;

/// What both sides counted.
pub struct Counted {
    /// The figures.
    pub receipt: Receipt,
    /// What the witness recorded.
    pub recording: Recording,
    /// The two counts against each other.
    pub reconciliation: Reconciliation,
    /// The rows of the comparison with the naive way, when it was tried.
    pub comparison: Vec<[String; 3]>,
}

/// Stops the witness, holds its count against the proxy's, and looks at every claim.
///
/// # Errors
/// When the witness or the proxy does not tell.
pub async fn count(demo: &mut Demo) -> Result<Counted, Error> {
    demo.screen.act(8, "the receipts");
    let observer = demo.observer.take().ok_or_else(|| Error::new("the witness is not at work"))?;
    let recording = observer.stop().await?;
    let (records, reconciliation) = count_both(&demo.stage.folders.proxy_socket(), &recording).await?;
    let receipt = whole(&demo.played, &recording, &records);
    prove_outcomes(demo);
    prove_signatures(demo).await?;
    prove_requests(demo, &receipt, &recording.report, &reconciliation);
    prove_drains(demo, &recording);
    Ok(Counted { receipt, recording, reconciliation, comparison: Vec::new() })
}

/// Shows what came of the whole, and writes it down.
///
/// # Errors
/// When a file cannot be written.
pub fn show(demo: &mut Demo, counted: &Counted) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(&counted.receipt).map_err(|error| Error::new(error.to_string()))?;
    write(&demo.stage.folders.receipt(), &text)?;
    let signed: Vec<_> = demo.played.iter().map(|played| played.receipt.clone()).collect();
    let timeline = seen::timeline(&counted.recording.samples, &signed);
    demo.screen.close_act();
    print(demo, &counted.receipt, &timeline);
    let (budget, _) = demo.screen.budget();
    let result = page::Result {
        receipt: &counted.receipt,
        proofs: &demo.proofs,
        reconciliation: &counted.reconciliation,
        timeline: &timeline,
        budget: &budget,
        comparison: &counted.comparison,
    };
    write(&demo.stage.folders.page(), &page::draw(&result))
}

/// The proxy's count is whole when the slice of the last request is over: it is asked until it is as high as the witness's, and no longer than [`COUNT_WITHIN`].
pub async fn count_both(proxy: &Path, recording: &Recording) -> Result<(Vec<Record>, Reconciliation), Error> {
    let witness = seen::count(recording);
    let deadline = Instant::now() + COUNT_WITHIN;
    loop {
        let (records, status) = stage::records(proxy).await?;
        let reconciliation = reconcile(&witness, &proxy_count(&records), known(&recording.report, &records, status.replaced));
        if reconciliation.holds() || Instant::now() >= deadline {
            return Ok((records, reconciliation));
        }
        tokio::time::sleep(COUNT_AGAIN).await;
    }
}

fn proxy_count(records: &[Record]) -> Count {
    let mut count = Count::default();
    for slice in records.iter().flat_map(|record| &record.slices) {
        count.add(&slice.release, slice.requests);
    }
    count
}

fn known(report: &Report, records: &[Record], replaced: u32) -> Known {
    let cause = |name: &str| report.failed_by_cause.get(name).copied().unwrap_or(0);
    Known {
        never_connected: ["connect-refused", "connect-timeout", "connect-unreachable", "witness-limit"].into_iter().map(cause).sum(),
        client_gone: records.iter().map(|record| record.client_gone).sum(),
        refused: records.iter().map(|record| record.refused).sum(),
        lost_workers: replaced,
    }
}

/// The file's content.
pub fn whole(played: &[Played], recording: &Recording, records: &[Record]) -> Receipt {
    let report = &recording.report;
    let rollouts = played.iter().map(|played| {
        receipt::rollout(&played.receipt, seen::of_rollout(&recording.samples, &played.receipt, played.quiet), played.server_killed)
    });
    Receipt {
        client: Client {
            requests: report.requests,
            failed: report.failed,
            failed_by_cause: report.failed_by_cause.clone(),
            by_class: report.by_class.iter().map(|(class, totals)| (class.clone(), totals.requests)).collect(),
        },
        proxy: receipt::proxy(records),
        rollouts: rollouts.collect(),
    }
}

fn prove_outcomes(demo: &mut Demo) {
    let as_meant = demo.played.iter().filter(|played| played.receipt.outcome == played.expected).count();
    let all = demo.played.len();
    demo.prove(
        "every rollout ended as it was meant to",
        as_meant == all && all == 5,
        format!("{as_meant} of {all}: three deploys and a rollback live, one rejected"),
    );
    let whole = demo.played.iter().all(|played| played.receipt.incomplete.is_empty() && played.receipt.measured.is_some());
    let missing: Vec<String> = demo.played.iter().flat_map(|played| played.receipt.incomplete.clone()).collect();
    demo.prove("every receipt is whole", whole, if whole { "nothing is missing in their measures".to_owned() } else { missing.join(", ") });
}

/// Writes each signed receipt into a file, where `gapless receipt --verify` takes it, and verifies it as that does.
async fn prove_signatures(demo: &mut Demo) -> Result<(), Error> {
    let key = demo.stage.api.server().await?.key;
    let folder = demo.stage.folders.receipts();
    std::fs::create_dir_all(&folder).context(|| format!("make the folder {}", folder.display()))?;
    let mut genuine = 0;
    for played in &demo.played {
        write(&folder.join(format!("rollout-{}.json", played.receipt.rollout)), &played.signed)?;
        genuine += usize::from(verify(&played.signed, Some(&key)).is_ok());
    }
    let all = demo.played.len();
    let evidence = format!("{genuine} of {all} verify with its key, in {}", folder.display());
    demo.prove("every receipt is signed by this installation", genuine == all, evidence);
    Ok(())
}

fn prove_requests(demo: &mut Demo, receipt: &Receipt, report: &Report, reconciliation: &Reconciliation) {
    demo.prove(
        "no request failed, as the witness counts",
        report.failed == 0,
        format!("{} of {}{}", report.failed, thousands(report.requests), causes(&report.failed_by_cause)),
    );
    let proxy = &receipt.proxy;
    demo.prove(
        "no request failed, as the proxy counts",
        proxy.failed == 0,
        format!("{} of {}{}", proxy.failed, thousands(proxy.requests), causes(&proxy.failed_by_cause)),
    );
    let agreed = format!("{} and {}, the same for each release", thousands(reconciliation.witness), thousands(reconciliation.proxy));
    let evidence = if reconciliation.holds() { agreed } else { reconciliation.differences.join("; ") };
    demo.prove("both counts are equal", reconciliation.holds(), evidence);
    let needed = proxy.retried + proxy.held + proxy.cut;
    demo.prove(
        "nothing was retried, held or cut",
        needed == 0,
        format!("{} retried, {} held, {} cut", proxy.retried, proxy.held, proxy.cut),
    );
    let one_shot = receipt.client.by_class.get("small-one-shot").copied().unwrap_or(0);
    let enough = one_shot * 100 >= report.requests * 30;
    demo.prove(
        "at least 30 % of the requests had a connection of their own",
        enough,
        format!("{} of {}", thousands(one_shot), thousands(report.requests)),
    );
    demo.prove(
        "the witness kept every sample",
        report.samples_dropped == 0,
        format!("{} started late by its own fault", report.late_starts),
    );
}

/// A drain proves little unless something was under way on the old nodes when it began.
fn prove_drains(demo: &mut Demo, recording: &Recording) {
    for played in demo.played.clone() {
        let receipt = &played.receipt;
        let Some(at_ms) = seen::drain_began_ms(receipt).filter(|_| receipt.from.is_some()) else { continue };
        let in_flight = seen::old_in_flight(&recording.samples, receipt, at_ms);
        let count = |class: &str| in_flight.get(class).copied().unwrap_or(0);
        let (slow, uploads) = (count("slow"), count("upload"));
        demo.prove(
            format!("the drain for {} began with work under way on the old nodes", receipt.to.release),
            slow > 0 && uploads > 0,
            format!("{slow} slow answers and {uploads} uploads were in flight there, and all were completed"),
        );
    }
}

fn print(demo: &Demo, receipt: &Receipt, timeline: &Timeline) {
    let screen = &demo.screen;
    let paint = screen.paint();
    let heading = |text: &str| screen.line(&format!("\n{}", paint.text(Tone::Strong, text)));
    heading("Which release answered, over time");
    chart::draw(timeline, screen.width(), paint).iter().for_each(|line| screen.line(line));
    heading("Receipts");
    table::draw(&receipt.rollouts, paint).iter().for_each(|line| screen.line(line));
    screen.line("");
    table::phases(&receipt.rollouts, paint).iter().for_each(|line| screen.line(line));
    heading("Where the time went");
    let (budget, total) = screen.budget();
    for (act, took) in &budget {
        screen.line(&format!("  {:>10}  {act}", duration(*took)));
    }
    screen.line(&format!("  {:>10}  in all; with a cached base image the bar is {}", duration(total), duration(BUDGET_MS)));
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).context(|| format!("write {}", path.display()))
}
