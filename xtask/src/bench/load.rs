//! Load by other people's tools: wrk, and h2load for HTTP/2.

use crate::bench::peer::tool;
use crate::bench::process::said_by;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What a tool may take beyond its time: it waits for the last answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many connections are open at once.
    pub connections: usize,
    /// The request target.
    pub path: &'static str,
    /// The way of asking.
    pub style: Style,
}

/// The ways of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// GETs on connections that are kept.
    Kept,
    /// Each GET on a connection of its own.
    OneShot,
    /// POSTs of so many bytes on connections that are kept.
    Upload(usize),
    /// HTTP/2, so many streams at once on each connection.
    Http2(usize),
}

/// What a tool counted and measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Answers.
    pub requests: u64,
    /// Requests that came to nothing or to a status that is no success.
    pub failed: u64,
    /// Answers a second.
    pub per_second: f64,
    /// The half of the requests took no longer, in microseconds.
    pub p50_us: u64,
    /// 99 in a hundred.
    pub p99_us: u64,
    /// 999 in a thousand.
    pub p999_us: u64,
}

impl Load {
    /// Asks `base` (such as `http://127.0.0.1:8080`) for some time. `root` is the repository, `folder` a place for what the tool writes.
    ///
    /// # Errors
    /// When the tool fails.
    pub fn run(&self, base: &str, time: Duration, root: &Path, folder: &Path) -> Result<Counted, String> {
        match self.style {
            Style::Http2(streams) => self.h2load(base, streams, time, folder),
            Style::Kept | Style::OneShot | Style::Upload(_) => self.wrk(base, time, root),
        }
    }

    fn wrk(&self, base: &str, time: Duration, root: &Path) -> Result<Counted, String> {
        let mut command = tool("wrk");
        command.arg("--threads=2").arg(format!("--connections={}", self.connections)).arg(format!("--duration={}s", time.as_secs()));
        command.arg("--timeout=10s").arg("--script").arg(root.join("bench/proxy/wrk.lua"));
        if self.style == Style::OneShot {
            command.arg("--header=Connection: close");
        }
        let upload = if let Style::Upload(bytes) = self.style { bytes } else { 0 };
        command.arg(format!("{base}{}", self.path)).arg("--").arg(upload.to_string());
        counted_by_wrk(&said_by(&mut command, time + PATIENCE)?)
    }

    fn h2load(&self, base: &str, streams: usize, time: Duration, folder: &Path) -> Result<Counted, String> {
        let log = folder.join("h2load.log");
        let _ = fs::remove_file(&log);
        let mut command = tool("h2load");
        command.arg("--threads=2").arg(format!("--clients={}", self.connections)).arg(format!("--max-concurrent-streams={streams}"));
        command.arg(format!("--duration={}", time.as_secs())).arg(format!("--log-file={}", log.display()));
        let said = said_by(command.arg(format!("{base}{}", self.path)), time + PATIENCE)?;
        let times = fs::read_to_string(&log).map_err(|error| format!("reading {}: {error}", log.display()))?;
        counted_by_h2load(&said, &times, time)
    }
}

fn counted_by_wrk(said: &str) -> Result<Counted, String> {
    let line = said.lines().find(|line| line.starts_with('{')).ok_or_else(|| format!("wrk says nothing: {said}"))?;
    let told: Value = serde_json::from_str(line).map_err(|error| format!("wrk's line cannot be read: {error}"))?;
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let requests = number(&told["requests"]);
    let seconds = Duration::from_micros(number(&told["duration_us"])).as_secs_f64();
    Ok(Counted {
        requests,
        failed: told["errors"].as_object().into_iter().flatten().map(|(_, count)| number(count)).sum(),
        per_second: float(requests) / seconds.max(f64::MIN_POSITIVE),
        p50_us: number(&told["p50_us"]),
        p99_us: number(&told["p99_us"]),
        p999_us: number(&told["p999_us"]),
    })
}

/// The log has a line for each request: when it began, its status, how long it took (h2load(1), `--log-file`).
fn counted_by_h2load(said: &str, log: &str, time: Duration) -> Result<Counted, String> {
    if !said.contains("Application protocol: h2") {
        return Err(format!("h2load spoke no HTTP/2: {said}"));
    }
    let mut times = Vec::new();
    let mut failed = 0;
    for line in log.lines() {
        let mut fields = line.split('\t').skip(1);
        match (fields.next(), fields.next().and_then(|taken| taken.parse::<u64>().ok())) {
            (Some("200"), Some(taken)) => times.push(taken),
            _ => failed += 1,
        }
    }
    times.sort_unstable();
    let requests = u64::try_from(times.len()).unwrap_or(u64::MAX);
    let part = |thousandths: usize| times.get(times.len() * thousandths / 1000).copied().unwrap_or(0);
    let per_second = float(requests) / time.as_secs_f64();
    Ok(Counted { requests, failed, per_second, p50_us: part(500), p99_us: part(990), p999_us: part(999) })
}

/// For ratios: none of the counts here has more digits than a float.
#[allow(clippy::cast_precision_loss)]
pub fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let said = "Running 1s test\n{\"requests\":200,\"duration_us\":2000000,\"p50_us\":1,\"p99_us\":2,\"p999_us\":3,\"errors\":{\"connect\":1,\"status\":2}}\n";
        let counted = counted_by_wrk(said).expect("counts");
        assert_eq!((counted.requests, counted.failed, counted.p999_us), (200, 3, 3));
        assert!((counted.per_second - 100.0).abs() < 0.01);
    }

    #[test]
    fn what_h2load_logs_is_read() {
        let log = "1\t200\t30\n1\t200\t10\n1\t502\t10\n1\t200\t20\n";
        let counted = counted_by_h2load("Application protocol: h2\n", log, Duration::from_secs(1)).expect("counts");
        assert_eq!((counted.requests, counted.failed, counted.p50_us, counted.p999_us), (3, 1, 20, 30));
    }
}
