//! What the service manager is told (`sd_notify(3)`): that the hub has started, that it lives, that it stops.
//!
//! Nothing here waits for the service manager: a state that its socket has no room for is told again later, and counted. The
//! crate `sd-notify` blocks there, and does not know abstract addresses, as container managers give them.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::limits;

/// The service manager that started this process, if one did.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// `None`: nobody wants to be told.
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it must be told that the hub lives. `None`: never.
    watchdog: Option<Duration>,
    failures: Counter,
    is_failing: AtomicBool,
}

impl ServiceManager {
    /// Finds the service manager through `variable`, which returns a variable of the environment: `NOTIFY_SOCKET`,
    /// `WATCHDOG_USEC` and `WATCHDOG_PID`. Counts in `failures` what it could not be told.
    pub(super) fn new(
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
        failures: Counter,
    ) -> Self {
        let named = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = named.and_then(|name| {
            let opened = open(&name);
            opened.inspect_err(|error| warn!(%error, "NOTIFY_SOCKET cannot be used")).ok()
        });
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        // `WATCHDOG_PID` names another process if this one only inherited the environment.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0);
        let watchdog = watchdog.map(Duration::from_micros);
        Self { socket, watchdog, failures, is_failing: AtomicBool::new(false) }
    }

    /// Tells that the hub has started, until that has been taken, and then feeds the watchdog. Cancel safe.
    pub(super) async fn run(&self) {
        if self.socket.is_none() {
            return;
        }
        while !self.tell("READY=1") {
            tokio::time::sleep(limits::NOTIFY_PAUSE).await;
        }
        let Some(period) = self.watchdog else { return };
        let mut ticks = tokio::time::interval((period / 3).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tell("WATCHDOG=1");
        }
    }

    /// Tells that the hub stops, if that can be taken at once.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Returns whether the state was taken. Does not wait.
    fn tell(&self, state: &'static str) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        match socket.send_to_addr(state.as_bytes(), address) {
            Ok(_) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    info!(state, "the service manager is told again");
                }
                true
            }
            Err(error) => {
                self.failures.inc();
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    warn!(%error, state, "the service manager cannot be told; trying again");
                }
                false
            }
        }
    }
}

/// Opens a socket that never waits, and the address of the service manager's: a path, or `@` and an abstract name.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor @name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn manager(variables: &[(&str, &str)]) -> ServiceManager {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        ServiceManager::new(lookup, Counter::default())
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut state = [0; 64];
        let length = socket.recv(&mut state).unwrap();
        String::from_utf8(state[..length].to_vec()).unwrap()
    }

    #[test]
    fn an_abstract_address_is_told() {
        let name = format!("duelhub-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let told = UnixDatagram::bind_addr(&address).unwrap();
        assert!(manager(&[("NOTIFY_SOCKET", &format!("@{name}"))]).tell("READY=1"));
        assert_eq!(received(&told), "READY=1");
    }

    #[test]
    fn a_socket_that_nobody_reads_or_that_is_gone_is_counted_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let told = UnixDatagram::bind(&path).unwrap();
        let manager = manager(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        // Blocking, the first one without room would never return.
        let taken = (0..100_000).take_while(|_| manager.tell("WATCHDOG=1")).count();
        assert!((1..100_000).contains(&taken), "{taken}");
        assert_eq!(manager.failures.get(), 1);
        received(&told);
        assert!(manager.tell("WATCHDOG=1"), "there is room again");
        drop(told);
        assert!(!manager.tell("WATCHDOG=1"));
        assert_eq!(manager.failures.get(), 2);
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        let own = std::process::id().to_string();
        let watchdog = |variables: &[(&str, &str)]| manager(variables).watchdog;
        assert_eq!(watchdog(&[]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "30000000")]), Some(Duration::from_secs(30)));
        let with = |pid| [("WATCHDOG_USEC", "5000"), ("WATCHDOG_PID", pid)];
        assert_eq!(watchdog(&with(&own)), Some(Duration::from_millis(5)));
        assert_eq!(watchdog(&with("1")), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "0")]), None);
    }

    #[test]
    fn what_is_no_address_is_told_to_nobody() {
        for name in ["", "notify", "vsock:2:1234", &format!("/{}", "x".repeat(200))] {
            assert!(manager(&[("NOTIFY_SOCKET", name)]).tell("READY=1"), "{name}");
        }
    }
}
