//! The local platform on the real host: root, runc, namespaces, nftables. Without one of them these tests fail.

mod capacity;
mod contract;
mod nodes;
mod proxy;
mod recovery;
mod service;
mod support;
mod tasks;
mod workbench;
mod workers;
