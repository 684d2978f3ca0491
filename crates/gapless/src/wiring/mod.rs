//! Where concrete parts are wired into programs: the server and the proxy.

pub mod backup;
mod builder;
pub mod doctor;
mod host;
mod installation;
pub mod proxy;
pub mod server;

use tracing::level_filters::LevelFilter;

/// Logs to standard error, one line per event; the service manager adds the rest.
pub fn logging() {
    let subscriber =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(LevelFilter::INFO).with_ansi(false).with_target(false);
    // A second call in one process (tests) changes nothing.
    let _ = subscriber.try_init();
}
