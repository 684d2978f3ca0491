//! The server: API over what the engine does.
#![forbid(unsafe_code)]

pub mod project;
