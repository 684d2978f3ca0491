//! The proxy's promises, each with real traffic on loopback in flight. Clients and nodes here share no code with the proxy.

mod admin;
mod bad_answers;
mod claims;
mod drain;
mod forwarding;
mod handover;
mod health;
mod http2;
mod limits;
mod listeners;
mod record;
mod refusals;
mod retry;
mod settings;
mod slow_clients;
mod split;
mod support;
mod upgrades;
mod workers;
