//! HTTP/2 (RFC 9113), by the crate `h2`, on both sides.

pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod node;

/// What a client of HTTP/2 begins with, up to its first empty line (RFC 9113, section 3.4): no request of HTTP/1 looks so.
pub(crate) const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
