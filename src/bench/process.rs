//! CPU time and memory of a process, from `/proc` (proc(5)). The `procfs` crate would parse 60 fields for these five.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// Resident memory.
    pub(super) rss: u64,
    /// Proportional memory: shared pages are divided among the processes that share them.
    pub(super) pss: u64,
}

impl Memory {
    /// Returns the memory of two processes together.
    pub(super) const fn plus(self, other: Self) -> Self {
        Self { rss: self.rss + other.rss, pss: self.pss + other.pss }
    }
}

/// Returns the CPU time of all threads of a process, the kernel's part included.
pub(super) fn cpu(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything. After it, utime and stime are the 12th and 13th field.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields = rest.split_ascii_whitespace().skip(11).take(2);
    let ticks = fields.map(|field| field.parse::<u32>().ok()).sum::<Option<u32>>()?;
    let ticks_per_second = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    Some(Duration::from_secs(ticks.into()) / ticks_per_second)
}

pub(super) fn memory(pid: u32) -> Option<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(Memory { rss: kilobytes(&rollup, "Rss:")?, pss: kilobytes(&rollup, "Pss:")? })
}

/// Returns the memory of the kernel's objects, sockets among them, on the whole machine.
pub(super) fn kernel_slab() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "Slab:")
}

/// Returns the value of a line like `Rss:  1234 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// Returns the CPU time of all threads of this process.
pub(super) fn own_cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

/// Returns the CPU time of this thread.
pub(super) fn thread_cpu() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

fn clock(id: ClockId) -> Duration {
    clock_gettime(id).try_into().unwrap_or_default()
}
