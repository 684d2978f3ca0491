//! Every type that crosses a process boundary, and the Rust client. No logic.
#![forbid(unsafe_code)]

pub mod api;
pub mod artifact;
pub mod backup;
pub mod build;
pub mod client;
pub mod doctor;
pub mod log;
pub mod operation;
pub mod prune;
pub mod receipt;
pub mod record;
pub mod release;
pub mod replay;
pub mod revocation;
pub mod rollout;
pub mod route;
pub mod service;
pub mod settings;
