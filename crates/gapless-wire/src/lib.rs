//! Every type that crosses a process boundary, and the Rust client. No logic.
#![forbid(unsafe_code)]

pub mod api;
pub mod artifact;
pub mod build;
pub mod client;
pub mod doctor;
pub mod log;
pub mod receipt;
pub mod record;
pub mod release;
pub mod rollout;
pub mod route;
pub mod service;
