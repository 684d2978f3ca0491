//! The answers that the proxy makes itself: short text with the cause.

use std::time::SystemTime;

/// The body of a short text.
pub(crate) fn body(text: &str) -> String {
    format!("{text}\n")
}

/// The fields of a short text, beside its length. An answer of somebody with a clock tells its date (RFC 9110, section 6.6.1).
pub(crate) fn fields() -> [(&'static [u8], String); 2] {
    [(b"content-type", "text/plain; charset=utf-8".to_string()), (b"date", httpdate::fmt_http_date(SystemTime::now()))]
}
