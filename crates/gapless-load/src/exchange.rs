//! One request and its response, sent once, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::body::BodyDecoder;
use crate::check::{Checker, SequenceBody};
use crate::connection::{Connection, Connector};
use crate::digest::finish_hex;
use crate::error::LoadError;
use crate::failure::{Cause, Failure};
use crate::head::{FramingError, Head, MAX_HEAD_BYTES, parse_head};
use crate::plan::{Body, Check, ClassPlan, ConnectionUse, Method, Plan};
use crate::pool::Pool;
use crate::tls::Tls;
use crate::upload::{UPLOAD_PIECES, UploadSource};

/// A request that starts later than this after its scheduled instant counts as a late start: the witness
/// itself was the bottleneck.
const LATE_START: Duration = Duration::from_millis(50);
/// Bytes read at once; a large download needs few reads, a small answer little memory.
const READ_BYTES: usize = 32 << 10;
/// Most interim responses (100, 103) before the final one.
const MAX_INTERIM_HEADS: usize = 10;

/// What all requests of a run share.
pub struct Exchanger {
    connector: Connector,
    pool: Pool,
    classes: Vec<PreparedClass>,
    deadline: Duration,
    sequence: SequenceBody,
    uploads: UploadSource,
}

struct PreparedClass {
    plan: ClassPlan,
    head: Vec<u8>,
}

/// One request to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Its number in the run, from 0.
    pub number: u64,
    /// Index of its class.
    pub class: usize,
    /// When it has to start.
    pub scheduled: Instant,
}

/// What became of one request.
#[derive(Debug)]
pub struct Finished {
    pub slot: Slot,
    /// When it was over.
    pub ended: Instant,
    /// When its first byte was about to be written, if it came to that.
    pub sent: Option<Instant>,
    /// It started late by the witness's own fault.
    pub late: bool,
    /// Rested connections found closed before anything of it was written.
    pub stale_connections: u64,
    /// Status of the final response, if its head arrived.
    pub status: Option<u16>,
    pub release: Option<String>,
    pub node: Option<String>,
    pub failure: Option<Failure>,
}

impl Exchanger {
    /// Prepares a plan's requests; the plan's endpoint is checked on the way.
    pub fn new(plan: &Plan) -> Result<Self, LoadError> {
        let endpoint = plan.endpoint()?;
        let tls = match endpoint.secure {
            true => Some(Tls::new(&endpoint.host, plan.target.authorities.as_deref())?),
            false => None,
        };
        let prepare =
            |class: &ClassPlan| PreparedClass { head: request_head(class, &endpoint.host_header).into_bytes(), plan: class.clone() };
        Ok(Self {
            classes: plan.classes.iter().map(prepare).collect(),
            connector: Connector::new(endpoint, tls),
            pool: Pool::new(Duration::from_millis(plan.idle_limit_ms)),
            deadline: Duration::from_millis(plan.deadline_ms),
            sequence: SequenceBody::for_classes(&plan.classes),
            uploads: UploadSource::new(plan.seed),
        })
    }

    /// Sends the request of `slot` and judges its response.
    pub async fn perform(self: Arc<Self>, slot: Slot) -> Finished {
        let mut seen = Finished::starting(slot);
        let result = self.attempt(&mut seen).await;
        seen.ended = Instant::now();
        let accepted = self.classes[slot.class].plan.check.accepts();
        seen.failure = match (seen.status, result) {
            (Some(status), _) if !accepted.contains(&status) => Some(Failure::new(Cause::of_status(status), format!("status {status}"))),
            (_, result) => result.err(),
        };
        seen
    }

    async fn attempt(&self, seen: &mut Finished) -> Result<(), Failure> {
        let deadline = seen.slot.scheduled + self.deadline;
        let keep = self.classes[seen.slot.class].plan.connection == ConnectionUse::KeepAlive;
        let mut connection = self.obtain(keep, deadline, seen).await?;
        let reusable = self.converse(&mut connection, deadline, seen).await?;
        if keep && reusable {
            self.pool.put(connection);
        }
        Ok(())
    }

    async fn obtain(&self, keep: bool, deadline: Instant, seen: &mut Finished) -> Result<Connection, Failure> {
        if keep {
            let taken = self.pool.take();
            seen.stale_connections = taken.stale;
            if let Some(connection) = taken.connection {
                return Ok(connection);
            }
        }
        self.connector.connect(deadline).await
    }

    /// Writes the request and reads the response; whether the connection may be used again.
    async fn converse(&self, connection: &mut Connection, deadline: Instant, seen: &mut Finished) -> Result<bool, Failure> {
        let class = &self.classes[seen.slot.class];
        seen.sent = Some(Instant::now());
        let (uploaded, broken) = match within(deadline, self.send(connection, class, seen.slot.number)).await {
            Ok(digest) => (digest, None),
            Err(failure) => (None, Some(failure)),
        };
        // A server may answer, and close or wait, before it took all of the request: its status is then the cause to
        // name. Past the deadline this still reads what has already arrived.
        let checker = Checker::new(class.plan.check, uploaded, &self.sequence);
        let received = within(deadline, receive(connection, checker, class.plan.check, seen)).await;
        broken.map_or(received, Err)
    }

    /// Writes the request; the digest of its body if it has one.
    async fn send(&self, connection: &mut Connection, class: &PreparedClass, number: u64) -> Result<Option<String>, Failure> {
        write(connection, &class.head).await?;
        match class.plan.body {
            Body::None => Ok(None),
            Body::Upload { bytes, spread_ms } => {
                let spread = Duration::from_millis(spread_ms);
                self.upload(connection, number, bytes, spread).await.map(Some)
            }
        }
    }

