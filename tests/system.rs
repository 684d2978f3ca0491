//! The whole system, as a user runs it: real nodes, real traffic, the real programs. The witness must count no failure.
//!
//! These tests need root, runc, Packer and the package mirrors, and fail where one is missing.

#[path = "system/installation.rs"]
mod installation;
#[path = "system/project.rs"]
mod project;

#[path = "system/crash.rs"]
mod crash;

#[path = "system/rollout.rs"]
mod rollout;
#[path = "system/second_project.rs"]
mod second_project;
