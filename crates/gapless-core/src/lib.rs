//! The core of gapless: it decides.
//!
//! One total function, [`rollout::step`], takes the state of a service, an event and the time, and gives the next state and
//! the effects that the world should see. There is no clock here, no file, no floating point number and no map whose order changes:
//! the same input gives the same output on every machine, so that recovery, scenarios and simulation run the production code.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod analysis;
mod beginning;
mod canary;
pub mod digest;
pub mod effect;
pub mod event;
mod gate;
mod healing;
pub mod invariant;
mod leaving;
pub mod limit;
pub mod name;
pub mod node;
pub mod notice;
pub mod observation;
mod operation;
mod outcome;
mod pass;
pub mod plan;
pub mod policy;
pub mod release;
mod request;
mod retention;
mod revocation;
mod rolling;
pub mod rollout;
pub mod route;
pub mod service;
mod sorted;
mod sound;
mod task;
pub mod time;
mod together;
mod way_back;
