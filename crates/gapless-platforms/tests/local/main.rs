//! The local platform on the real host: root, runc, namespaces, nftables. Without one of them these tests fail.

mod nodes;
mod support;
