//! Metrics as Prometheus reads them (text format, version 0.0.4).

use crate::certificate::Expiry;
use crate::core::Shared;
use crate::record::{TIME_CLASSES, Total, Totals};
use gapless_wire::route::NodeStatus;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

/// Nodes by service and name.
type Nodes = BTreeMap<String, BTreeMap<String, NodeStatus>>;

/// All metrics of a worker.
pub(crate) fn render(shared: &Shared, of_cores: impl Iterator<Item = Totals>, nodes: &Nodes, certificates: &[Expiry]) -> String {
    let mut totals = Totals::new();
    for (key, total) in of_cores.flatten() {
        totals.entry(key).or_default().merge(&total);
    }
    let mut text = String::new();
    requests(&mut text, &totals);
    times(&mut text, &totals);
    for (name, help, value) in [
        ("gapless_refused_total", "Requests and connections refused as configured.", shared.refused.load(Ordering::Relaxed)),
        ("gapless_client_gone_total", "Clients that left before their answer was complete.", shared.client_gone.load(Ordering::Relaxed)),
        ("gapless_access_log_lost_total", "Lines of the access log that could not be written.", shared.log_lost.load(Ordering::Relaxed)),
    ] {
        head(&mut text, name, "counter", help);
        sample(&mut text, name, &[], value);
    }
    head(&mut text, "gapless_client_connections", "gauge", "Open connections of clients.");
    sample(&mut text, "gapless_client_connections", &[], *shared.clients.borrow() as u64);
    node_gauges(&mut text, nodes);
    head(&mut text, "gapless_certificate_days_left", "gauge", "Whole days until a certificate expires.");
    for certificate in certificates {
        let file = certificate.chain.display().to_string();
        sample(&mut text, "gapless_certificate_days_left", &[("file", &file)], certificate.days_left(SystemTime::now()));
    }
    text
}

fn requests(text: &mut String, totals: &Totals) {
    head(text, "gapless_requests_total", "counter", "Requests that ended, by the first digit of their status; 0: they had none.");
    for ((service, release), total) in totals {
        let with_status: u64 = total.statuses.iter().sum();
        let classes = std::iter::once(total.requests.saturating_sub(with_status)).chain(total.statuses);
        for (class, count) in classes.enumerate().filter(|(_, count)| *count > 0) {
            sample(text, "gapless_requests_total", &[("service", service), ("release", release), ("status", &class.to_string())], count);
        }
    }
    head(text, "gapless_failed_total", "counter", "Requests that the promise counts as failed, by cause.");
    for ((service, release), total) in totals {
        for (cause, count) in &total.failed {
            sample(text, "gapless_failed_total", &[("service", service), ("release", release), ("cause", cause)], *count);
        }
    }
    type Count = fn(&Total) -> u64;
    let counts: [(&str, &str, Count); 4] = [
        ("gapless_retried_total", "Requests that were sent again.", |total| total.retried),
        ("gapless_failed_tries_total", "Tries that came to nothing.", |total| total.failed_tries),
        ("gapless_held_total", "Requests that were held because no node was ready.", |total| total.held),
        ("gapless_cut_total", "Requests that were cut at a drain deadline.", |total| total.cut),
    ];
    for (name, help, count) in counts {
        head(text, name, "counter", help);
        totals
            .iter()
            .for_each(|((service, release), total)| sample(text, name, &[("service", service), ("release", release)], count(total)));
    }
}

fn times(text: &mut String, totals: &Totals) {
    const NAME: &str = "gapless_small_get_seconds";
    head(text, NAME, "histogram", "From the head of a small GET to the last byte of its answer.");
    for ((service, release), total) in totals {
        let mut below = 0;
        let ends = TIME_CLASSES.iter().map(|end| seconds(*end)).chain(std::iter::once("+Inf".to_string()));
        for (end, count) in ends.zip(total.times) {
            below += count;
            sample(text, "gapless_small_get_seconds_bucket", &[("service", service), ("release", release), ("le", &end)], below);
        }
        let labels: [(&str, &str); 2] = [("service", service), ("release", release)];
        sample(text, "gapless_small_get_seconds_sum", &labels, seconds(total.time_us));
        sample(text, "gapless_small_get_seconds_count", &labels, below);
    }
}

fn seconds(microseconds: u64) -> String {
    let text = format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn node_gauges(text: &mut String, nodes: &Nodes) {
    type Value = fn(&NodeStatus) -> u64;
    let gauges: [(&str, &str, Value); 4] = [
        ("gapless_node_ready", "1: requests get sent to the node.", |node| u64::from(node.ready)),
        ("gapless_node_ejected", "1: the node lost requests in a row and is left alone for a while.", |node| {
            u64::from(node.ejected.is_some())
        }),
        ("gapless_node_requests_in_flight", "Requests on their way to the node.", |node| u64::from(node.requests_in_flight)),
        ("gapless_node_idle_connections", "Connections to the node that wait for use.", |node| u64::from(node.idle_connections)),
    ];
    for (name, help, value) in gauges {
        head(text, name, "gauge", help);
        for (service, nodes) in nodes {
            nodes.iter().for_each(|(node, status)| sample(text, name, &[("service", service), ("node", node)], value(status)));
        }
    }
}

/// Writing into a text does not fail.
fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    // As above.
    let _ = writeln!(text, "{name}{labels} {value}");
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_seconds_without_floats() {
        assert_eq!([500, 1_000_000, 12_345_678, 0].map(seconds), ["0.0005", "1", "12.345678", "0"]);
        assert_eq!(escaped("a\"b\\c\n"), "a\\\"b\\\\c\\n");
    }
}
