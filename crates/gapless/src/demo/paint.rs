//! Colours and characters for the terminal.

use std::collections::BTreeMap;

/// How text may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    /// Whether colours may be used.
    pub colour: bool,
}

/// What a text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A heading.
    Strong,
    /// Beside the point.
    Quiet,
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// The colour of the release at this place.
    Release(usize),
}

/// Fills for the releases of a chart, one after the other: they differ without colour too.
const FILLS: [char; 5] = ['█', '▒', '▓', '░', '◆'];

/// Colours for the releases, of the 256-colour palette: blue, orange, teal, violet, yellow. They differ in brightness too.
const COLOURS: [u8; 5] = [33, 208, 43, 134, 220];

/// The fill of the release at this place.
pub fn fill(release: usize) -> char {
    FILLS[release % FILLS.len()]
}

impl Paint {
    /// The text in this tone.
    pub fn text(self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Strong => "1".to_owned(),
            Tone::Quiet => "2".to_owned(),
            Tone::Good => "32".to_owned(),
            Tone::Bad => "1;31".to_owned(),
            Tone::Release(place) => format!("38;5;{}", COLOURS[place % COLOURS.len()]),
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// A number with its thousands set apart, as in `4,312`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Milliseconds for people: `85 ms`, `2.4 s`, `3 min 05 s`.
pub fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..60_000 => format!("{}.{} s", milliseconds / 1_000, milliseconds % 1_000 / 100),
        _ => format!("{} min {:02} s", milliseconds / 60_000, milliseconds % 60_000 / 1_000),
    }
}

/// How many columns a text takes: colours take none.
pub fn width(text: &str) -> usize {
    let mut inside = false;
    text.chars()
        .filter(|character| {
            let hidden = inside || *character == '\u{1b}';
            inside = hidden && *character != 'm';
            !hidden
        })
        .count()
}

/// The text with spaces behind it up to `columns`.
pub fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// The text, cut to `columns` with an ellipsis. Only for text without colours.
pub fn shortened(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Causes of failures with their counts, in brackets; nothing when there are none.
pub fn causes(by_cause: &BTreeMap<String, u64>) -> String {
    if by_cause.is_empty() {
        return String::new();
    }
    let named: Vec<String> = by_cause.iter().map(|(cause, count)| format!("{} {cause}", thousands(*count))).collect();
    format!(" ({})", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([85, 2_449, 185_400].map(duration), ["85 ms", "2.4 s", "3 min 05 s"]);
    }

    #[test]
    fn colours_take_no_columns_and_none_are_written_when_unwanted() {
        let text = Paint { colour: true }.text(Tone::Good, "yes");
        assert_eq!((width(&text), text.len() > 3), (3, true));
        assert_eq!(Paint { colour: false }.text(Tone::Bad, "no"), "no");
        assert_eq!(padded(&text, 5), format!("{text}  "));
        assert_eq!(shortened("a long text", 6), "a lon…");
    }
}
