//! Who is online in a duel, and a short log of how that changed.
//!
//! As with events, a change is appended once and every connection follows with a cursor of its own. Bounds:
//! [`limits::ONLINE_LISTED_MAX`] users are listed; players come before spectators, which are announced only while there
//! is room. [`limits::PRESENCE_CHANGES_MAX`] changes are kept.

use std::collections::VecDeque;

use crate::clock::UnixMs;
use crate::engine::Online;
use crate::event::{Role, Viewer};
use crate::id::UserId;
use crate::limits;

/// A user came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceChange {
    /// Who.
    pub user: UserId,
    /// Came.
    pub online: bool,
}

/// What it was to a list that a user is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// Nothing new.
    Known,
    /// News for those who watch alone: another role, or a user for whom there is no room.
    Unlisted,
    /// News for connections, too.
    Listed,
}

/// The list and its log.
#[derive(Debug, Default)]
pub(super) struct Presence {
    listed: Vec<Online>,
    changes: VecDeque<PresenceChange>,
    /// How many changes there were before those kept.
    forgotten: u64,
}

impl Presence {
    /// Where a cursor stands that has seen everything.
    pub(super) fn end(&self) -> u64 {
        self.forgotten + self.changes.len() as u64
    }

    pub(super) fn listed(&self) -> &[Online] {
        &self.listed
    }

    /// The changes after `cursor`, or `None` if they are kept no longer.
    pub(super) fn after(&self, cursor: u64) -> Option<Vec<PresenceChange>> {
        let skip = usize::try_from(cursor.checked_sub(self.forgotten)?).ok()?;
        Some(self.changes.iter().skip(skip).copied().collect())
    }

    /// A user is online, as that.
    pub(super) fn come(&mut self, viewer: Viewer, since: UnixMs) -> Came {
        if let Some(known) = self.listed.iter_mut().find(|l| l.viewer.user == viewer.user) {
            let before = std::mem::replace(&mut known.viewer, viewer);
            return if before == viewer { Came::Known } else { Came::Unlisted };
        }
        if self.listed.len() >= limits::ONLINE_LISTED_MAX {
            let spectator = self.listed.iter().position(|l| l.viewer.role == Role::Spectator);
            let (Role::Player, Some(spectator)) = (viewer.role, spectator) else {
                return Came::Unlisted;
            };
            let gone = self.listed.remove(spectator).viewer.user;
            self.change(gone, false);
        }
        self.listed.push(Online { viewer, since, acked_seq: 0 });
        self.change(viewer.user, true);
        Came::Listed
    }

    /// Whether connections have something to hear.
    pub(super) fn go(&mut self, user: UserId) -> bool {
        let Some(at) = self.listed.iter().position(|listed| listed.viewer.user == user) else {
            return false;
        };
        self.listed.remove(at);
        self.change(user, false);
        true
    }

    pub(super) fn ack(&mut self, user: UserId, seq: u64) {
        if let Some(listed) = self.listed.iter_mut().find(|listed| listed.viewer.user == user) {
            listed.acked_seq = listed.acked_seq.max(seq);
        }
    }

    fn change(&mut self, user: UserId, online: bool) {
        self.changes.push_back(PresenceChange { user, online });
        if self.changes.len() > limits::PRESENCE_CHANGES_MAX {
            self.changes.pop_front();
            self.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn viewer(user: u64, role: Role) -> Viewer {
        Viewer { user: UserId::try_from(user).unwrap(), role }
    }

    #[test]
    fn a_cursor_sees_each_change_once_and_is_told_when_it_is_too_late() {
        let mut presence = Presence::default();
        let one = viewer(1, Role::Player);
        let start = presence.end();
        assert_eq!(presence.come(one, UnixMs(0)), Came::Listed);
        assert_eq!(presence.come(one, UnixMs(1)), Came::Known, "who is there does not come again");
        assert!(presence.go(one.user));
        assert!(!presence.go(one.user));
        let seen: Vec<_> = presence.after(start).unwrap().iter().map(|c| c.online).collect();
        assert_eq!(seen, [true, false]);
        assert_eq!(presence.after(presence.end()), Some(vec![]));
        for _ in 0..limits::PRESENCE_CHANGES_MAX {
            presence.come(one, UnixMs(0));
            presence.go(one.user);
        }
        assert_eq!(presence.after(start), None);
    }

    #[test]
    fn players_are_listed_even_when_spectators_fill_the_list() {
        let mut presence = Presence::default();
        for user in 1..=limits::ONLINE_LISTED_MAX as u64 {
            assert_eq!(presence.come(viewer(user, Role::Spectator), UnixMs(0)), Came::Listed);
        }
        assert_eq!(presence.come(viewer(1000, Role::Spectator), UnixMs(0)), Came::Unlisted);
        assert_eq!(presence.come(viewer(1001, Role::Player), UnixMs(0)), Came::Listed);
        assert_eq!(presence.listed().len(), limits::ONLINE_LISTED_MAX);
        let last = presence.after(presence.end() - 2).unwrap();
        assert_eq!(last.iter().map(|c| c.online).collect::<Vec<_>>(), [false, true]);
    }
}
