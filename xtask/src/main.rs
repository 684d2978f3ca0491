//! Tasks for the people who develop gapless: `cargo xtask tidy` checks the rules that a compiler does not.

mod tidy;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() != Some("tidy") {
        eprintln!("usage: cargo xtask tidy");
        return ExitCode::from(2);
    }
    let findings = tidy::check(&repository());
    for finding in &findings {
        eprintln!("{finding}");
    }
    eprintln!("tidy: {} found", findings.len());
    ExitCode::from(u8::from(!findings.is_empty()))
}

fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}
