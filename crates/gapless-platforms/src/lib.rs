//! Where groups run and traffic is shifted.

pub mod contract;
pub mod local;
pub mod sim;
