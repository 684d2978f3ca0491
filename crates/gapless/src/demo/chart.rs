//! The split of the traffic over time, drawn in the terminal.

use super::paint::{self, Paint, Tone};
use super::timeline::Timeline;

/// Rows of the chart: each stands for an eighth of the traffic.
const ROWS: usize = 8;

/// The narrowest chart that can be read, in columns.
const MIN_COLUMNS: usize = 20;

/// The widest chart, in columns: past that it gains nothing.
const MAX_COLUMNS: usize = 110;

/// Columns left of the chart, for its scale.
const MARGIN: usize = 7;

/// The chart as lines of at most `width` columns: which release answered which part of the requests, over time, the rollouts below.
pub fn draw(timeline: &Timeline, width: usize, paint: Paint) -> Vec<String> {
    if timeline.buckets.is_empty() {
        return vec!["no request was answered: there is nothing to draw".to_owned()];
    }
    let columns = width.saturating_sub(MARGIN).clamp(MIN_COLUMNS, MAX_COLUMNS);
    let cells: Vec<Vec<usize>> = timeline.columns(columns).iter().map(|counts| stack(counts)).collect();
    let mut lines: Vec<String> = (0..ROWS).map(|row| draw_row(&cells, row, paint)).collect();
    lines.push(format!("{}└{}", " ".repeat(MARGIN - 1), "─".repeat(columns)));
    lines.push(draw_marks(timeline, columns, paint));
    lines.push(draw_scale(timeline, columns));
    lines.push(draw_legend(timeline, paint));
    lines
}

/// Which release fills each cell of a column, from the bottom: largest remainders, so that a release with any request at all is not lost against the cell's size.
fn stack(counts: &[u64]) -> Vec<usize> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return Vec::new();
    }
    let mut cells: Vec<u64> = counts.iter().map(|count| count * ROWS as u64 / total).collect();
    let mut open = ROWS as u64 - cells.iter().sum::<u64>();
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|release| std::cmp::Reverse((counts[*release] * ROWS as u64 % total, *release)));
    for release in order {
        if open > 0 && counts[release] > 0 {
            cells[release] += 1;
            open -= 1;
        }
    }
    cells.iter().enumerate().flat_map(|(release, cells)| std::iter::repeat_n(release, *cells as usize)).collect()
}

fn draw_row(cells: &[Vec<usize>], row: usize, paint: Paint) -> String {
    let label = match row {
        0 => "100 % ┤",
        4 => " 50 % ┤",
        _ => "      │",
    };
    let height = ROWS - 1 - row;
    let mut line = label.to_owned();
    let mut run = String::new();
    let mut of = None;
    for column in cells {
        let release = column.get(height).copied();
        if release != of {
            line.push_str(&coloured(paint, of, &run));
            run.clear();
            of = release;
        }
        run.push(release.map_or(' ', paint::fill));
    }
    line.push_str(&coloured(paint, of, &run));
    line
}

fn coloured(paint: Paint, release: Option<usize>, text: &str) -> String {
    release.map_or_else(|| text.to_owned(), |place| paint.text(Tone::Release(place), text))
}

/// A line that points at each shift, and at each rejection.
fn draw_marks(timeline: &Timeline, columns: usize, paint: Paint) -> String {
    let mut marks: Vec<String> = vec![" ".to_owned(); columns];
    for span in &timeline.spans {
        let at_ms = span.shifted_ms.unwrap_or(span.ended_ms);
        if let Some(column) = timeline.column_of(at_ms, columns) {
            marks[column] = if span.rejected { paint.text(Tone::Bad, "✗") } else { paint.text(Tone::Good, "▲") };
        }
    }
    format!("{}{}", " ".repeat(MARGIN), marks.concat()).trim_end().to_owned()
}

fn draw_scale(timeline: &Timeline, columns: usize) -> String {
    let end = format!("{} s", timeline.length_ms() / 1_000);
    format!("{}0 s{}{end}", " ".repeat(MARGIN), " ".repeat(columns.saturating_sub(3 + end.len())))
}

fn draw_legend(timeline: &Timeline, paint: Paint) -> String {
    let releases = timeline.releases.iter().enumerate().map(|(place, release)| {
        let square: String = std::iter::repeat_n(paint::fill(place), 2).collect();
        format!("{} {release}", paint.text(Tone::Release(place), &square))
    });
    let marks = [format!("{} all traffic shifted", paint.text(Tone::Good, "▲")), format!("{} rejected", paint.text(Tone::Bad, "✗"))];
    format!("{}{}", " ".repeat(MARGIN), releases.chain(marks).collect::<Vec<_>>().join("   "))
}

#[cfg(test)]
mod tests {
    use super::super::timeline::tests::a_switch;
    use super::*;

    #[test]
    fn a_switch_looks_like_a_switch() {
        let drawn = draw(&a_switch(), 27, Paint { colour: false }).join("\n");
        let expected = "\
100 % ┤██████████▒▒▒▒▒▒▒▒▒▒
      │██████████▒▒▒▒▒▒▒▒▒▒
      │██████████▒▒▒▒▒▒▒▒▒▒
      │██████████▒▒▒▒▒▒▒▒▒▒
 50 % ┤████████████▒▒▒▒▒▒▒▒
      │████████████▒▒▒▒▒▒▒▒
      │████████████▒▒▒▒▒▒▒▒
      │████████████▒▒▒▒▒▒▒▒
      └────────────────────
                  ▲
       0 s              2 s
       ██ web-r1   ▒▒ web-r2   ▲ all traffic shifted   ✗ rejected";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn cells_are_shared_out_whole() {
        assert_eq!(stack(&[1, 1]), [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(stack(&[999, 1]).len(), ROWS);
        assert_eq!(stack(&[0, 5]), [1; 8]);
        assert!(stack(&[0, 0]).is_empty());
        assert_eq!(stack(&[1, 1, 1]).len(), ROWS);
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(draw(&Timeline::default(), 80, Paint { colour: true }).len(), 1);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for line in draw(&a_switch(), 80, Paint { colour: true }) {
            assert!(paint::width(&line) <= 80, "{line}");
        }
    }
}
