//! The page's charts, as inline SVG.

use super::page::escaped;
use super::timeline::{BUCKET_MS, Bucket, Latency, Timeline};
use std::fmt::Write;

/// The charts' width in units of their view box.
const WIDTH: f64 = 1080.0;

/// The charts' height.
const HEIGHT: f64 = 240.0;

/// Room left of the plot for its scale.
const LEFT: f64 = 52.0;

/// Room above the plot for the rollouts' names.
const TOP: f64 = 22.0;

/// Room below the plot for the time.
const BOTTOM: f64 = 22.0;

/// How many colours the page's style has for releases.
const COLOURS: usize = 5;

/// Marks on the time axis.
const TIME_MARKS: u64 = 6;

/// Names of the releases with their colours.
pub fn legend(timeline: &Timeline) -> String {
    let keys: String = timeline
        .releases
        .iter()
        .enumerate()
        .map(|(place, release)| format!("<span class=\"key\"><i class=\"release-{}\"></i>{}</span>", place % COLOURS, escaped(release)))
        .collect();
    format!("<p class=\"legend\">{keys}<span>dashed: all traffic shifted</span></p>\n")
}

/// Requests per second by release, stacked, over time.
pub fn split(timeline: &Timeline) -> String {
    let per_second = |count: u64| count as f64 * 1_000.0 / BUCKET_MS as f64;
    let highest = timeline.buckets.iter().map(|bucket| per_second(bucket.by_release.iter().sum())).fold(1.0, f64::max);
    let mut inner = String::new();
    for release in 0..timeline.releases.len() {
        let below: Vec<f64> = stacked(timeline, release, per_second);
        let above: Vec<f64> = stacked(timeline, release + 1, per_second);
        let edge = |values: &[f64]| -> Vec<(f64, f64)> {
            let points = timeline.buckets.iter().zip(values);
            points.map(|(bucket, value)| (x(timeline, bucket.at_ms + BUCKET_MS / 2), y(*value, highest))).collect()
        };
        let mut points = edge(&above);
        points.extend(edge(&below).into_iter().rev());
        let _ = write!(inner, "<path class=\"release-{}\" d=\"{}Z\"/>", release % COLOURS, path(&points));
    }
    figure(timeline, highest, "/s", &inner)
}

/// The 50th and 99th percentile and the maximum of small GETs over time.
pub fn latency(timeline: &Timeline) -> String {
    let measured = || timeline.buckets.iter().filter_map(|bucket| bucket.latency);
    // The scale follows the 99th percentile: a single slow answer must not flatten everything else.
    let highest = measured().map(|latency| latency.p99_ms).fold(1.0, f64::max) * 1.3;
    let curve = |name: &str, value: fn(Latency) -> f64| {
        let at = |bucket: &Bucket| Some((x(timeline, bucket.at_ms + BUCKET_MS / 2), y(value(bucket.latency?).min(highest), highest)));
        let points: Vec<(f64, f64)> = timeline.buckets.iter().filter_map(at).collect();
        format!("<path class=\"curve {name}\" d=\"{}\"/>", path(&points))
    };
    let curves =
        [curve("max", |latency| latency.max_ms), curve("p99", |latency| latency.p99_ms), curve("p50", |latency| latency.p50_ms)].concat();
    let slowest = measured().map(|latency| latency.max_ms).fold(0.0, f64::max);
    let legend = format!(
        "<p class=\"legend\"><span class=\"key\"><i class=\"release-0\"></i>p50</span><span class=\"key\"><i class=\"release-1\"></i>p99</span>\
         <span>thin: the slowest of each {BUCKET_MS} ms (slowest of all: {slowest:.0} ms)</span></p>\n"
    );
    format!("{legend}{}", figure(timeline, highest, " ms", &curves))
}

/// The sums of the first `count` releases in each bucket.
fn stacked(timeline: &Timeline, count: usize, per_second: impl Fn(u64) -> f64) -> Vec<f64> {
    timeline.buckets.iter().map(|bucket| per_second(bucket.by_release.iter().take(count).sum())).collect()
}

