//! HTTP/1.1 and 1.0 as RFC 9112 has it, read strictly: a message that two programs could read differently is refused.

pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod head;
pub(crate) mod node;
