//! Durability, shown on the real binary: it is killed, restarted, restored from older files, damaged, and left without
//! a disk, and what it has acknowledged is there afterwards, or it says that it is not.
//!
//! `DUELHUB_KILLS`, `DUELHUB_DAMAGES`: how long `torture` and `damage` go on. `DUELHUB_SEED`: the dice of a run before.
//! `ENGINE=memory`: against the engine that forgets, to see what of a failure is the tests' own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod kit;

mod birth;
mod clock;
mod damage;
mod full_disk;
mod power;
mod restart;
mod restored;
mod second_process;
mod torture;
