//! A small file system of its own, on a loop device. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::say;

/// Its size: three times the room that a hub wants to have left.
const BYTES: u64 = 400 << 20;

/// Mounted until it is dropped.
#[derive(Debug)]
pub(crate) struct Loop {
    directory: PathBuf,
    losses: u32,
}

impl Loop {
    /// `Err`: why there is none.
    pub(crate) fn mount(directory: &Path) -> Result<Self, String> {
        let this = Self { directory: directory.to_owned(), losses: 0 };
        fs::create_dir(this.point()).unwrap();
        fs::File::create(this.image()).unwrap().set_len(BYTES).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(this.image()))?;
        this.attach()?;
        Ok(this)
    }

    /// Where it is mounted.
    pub(crate) fn point(&self) -> PathBuf {
        self.directory.join("mount")
    }

    fn image(&self) -> PathBuf {
        self.directory.join(format!("image-{}", self.losses))
    }

    fn attach(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.point()))
    }

    /// What is on the device now is all there will be. Nobody may be writing; `end` ends whoever has it open.
    pub(crate) async fn lose_power<F: Future>(&mut self, end: impl FnOnce() -> F) {
        let old = self.image();
        self.losses += 1;
        run(Command::new("cp").arg("--sparse=always").arg(&old).arg(self.image())).unwrap();
        end().await;
        run(Command::new("umount").arg(self.point())).unwrap();
        fs::remove_file(old).unwrap();
        self.attach().unwrap();
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(why) = run(Command::new("umount").arg("-l").arg(self.point())) {
            say(&format!("{} stays mounted: {why}", self.point().display()));
        }
    }
}

/// Runs a tool of the system.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
}
