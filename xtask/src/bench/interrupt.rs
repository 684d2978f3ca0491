//! Ctrl-C: the measurement in progress fails, so that everything that was started is ended on the usual way out.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How often something that is waited for is looked at: looking takes processor time from what is measured.
const LOOK: Duration = Duration::from_millis(10);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on a signal to end is only noted.
///
/// # Errors
/// When the system refuses.
pub fn watch() -> Result<(), String> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag)).map_err(|error| format!("watching for Ctrl-C: {error}"))?;
    }
    Ok(())
}

/// Goes on, unless somebody asked to end.
///
/// # Errors
/// When somebody did.
pub fn check() -> Result<(), String> {
    match INTERRUPTED.get() {
        Some(flag) if flag.load(Ordering::Relaxed) => Err("interrupted".to_string()),
        _ => Ok(()),
    }
}

/// Waits until something has come of `look`.
///
/// # Errors
/// When it took longer than `patience`, `look` failed, or somebody asked to end.
pub fn wait_for<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<Option<T>, String>) -> Result<T, String> {
    let until = Instant::now() + patience;
    loop {
        check()?;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err(format!("{what}: not within {patience:?}"));
        }
        std::thread::sleep(LOOK);
    }
}

/// Sleeps, in pieces that Ctrl-C ends.
///
/// # Errors
/// When somebody asked to end.
pub fn sleep(duration: Duration) -> Result<(), String> {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        check()?;
        std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
    }
    Ok(())
}
