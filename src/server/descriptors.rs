//! How many sockets fit under the process's descriptor limit.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::limits;

/// What the descriptor limit leaves for players.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlayerSockets {
    /// Connections in all.
    pub(super) connections_max: usize,
    /// Sockets without a valid ticket yet.
    pub(super) pending_max: usize,
}

/// The descriptor limit leaves too little for players.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the descriptor limit (LimitNOFILE, ulimit -n) is {limit}: {reserved} are for the store, its files and the backends, \
     {backends} of them by CONTROL_MAX_CONNECTIONS, and at least {wanted} for players; it must be at least {least}",
    least = reserved + wanted
)]
pub struct TooFewDescriptors {
    limit: u64,
    reserved: u64,
    backends: u64,
    wanted: u64,
}

/// Raises the descriptor limit as far as it goes. Returns it, or `None` if there is none.
pub fn raise_descriptor_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        limit = getrlimit(Resource::Nofile);
    }
    limit.current
}

/// Sockets of peers of the other listeners that have proved nothing. The more there may be, the longer one of them stays while
/// others come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StrangerSockets {
    pub(super) control: usize,
    pub(super) admin: usize,
}

impl StrangerSockets {
    /// Returns what of the descriptor limit is for them.
    pub(super) fn under(limit: u64) -> Self {
        let share = |part: u64, (least, most): (usize, usize)| {
            usize::try_from(limit / part).unwrap_or(most).clamp(least, most)
        };
        Self {
            control: share(64, limits::CONTROL_NEWCOMERS),
            admin: share(128, limits::ADMIN_CONNECTIONS),
        }
    }
}

impl PlayerSockets {
    /// Returns what of these sockets fits under `limit` descriptors, beside those of `backends`, strangers and the process. If not all
    /// of them do, the pending ones give way down to a quarter, so that there is room for those who stay.
    pub(super) fn fit(self, limit: u64, backends: usize) -> Result<Self, TooFewDescriptors> {
        let backends = backends as u64;
        let strangers = StrangerSockets::under(limit);
        let reserved = limits::DESCRIPTORS_OF_PROCESS
            + (strangers.control + strangers.admin) as u64
            + backends;
        let room = limit.saturating_sub(reserved);
        let wanted = (self.connections_max as u64).saturating_add(self.pending_max as u64);
        let least = limits::DESCRIPTORS_FOR_PLAYERS_MIN.min(wanted);
        if room < least {
            return Err(TooFewDescriptors { limit, reserved, backends, wanted: least });
        }
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let pending_room = room.saturating_sub(self.connections_max).max(room / 4);
        let pending_max = self.pending_max.min(pending_room);
        Ok(Self { connections_max: self.connections_max.min(room - pending_max), pending_max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: PlayerSockets = PlayerSockets { connections_max: 100_000, pending_max: 2048 };

    /// The default of `CONTROL_MAX_CONNECTIONS`.
    const BACKENDS: usize = 96;

    #[test]
    fn more_backends_leave_less_for_players() {
        assert_eq!(DEFAULT.fit(1024, 200).unwrap().connections_max, 498);
        assert_eq!(DEFAULT.fit(1000, 800).unwrap_err().to_string().matches("960").count(), 1);
    }

    #[test]
    fn at_every_limit_it_fits_and_serves_or_is_refused() {
        for limit in 0..200_000 {
            match DEFAULT.fit(limit, BACKENDS) {
                Err(_) => assert!(limit < 320, "{limit}"),
                Ok(fit) => {
                    let strangers = StrangerSockets::under(limit);
                    let others = 112 + BACKENDS + strangers.control + strangers.admin;
                    let used = (fit.connections_max + fit.pending_max + others) as u64;
                    assert!(limit >= 320 && used <= limit, "{limit}: {fit:?}");
                    assert!(fit.connections_max >= 48 && fit.pending_max >= 16, "{limit}: {fit:?}");
                    assert!(fit == DEFAULT || used == limit, "{limit} is used up: {fit:?}");
                }
            }
        }
    }

    #[test]
    fn what_fits_is_left_as_it_is_and_what_does_not_is_told_in_figures() {
        let fit = |connections_max, pending_max, limit| {
            let sockets = PlayerSockets { connections_max, pending_max }.fit(limit, BACKENDS);
            sockets.map(|sockets| (sockets.connections_max, sockets.pending_max))
        };
        assert_eq!(fit(100_000, 2048, 1_048_576), Ok((100_000, 2048)));
        assert_eq!(fit(100_000, 2048, 4096), Ok((2844, 948)));
        assert_eq!(fit(100_000, 2048, 2304), Ok((1532, 510)), "once one connection");
        assert_eq!(fit(10, 2048, 320), Ok((10, 54)), "few connections leave room for pending ones");
        assert_eq!(fit(3, 2, 261), Ok((3, 2)), "a small hub needs little");
        let told = fit(100_000, 2048, 64).unwrap_err().to_string();
        for figure in [
            "is 64:",
            "256 are for",
            "96 of them by CONTROL_MAX_CONNECTIONS",
            "at least 64 for players",
            "at least 320",
        ] {
            assert!(told.contains(figure), "{figure}: {told}");
        }
    }
}
