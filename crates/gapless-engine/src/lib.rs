//! The engine of gapless: it remembers and acts.
//!
//! The core decides; the engine makes each decision durable before it acts on it, carries the effects out through the narrow traits
//! in this crate, and writes down what came of them. After a crash it replays its journal through the same core, looks at the world, and goes on.
#![forbid(unsafe_code)]

pub mod analysis;
pub mod checkpoint;
pub mod clock;
pub mod declaration;
pub mod effect;
pub mod engine;
pub mod error;
#[cfg(test)]
mod fake;
pub mod images;
pub mod inside;
mod lost;
pub mod operation;
pub mod platform;
pub mod recovery;
mod revocation;
mod service;
pub mod store;
mod together;
pub mod workbench;

pub use engine::{DeclareError, Declared, Engine, Parts, Told, Waiting};
pub use operation::Operation;
