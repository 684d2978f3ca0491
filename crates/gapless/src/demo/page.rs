//! The demo's result as one self-contained page: `receipt.html`.

use super::page_chart;
use super::paint::{duration, thousands};
use super::receipt::{Outcome, Receipt, Rollout};
use super::reconcile::Reconciliation;
use super::table::title;
use super::timeline::Timeline;
use super::verdict::{Proof, all_hold};
use std::fmt::Write;

/// The page's look: light and dark, no font or script from elsewhere.
const STYLE: &str = include_str!("page.css");

/// Everything that the page shows.
pub struct Result<'a> {
    /// The figures.
    pub receipt: &'a Receipt,
    /// What was claimed and seen.
    pub proofs: &'a [Proof],
    /// The two counts against each other.
    pub reconciliation: &'a Reconciliation,
    /// The traffic over time.
    pub timeline: &'a Timeline,
    /// How long each act took, in milliseconds.
    pub budget: &'a [(String, u64)],
    /// The rows of the comparison with the naive way; none: it was not tried.
    pub comparison: &'a [[String; 3]],
}

/// The page.
pub fn draw(result: &Result) -> String {
    let mut page = String::new();
    let body = [
        heading(result),
        tiles(result),
        section(
            "Requests per release over time",
            &format!("{}{}", page_chart::legend(result.timeline), page_chart::split(result.timeline)),
        ),
        section("Latency of small GETs, as the witness saw it", &page_chart::latency(result.timeline)),
        section("Rollouts", &rollouts(result.receipt)),
        comparison(result.comparison),
        section("Time by phase", &phases(result.receipt)),
        section("What was proven, and how", &proofs(result.proofs)),
        section("Two counts of the same requests", &counts(result)),
        section("Where the demo's time went", &budget(result.budget)),
    ];
    // Writing into a String cannot fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>gapless: the receipt of a demo</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n\
         <footer>Made by <b>gapless demo</b>. The figures are in receipt.json beside this page.</footer>\n</body>\n</html>\n",
        body.concat()
    );
    page
}

/// The text, safe between tags and in attributes.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn heading(result: &Result) -> String {
    let good = all_hold(result.proofs);
    let (class, words) = if good { ("good", "Nothing was lost.") } else { ("bad", "Not everything held.") };
    let live = result.receipt.rollouts.iter().filter(|rollout| rollout.outcome == Outcome::Live).count();
    format!(
        "<header><p class=\"eyebrow\">gapless · receipt of a demo</p><h1 class=\"{class}\">{words}</h1>\
         <p class=\"lead\">{} requests in {}, {} rollouts of a real Apache service, {live} of them live, with {} failed requests.</p></header>\n",
        thousands(result.receipt.client.requests),
        duration(result.timeline.length_ms()),
        result.receipt.rollouts.len(),
        thousands(result.receipt.client.failed),
    )
}

fn tiles(result: &Result) -> String {
    let client = &result.receipt.client;
    let proxy = &result.receipt.proxy;
    let gap = result.receipt.rollouts.iter().filter_map(|rollout| rollout.longest_gap_ms).fold(0.0, f64::max);
    let tiles = [
        ("requests", thousands(client.requests), "counted by the witness"),
        ("failed", thousands(client.failed), "of any kind, never tried again"),
        ("retried, held, cut", format!("{} / {} / {}", proxy.retried, proxy.held, proxy.cut), "by the proxy, in all rollouts"),
        ("longest gap", format!("{gap:.0} ms"), "between two answers, in any rollout"),
    ];
    let inner: String = tiles
        .iter()
        .map(|(name, value, note)| format!("<div class=\"tile\"><span>{name}</span><strong>{value}</strong><small>{note}</small></div>"))
        .collect();
    format!("<div class=\"tiles\">{inner}</div>\n")
}

fn section(name: &str, inner: &str) -> String {
    format!("<section><h2>{name}</h2>\n{inner}</section>\n")
}

fn rollouts(receipt: &Receipt) -> String {
    let head = [
        "rollout",
        "outcome",
        "requests",
        "failed",
        "retried",
        "held",
        "cut",
        "in flight at switch",
        "longest gap",
        "switch",
        "gone",
        "p50",
        "p99",
        "max",
    ];
    let heading: String = head.iter().map(|name| format!("<th>{name}</th>")).collect();
    let rows: String = receipt.rollouts.iter().map(rollout_row).collect();
    format!(
        "<div class=\"wide\"><table><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table></div>\n\
         <p class=\"quiet\">switch: artifact ready to the last acknowledgement of the route. gone: to the last old node destroyed. \
         Quantiles are of small GETs, in the quiet stretch before → during the rollout, in milliseconds.</p>\n"
    )
}

fn rollout_row(rollout: &Rollout) -> String {
    let (class, outcome) = match rollout.outcome {
        Outcome::Live if rollout.server_killed => ("good", "live, server killed"),
        Outcome::Live => ("good", "live"),
        Outcome::Rejected => ("bad", "rejected"),
    };
    let dash = || "–".to_owned();
    let quantile = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.1}"));
    let pair = |before: Option<f64>, during: Option<f64>| format!("{} → {}", quantile(before), quantile(during));
    let cells = [
        thousands(rollout.requests),
        thousands(rollout.failed),
        thousands(rollout.retried),
        thousands(rollout.held),
        thousands(rollout.cut),
        rollout.in_flight_at_switch.map_or_else(dash, thousands),
        rollout.longest_gap_ms.map_or_else(dash, |gap| format!("{gap:.0} ms")),
        rollout.switch_ms.map_or_else(dash, duration),
        rollout.gone_ms.map_or_else(dash, duration),
        pair(rollout.steady.p50_ms, rollout.switch.p50_ms),
        pair(rollout.steady.p99_ms, rollout.switch.p99_ms),
        pair(rollout.steady.max_ms, rollout.switch.max_ms),
    ];
    let cells: String = cells.iter().map(|cell| format!("<td class=\"number\">{cell}</td>")).collect();
    format!("<tr><td>{}</td><td><span class=\"pill {class}\">{outcome}</span></td>{cells}</tr>", escaped(&title(rollout)))
}

