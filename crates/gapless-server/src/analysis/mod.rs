//! The analysis of a canary: what the proxies recorded of the new release, compared with what they recorded of the old one at the same time.
//!
//! The proxy draws the release of every request anew and by the weights alone, so both sides get the same requests, at the same time, in the same mixture, and what differs is the release or chance.
//! Which of both, [`judge`] says, with the exact test of [`proportion`] and the intervals of [`quantile`]. What a release does badly only now and then, to all requests of a moment at once, looks less like
//! chance than it is: the tests take requests for independent of each other.

mod binomial;
mod evidence;
mod hole;
mod judge;
mod proportion;
mod quantile;
mod sample;

use crate::receipt::ProxyRecord;
use crate::record::RecordKeeper;
use crate::story::release_name;
use async_trait::async_trait;
use gapless_core::analysis::{Judgement, Verdict};
use gapless_core::release::ReleaseNumber;
use gapless_engine::analysis::{AnalysisRequest, Analyst};
use gapless_engine::error::Error;
use hole::{Span, hole};
use judge::{Sides, judge};
use sample::Sample;
use std::sync::Arc;

/// Compares releases by what the proxies recorded.
pub struct RecordAnalyst {
    keeper: Arc<RecordKeeper>,
}

impl RecordAnalyst {
    /// An analyst over these records.
    #[must_use]
    pub fn new(keeper: Arc<RecordKeeper>) -> Self {
        Self { keeper }
    }
}

#[async_trait]
impl Analyst for RecordAnalyst {
    /// The verdict on the whole slices of the span. It waits for them a little; what then is not there, or was lost, holds.
    async fn analyse(&self, request: &AnalysisRequest) -> Result<Judgement, Error> {
        let span = Span::between(request.since.0, request.until.0);
        self.keeper.read_up_to(span.until_ms).await;
        let proxies = self.keeper.between(&request.service.to_string(), span.from_ms, span.until_ms);
        let request = request.clone();
        // With heavy traffic it is some milliseconds of arithmetic.
        let judged = tokio::task::spawn_blocking(move || judge_record(&request, span, &proxies)).await;
        judged.map_err(|error| Error::new(format!("the comparison did not end: {error}")))
    }
}

fn judge_record(request: &AnalysisRequest, span: Span, proxies: &[ProxyRecord]) -> Judgement {
    if let Some(hole) = hole(span, proxies) {
        return Judgement { verdict: Verdict::Hold, evidence: format!("the record of this time is not whole: {hole}") };
    }
    let side = |release: ReleaseNumber| {
        let name = release_name(&request.service, release);
        let slices = proxies.iter().flat_map(|proxy| &proxy.workers).flat_map(|worker| &worker.record.slices);
        let sample = Sample::of(&name, &span.early(), slices);
        (name, sample)
    };
    let sides = Sides { new: side(request.new), old: side(request.old), span_ms: span.length_ms() };
    judge(&sides, &request.policy)
}
