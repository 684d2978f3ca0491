//! The data plane: it serves, also when everything else is dead.
//!
//! Two processes. The *holder* ([`holder::main`]) owns the listening sockets and supervises; it never reads a request. The *worker* ([`worker::main`])
//! accepts on the same sockets and forwards. A worker can die, or be replaced, without one socket being closed.
//!
//! A request *claims* its node under the lock that a change of routes needs, and is sent after: once `PUT /v1/snapshot` was answered, no new request
//! can land on a node that the snapshot does not name or names with weight 0. Everything else (drain, destroy) is waiting for a count.
//!
//! The admin language stands in `gapless_wire::route`, the record in `gapless_wire::record`.

mod account;
#[allow(dead_code, unused_imports, reason = "the holder does not order certificates yet")]
mod acme;
mod admin;
mod answer;
mod body;
#[allow(dead_code, unused_imports, reason = "the listeners do not speak TLS yet")]
mod certificate;
mod check;
mod control;
mod core;
mod drain;
mod error;
mod exchange;
mod forward;
mod headers;
mod health;
pub mod holder;
mod inbound;
mod kernel;
mod listener;
mod node;
mod pool;
mod record;
mod route;
mod snapshot;
mod stream;
mod sync;
mod tunnel;
pub mod worker;

pub use error::ProxyError;
