//! The data plane: it serves, also when everything else is dead.
//!
//! Two processes. The *holder* ([`holder::main`]) owns the listening sockets and supervises; it never reads a request. The *worker* ([`worker::main`])
//! accepts on the same sockets and forwards. A worker can die, or be replaced, without one socket being closed.
//!
//! A request *claims* its node under the lock that a change of routes needs, and is sent after: once `PUT /v1/snapshot` was answered, no new request
//! can land on a node that the snapshot does not name or names with weight 0. Everything else (drain, destroy) is waiting for a count.
//!
//! The admin language stands in `gapless_wire::route`, the record in `gapless_wire::record`.

mod access_log;
mod account;
mod acme;
mod admin;
mod admission;
mod balancer;
mod buffer;
mod certificate;
mod check;
mod client;
mod control;
mod cookie;
mod core;
mod drain;
mod error;
mod exchange;
mod fields;
mod forward;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod handover;
mod health;
pub mod holder;
mod http1;
mod http2;
mod kernel;
mod limit;
mod link;
mod listener;
mod metrics;
mod node;
mod pool;
mod record;
mod request;
mod route;
mod settings;
mod snapshot;
mod stream;
mod sync;
mod tcp;
mod tunnel;
mod upload;
pub mod worker;

pub use error::ProxyError;
