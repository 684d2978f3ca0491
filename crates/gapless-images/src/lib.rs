//! Makes and keeps images.
//!
//! [`build`] is the way from a commit to an image: base, provision (Packer and Puppet), application. Each step is a layer that is keyed by
//! what it is made of, so that unchanged steps keep their digests. [`blob`] keeps content by its SHA-256, [`unpack`] gives verified trees to nodes.
#![forbid(unsafe_code)]

pub mod application;
pub mod artifact;
pub mod base;
pub mod blob;
pub mod build;
pub mod commit;
pub mod git;
mod input;
pub mod layer;
mod lock;
pub mod manifest;
pub mod packages;
pub mod packer;
pub mod progress;
pub mod provision;
pub mod prune;
pub mod puppet;
pub mod spec;
mod tools;
pub mod tree;
pub mod unpack;
pub mod view;
