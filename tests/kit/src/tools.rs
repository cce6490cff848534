//! Tools that tests need and machines may lack.

use std::path::Path;

use crate::say;

/// Whether `tool` is there: a path, or a name to be found in `PATH`.
///
/// If it is not, says that `what` is not tested. Where nothing may be left out, as in `tests/run`, which sets `DUELHUB_TEST_ALL`, that fails.
pub fn has_tool(tool: impl AsRef<Path>, what: &str) -> bool {
    let tool = tool.as_ref();
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Joined to a directory, a whole path stays what it is.
    if std::env::split_paths(&path).any(|directory| directory.join(tool).is_file()) {
        return true;
    }
    let missing = format!("NOT TESTED: {what}: {} is not installed", tool.display());
    assert!(std::env::var_os("DUELHUB_TEST_ALL").is_none(), "{missing}");
    say(&missing);
    false
}
