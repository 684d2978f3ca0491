//! A small deterministic world for the core: nodes that boot, answer and die, proxies that apply routes, requests in flight, and an engine that
//! writes its journal, crashes and recovers.
#![allow(dead_code)]

pub mod engine;
pub mod model;
pub mod script;
