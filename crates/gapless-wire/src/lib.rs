//! Every type that crosses a process boundary, and the Rust client. No logic.
#![forbid(unsafe_code)]

pub mod client;
pub mod record;
pub mod route;
