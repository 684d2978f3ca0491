//! Configurations of the peers: readable files in `bench/proxy` with `{{name}}` in the places that only the harness knows.

use std::fs;
use std::path::{Path, PathBuf};

/// The values that a template's names stand for.
#[derive(Clone, Debug, Default)]
pub struct Values {
    values: Vec<(String, String)>,
    members: Vec<(String, String)>,
}

impl Values {
    /// The same, and what `name` stands for.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Values {
        self.values.push((name.to_string(), value.to_string()));
        self
    }

    /// The same; a line with `{{member}}` is repeated for each of these names and addresses.
    #[must_use]
    pub fn members(mut self, members: Vec<(String, String)>) -> Values {
        self.members = members;
        self
    }
}

/// A template with its names replaced.
///
/// # Errors
/// When a name is left that stands for nothing.
pub fn fill(template: &str, values: &Values) -> Result<String, String> {
    let mut text = String::new();
    for line in template.lines() {
        if line.contains("{{member}}") {
            for (name, address) in &values.members {
                text += &line.replace("{{member_name}}", name).replace("{{member}}", address);
                text.push('\n');
            }
        } else {
            text += line;
            text.push('\n');
        }
    }
    for (name, value) in &values.values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    match text.split_once("{{").and_then(|(_, rest)| rest.split_once("}}")) {
        Some((name, _)) => Err(format!("nobody says what {{{{{name}}}}} is")),
        None => Ok(text),
    }
}

/// Fills the template `name` of the repository at `root` into a file of the same name in `folder`, and returns the file's path.
///
/// # Errors
/// When it cannot be read, filled or written.
pub fn write(root: &Path, name: &str, values: &Values, folder: &Path) -> Result<PathBuf, String> {
    let source = root.join("bench/proxy").join(name);
    let template = fs::read_to_string(&source).map_err(|error| format!("reading {}: {error}", source.display()))?;
    let text = fill(&template, values).map_err(|problem| format!("{}: {problem}", source.display()))?;
    let path = folder.join(name);
    fs::write(&path, text).map_err(|error| format!("writing {}: {error}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_members_repeated() {
        let members = vec![("a".to_string(), "1:2".to_string()), ("b".to_string(), "3:4".to_string())];
        let values = Values::default().with("port", 80).members(members);
        assert_eq!(
            fill("listen {{port}}\n  server {{member_name}} {{member}}\n", &values).as_deref(),
            Ok("listen 80\n  server a 1:2\n  server b 3:4\n")
        );
        assert!(fill("listen {{address}}", &values).is_err());
    }
}
