//! A wall clock that steps.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use crate::Site;
use crate::preload::library;

/// The wall clock of one hub.
#[derive(Debug)]
pub struct WallClock(File);

impl WallClock {
    /// Gives the hub of `site` a clock that can step. Every start from now on has it.
    pub fn of(site: &mut Site) -> Self {
        let path = site.path().join("clock");
        let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
        let clock = Self(file);
        clock.set_ahead(0);
        site.set(
            "LD_PRELOAD",
            library(concat!(env!("CARGO_MANIFEST_DIR"), "/clock.c")).to_str().unwrap(),
        );
        site.set("CLOCK_FILE", path.to_str().unwrap());
        clock
    }

    /// From now on it is so many seconds ahead, or behind.
    pub fn set_ahead(&self, seconds: i64) {
        self.0.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}
