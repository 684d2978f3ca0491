//! What is sent: the plan of a run, its classes of requests, and the demo's standard mix.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::error::LoadError;

/// Requests started each second when a plan does not say.
pub const DEFAULT_RATE_PER_SECOND: u32 = 500;
/// Milliseconds after its scheduled instant at which a request has failed.
pub const DEFAULT_DEADLINE_MS: u64 = 10_000;
/// Milliseconds a kept connection may rest before the witness drops it, as every client does. Below
/// Apache's KeepAliveTimeout of 5 s, so that a server that keeps its word never closes under a request.
pub const DEFAULT_IDLE_LIMIT_MS: u64 = 4_000;
/// Highest rate a plan may ask for: one core's worth of small requests and some air.
pub const MAX_RATE_PER_SECOND: u32 = 20_000;
/// Longest deadline, in milliseconds: with it a hung server holds at most an hour of requests.
pub const MAX_DEADLINE_MS: u64 = 3_600_000;
/// Classes share a thousand parts.
pub const SHARE_TOTAL: u32 = 1000;
/// Most bytes of one upload: 1 GiB.
pub const MAX_UPLOAD_BYTES: u64 = 1 << 30;
/// Most bytes of a sequence body, which is held in memory once: 64 MiB.
pub const MAX_SEQUENCE_BYTES: u64 = 64 << 20;
/// Bytes of an upload of the standard mix.
pub const UPLOAD_BYTES: u64 = 1_000_000;
/// Milliseconds over which an upload of the standard mix is sent.
pub const UPLOAD_SPREAD_MS: u64 = 500;
/// Bytes of the large download of the standard mix: 4 MiB.
pub const LARGE_BYTES: u64 = 4 << 20;
/// The small GETs of the standard mix: quantiles and the longest gap are theirs.
pub const SMALL_CLASSES: [&str; 2] = ["small", "small-one-shot"];

/// A whole run of the witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Where requests go.
    pub target: Target,
    /// Requests started each second, whether or not earlier ones are back.
    #[serde(default = "default_rate_per_second")]
    pub rate_per_second: u32,
    /// Milliseconds in which requests are started; none: until told to stop.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    /// Milliseconds from the scheduled instant to failure.
    #[serde(default = "default_deadline_ms")]
    pub deadline_ms: u64,
    /// Milliseconds a kept connection may rest before the witness drops it.
    #[serde(default = "default_idle_limit_ms")]
    pub idle_limit_ms: u64,
    /// The kinds of requests; their shares add up to 1000.
    pub classes: Vec<ClassPlan>,
    /// Makes the order of requests and the uploads' content, the same for the same seed.
    #[serde(default)]
    pub seed: u64,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `http://` or `https://`, a host, perhaps a port; no path.
    pub url: String,
    /// The `Host` header, when it is not the URL's.
    #[serde(default)]
    pub host: Option<String>,
    /// Where to connect, when the URL's host is not to be resolved.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// A PEM file with certificate authorities to trust beside the platform's.
    #[serde(default)]
    pub authorities: Option<PathBuf>,
}

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassPlan {
    /// The name in reports, unique in its plan.
    pub name: String,
    /// Parts of 1000 requests.
    pub share: u32,
    /// The request's method.
    pub method: Method,
    /// The request target: a path, perhaps with a query.
    pub path: String,
    /// Whether the connection is kept for a next request.
    pub connection: ConnectionUse,
    /// What is sent as the body.
    #[serde(default)]
    pub body: Body,
    /// What the response has to be.
    pub check: Check,
}

/// The methods the witness knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET, without a body.
    Get,
    /// POST, with an upload.
    Post,
}

/// Whether a connection carries more than one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionUse {
    /// Take an idle connection or open one, and give it back.
    KeepAlive,
    /// Open one, say `Connection: close`, use it once.
    OneShot,
}

/// What a request carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// Nothing.
    #[default]
    None,
    /// Content that differs from request to request, sent in pieces.
    Upload {
        /// Length of the content in bytes.
        bytes: u64,
        /// Milliseconds from the first piece to the last, so that some uploads are always in flight.
        spread_ms: u64,
    },
}

/// What a response has to be. Each variant asks for a response that is whole by its framing, and all
/// but `Answered` for a status of 200 to 299.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Any status from 200 to 399.
    Answered,
    /// Nothing more.
    Complete,
    /// The body's first line is the lower-case hexadecimal SHA-256 of all that follows that line.
    SelfDigest,
    /// The body, without white space around it, is the lower-case hexadecimal SHA-256 of what was uploaded.
    EchoDigest,
    /// The body is the first `bytes` bytes of `1\n2\n3\n…`, which is `seq 1000000000 | head -c BYTES`.
    Sequence {
        /// Length of the body in bytes.
        bytes: u64,
    },
}

