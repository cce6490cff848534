//! Three real processes on one Redis, restarted one after the other, killed and cut off, under load: no player misses anything.

mod behind_nginx;
mod chaos;
#[expect(dead_code, reason = "tests/it uses the rest")]
#[path = "../it/kit/http.rs"]
mod http;
#[expect(dead_code, reason = "tests/durability uses the rest")]
#[path = "../durability/kit/hub.rs"]
mod hub;
mod namespaces;
mod phone;
#[expect(dead_code, reason = "tests/it uses the rest")]
#[path = "../it/kit/player.rs"]
mod player;
#[expect(dead_code, reason = "tests/durability uses the rest")]
#[path = "../durability/kit/site.rs"]
mod site;
mod tls;
#[path = "../it/kit/wait.rs"]
mod wait;

/// The name under which the files of `tests/it` know what they speak to.
use self::hub::Hub as TestServer;
use self::wait::soon;

/// Says something that is read also when the test passes: `cargo test` keeps what is printed to itself.
fn say(text: &str) {
    use std::io::Write as _;
    let _said = writeln!(std::io::stderr(), "{text}");
}
