//! What these tests share beside `tests/kit`: what was acknowledged, disks that fail, and dice.

mod facts;
mod faults;
mod loop_device;
mod noise;

pub(crate) use duelhub_testkit::{
    Away, Backend, Exit, HowToEnd, Hub, Join, Player, Site, error_info, get, push, say, soon, until,
};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

pub(crate) use self::facts::Facts;
pub(crate) use self::faults::{Disk, Fault};
pub(crate) use self::loop_device::{Loop, run};
pub(crate) use self::noise::noise;

/// A number that the environment may set, so that a long run is the same test.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
}

/// Dice that fall again as they did, given the seed that is printed: `DUELHUB_SEED=<seed>`.
pub(crate) fn dice(test: &str) -> StdRng {
    let seed = number("DUELHUB_SEED", u64::from(rand::random::<u32>()));
    say(&format!("{test}: DUELHUB_SEED={seed}"));
    StdRng::seed_from_u64(seed)
}
