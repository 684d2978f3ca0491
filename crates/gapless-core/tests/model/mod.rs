//! The model checker of the core: every state that a small world can come into, with the production transition function deciding.
//!
//! # What is explored
//!
//! A state is the [`ServiceState`](gapless_core::service::ServiceState) of each service, the world around it ([`world`]), and what may still go wrong ([`configuration`]). From each
//! state every possible move is made ([`state`]): the engine looks at the world, the next part of some effect arrives, an outcome is told, a node goes on or fails, a request ends, a
//! person declares or wants something, the engine dies and starts again, an effect is lost, a proxy falls silent, a deadline passes. The search is breadth first
//! ([`explore`]), so the way to a fault that it prints is as short as any.
//!
//! The journal is not modelled: replaying it gives the state that wrote it, which the scenarios show. So a crash is that outcomes which were not told never are, while
//! everything that was sent may still arrive, at any later time, by halves, or never; and the core is told `Restarted`.
//!
//! # What is checked
//!
//! - Each decision: the core's own invariants, and that looking again and again comes to rest with no deadline that has passed.
//! - Each move of the world, without the core's judgement: no node is destroyed that a proxy names or that serves a request (I2), none gets traffic that never passed the gate
//!   (I3), no applied route leaves fewer serving nodes than the floor (I1), nothing happens when a done effect is delivered again (I4, I5), nodes that must be alone are, and the
//!   release command runs before its nodes.
//! - Each state: if nothing goes wrong from here on, one fixed schedule (look, outcomes, effects, nodes, requests, and time when nothing else is left) leads to a state at rest,
//!   where nothing is left over, every proxy applies the route, all nodes of the live group have traffic, and what is live is what was declared unless that was given up. If a rollout was on
//!   its way and well, it is its release that is live. The schedule's next state is noted for each state while it is explored, so this covers all of them and costs nothing.
//!
//! # What makes it small
//!
//! - Numbers that only count up, past deadlines and texts are brought into a normal form ([`normal`]). A test renumbers states at random and compares.
//! - Nodes of a group are alike ([`symmetry`]). Decisions are sampled, and checked with nodes swapped. Policies that let certain nodes go first are explored without it.
//! - A node that has traffic has "any number of requests", since they come and go; only when it is given no more is it told apart whether some still run. The core is shown a busy
//!   node; samples check that an idle one gives the same decision.
//! - Time jumps to the next deadline of the core and never stops between. It passes when nothing prompt is under way, and while something is only as often as the budget says (`slow`; in
//!   some configurations always). All wait alike short of that: which of two things is slower is a matter of order, and all orders are explored.
//! - A decision is made once for each pair of a core's state and an event, and remembered for a while ([`cores`]).
//! - Of visited states only 128-bit fingerprints are kept ([`fingerprint`] has the bound for a collision), with the state each was first reached from.
//!
//! # What is not covered
//!
//! Proxies that lose their memory or forget a route, journals that are lost, times of the week (freeze windows), and numbers beyond the scripts. Scenarios, the random worlds and the
//! simulation have those. Effects of one kind on different nodes arrive in the order of the nodes.
#![allow(dead_code)]

pub mod configuration;
pub mod cores;
pub mod explore;
pub mod fingerprint;
pub mod normal;
pub mod state;
pub mod symmetry;
pub mod together;
pub mod world;
