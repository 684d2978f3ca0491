//! Which requests of a service are let in.

use crate::account::Account;
use crate::client::{Sink, Source, TOO_LARGE};
use crate::core::Core;
use crate::http1::head::Framing;
use crate::request::{Client, Inbound, Refusal};
use crate::route::Service;
use gapless_wire::settings::Maintenance;
use hyper::StatusCode;
use std::time::Instant;

/// When somebody who sent too many requests may come again, in seconds: what a rate allows, it allows in every second.
const RETRY_AFTER_S: u32 = 1;

/// Why a request is not let in.
#[derive(Debug)]
pub(crate) enum ClosedDoor<'a> {
    /// For this reason, and when to come again in seconds.
    Refused(Refusal, Option<u32>),
    /// Nobody is.
    Maintenance(&'a Maintenance),
}

/// Whether a request is kept out, in the order of what it costs to know.
pub(crate) fn refusal<'a>(
    core: &Core,
    client: &Client,
    inbound: &Inbound,
    service: &'a Service,
    source: &mut Source<'_>,
) -> Option<ClosedDoor<'a>> {
    let treatment = &service.treatment;
    if let Err(refusal) = source.check_begun() {
        return Some(ClosedDoor::Refused(refusal, None));
    }
    if let Some(maintenance) = &treatment.maintenance {
        return Some(ClosedDoor::Maintenance(maintenance));
    }
    if let Some(rate) = treatment.rate
        && !core.shared.rates(&service.name).may_come(client.address, rate, Instant::now())
    {
        let refusal = Refusal(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address");
        return Some(ClosedDoor::Refused(refusal, Some(RETRY_AFTER_S)));
    }
    if let (Framing::Length(length), Some(most)) = (inbound.framing, treatment.body_bytes)
        && length > most
    {
        return Some(ClosedDoor::Refused(TOO_LARGE, None));
    }
    if treatment.requests_in_flight.is_some_and(|most| service.requests_in_flight() >= most) {
        let refusal = Refusal(StatusCode::SERVICE_UNAVAILABLE, "as many requests as this service takes are on their way");
        return Some(ClosedDoor::Refused(refusal, Some(RETRY_AFTER_S)));
    }
    None
}

impl ClosedDoor<'_> {
    /// Tells the client, and counts it as the configured refusal that it is.
    pub(crate) async fn tell(self, account: &mut Account, sink: &mut Sink<'_>) {
        let again = |seconds: Option<u32>| seconds.map(|seconds| ("retry-after", seconds.to_string()));
        let (status, page, retry_after) = match self {
            ClosedDoor::Refused(Refusal(status, text), retry_after) => (status, format!("{text}\n"), again(retry_after)),
            ClosedDoor::Maintenance(maintenance) => (StatusCode::SERVICE_UNAVAILABLE, page(maintenance), again(maintenance.retry_after_s)),
        };
        account.close_refused(status.as_u16());
        let kind = if page.trim_start().starts_with('<') { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
        sink.own(status, kind, &page, retry_after.as_slice(), false).await;
    }
}

fn page(maintenance: &Maintenance) -> String {
    if maintenance.page.is_empty() { "this service is being worked on\n".to_string() } else { maintenance.page.clone() }
}