    async fn upload(&self, connection: &mut Connection, number: u64, bytes: u64, spread: Duration) -> Result<String, Failure> {
        let content = self.uploads.content(number, bytes);
        let front = content.front();
        let mut hasher = Sha256::new_with_prefix(&front);
        let start = Instant::now();
        write(connection, &front).await?;
        for index in 0..UPLOAD_PIECES {
            sleep_until(start + spread * index as u32 / (UPLOAD_PIECES - 1) as u32).await;
            for slice in content.slices(content.piece(index)) {
                hasher.update(slice);
                write(connection, slice).await?;
            }
        }
        Ok(finish_hex(hasher))
    }
}

impl Finished {
    fn starting(slot: Slot) -> Self {
        let now = Instant::now();
        Self {
            slot,
            ended: now,
            sent: None,
            late: now.saturating_duration_since(slot.scheduled) > LATE_START,
            stale_connections: 0,
            status: None,
            release: None,
            node: None,
            failure: None,
        }
    }

    /// A request that the witness's own limits kept from being sent.
    pub fn never_sent(slot: Slot, failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::starting(slot) }
    }

    fn note(&mut self, head: &mut Head) {
        self.status = Some(head.status);
        self.release = head.release.take();
        self.node = head.node.take();
    }
}

impl Check {
    fn accepts(self) -> std::ops::RangeInclusive<u16> {
        match self {
            Self::Answered => 200..=399,
            _ => 200..=299,
        }
    }
}

fn request_head(class: &ClassPlan, host: &str) -> String {
    let method = match class.method {
        Method::Get => "GET",
        Method::Post => "POST",
    };
    let mut head = format!(
        "{method} {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: gapless-load/{}\r\nAccept: */*\r\n",
        class.path,
        env!("CARGO_PKG_VERSION"),
    );
    match (class.body, class.method) {
        (Body::Upload { bytes, .. }, _) => {
            head += &format!("Content-Type: application/octet-stream\r\nContent-Length: {bytes}\r\n");
        }
        (Body::None, Method::Post) => head += "Content-Length: 0\r\n",
        (Body::None, Method::Get) => {}
    }
    if class.connection == ConnectionUse::OneShot {
        head += "Connection: close\r\n";
    }
    head + "\r\n"
}

async fn write(connection: &mut Connection, bytes: &[u8]) -> Result<(), Failure> {
    let written = async {
        connection.write_all(bytes).await?;
        connection.flush().await
    };
    written.await.map_err(|error| match Failure::of_stream("write", &error) {
        Failure { cause: Cause::Truncated, detail } => Failure::new(Cause::Reset, detail),
        failure => failure,
    })
}

/// Reads the response and judges it; whether the connection may be used again.
async fn receive(connection: &mut Connection, mut checker: Checker, check: Check, seen: &mut Finished) -> Result<bool, Failure> {
    let mut buffer = Vec::new();
    let mut head = read_head(connection, &mut buffer).await?;
    seen.note(&mut head);
    let accepted = check.accepts().contains(&head.status);
    let mut decoder = BodyDecoder::new(head.framing().map_err(bad_framing)?);
    loop {
        let mut sink = |content: &[u8]| {
            if accepted {
                checker.update(content);
            }
        };
        let used = decoder.feed(&buffer, &mut sink).map_err(bad_framing)?;
        if used < buffer.len() {
            return Err(bad_framing(FramingError("bytes after the end of the response")));
        }
        if decoder.is_complete() {
            break;
        }
        buffer.clear();
        if read(connection, &mut buffer).await? == 0 {
            if decoder.may_end_here() {
                break;
            }
            return Err(Failure::new(Cause::Truncated, "the connection ended inside the body"));
        }
    }
    let keeps = decoder.is_complete() && head.keeps_connection();
    if accepted {
        checker.finish().map_err(|why| Failure::new(Cause::Corrupt, why))?;
    }
    Ok(keeps)
}

/// Reads up to the end of the final head; what follows it stays in `buffer`.
async fn read_head(connection: &mut Connection, buffer: &mut Vec<u8>) -> Result<Head, Failure> {
    let mut interim = 0;
    loop {
        while let Some((head, used)) = parse_head(buffer).map_err(bad_framing)? {
            buffer.drain(..used);
            if !head.is_interim() {
                return Ok(head);
            }
            interim += 1;
            if interim > MAX_INTERIM_HEADS {
                return Err(bad_framing(FramingError("too many interim responses")));
            }
        }
        if buffer.len() > MAX_HEAD_BYTES {
            return Err(bad_framing(FramingError("the head is too long")));
        }
        if read(connection, buffer).await? == 0 {
            return Err(match buffer.is_empty() && interim == 0 {
                true => Failure::new(Cause::ClosedBeforeResponse, "closed without a response"),
                false => Failure::new(Cause::Truncated, "the connection ended inside the head"),
            });
        }
    }
}

/// Appends what has arrived; 0 is the connection's proper end.
async fn read(connection: &mut Connection, buffer: &mut Vec<u8>) -> Result<usize, Failure> {
    buffer.reserve(READ_BYTES);
    connection.read_buf(buffer).await.map_err(|error| Failure::of_stream("read", &error))
}

async fn within<T>(deadline: Instant, action: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = || Failure::new(Cause::Deadline, "not finished within the deadline");
    timeout_at(deadline, action).await.unwrap_or_else(|_| Err(late()))
}

fn bad_framing(error: FramingError) -> Failure {
    Failure::new(Cause::BadFraming, error.0)
}
