//! Answers: JSON at once, or lines of JSON as they come.

use crate::problem::Refused;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// How many lines may wait for a reader. One that is slower waits for nobody: the teller of lines waits for it, and what is told is kept elsewhere.
const LINES_WAITING: usize = 64;

/// A body.
pub(crate) enum Answer {
    /// All of it.
    Whole(Option<Bytes>),
    /// Lines.
    Lines(mpsc::Receiver<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Answer::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Answer::Lines(lines) => lines.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Answer::Lines(_) => SizeHint::default(),
        }
    }
}

/// A value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<Response<Answer>, Refused> {
    let body = serde_json::to_vec(value);
    let hint = "this is a fault of gapless";
    let body = body
        .map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be written as JSON: {error}"), hint))?;
    Ok(whole(StatusCode::OK, body))
}

/// JSON that is written already.
pub(crate) fn whole(status: StatusCode, body: Vec<u8>) -> Response<Answer> {
    headed(status, "application/json", Answer::Whole(Some(Bytes::from(body))))
}

/// Lines of JSON as somebody tells them.
pub(crate) fn lines() -> (Teller, Response<Answer>) {
    let (teller, lines) = mpsc::channel(LINES_WAITING);
    (Teller(teller), headed(StatusCode::OK, "application/x-ndjson", Answer::Lines(lines)))
}

fn headed(status: StatusCode, kind: &'static str, answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// Tells lines to a reader.
pub(crate) struct Teller(mpsc::Sender<Bytes>);

impl Teller {
    /// Tells a line. `false`: the reader is gone.
    pub(crate) async fn tell(&self, line: &impl Serialize) -> bool {
        let Ok(mut text) = serde_json::to_vec(line) else { return false };
        text.push(b'\n');
        self.0.send(Bytes::from(text)).await.is_ok()
    }

    /// Ends when the reader is gone.
    pub(crate) async fn gone(&self) {
        self.0.closed().await;
    }
}
