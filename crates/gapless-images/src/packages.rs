//! The list of installed packages, read from the tree of a system.

use gapless_engine::error::{Context, Error};
use gapless_engine::inside;
use std::path::Path;

/// Where the package manager keeps its list (dpkg(1)).
const STATUS: &str = "var/lib/dpkg/status";

/// The most bytes of that list: a desktop with all that there is to install has some 100 MB, a server 1 to 3.
const STATUS_LIMIT: u64 = 128 * 1024 * 1024;

/// The packages that are installed in the tree at `root`, as `name version` lines in the order of their names.
///
/// # Errors
/// When the package manager's list cannot be read.
pub fn installed(root: &Path) -> Result<Vec<String>, Error> {
    // The tree may be one that a build node wrote: its links stay inside.
    let text = inside::read_text(root, Path::new(STATUS), STATUS_LIMIT).context(|| "reading the list of packages".into())?;
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
    fn a_list_that_is_a_link_out_of_the_tree_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
        let host = folder.path().join("status");
        std::fs::write(&host, "Package: host\nStatus: install ok installed\nVersion: 1\n").unwrap();
        std::os::unix::fs::symlink(&host, root.join(super::STATUS)).unwrap();
        assert!(super::installed(&root).is_err());
        std::fs::rename(&host, root.join("var/lib/dpkg/real")).unwrap();
        std::fs::remove_file(root.join(super::STATUS)).unwrap();
        std::os::unix::fs::symlink("/var/lib/dpkg/real", root.join(super::STATUS)).unwrap();
        assert_eq!(super::installed(&root).unwrap(), ["host 1"]);
    }

    #[test]
    fn only_installed_packages_are_listed() {
        let status = "Package: b\nStatus: install ok installed\nVersion: 1:2\n\nPackage: c\nStatus: deinstall ok config-files\nVersion: 3\n\nPackage: a\nStatus: install ok installed\nDescription: x\n Version: 9\nVersion: 1\n";
        assert_eq!(super::parse(status), ["a 1", "b 1:2"]);
    }
}