fn default_rate_per_second() -> u32 {
    DEFAULT_RATE_PER_SECOND
}

fn default_deadline_ms() -> u64 {
    DEFAULT_DEADLINE_MS
}

fn default_idle_limit_ms() -> u64 {
    DEFAULT_IDLE_LIMIT_MS
}

impl Target {
    /// A target by URL, for example `http://127.0.0.1:8080`.
    pub fn url(url: impl Into<String>) -> Self {
        Self { url: url.into(), host: None, address: None, authorities: None }
    }

    /// A plain HTTP target at `address` that is asked as `host`.
    pub fn address(address: SocketAddr, host: impl Into<String>) -> Self {
        let host = Some(host.into());
        Self { url: format!("http://{address}"), host, address: Some(address), authorities: None }
    }
}

impl ClassPlan {
    /// A GET on a kept connection, without a body.
    pub fn get(name: &str, share: u32, path: &str, check: Check) -> Self {
        Self {
            name: name.to_owned(),
            share,
            method: Method::Get,
            path: path.to_owned(),
            connection: ConnectionUse::KeepAlive,
            body: Body::None,
            check,
        }
    }

    /// A POST of `bytes` bytes in the course of `spread_ms` milliseconds, on a kept connection.
    pub fn upload(name: &str, share: u32, path: &str, bytes: u64, spread_ms: u64) -> Self {
        Self { method: Method::Post, body: Body::Upload { bytes, spread_ms }, ..Self::get(name, share, path, Check::EchoDigest) }
    }

    /// The same class, each request on a connection of its own.
    pub fn one_shot(mut self) -> Self {
        self.connection = ConnectionUse::OneShot;
        self
    }
}

impl Plan {
    /// A plan with the default rate and deadline that runs until it is told to stop.
    pub fn new(target: Target, classes: Vec<ClassPlan>) -> Self {
        Self {
            target,
            rate_per_second: DEFAULT_RATE_PER_SECOND,
            duration_ms: None,
            deadline_ms: DEFAULT_DEADLINE_MS,
            idle_limit_ms: DEFAULT_IDLE_LIMIT_MS,
            classes,
            seed: 0,
        }
    }

    /// The demo's mix: 5 % uploads, 2 % slow answers, 1 % large downloads, the rest small GETs, and
    /// 32 % of all requests on connections of their own.
    pub fn standard(target: Target) -> Self {
        let sequence = Check::Sequence { bytes: LARGE_BYTES };
        let small = ClassPlan::get(SMALL_CLASSES[0], 600, "/check.txt", Check::SelfDigest);
        let one_shot = ClassPlan::get(SMALL_CLASSES[1], 320, "/check.txt", Check::SelfDigest);
        Self::new(
            target,
            vec![
                small,
                one_shot.one_shot(),
                ClassPlan::upload("upload", 50, "/upload", UPLOAD_BYTES, UPLOAD_SPREAD_MS),
                ClassPlan::get("slow", 20, "/slow", Check::Complete),
                ClassPlan::get("large", 10, "/large", sequence),
            ],
        )
    }

    /// Checks the plan and reads its target.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, LoadError> {
        check_rate(self.rate_per_second)?;
        check_deadline(self.deadline_ms)?;
        check_shares(&self.classes)?;
        self.classes.iter().try_for_each(check_class)?;
        Endpoint::of_target(&self.target)
    }
}

fn check_rate(rate_per_second: u32) -> Result<(), LoadError> {
    if (1..=MAX_RATE_PER_SECOND).contains(&rate_per_second) {
        return Ok(());
    }
    Err(LoadError::new(
        format!("a rate of {rate_per_second} requests per second is not between 1 and {MAX_RATE_PER_SECOND}"),
        "choose a rate inside these bounds",
    ))
}

fn check_deadline(deadline_ms: u64) -> Result<(), LoadError> {
    if (1..=MAX_DEADLINE_MS).contains(&deadline_ms) {
        return Ok(());
    }
    Err(LoadError::new(
        format!("a deadline of {deadline_ms} ms is not between 1 and {MAX_DEADLINE_MS} ms"),
        "choose a deadline inside these bounds",
    ))
}

fn check_shares(classes: &[ClassPlan]) -> Result<(), LoadError> {
    let total: u64 = classes.iter().map(|class| u64::from(class.share)).sum();
    if total != u64::from(SHARE_TOTAL) {
        return Err(LoadError::new(
            format!("the shares of the classes add up to {total}, not to {SHARE_TOTAL}"),
            "give each class its parts of 1000",
        ));
    }
    let mut names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(LoadError::new(format!("two classes have the name {:?}", pair[0]), "give each class its own name")),
        None => Ok(()),
    }
}

