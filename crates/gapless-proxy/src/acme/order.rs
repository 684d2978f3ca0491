//! One order: proves the names, and takes what is issued. RFC 8555, section 7.4.

use super::Pace;
use super::challenges::{Challenges, Held};
use super::failure::{self, Failure};
use super::group::Group;
use crate::error::ProxyError;
use instant_acme::{Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewOrder, Order, OrderStatus};
use std::fmt;

/// What the authority issued, and the key that was made for it.
pub(super) struct Issued {
    /// PEM: the certificate, and the authorities that lead to a root. RFC 8555, section 7.4.2.
    pub(super) chain: String,
    /// PEM: PKCS#8.
    pub(super) key: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// Orders a certificate for the names of a group, with a key on P-256 that is made for it.
///
/// # Errors
/// When the authority refuses or cannot verify a name, cannot be reached, or takes longer than it may.
pub(super) async fn order(account: &Account, group: &Group, challenges: &Challenges, pace: &Pace) -> Result<Issued, Failure> {
    let identifiers: Vec<Identifier> = group.names.iter().cloned().map(Identifier::Dns).collect();
    let ordered = account.new_order(&NewOrder::new(&identifiers)).await;
    let mut order = ordered.map_err(|error| failure::of("order a certificate", &error))?;
    let held = offer_proofs(&mut order, challenges).await?;
    if order.state().status == OrderStatus::Pending {
        wait_for_verification(&mut order, pace).await?;
    }
    drop(held);
    let key = order.finalize().await.map_err(|error| failure::of("ask for the certificate", &error))?;
    let chain = order.poll_certificate(&pace.policy()).await.map_err(|error| failure::of("get the certificate", &error))?;
    Ok(Issued { chain, key })
}

/// Puts the proof of each name that is not proved yet where the authority will ask for it, and says so. They can be asked for until they are dropped.
async fn offer_proofs(order: &mut Order, challenges: &Challenges) -> Result<Vec<Held>, Failure> {
    let mut held = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| failure::of("ask how to prove a name", &error))?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => {
                let what = format!("the authority says that the proof of {} is {other:?}", authorization.identifier());
                return Err(ProxyError::new(what).hint("it is tried again with a new order").into());
            }
        }
        let name = authorization.identifier().to_string();
        let Some(mut challenge) = authorization.challenge(ChallengeType::Http01) else {
            return Err(ProxyError::new(format!("the authority offers no challenge http-01 for {name}"))
                .hint("bring a certificate for this name as files, or choose another authority")
                .into());
        };
        held.push(challenges.put(&challenge.token, challenge.key_authorization().as_str())?);
        challenge.set_ready().await.map_err(|error| failure::of(&format!("prove the name {name}"), &error))?;
    }
    Ok(held)
}

async fn wait_for_verification(order: &mut Order, pace: &Pace) -> Result<(), Failure> {
    let reason = match order.poll_ready(&pace.policy()).await {
        Ok(OrderStatus::Ready) => return Ok(()),
        Ok(_) => ProxyError::new("the authority could not verify the names").hint("it is tried again").into(),
        Err(Error::Timeout(_)) => ProxyError::new(format!("the authority did not verify the names within {:?}", pace.poll_limit))
            .hint("the authority is slow, or cannot reach port 80 of a name; it is tried again")
            .into(),
        Err(error) => failure::of("prove the names", &error),
    };
    Err(unproved_name(order).await.unwrap_or(reason))
}

/// Which name could not be verified, and what the authority found at it: that stands at the challenge, not at the order (RFC 8555, section 8.2).
async fn unproved_name(order: &mut Order) -> Option<Failure> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.ok()?;
        let state = authorization.refresh().await.ok()?;
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            let what = format!("the authority could not verify {}: {problem}", state.identifier());
            return Some(ProxyError::new(what).hint(failure::hint(problem)).into());
        }
    }
    None
}
