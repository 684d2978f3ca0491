//! The account of one request, from its head to its end. It is closed exactly once, in every path: an account that is dropped open is a client that went
//! away.

use crate::core::Core;
use crate::exchange::CutMark;
use crate::node::{Claim, Node};
use crate::record::{Ended, now_ms};
use crate::sync::lock;
use crate::upload::Upload;
use gapless_wire::record::SMALL_BYTES;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// How a request ended, as far as the promise goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The answer was handed on whole; so many bytes of body.
    Whole(u64),
    /// Failed, by cause.
    Failed(&'static str),
    /// Cut at a deadline.
    Cut,
    /// Refused, as was configured.
    Refused,
    /// The client went away.
    ClientGone,
}

/// An open account.
pub(crate) struct Account {
    core: Rc<Core>,
    service: Arc<str>,
    is_get: bool,
    begun: Instant,
    pub(crate) retried: bool,
    pub(crate) held: bool,
    asked: Option<Asked>,
    claim: Option<Claim>,
    cut: Option<CutMark>,
    status: u16,
    open: bool,
    closed: Option<Closed>,
}

/// What is told of a request that ended.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub(crate) service: Arc<str>,
    /// Empty when no node answered, as is the node.
    pub(crate) release: Arc<str>,
    pub(crate) node: String,
    pub(crate) status: u16,
    /// Of the answer's body, handed on; unknown where nobody counted them.
    pub(crate) bytes: u64,
    pub(crate) duration_us: u64,
    /// `whole`, `failed`, `cut`, `refused` or `client-gone`.
    pub(crate) outcome: &'static str,
    pub(crate) cause: Option<&'static str>,
    pub(crate) retried: bool,
    pub(crate) held: bool,
}

/// A node that is asked and has not begun to answer.
struct Asked {
    release: Arc<str>,
    upload: Option<Rc<Upload>>,
    /// The record's slice that counts it, if it is the first node that is asked for this request, and was asked at once.
    first_in_ms: Option<u64>,
}

impl Asked {
    /// Nothing of the request is missing: the node alone is waited for.
    fn has_it_whole(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| upload.ended.get())
    }
}

impl Account {
    pub(crate) fn open(core: Rc<Core>, service: &Arc<str>, is_get: bool, begun: Instant) -> Self {
        let service = service.clone();
        Self {
            core,
            service,
            is_get,
            begun,
            retried: false,
            held: false,
            asked: None,
            claim: None,
            cut: None,
            status: 0,
            open: true,
            closed: None,
        }
    }

    /// The request goes to this node now.
    pub(crate) fn asks(&mut self, node: &Node, upload: Option<Rc<Upload>>) {
        let is_first = !self.retried && !self.held;
        let first_in_ms = is_first.then(|| lock(&self.core.recorder).note_asked(&self.service, &node.release, now_ms()));
        self.asked = Some(Asked { release: node.release.clone(), upload, first_in_ms });
    }

    /// Whoever was asked is not any more: the try came to nothing.
    pub(crate) fn asks_nobody(&mut self) {
        self.asked = None;
    }

    /// A node answers: its claim is held until the account is closed.
    pub(crate) fn answered(&mut self, claim: Claim, cut: CutMark, status: u16) {
        if let Some(Asked { release, first_in_ms: Some(asked_at_ms), .. }) = self.asked.take() {
            lock(&self.core.recorder).note_answered(&self.service, &release, asked_at_ms, now_ms());
        }
        self.claim = Some(claim);
        self.cut = Some(cut);
        self.status = status;
    }

    /// The proxy answers, because no node could.
    pub(crate) fn answered_by_proxy(&mut self, status: u16) {
        self.status = status;
    }

    /// A node had the request, and nothing came of it.
    pub(crate) fn try_failed(&self, node: &Node) {
        lock(&self.core.recorder).note_failed_try(&self.service, &node.release, now_ms());
    }

    /// Closes the account; the claim ends with it.
    pub(crate) fn close(&mut self, end: End) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let claim = self.claim.take();
        let release = claim.as_ref().map_or_else(|| Arc::from(""), |claim| claim.node.release.clone());
        let small = matches!(end, End::Whole(bytes) if self.is_get && bytes <= SMALL_BYTES);
        let duration_us = self.duration_us();
        self.tell(end, claim.as_ref(), duration_us);
        let ended = Ended {
            service: self.service.clone(),
            release,
            status: self.status,
            failed: if let End::Failed(cause) = end { Some(cause) } else { None },
            cut: end == End::Cut,
            retried: self.retried,
            held: self.held,
            small_us: small.then_some(duration_us),
        };
        let mut recorder = lock(&self.core.recorder);
        recorder.note(&ended, now_ms());
    }

    /// The client is to blame, or simply gone: shown, not counted. What it did not wait for is shown with the release that it waited for, unless it had waited for something else before.
    pub(crate) fn close_client_gone(&mut self) {
        if std::mem::replace(&mut self.open, false) {
            let claim = self.claim.take();
            self.tell(End::ClientGone, claim.as_ref(), self.duration_us());
            drop(claim);
            let first = self.asked.take().filter(|asked| asked.first_in_ms.is_some());
            if let Some(asked) = first.filter(Asked::has_it_whole) {
                lock(&self.core.recorder).note_unanswered(&self.service, &asked.release, now_ms());
            }
            self.core.shared.client_gone.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A configured refusal: counted apart, in no slice.
    pub(crate) fn close_refused(&mut self, status: u16) {
        if std::mem::replace(&mut self.open, false) {
            self.status = status;
            self.tell(End::Refused, None, self.duration_us());
            self.core.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn duration_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Keeps what the log wants to know, if there is one.
    fn tell(&mut self, end: End, claim: Option<&Claim>, duration_us: u64) {
        if !self.core.logs() {
            return;
        }
        let (outcome, cause, bytes) = match end {
            End::Whole(bytes) => ("whole", None, bytes),
            End::Failed(cause) => ("failed", Some(cause), 0),
            End::Cut => ("cut", None, 0),
            End::Refused => ("refused", None, 0),
            End::ClientGone => ("client-gone", None, 0),
        };
        self.closed = Some(Closed {
            service: self.service.clone(),
            release: claim.map_or_else(|| Arc::from(""), |claim| claim.node.release.clone()),
            node: claim.map(|claim| claim.node.name.clone()).unwrap_or_default(),
            status: self.status,
            bytes: if bytes == u64::MAX { 0 } else { bytes },
            duration_us,
            outcome,
            cause,
            retried: self.retried,
            held: self.held,
        });
    }

    /// Closes it, if nobody has, and gives what the log wants to know.
    pub(crate) fn settle(&mut self) -> Option<Closed> {
        // The cut closed the client's connection, or came before the client went.
        if self.cut.as_ref().is_some_and(CutMark::is_set) {
            self.close(End::Cut);
        } else {
            self.close_client_gone();
        }
        self.closed.take()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.settle();
    }
}
