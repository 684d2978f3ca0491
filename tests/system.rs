//! The whole system, as a user runs it: real nodes, real traffic, the real programs. The witness must count no failure.
//!
//! These tests need root, runc, Packer and the package mirrors, and fail where one is missing.

#[path = "system/installation.rs"]
mod installation;
#[path = "system/project.rs"]
mod project;
#[path = "system/provisioned.rs"]
mod provisioned;

#[path = "system/backup.rs"]
mod backup;
#[path = "system/canary.rs"]
mod canary;
#[path = "system/chaos.rs"]
mod chaos;
#[path = "system/chaos_process.rs"]
mod chaos_process;
#[path = "system/chaos_way.rs"]
mod chaos_way;
#[path = "system/crash.rs"]
mod crash;

#[path = "system/fault.rs"]
mod fault;
#[path = "system/fault_build.rs"]
mod fault_build;
#[path = "system/fault_disk.rs"]
mod fault_disk;
#[path = "system/fault_image.rs"]
mod fault_image;
#[path = "system/fault_input.rs"]
mod fault_input;
#[path = "system/fault_process.rs"]
mod fault_process;
#[path = "system/rollout.rs"]
mod rollout;
#[path = "system/scaffold.rs"]
mod scaffold;
#[path = "system/second_project.rs"]
mod second_project;
#[path = "system/together.rs"]
mod together;
