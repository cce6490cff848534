//! Text that no store can make smaller, so that files grow as they would.

use std::sync::OnceLock;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// The longest text there is.
const BYTES: usize = 64 * 1024;

/// `bytes` characters, of which another `nth` has others.
pub(crate) fn noise(nth: u64, bytes: usize) -> &'static str {
    static NOISE: OnceLock<String> = OnceLock::new();
    let all = NOISE.get_or_init(|| {
        let mut dice = StdRng::seed_from_u64(0);
        (0..2 * BYTES).map(|_| char::from(dice.random_range(b'a'..=b'z'))).collect()
    });
    let from = usize::try_from(nth.wrapping_mul(7919) % BYTES as u64).unwrap();
    &all[from..from + bytes]
}
