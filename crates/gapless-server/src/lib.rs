//! The server: API over what the engine does.
//!
//! It reads projects from commits, asks for builds, declares services to the engine, tells the story of rollouts, and signs their receipts. It decides nothing itself:
//! the engine alone moves nodes and traffic.
#![forbid(unsafe_code)]

pub mod analysis;
mod api;
mod build;
pub mod git;
mod hcl;
mod hosts;
pub mod journal;
pub mod parts;
mod problem;
pub mod project;
pub mod prune;
pub mod receipt;
mod receipts;
pub mod record;
mod room;
mod server;
pub mod settings;
mod stories;
pub mod story;

pub use server::Server;