fn comparison(rows: &[[String; 3]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let row = |[name, ours, naive]: &[String; 3]| {
        format!("<tr><td>{}</td><td>{}</td><td class=\"number\">{}</td></tr>", escaped(name), escaped(ours), escaped(naive))
    };
    let rows: String = rows.iter().map(row).collect();
    section(
        "The same change without care",
        &format!(
            "<div class=\"wide\"><table><thead><tr><th></th><th>gapless</th><th>create before destroy</th></tr></thead><tbody>{rows}</tbody></table></div>\n"
        ),
    )
}

fn phases(receipt: &Receipt) -> String {
    let longest = receipt.rollouts.iter().map(phase_sum).max().unwrap_or(0).max(1);
    let rows: String = receipt
        .rollouts
        .iter()
        .map(|rollout| {
            let parts: String =
                rollout.phases.named().into_iter().filter_map(|(name, took)| Some(phase_part(name, took?, longest))).collect();
            format!("<div class=\"phases\"><span>{}</span><div class=\"bar\">{parts}</div></div>", escaped(&title(rollout)))
        })
        .collect();
    let legend: String = ["build", "boot", "gate", "shift", "drain", "destroy"]
        .iter()
        .map(|name| format!("<span class=\"key\"><i class=\"phase-{name}\"></i>{name}</span>"))
        .collect();
    format!("<p class=\"legend\">{legend}</p>\n{rows}\n")
}

fn phase_sum(rollout: &Rollout) -> u64 {
    rollout.phases.named().iter().filter_map(|(_, took)| *took).sum()
}

fn phase_part(name: &str, took: u64, longest: u64) -> String {
    let share = took as f64 * 100.0 / longest as f64;
    let label = if share > 9.0 { format!("{name} {}", duration(took)) } else { String::new() };
    format!("<i class=\"phase-{name}\" style=\"width:{share:.2}%\" title=\"{name} {}\">{label}</i>", duration(took))
}

fn proofs(proofs: &[Proof]) -> String {
    let rows: String = proofs
        .iter()
        .map(|proof| {
            let (class, mark) = if proof.holds { ("good", "✓") } else { ("bad", "✗") };
            format!(
                "<li><b class=\"{class}\">{mark}</b><div>{}<small>{}</small></div></li>",
                escaped(&proof.claim),
                escaped(&proof.evidence)
            )
        })
        .collect();
    format!("<ul class=\"proofs\">{rows}</ul>\n")
}

fn counts(result: &Result) -> String {
    let reconciliation = result.reconciliation;
    let words = if reconciliation.holds() {
        "They are equal, in all and for each release, without any tolerance. Health checks go from the proxy to the nodes and are in neither.".to_owned()
    } else {
        reconciliation.differences.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("<br>")
    };
    let classes: String = result
        .receipt
        .client
        .by_class
        .iter()
        .map(|(class, requests)| format!("<tr><td>{}</td><td class=\"number\">{}</td></tr>", escaped(class), thousands(*requests)))
        .collect();
    format!(
        "<p>The witness started <b>{}</b> requests; the proxy ended <b>{}</b>. {words}</p>\n\
         <div class=\"wide\"><table><thead><tr><th>class</th><th>requests</th></tr></thead><tbody>{classes}</tbody></table></div>\n",
        thousands(reconciliation.witness),
        thousands(reconciliation.proxy),
    )
}

fn budget(budget: &[(String, u64)]) -> String {
    let rows: String = budget
        .iter()
        .map(|(act, took)| format!("<tr><td>{}</td><td class=\"number\">{}</td></tr>", escaped(act), duration(*took)))
        .collect();
    format!("<div class=\"wide\"><table><thead><tr><th>act</th><th>took</th></tr></thead><tbody>{rows}</tbody></table></div>\n")
}

#[cfg(test)]
mod tests {
    use super::super::receipt::tests::rollout;
    use super::super::timeline::tests::a_switch;
    use super::*;

    fn page(proofs: &[Proof]) -> String {
        let receipt =
            Receipt { rollouts: vec![rollout("web-r2", Outcome::Live), rollout("web-<r3>", Outcome::Rejected)], ..Receipt::default() };
        let reconciliation = Reconciliation::default();
        let budget = [("1 image".to_owned(), 8_400)];
        draw(&Result {
            receipt: &receipt,
            proofs,
            reconciliation: &reconciliation,
            timeline: &a_switch(),
            budget: &budget,
            comparison: &[],
        })
    }

    #[test]
    fn the_page_stands_alone_and_escapes_names() {
        let page = page(&[Proof::new("0 <failed>", true, "seen")]);
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
        assert!(page.contains("web-&lt;r3&gt;") && page.contains("0 &lt;failed&gt;"));
        assert!(page.contains("Nothing was lost."));
    }

    #[test]
    fn a_broken_claim_is_the_headline() {
        assert!(page(&[Proof::new("0 failed", false, "3 failed")]).contains("Not everything held."));
    }

    #[test]
    fn tags_are_balanced() {
        let page = page(&[Proof::new("a", true, "b")]);
        for tag in ["div", "section", "table", "svg", "g", "ul", "li", "p"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
