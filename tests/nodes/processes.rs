//! Three real processes on one Redis, restarted one after the other, killed and cut off, under load: no player misses anything.

mod banned;
mod behind_nginx;
mod chaos;
mod devices;
mod drain;
mod namespaces;
mod roaming_player;
mod tls;
