//! Reading files in HCL: the attributes and blocks of a body, values with units, and every fault at once with its place and with what may stand there.

mod fault;
mod place;
mod reader;
mod units;

pub use fault::{Fault, Faults};

pub(crate) use fault::{Source, suggestion};
pub(crate) use place::{is_host, place};
pub(crate) use reader::{Complaint, Section, list, map, number, one_of, span_of, text, truth, whole};
pub(crate) use units::{absolute, cores, hundredths, inside_project, percent, show_time, size, time};

/// The largest file that is read, in bytes: far above any that a person wrote.
pub const FILE_LIMIT: usize = 1024 * 1024;

/// Reads a file's text with `read`, which is given its top. `file` is the name that faults are told with.
///
/// # Errors
/// Every fault of the text.
pub(crate) fn parse<T>(file: &str, text: &str, read: impl FnOnce(&Section<'_>) -> T) -> Result<T, Faults> {
    let source = Source::new(file, text);
    if text.len() > FILE_LIMIT {
        let complaint = format!("the file has {} bytes; at most {FILE_LIMIT} are read", text.len());
        return Err(source.alone(0..0, complaint, "is this the right file?".into()));
    }
    let body = hcl_edit::parser::parse_body(text).map_err(|error| source.syntax(&error))?;
    let value = read(&Section::new(&source, &body, "the file".into(), 0..0));
    source.finish(value)
}