fn figure(timeline: &Timeline, highest: f64, unit: &str, inner: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">{}{inner}{}{}</svg>\n",
        bands(timeline),
        marks(timeline),
        axes(timeline, highest, unit)
    )
}

/// The rollouts as shaded bands.
fn bands(timeline: &Timeline) -> String {
    let band = |span: &super::timeline::Span| {
        let (from, until) = (x(timeline, span.began_ms), x(timeline, span.ended_ms));
        let class = if span.rejected { "rollout rejected" } else { "rollout" };
        format!(
            "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            (until - from).max(1.0),
            plot_height()
        )
    };
    let inside = |span: &&super::timeline::Span| span.ended_ms > timeline.began_ms();
    timeline.spans.iter().filter(inside).map(band).collect()
}

/// A dashed line at each complete shift, and each rollout's name.
fn marks(timeline: &Timeline) -> String {
    let mut drawn = String::new();
    for span in timeline.spans.iter().filter(|span| span.ended_ms > timeline.began_ms()) {
        let middle = x(timeline, (span.began_ms + span.ended_ms) / 2);
        let _ = write!(drawn, "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", TOP - 7.0, escaped(&span.label));
        if let Some(at_ms) = span.shifted_ms {
            let at = x(timeline, at_ms);
            let _ = write!(drawn, "<line class=\"shift\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>", TOP + plot_height());
        }
    }
    drawn
}

fn axes(timeline: &Timeline, highest: f64, unit: &str) -> String {
    let mut drawn = String::new();
    for part in [0.0, 0.5, 1.0] {
        let at = y(highest * part, highest);
        let _ = write!(drawn, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let _ = write!(drawn, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}{unit}</text>", LEFT - 6.0, at + 4.0, highest * part);
    }
    for mark in 0..=TIME_MARKS {
        let offset = timeline.length_ms() * mark / TIME_MARKS;
        let anchor = if mark == TIME_MARKS { "end" } else { "start" };
        let at = x(timeline, timeline.began_ms() + offset);
        let _ = write!(drawn, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{} s</text>", HEIGHT - 6.0, offset / 1_000);
    }
    drawn
}

fn plot_height() -> f64 {
    HEIGHT - TOP - BOTTOM
}

/// Where an instant lies; before and after the chart it lies on its edge.
fn x(timeline: &Timeline, at_ms: u64) -> f64 {
    let offset = at_ms.saturating_sub(timeline.began_ms()).min(timeline.length_ms());
    LEFT + offset as f64 / timeline.length_ms() as f64 * (WIDTH - LEFT)
}

fn y(value: f64, highest: f64) -> f64 {
    TOP + plot_height() * (1.0 - value / highest)
}

fn path(points: &[(f64, f64)]) -> String {
    let mut drawn = String::new();
    for (place, (x, y)) in points.iter().enumerate() {
        let _ = write!(drawn, "{}{x:.1} {y:.1}", if place == 0 { "M" } else { "L" });
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::super::timeline::tests::a_switch;
    use super::*;

    #[test]
    fn every_release_has_an_area_and_the_shift_its_line() {
        let drawn = split(&a_switch());
        assert_eq!(drawn.matches("<path class=\"release-").count(), 2);
        assert_eq!(drawn.matches("class=\"shift\"").count(), 1);
        assert!(drawn.contains("deploy web-r2"));
    }

    #[test]
    fn nothing_is_drawn_outside_or_as_no_number() {
        for drawn in [split(&a_switch()), latency(&a_switch()), split(&Timeline::default()), latency(&Timeline::default())] {
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }

    #[test]
    fn instants_before_the_chart_lie_on_its_edge() {
        assert!((x(&a_switch(), 0) - LEFT).abs() < 0.01);
        assert!((x(&a_switch(), u64::MAX) - WIDTH).abs() < 0.01);
    }
}
