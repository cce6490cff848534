//! duelhub: a realtime hub that backends drive over gRPC and players follow over an authenticated WebSocket.
//!
//! **A duel is a log. A connection is a cursor over it.**
//!
//! ```text
//! backend ──gRPC──> control ──> hub ──> engine        a push goes down …
//! player  <──wss─── edge    <── hub <── engine        … and its event comes up
//! ```
//!
//! The modules in reading order; each imports only from those above it, and `control` and `edge` never meet:
//! leaves ([`clock`], [`id`], [`event`], [`limits`], [`metrics`]), [`config`], [`ticket`] and [`telegram`], [`engine`],
//! [`hub`], then [`control`], [`edge`] and [`admin`], then [`server`], which wires them. [`demo`] and [`check`] are
//! clients of a running hub. `ARCHITECTURE.md` has the invariants and the reasons.

/// Every push allocates on one thread and frees on another: with the system's allocator that alone was a third of the
/// cost of storing one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod clock;
pub mod event;
pub mod id;
pub mod limits;
pub mod metrics;
pub mod places;
pub mod version;

pub mod config;
pub mod telemetry;

pub mod telegram;
pub mod ticket;

pub mod engine;
pub mod hub;

pub mod edge;

pub mod control;
pub mod pb;

pub mod admin;
pub mod bench;
pub mod check;
pub mod demo;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod server;
