//! Which build this is.

/// The version of duelhub.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that was built, with `-dirty` if files differed from it. `unknown` outside a repository, unless `DUELHUB_REVISION`
/// was set at the build.
pub const REVISION: &str = env!("DUELHUB_REVISION");

/// All that is known of the build: version, commit, its date, and how it was optimised.
pub const BUILD: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("DUELHUB_REVISION"),
    ", ",
    env!("DUELHUB_BUILD"),
    ")"
);
