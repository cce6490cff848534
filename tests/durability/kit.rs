//! What the tests share: the real binary as a child process, the backend and the player of `tests/it`, and a deadline.
//! Nothing here sleeps to let something happen; everything waits for it.

mod away;
#[expect(dead_code, reason = "tests/it uses the rest")]
#[path = "../it/kit/backend.rs"]
mod backend;
mod facts;
mod faults;
#[expect(dead_code, reason = "tests/it uses the rest")]
#[path = "../it/kit/http.rs"]
mod http;
mod hub;
mod loop_device;
mod noise;
#[expect(dead_code, reason = "tests/it uses the rest")]
#[path = "../it/kit/player.rs"]
mod player;
mod site;
#[path = "../it/kit/wait.rs"]
mod wait;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

pub(crate) use self::away::Away;
pub(crate) use self::backend::{Backend, error_info, push};
pub(crate) use self::facts::Facts;
pub(crate) use self::faults::{Disk, Fault};
pub(crate) use self::http::get;
pub(crate) use self::hub::{Exit, HowToEnd, Hub};
pub(crate) use self::loop_device::{Loop, run};
pub(crate) use self::noise::noise;
pub(crate) use self::player::{Join, Player};
pub(crate) use self::site::Site;
pub(crate) use self::wait::{soon, until};
/// The name under which the files of `tests/it` know what they speak to.
use Hub as TestServer;

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

/// Says something that is read also when the test passes: `cargo test` keeps what is printed to itself.
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    let _said = writeln!(std::io::stderr(), "{text}");
}
