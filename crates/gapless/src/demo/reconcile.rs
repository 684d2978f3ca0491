//! Two counts of the same requests, held against each other: the witness's and the proxy's.
//!
//! The witness counts every request it started. The proxy counts every request whose head it read, when its answer is over. Health checks go from the proxy to the nodes and
//! are in neither count. So with nothing failed both are equal, in all and for each release, and there is no tolerance. Where they differ, each known reason is named with its number; what no
//! reason explains is a contradiction.

use std::collections::BTreeMap;

/// One side's count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests by the release that answered; the empty name: none did.
    pub by_release: BTreeMap<String, u64>,
}

/// What one side may have seen and the other not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Requests of the witness that never reached the proxy: it could not connect.
    pub never_connected: u64,
    /// Clients that went away before their answer was over, as the proxy counted them.
    pub client_gone: u64,
    /// Requests that the proxy refused because of its configuration, counted apart.
    pub refused: u64,
    /// Workers whose counts are lost.
    pub lost_workers: u32,
}

/// What came of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciliation {
    /// Requests that the witness counted.
    pub witness: u64,
    /// Requests that the proxy counted.
    pub proxy: u64,
    /// Each difference, in words. Empty: the counts are equal.
    pub differences: Vec<String>,
}

impl Count {
    /// All requests.
    pub fn total(&self) -> u64 {
        self.by_release.values().sum()
    }

    /// Adds requests of a release.
    pub fn add(&mut self, release: &str, requests: u64) {
        if requests > 0 {
            *self.by_release.entry(release.to_owned()).or_default() += requests;
        }
    }
}

impl Reconciliation {
    /// Whether both sides tell the same.
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Holds both counts against each other.
pub fn reconcile(witness: &Count, proxy: &Count, known: Known) -> Reconciliation {
    let mut differences = Vec::new();
    let releases: std::collections::BTreeSet<&String> = witness.by_release.keys().chain(proxy.by_release.keys()).collect();
    for release in releases {
        let seen = witness.by_release.get(release).copied().unwrap_or(0);
        let served = proxy.by_release.get(release).copied().unwrap_or(0);
        if seen != served {
            let name = if release.is_empty() { "no release" } else { release.as_str() };
            differences.push(format!("{name}: the witness counted {seen}, the proxy {served}"));
        }
    }
    differences.extend(known.reasons());
    Reconciliation { witness: witness.total(), proxy: proxy.total(), differences }
}

impl Known {
    /// Each known reason for a difference, in words. They stand beside the differences and excuse none of them.
    fn reasons(&self) -> Vec<String> {
        let reasons = [
            (self.never_connected, "requests of the witness could not connect, so the proxy never saw them"),
            (self.client_gone, "requests were given up by the client before their answer was over"),
            (self.refused, "requests were refused by the proxy's configuration and counted apart"),
            (u64::from(self.lost_workers), "workers of the proxy ended and took their counts with them"),
        ];
        reasons.into_iter().filter(|(count, _)| *count > 0).map(|(count, reason)| format!("{count} {reason}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(releases: &[(&str, u64)]) -> Count {
        let mut count = Count::default();
        releases.iter().for_each(|(release, requests)| count.add(release, *requests));
        count
    }

    #[test]
    fn equal_counts_hold() {
        let both = count(&[("web-r1", 10), ("web-r2", 5)]);
        let result = reconcile(&both, &both, Known::default());
        assert!(result.holds());
        assert_eq!((result.witness, result.proxy), (15, 15));
    }

    #[test]
    fn a_request_in_the_wrong_release_does_not_hold_though_the_totals_do() {
        let result = reconcile(&count(&[("web-r1", 10), ("web-r2", 5)]), &count(&[("web-r1", 9), ("web-r2", 6)]), Known::default());
        assert_eq!((result.witness, result.proxy), (15, 15));
        assert_eq!(result.differences, ["web-r1: the witness counted 10, the proxy 9", "web-r2: the witness counted 5, the proxy 6"]);
    }

    #[test]
    fn one_request_too_many_is_one_too_many() {
        assert!(!reconcile(&count(&[("web-r1", 10)]), &count(&[("web-r1", 11)]), Known::default()).holds());
        assert!(!reconcile(&count(&[("", 1)]), &count(&[]), Known::default()).holds());
    }

    #[test]
    fn reasons_are_named_and_excuse_nothing() {
        let known = Known { never_connected: 2, lost_workers: 1, ..Known::default() };
        let result = reconcile(&count(&[("web-r1", 10), ("", 2)]), &count(&[("web-r1", 10)]), known);
        assert_eq!(
            result.differences,
            [
                "no release: the witness counted 2, the proxy 0",
                "2 requests of the witness could not connect, so the proxy never saw them",
                "1 workers of the proxy ended and took their counts with them",
            ]
        );
    }
}
