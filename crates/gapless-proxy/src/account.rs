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
        Self { core, service, is_get, begun, retried: false, held: false, asked: None, claim: None, cut: None, status: 0, open: true }
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
        let ended = Ended {
            service: self.service.clone(),
            release,
            status: self.status,
            failed: if let End::Failed(cause) = end { Some(cause) } else { None },
            cut: end == End::Cut,
            retried: self.retried,
            held: self.held,
            small_us: small.then(|| u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)),
        };
        let mut recorder = lock(&self.core.recorder);
        recorder.note(&ended, now_ms());
    }

    /// The client is to blame, or simply gone: shown, not counted. What it did not wait for is shown with the release that it waited for, unless it had waited for something else before.
    pub(crate) fn close_client_gone(&mut self) {
        if std::mem::replace(&mut self.open, false) {
            self.claim = None;
            let first = self.asked.take().filter(|asked| asked.first_in_ms.is_some());
            if let Some(asked) = first.filter(Asked::has_it_whole) {
                lock(&self.core.recorder).note_unanswered(&self.service, &asked.release, now_ms());
            }
            self.core.shared.client_gone.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // The cut closed the client's connection, or came before the client went.
        if self.cut.as_ref().is_some_and(CutMark::is_set) {
            self.close(End::Cut);
        } else {
            self.close_client_gone();
        }
    }
}
