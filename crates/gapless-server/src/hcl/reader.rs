//! Reads the attributes and blocks of a body, and notes what is missing, wrong or unknown.

use super::fault::{Source, suggestion};
use hcl_edit::Span;
use hcl_edit::expr::{Expression, ObjectKey};
use hcl_edit::structure::{Block, Body};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

/// Why a value is not what it should be.
pub(crate) struct Complaint {
    what: String,
    hint: String,
}

impl Complaint {
    pub(crate) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }

    /// The same, with the reason for the bounds.
    pub(crate) fn because(mut self, reason: &str) -> Self {
        self.hint = format!("{}: {reason}", self.hint);
        self
    }

    /// The same, where something else may stand, too.
    pub(crate) fn or(mut self, other: &str) -> Self {
        self.hint = format!("{}; or {other}", self.hint);
        self
    }
}

/// A body that is being read. Whatever was not asked for until [`Section::close`] is unknown.
pub(crate) struct Section<'a> {
    source: &'a Source<'a>,
    body: &'a Body,
    name: String,
    place: Range<usize>,
    attributes: RefCell<Vec<&'static str>>,
    wrong: RefCell<Vec<&'static str>>,
    blocks: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(source: &'a Source<'a>, body: &'a Body, name: String, place: Range<usize>) -> Self {
        Self { source, body, name, place, attributes: RefCell::default(), wrong: RefCell::default(), blocks: RefCell::default() }
    }

    pub(crate) fn of_block(source: &'a Source<'a>, block: &'a Block, name: String) -> Self {
        Self::new(source, &block.body, name, span_of(&block.ident))
    }

    pub(crate) fn source(&self) -> &'a Source<'a> {
        self.source
    }

    pub(crate) fn fault(&self, place: Range<usize>, what: impl Into<String>, hint: impl Into<String>) {
        self.source.fault(place, what, hint);
    }

    /// Notes a fault at the value of an attribute, or at the section's head when the attribute is not there.
    pub(crate) fn fault_at(&self, attribute: &str, what: impl Into<String>, hint: impl Into<String>) {
        let place = self.body.get_attribute(attribute).map_or(self.place.clone(), |found| span_of(&found.value));
        self.source.fault(place, what, hint);
    }

    /// Notes a fault at the value of an attribute of a block, or at the block, or at the section's head: at what is there.
    pub(crate) fn fault_inside(&self, block: &str, attribute: &str, what: impl Into<String>, hint: impl Into<String>) {
        let found = self.body.blocks().find(|found| found.has_ident(block));
        let value = found.and_then(|found| found.body.get_attribute(attribute)).map(|attribute| span_of(&attribute.value));
        let place = value.or_else(|| found.map(|found| span_of(&found.ident))).unwrap_or_else(|| self.place.clone());
        self.source.fault(place, what, hint);
    }

    /// Whether the attribute is there, with whatever value.
    pub(crate) fn has(&self, attribute: &str) -> bool {
        self.body.has_attribute(attribute)
    }

    /// Whether what was read of an attribute is what is meant: it is not there, or its value is none that is wrong.
    pub(crate) fn is_read(&self, attribute: &'static str) -> bool {
        !self.wrong.borrow().contains(&attribute)
    }

    /// An attribute's value, if the attribute is there. A wrong value is noted.
    pub(crate) fn optional<T>(&self, name: &'static str, read: impl Fn(&Expression) -> Result<T, Complaint>) -> Option<T> {
        self.attributes.borrow_mut().push(name);
        let attribute = self.body.get_attribute(name)?;
        match read(&attribute.value) {
            Ok(value) => Some(value),
            Err(complaint) => {
                self.source.fault(span_of(&attribute.value), format!("`{name}` {}", complaint.what), complaint.hint);
                self.wrong.borrow_mut().push(name);
                None
            }
        }
    }

    /// An attribute's value, or this one.
    pub(crate) fn or<T>(&self, name: &'static str, default: T, read: impl Fn(&Expression) -> Result<T, Complaint>) -> T {
        self.optional(name, read).unwrap_or(default)
    }

    /// The value of an attribute that must be there. What stands in for it after a fault never leaves the parser.
    pub(crate) fn required<T: Default>(&self, name: &'static str, hint: &str, read: impl Fn(&Expression) -> Result<T, Complaint>) -> T {
        if self.body.get_attribute(name).is_none() {
            self.source.fault(self.place.clone(), format!("{} has no `{name}`", self.name), hint);
        }
        self.optional(name, read).unwrap_or_default()
    }

    /// The one label of a block, which is called `what`.
    pub(crate) fn label<'b>(&self, block: &'b Block, what: &str) -> Option<&'b str> {
        if let [label] = block.labels.as_slice() {
            return Some(label.as_str());
        }
        let kind = block.ident.as_str();
        self.fault(span_of(&block.ident), format!("`{kind}` needs one {what}"), format!("write `{kind} \"{}\" {{`", what.to_uppercase()));
        None
    }

    /// Every block of a kind.
    pub(crate) fn blocks(&self, kind: &'static str) -> Vec<&'a Block> {
        self.blocks.borrow_mut().push(kind);
        self.body.blocks().filter(|block| block.has_ident(kind)).collect()
    }

    /// Every block of a kind, none of which has a label. Each is for the caller to close.
    pub(crate) fn each(&self, kind: &'static str) -> Vec<Section<'a>> {
        let section = |block: &'a Block| {
            if let Some(label) = block.labels.first() {
                self.source.fault(span_of(label), format!("`{kind}` has no name of its own"), format!("write `{kind} {{`"));
            }
            Section::of_block(self.source, block, format!("`{kind}` of {}", self.name))
        };
        self.blocks(kind).into_iter().map(section).collect()
    }

    /// The one block of a kind, which has no label; read by `read` and closed.
    pub(crate) fn block<T>(&self, kind: &'static str, read: impl Fn(&Section<'_>) -> T) -> Option<T> {
        let found = self.blocks(kind);
        for again in found.iter().skip(1) {
            self.source.fault(span_of(&again.ident), format!("a second `{kind}` in {}", self.name), "put all of it into one");
        }
        let block = found.first()?;
        if let Some(label) = block.labels.first() {
            self.source.fault(span_of(label), format!("`{kind}` has no name of its own"), format!("write `{kind} {{`"));
        }
        let section = Section::of_block(self.source, block, format!("`{kind}` of {}", self.name));
        let value = read(&section);
        section.close();
        Some(value)
    }

    /// Notes everything that nobody asked for.
    pub(crate) fn close(&self) {
        let attributes = self.attributes.borrow();
        let mut kinds: Vec<&str> = Vec::new();
        for kind in self.blocks.borrow().iter() {
            if !kinds.contains(kind) {
                kinds.push(kind);
            }
        }
        for attribute in self.body.attributes() {
            let name = attribute.key.as_str();
            if attributes.contains(&name) {
                continue;
            }
            let (what, hint) = if kinds.contains(&name) {
                (format!("`{name}` is a block, not an attribute"), format!("write `{name} {{ … }}` without `=`"))
            } else {
                let known = suggestion(name, attributes.iter().copied(), &format!("attributes of {}", self.name));
                (format!("unknown attribute `{name}` in {}", self.name), known)
            };
            self.source.fault(span_of(&attribute.key), what, hint);
        }
        for block in self.body.blocks() {
            let name = block.ident.as_str();
            if kinds.contains(&name) {
                continue;
            }
            let (what, hint) = if attributes.contains(&name) {
                (format!("`{name}` is an attribute, not a block"), format!("write `{name} = …`"))
            } else {
                let known = suggestion(name, kinds.iter().copied(), &format!("blocks of {}", self.name));
                (format!("unknown block `{name}` in {}", self.name), known)
            };
            self.source.fault(span_of(&block.ident), what, hint);
        }
    }
}

