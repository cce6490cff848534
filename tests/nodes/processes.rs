//! Three real processes on one Redis, restarted one after the other and killed, under load: no player misses anything.

mod chaos;
#[expect(dead_code, reason = "tests/it uses the rest")]
#[path = "../it/kit/http.rs"]
mod http;
#[expect(dead_code, reason = "tests/durability uses the rest")]
#[path = "../durability/kit/hub.rs"]
mod hub;
mod phone;
#[expect(dead_code, reason = "tests/durability uses the rest")]
#[path = "../durability/kit/site.rs"]
mod site;
mod tls;
#[expect(dead_code, reason = "tests/it uses the rest")]
#[path = "../it/kit/wait.rs"]
mod wait;

use self::wait::soon;
