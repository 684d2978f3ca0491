//! The list of installed packages, read from the tree of a system.

use gapless_engine::error::{Context, Error};
use std::fs;
use std::path::Path;

/// The packages that are installed in the tree at `root`, as `name version` lines in the order of their names.
///
/// # Errors
/// When the package manager's list cannot be read.
pub fn installed(root: &Path) -> Result<Vec<String>, Error> {
    let path = root.join("var/lib/dpkg/status");
    let text = fs::read_to_string(&path).context(|| format!("reading {}", path.display()))?;
    Ok(parse(&text))
}

fn parse(status: &str) -> Vec<String> {
    let mut packages: Vec<String> = status.split("\n\n").filter_map(package).collect();
    packages.sort();
    packages
}

fn package(stanza: &str) -> Option<String> {
    let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let is_installed = field("Status")?.ends_with(" installed");
    is_installed.then(|| Some(format!("{} {}", field("Package")?, field("Version")?)))?
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_installed_packages_are_listed() {
        let status = "Package: b\nStatus: install ok installed\nVersion: 1:2\n\nPackage: c\nStatus: deinstall ok config-files\nVersion: 3\n\nPackage: a\nStatus: install ok installed\nDescription: x\n Version: 9\nVersion: 1\n";
        assert_eq!(super::parse(status), ["a 1", "b 1:2"]);
    }
}