/// The place of anything that the parser made.
pub(crate) fn span_of(part: &impl Span) -> Range<usize> {
    part.span().unwrap_or(0..0)
}

/// A text without interpolation.
pub(crate) fn text(value: &Expression) -> Result<String, Complaint> {
    match value {
        Expression::String(text) => Ok(text.value().clone()),
        Expression::HeredocTemplate(_) | Expression::StringTemplate(_) => {
            Err(Complaint::new("is a template", "expressions are not evaluated here: write the value itself, and `$${` for a literal `${`"))
        }
        other => Err(Complaint::new(format!("is {}, not a text", kind(other)), "write it in double quotes")),
    }
}

/// A whole number within bounds.
pub(crate) fn whole(lowest: u64, highest: u64) -> impl Fn(&Expression) -> Result<u64, Complaint> {
    move |value| {
        let bounds = format!("a whole number from {lowest} to {highest}");
        let Expression::Number(number) = value else {
            return Err(Complaint::new(format!("is {}, not a number", kind(value)), bounds));
        };
        match number.value().as_u64() {
            Some(number) if (lowest..=highest).contains(&number) => Ok(number),
            _ => Err(Complaint::new(format!("is {}", number.value()), bounds)),
        }
    }
}

/// A number that was read within bounds that fit.
pub(crate) fn number(bounded: u64) -> u32 {
    u32::try_from(bounded).unwrap_or(u32::MAX)
}

