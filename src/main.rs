//! The command line of duelhub.
//!
//! Exit status: 0 stopped in good order, or everything asked for went well; 1 something failed; 64 the configuration or
//! the command line is wrong (`EX_USAGE` of sysexits.h), 65 the store is damaged or of another format (`EX_DATAERR`), which
//! no restart will mend.

mod command;

use std::process::ExitCode;

use rustix::fs::Mode;

fn main() -> ExitCode {
    let matches = match command::tree().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _printed = error.print();
            return if error.use_stderr() { command::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    // What the hub stores is for its own user, wherever it is started.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(command::run(&matches)),
        Err(error) => command::fail(&format!("the runtime does not start: {error}")),
    }
}
