//! The core's rules one by one, each asked of states that are written down by hand. What a whole rollout does with them is in the scenarios.

mod gate;
mod healing;
mod leaving;
mod notice;
mod observation;
mod operation;
mod request;
mod revocation;
mod rolling;
mod states;
mod task;
mod together;
mod way_back;
