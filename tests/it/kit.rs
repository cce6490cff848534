//! What the tests share: a server on free ports, a backend that speaks gRPC, a player that folds frames into state, and
//! HTTP in plain bytes. Nothing here sleeps to let something happen; everything waits for it, with one deadline.

mod backend;
mod http;
mod player;
mod server;
mod wait;

pub(crate) use self::backend::{Backend, error_info, push};
pub(crate) use self::http::{exchange, get};
pub(crate) use self::player::{Join, Player};
pub(crate) use self::server::{BOT_TOKEN, SECRET, TestServer};
pub(crate) use self::wait::{soon, until};
