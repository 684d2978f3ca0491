//! Faults of a text: what, where, and what may stand there instead.

use gapless_wire::api::Problem;
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The line's text.
    pub text: String,
    /// How many characters are at fault; at least 1.
    pub width: usize,
    /// What is wrong.
    pub what: String,
    /// What may stand there.
    pub hint: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let before = " ".repeat(self.column - 1);
        let carets = "^".repeat(self.width);
        writeln!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.what)?;
        writeln!(f, " {number} | {}", self.text)?;
        writeln!(f, " {margin} | {before}{carets}")?;
        write!(f, " {margin} = {}", self.hint)
    }
}

/// Every fault of a text, in the order of their places. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, fault) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl Faults {
    /// All of them for a person, with what to do about them.
    pub(crate) fn problem(&self, hint: &str) -> Problem {
        let file = self.0.first().map_or("the file", |fault| fault.file.as_str());
        let what = match self.0.len() {
            1 => format!("{file} has a fault"),
            many => format!("{file} has {many} faults"),
        };
        Problem { what, place: Some(self.to_string()), hint: Some(hint.into()) }
    }
}

/// A text and the faults that were found in it so far.
pub(crate) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    faults: RefCell<Vec<(usize, Fault)>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, faults: RefCell::new(Vec::new()) }
    }

    /// Notes a fault at a place.
    pub(crate) fn fault(&self, place: Range<usize>, what: impl Into<String>, hint: impl Into<String>) {
        let start = place.start;
        let fault = self.locate(place, what.into(), hint.into());
        self.faults.borrow_mut().push((start, fault));
    }

    /// Only this fault.
    pub(crate) fn alone(&self, place: Range<usize>, what: String, hint: String) -> Faults {
        Faults(vec![self.locate(place, what, hint)])
    }

    /// The fault of a text that is no HCL.
    pub(crate) fn syntax(&self, error: &hcl_edit::parser::Error) -> Faults {
        let offset = error.location().offset();
        let hint = match error.message() {
            message if message.contains("redefined") => "each attribute once in its block",
            _ => "the text is no HCL from here on; each attribute stands on a line of its own: `name = value`",
        };
        self.alone(offset..offset + 1, error.message().to_string(), hint.to_string())
    }

    /// The result, if nothing was found.
    pub(crate) fn finish<T>(self, result: T) -> Result<T, Faults> {
        let mut faults = self.faults.into_inner();
        if faults.is_empty() {
            return Ok(result);
        }
        faults.sort_by_key(|(start, _)| *start);
        Err(Faults(faults.into_iter().map(|(_, fault)| fault).collect()))
    }

    fn locate(&self, place: Range<usize>, what: String, hint: String) -> Fault {
        let start = (0..=place.start.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let text = self.text[line_start..line_end].trim_end().replace('\t', " ");
        let before = self.text[line_start..start].chars().count();
        let inside = self.text.get(start..place.end.min(line_end)).map_or(0, |part| part.trim_end().chars().count());
        Fault {
            file: self.file.to_string(),
            line: self.text[..start].matches('\n').count() + 1,
            column: before + 1,
            text,
            width: inside.max(1),
            what,
            hint,
        }
    }
}

/// What to say about a name that is not known: the near one if there is one, and all that are.
pub(crate) fn suggestion<'n>(name: &str, known: impl Iterator<Item = &'n str>, whose: &str) -> String {
    let known: Vec<&str> = known.collect();
    if known.is_empty() {
        return format!("there are no {whose}");
    }
    let list = known.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
    let nearest = known.iter().map(|known| (distance(name, known), *known)).min();
    match nearest {
        Some((far, near)) if far <= near.len().div_ceil(3) => format!("did you mean `{near}`? {whose}: {list}"),
        _ => format!("{whose}: {list}"),
    }
}

/// The edit distance (Levenshtein) between two texts: insertions, deletions and replacements of characters.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}
