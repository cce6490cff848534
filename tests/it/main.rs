//! The hub from outside: real sockets, real HTTP/2, the public interface and nothing else.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod load;

mod bounds;
mod calls;
mod command_line;
mod connect;
mod connect_connections;
mod console;
mod control;
mod control_bounds;
mod delivery;
mod demo;
mod frames;
mod handshake;
mod operations;
mod presence;
mod reopening;
mod subscriptions;
mod ticket_api;
mod tickets;
mod watch;