/// One of these words, which are called `whose`.
pub(crate) fn one_of<T: Copy>(whose: &'static str, words: &'static [(&'static str, T)]) -> impl Fn(&Expression) -> Result<T, Complaint> {
    move |value| {
        let word = text(value)?;
        let found = words.iter().find(|(name, _)| *name == word).map(|(_, meaning)| *meaning);
        found.ok_or_else(|| Complaint::new(format!("is \"{word}\""), suggestion(&word, words.iter().map(|(name, _)| *name), whose)))
    }
}

/// `true` or `false`.
pub(crate) fn truth(value: &Expression) -> Result<bool, Complaint> {
    value.as_bool().ok_or_else(|| Complaint::new(format!("is {}", kind(value)), "write `true` or `false`"))
}

/// A list, each part read by `read`.
pub(crate) fn list<T>(read: impl Fn(&Expression) -> Result<T, Complaint>) -> impl Fn(&Expression) -> Result<Vec<T>, Complaint> {
    move |value| {
        let Some(array) = value.as_array() else {
            return Err(Complaint::new(format!("is {}, not a list", kind(value)), "write `[\"…\", \"…\"]`"));
        };
        array
            .iter()
            .map(&read)
            .enumerate()
            .map(|(place, part)| part.map_err(|complaint| inside(&format!("part {}", place + 1), complaint)))
            .collect()
    }
}

/// A map from names to values, each read by `read`.
pub(crate) fn map<T>(read: impl Fn(&Expression) -> Result<T, Complaint>) -> impl Fn(&Expression) -> Result<BTreeMap<String, T>, Complaint> {
    move |value| {
        let Some(object) = value.as_object() else {
            return Err(Complaint::new(format!("is {}, not a map", kind(value)), "write `{ NAME = \"…\" }`"));
        };
        let mut found = BTreeMap::new();
        for (key, value) in object.iter() {
            let name = match key {
                ObjectKey::Ident(name) => name.as_str().to_string(),
                ObjectKey::Expression(name) => text(name).map_err(|complaint| inside("a name", complaint))?,
            };
            let value = read(value.expr()).map_err(|complaint| inside(&format!("\"{name}\""), complaint))?;
            if found.insert(name.clone(), value).is_some() {
                return Err(Complaint::new(format!("names \"{name}\" twice"), "each name once"));
            }
        }
        Ok(found)
    }
}

fn inside(part: &str, complaint: Complaint) -> Complaint {
    Complaint { what: format!("({part}) {}", complaint.what), hint: complaint.hint }
}

fn kind(value: &Expression) -> &'static str {
    match value {
        Expression::Null(_) => "null",
        Expression::Bool(_) => "true or false",
        Expression::Number(_) => "a number",
        Expression::String(_) => "a text",
        Expression::Array(_) => "a list",
        Expression::Object(_) => "a map",
        _ => "an expression",
    }
}
