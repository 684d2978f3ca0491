//! Where groups run and traffic is shifted.

pub mod contract;
mod host;
pub mod local;
pub mod sim;
