//! Puts the bundled project `examples/hello` into the program, so that `gapless demo` works wherever the program is installed.

use std::fmt::Write;
use std::path::{Path, PathBuf};

fn main() {
    let root = Path::new("../../examples/hello");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(root, &mut files);
    files.sort();
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join("hello.rs"), table(root, &files)).expect("the table of the bundled project's files is written");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("examples/hello can be read") {
        let path = entry.expect("examples/hello can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

fn table(root: &Path, files: &[PathBuf]) -> String {
    let mut table = "&[\n".to_owned();
    for file in files {
        let name = file.strip_prefix(root).expect("a file of examples/hello").display().to_string();
        let whole = file.canonicalize().expect("a file of examples/hello").display().to_string();
        writeln!(table, "    ({name:?}, include_bytes!({whole:?})),").expect("text grows");
    }
    table.push_str("]\n");
    table
}
