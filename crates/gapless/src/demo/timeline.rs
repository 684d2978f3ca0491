//! What the witness saw, laid out over time: the one source of the charts in the terminal and on the page.

/// The length of a bucket of the charts, in milliseconds: fine enough to see a switch of a few hundred milliseconds.
pub const BUCKET_MS: u64 = 250;

/// The traffic of a whole run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// The releases in the order in which they first answered.
    pub releases: Vec<String>,
    /// One after the other, without holes, [`BUCKET_MS`] each.
    pub buckets: Vec<Bucket>,
    /// The rollouts that happened meanwhile, in order.
    pub spans: Vec<Span>,
}

/// What happened in one stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bucket {
    /// Its beginning, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Answered requests, in the order of [`Timeline::releases`].
    pub by_release: Vec<u64>,
    /// Failed requests.
    pub failed: u64,
    /// How long small GETs took; nothing when there were none.
    pub latency: Option<Latency>,
}

/// Latencies of small GETs in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Half of them were at most that slow.
    pub p50_ms: f64,
    /// 99 of 100 were at most that slow.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// A rollout's place in time, in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// What it was, in few words.
    pub label: String,
    /// Its start.
    pub began_ms: u64,
    /// When all traffic was on the new release, if it came to that.
    pub shifted_ms: Option<u64>,
    /// Its end.
    pub ended_ms: u64,
    /// Whether the new release was given up.
    pub rejected: bool,
}

impl Timeline {
    /// The beginning of the first bucket.
    pub fn began_ms(&self) -> u64 {
        self.buckets.first().map_or(0, |bucket| bucket.at_ms)
    }

    /// The end of the last bucket.
    pub fn ended_ms(&self) -> u64 {
        self.buckets.last().map_or(0, |bucket| bucket.at_ms + BUCKET_MS)
    }

    /// From the beginning to the end, at least 1 ms, so that it can divide.
    pub fn length_ms(&self) -> u64 {
        (self.ended_ms() - self.began_ms()).max(1)
    }

    /// The buckets summed up into `columns` of equal length: answered requests by release in each.
    pub fn columns(&self, columns: usize) -> Vec<Vec<u64>> {
        let mut summed = vec![vec![0; self.releases.len()]; columns];
        if columns == 0 {
            return summed;
        }
        for (place, bucket) in self.buckets.iter().enumerate() {
            let column = place * columns / self.buckets.len();
            for (release, count) in bucket.by_release.iter().enumerate() {
                summed[column][release] += count;
            }
        }
        fill_holes(&mut summed);
        summed
    }

    /// The column of `columns` in which an instant lies, if it lies inside.
    pub fn column_of(&self, at_ms: u64, columns: usize) -> Option<usize> {
        let inside = columns > 0 && (self.began_ms()..self.ended_ms()).contains(&at_ms);
        inside.then(|| ((at_ms - self.began_ms()) as usize * columns) / self.length_ms() as usize)
    }
}

/// With fewer buckets than columns some columns get none: they show what their left neighbour shows.
fn fill_holes(columns: &mut [Vec<u64>]) {
    for place in 1..columns.len() {
        if columns[place].iter().all(|count| *count == 0) {
            columns[place] = columns[place - 1].clone();
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Ten buckets: the first release, a switch in the middle of the sixth, the second release.
    pub fn a_switch() -> Timeline {
        let bucket = |place: u64| {
            let by_release = match place {
                0..5 => vec![100, 0],
                5 => vec![50, 50],
                _ => vec![0, 100],
            };
            let p99_ms = if place == 5 { 9.0 } else { 4.0 };
            let latency = Some(Latency { p50_ms: 1.5, p99_ms, max_ms: 12.5 });
            Bucket { at_ms: 1_000_000 + place * BUCKET_MS, by_release, failed: 0, latency }
        };
        Timeline {
            releases: vec!["web-r1".to_owned(), "web-r2".to_owned()],
            buckets: (0..10).map(bucket).collect(),
            spans: vec![Span {
                label: "deploy web-r2".to_owned(),
                began_ms: 1_000_800,
                shifted_ms: Some(1_001_375),
                ended_ms: 1_002_000,
                rejected: false,
            }],
        }
    }

    #[test]
    fn columns_keep_every_request() {
        let timeline = a_switch();
        let columns = timeline.columns(5);
        assert_eq!(columns, [[200, 0], [200, 0], [150, 50], [0, 200], [0, 200]]);
        assert_eq!(timeline.columns(0), Vec::<Vec<u64>>::new());
    }

    #[test]
    fn more_columns_than_buckets_leave_no_hole() {
        assert!(a_switch().columns(35).iter().all(|column| column.iter().sum::<u64>() > 0));
    }

    #[test]
    fn instants_find_their_column() {
        let timeline = a_switch();
        assert_eq!(timeline.column_of(1_000_000, 10), Some(0));
        assert_eq!(timeline.column_of(1_001_375, 10), Some(5));
        assert_eq!(timeline.column_of(1_002_500, 10), None);
        assert_eq!(timeline.column_of(999_999, 10), None);
        assert_eq!(Timeline::default().column_of(0, 10), None);
    }
}