fn check_class(class: &ClassPlan) -> Result<(), LoadError> {
    let wrong = |what: String, hint| Err(LoadError::new(format!("class {:?}: {what}", class.name), hint));
    if !class.path.starts_with('/') || !class.path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong(
            format!("the path {:?} cannot be sent", class.path),
            "begin it with a slash and percent-encode all but printable ASCII",
        );
    }
    if class.share == 0 {
        return wrong("it has no share".to_owned(), "give it at least 1 part of 1000 or leave it out");
    }
    match (class.method, class.body, class.check) {
        (Method::Get, Body::Upload { .. }, _) => wrong("a GET has an upload".to_owned(), "use POST for uploads"),
        (_, Body::Upload { bytes, .. }, _) if bytes > MAX_UPLOAD_BYTES => {
            wrong(format!("an upload of {bytes} bytes is above {MAX_UPLOAD_BYTES}"), "choose a smaller upload")
        }
        (_, Body::Upload { spread_ms, .. }, _) if spread_ms > MAX_DEADLINE_MS => {
            wrong(format!("an upload over {spread_ms} ms is above {MAX_DEADLINE_MS} ms"), "send it faster")
        }
        (_, Body::None, Check::EchoDigest) => {
            wrong("there is no upload whose digest could come back".to_owned(), "add an upload or choose another check")
        }
        (_, _, Check::Sequence { bytes }) if bytes > MAX_SEQUENCE_BYTES => {
            wrong(format!("a sequence of {bytes} bytes is above {MAX_SEQUENCE_BYTES}"), "choose a shorter sequence")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standard() -> Plan {
        Plan::standard(Target::url("http://127.0.0.1:8080"))
    }

    fn refusal(change: impl FnOnce(&mut Plan)) -> String {
        let mut plan = standard();
        change(&mut plan);
        plan.endpoint().expect_err("refused").to_string()
    }

    #[test]
    fn the_standard_mix_is_the_demo_s() {
        let plan = standard();
        plan.endpoint().unwrap();
        let one_shot: u32 = plan.classes.iter().filter(|class| class.connection == ConnectionUse::OneShot).map(|class| class.share).sum();
        assert!(one_shot >= 300);
        let share = |name| plan.classes.iter().find(|class| class.name == name).unwrap().share;
        assert_eq!((share("upload"), share("slow"), share("large")), (50, 20, 10));
        assert_eq!((plan.rate_per_second, plan.deadline_ms), (500, 10_000));
    }

    #[test]
    fn survives_json_and_fills_in_defaults() {
        let plan = standard();
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        let short = r#"{"target":{"url":"http://localhost"},"classes":[{"name":"a","share":1000,
            "method":"GET","path":"/","connection":"keep-alive","check":"complete"}]}"#;
        let plan: Plan = serde_json::from_str(short).unwrap();
        assert_eq!((plan.rate_per_second, plan.deadline_ms, plan.duration_ms), (500, 10_000, None));
    }

    #[test]
    fn refuses_what_cannot_be_run() {
        assert!(refusal(|plan| plan.rate_per_second = 0).contains("between 1 and 20000"));
        assert!(refusal(|plan| plan.deadline_ms = 0).contains("deadline of 0 ms"));
        assert!(refusal(|plan| plan.classes[0].share = 1).contains("add up to 401"));
        assert!(refusal(|plan| plan.classes[1].name = "small".into()).contains("two classes"));
        assert!(refusal(|plan| plan.classes[0].path = "x y".into()).contains("cannot be sent"));
        assert!(refusal(|plan| plan.classes[2].method = Method::Get).contains("a GET has an upload"));
        assert!(refusal(|plan| plan.classes[0].check = Check::EchoDigest).contains("no upload"));
        let shares = |plan: &mut Plan| (plan.classes[0].share, plan.classes[1].share) = (920, 0);
        assert!(refusal(shares).contains("it has no share"));
        let spread = Body::Upload { bytes: 1, spread_ms: u64::MAX };
        assert!(refusal(|plan| plan.classes[2].body = spread).contains("an upload over"));
        let endless = Check::Sequence { bytes: MAX_SEQUENCE_BYTES + 1 };
        assert!(refusal(|plan| plan.classes[4].check = endless).contains("sequence of"));
        assert!(refusal(|plan| plan.target.url = "ftp://x".into()).contains("ftp://x"));
    }
}
