//! Comparing what two releases answered: the arithmetic that the core leaves to others.

use crate::error::Error;
use async_trait::async_trait;
use gapless_core::analysis::{AnalysisPolicy, Judgement, Verdict};
use gapless_core::name::ServiceName;
use gapless_core::release::ReleaseNumber;
use gapless_core::time::Instant;

/// A comparison that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnalysisRequest {
    /// The service.
    pub service: ServiceName,
    /// The release that is live.
    pub old: ReleaseNumber,
    /// The release that is tried.
    pub new: ReleaseNumber,
    /// What ended before does not count.
    pub since: Instant,
    /// What ended from then on does not count.
    pub until: Instant,
    /// What is allowed.
    pub policy: AnalysisPolicy,
}

/// Compares two releases by the proxies' own record of the same time.
#[async_trait]
pub trait Analyst: Send + Sync {
    /// The verdict on a request. What is missing in the record is a reason to hold, never to promote.
    ///
    /// # Errors
    /// When the record cannot be read at all. It may be asked again.
    async fn analyse(&self, request: &AnalysisRequest) -> Result<Judgement, Error>;
}

/// Where nothing is recorded, nothing can be compared: it always holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unrecorded;

#[async_trait]
impl Analyst for Unrecorded {
    async fn analyse(&self, request: &AnalysisRequest) -> Result<Judgement, Error> {
        Ok(Judgement { verdict: Verdict::Hold, evidence: format!("nothing is recorded of {}", request.service) })
    }
}
