//! Receipts: what a rollout did, measured on the requests themselves, and signed.

mod canonical;
mod key;
mod make;
mod measure;

pub use key::{KeyError, SigningKey};
pub use make::{Account, BuiltForThis, Made, named_phases, receipt};
pub(crate) use measure::covered_from;
pub use measure::{ProxyRecord, Recorded, Window, measure};

use ed25519_dalek::{Signature, VerifyingKey};
use gapless_wire::receipt::{RECEIPT_VERSION, SignedReceipt};
use std::fmt;

/// Why a receipt is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotGenuine {
    /// The text is no receipt.
    NotAReceipt(String),
    /// It is of a version that this program does not know.
    Version(u32),
    /// Key or signature are not of the right form.
    Malformed(&'static str),
    /// It was signed with another key than the expected one.
    OtherKey {
        /// The key in the receipt.
        found: String,
    },
    /// The signature does not fit: something was changed.
    Changed,
}

impl fmt::Display for NotGenuine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotGenuine::NotAReceipt(why) => write!(f, "this is no receipt: {why}"),
            NotGenuine::Version(version) => write!(f, "this receipt is of version {version}; this program knows version {RECEIPT_VERSION}"),
            NotGenuine::Malformed(part) => write!(f, "the receipt's {part} is malformed"),
            NotGenuine::OtherKey { found } => write!(f, "the receipt was signed with another key: {found}"),
            NotGenuine::Changed => f.write_str("the signature does not fit: the receipt was changed after it was signed"),
        }
    }
}

impl std::error::Error for NotGenuine {}

/// Reads a receipt and checks its signature with the key that stands in it, which must be `expected` if that is given. Needs no server.
///
/// # Errors
/// When it is not a receipt as it was signed.
pub fn verify(text: &str, expected: Option<&str>) -> Result<SignedReceipt, NotGenuine> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| NotGenuine::NotAReceipt(error.to_string()))?;
    // The signature covers what stands in the file, not what this program understands of it: a field more is a change, too.
    let payload = value.get("receipt").map(canonical::text).ok_or_else(|| NotGenuine::NotAReceipt("it has no `receipt`".into()))?;
    let signed: SignedReceipt = serde_json::from_value(value).map_err(|error| NotGenuine::NotAReceipt(error.to_string()))?;
    if signed.receipt.version != RECEIPT_VERSION {
        return Err(NotGenuine::Version(signed.receipt.version));
    }
    if expected.is_some_and(|expected| !expected.trim().eq_ignore_ascii_case(&signed.key)) {
        return Err(NotGenuine::OtherKey { found: signed.key });
    }
    let key =
        key::bytes_of::<32>(&signed.key).and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok()).ok_or(NotGenuine::Malformed("key"))?;
    let signature =
        key::bytes_of::<64>(&signed.signature).map(|bytes| Signature::from_bytes(&bytes)).ok_or(NotGenuine::Malformed("signature"))?;
    key.verify_strict(payload.as_bytes(), &signature).map_err(|_| NotGenuine::Changed)?;
    Ok(signed)
}

#[cfg(test)]
mod tests;
