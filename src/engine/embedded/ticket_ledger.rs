//! The ticket ledger, row by row. It is decided upon by [`rules`].

use fjall::UserKey;
use prost::Message;

use super::error::{Fault, StepError};
use super::rows::{self, Kind};
use super::store::{Snapshot, WriteBatch};
use crate::clock::UnixMs;
use crate::engine::rules::{self, Known, LedgerClock, TicketRecord, UserSessions};
use crate::engine::{EngineError, RedeemError, Revocation};
use crate::id::{DuelId, TicketKey, UserId};
use crate::limits;
use crate::ticket::{Revision, Stamp, Ticket};

/// Bytes of a user's key.
const USER_KEY_BYTES: usize = 1 + 8 + 8;

/// With this behind the key of a user's row, its watermark is meant.
const WATERMARK: u8 = b'w';

/// A session, or a ticket that was revoked. See [`TicketRecord`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct TicketRow {
    #[prost(uint32, tag = "1")]
    generation: u32,
    /// Empty: none.
    #[prost(bytes = "vec", tag = "2")]
    used: Vec<u8>,
    // Tag 3 was how often the ticket was used.
    #[prost(bool, tag = "4")]
    revoked: bool,
    /// From then on the row is needed no more.
    #[prost(uint64, tag = "5")]
    expires_at: u64,
    /// The duel and the user that the session is of; 0: no ticket of it was used.
    #[prost(uint64, tag = "6")]
    duel: u64,
    #[prost(uint64, tag = "7")]
    user: u64,
}

impl TicketRow {
    fn set_record(&mut self, record: &TicketRecord) {
        let TicketRecord { generation, used, revoked } = *record;
        (self.generation, self.revoked) = (generation, revoked);
        self.used = used.map(|key| key.0.to_vec()).unwrap_or_default();
    }

    /// Returns the key of its user's row, if it has a user.
    fn user_key(&self) -> Option<UserKey> {
        (self.user != 0).then(|| Kind::User.key(&[self.duel, self.user]))
    }

    pub(super) fn record(&self) -> Result<TicketRecord, Fault> {
        let used = match &self.used[..] {
            [] => None,
            key => Some(TicketKey(key.try_into().map_err(|_| Fault::Malformed("a ticket's key"))?)),
        };
        Ok(TicketRecord { generation: self.generation, used, revoked: self.revoked })
    }
}

/// A user in a duel.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct UserRow {
    /// The revision at which all tickets were revoked; 0: none.
    #[prost(uint64, tag = "1")]
    revoked: u64,
    /// From then on that is needed no more.
    #[prost(uint64, tag = "2")]
    revoked_expires_at: u64,
    /// The revision at which sessions were crowded out; 0: none.
    #[prost(uint64, tag = "3")]
    watermark: u64,
    /// From then on that is needed no more.
    #[prost(uint64, tag = "4")]
    watermark_expires_at: u64,
    /// See [`UserSessions`].
    #[prost(bytes = "vec", tag = "5")]
    sessions: Vec<u8>,
}

impl UserRow {
    /// How many entries of the ledger it has.
    pub(super) fn entries(&self) -> usize {
        usize::from(self.revoked_expires_at > 0) + usize::from(self.watermark_expires_at > 0)
    }

    pub(super) fn user_sessions(&self) -> Result<UserSessions, Fault> {
        UserSessions::from_bytes(&self.sessions).ok_or(Fault::Malformed("a user's sessions"))
    }

    const fn marks(&self) -> (Option<Revision>, Option<Revision>) {
        (Some(Revision(self.revoked)), Some(Revision(self.watermark)))
    }
}

/// The ticket ledger as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct LedgerRow {
    #[prost(uint64, tag = "1")]
    revision: u64,
    /// See [`LedgerClock`].
    #[prost(uint64, tag = "2")]
    forgotten_until: u64,
    #[prost(uint64, tag = "3")]
    ahead_ms: u64,
}

impl LedgerRow {
    const fn clock(&self) -> LedgerClock {
        let forgotten_until = UnixMs(self.forgotten_until);
        LedgerClock { forgotten_until, ahead_ms: self.ahead_ms }
    }

    const fn set_clock(&mut self, clock: LedgerClock) {
        (self.forgotten_until, self.ahead_ms) = (clock.forgotten_until.0, clock.ahead_ms);
    }

    fn stamp(&self, now: UnixMs) -> Stamp {
        Stamp { now: self.clock().time(now), revision: Revision(self.revision) }
    }
}

impl Snapshot<'_> {
    /// Returns what a ticket issued now has to say.
    pub(super) fn stamp(&self, now: UnixMs) -> Result<Stamp, Fault> {
        Ok(self.row::<LedgerRow>(&ledger_key())?.unwrap_or_default().stamp(now))
    }

    /// Returns the same, or `None` if a ticket of this session and owner that was issued at `revision` is revoked.
    pub(super) fn renew(
        &self,
        session: TicketKey,
        (duel, user): (DuelId, UserId),
        revision: Revision,
        now: UnixMs,
    ) -> Result<Option<Stamp>, Fault> {
        let session = self.row::<TicketRow>(&ticket_key(&session))?;
        let (user_mark, watermark) =
            self.row::<UserRow>(&user_key(duel, user))?.unwrap_or_default().marks();
        let known = Known {
            session: session.map(|row| row.record()).transpose()?,
            user_mark,
            watermark,
            ..Known::default()
        };
        if known.may_renew(revision) { self.stamp(now).map(Some) } else { Ok(None) }
    }
}

impl WriteBatch<'_> {
    /// Uses a ticket. The refusal of a copy changes something as well: its session ends.
    pub(super) fn redeem(&mut self, ticket: &Ticket) -> Result<Stamp, StepError<RedeemError>> {
        let session = ticket.generation.session;
        let key = ticket_key(&session);
        let user_key = user_key(ticket.duel, ticket.viewer.user);
        let mut row = self.row::<TicketRow>(&key)?;
        let itself = self.row::<TicketRow>(&ticket_key(&TicketKey::of(&ticket.jti)))?;
        let user: UserRow = self.row(&user_key)?.unwrap_or_default();
        let (user_mark, watermark) = user.marks();
        let known = Known {
            session: row.as_ref().map(TicketRow::record).transpose()?,
            revoked: itself.is_some_and(|row| row.revoked),
            user_mark,
            watermark,
            is_full: self.hints.counts.remembered_tickets
                >= rules::sessions_max(self.config.tickets_max),
        };
        let time = self.ledger()?.stamp(self.now).now;
        let redeemed = rules::redeem(ticket, known, self.config.resume_ttl, time)?;
        let row = row.get_or_insert_default();
        row.set_record(&redeemed.record);
        (row.duel, row.user) = (ticket.duel.get(), ticket.viewer.user.get());
        row.expires_at = self.plan_expiry(&key, redeemed.expires_at)?;
        self.put(key, row);
        if redeemed.is_copy {
            return Err(RedeemError::Copied.into());
        }
        self.note_use(session, user_key, user)?;
        Ok(self.ledger()?.stamp(self.now))
    }

    /// Notes that a session was used, and forgets those that it crowds out.
    fn note_use(
        &mut self,
        session: TicketKey,
        key: UserKey,
        mut user: UserRow,
    ) -> Result<(), Fault> {
        let before = user.user_sessions()?;
        let mut sessions = before.clone();
        let gone = sessions.note_use(session);
        if sessions == before {
            return Ok(());
        }
        user.sessions = sessions.to_bytes();
        let mut latest_expiry = 0;
        for session in &gone {
            let key = ticket_key(session);
            let Some(expires_at) = self.expires_at_of(&key)? else { continue };
            latest_expiry = latest_expiry.max(expires_at);
            self.remove(due_key(expires_at, &key));
            self.remove(key);
            self.uncount_entry();
        }
        if latest_expiry > 0 {
            self.hints.counts.sessions_crowded_out += gone.len() as u64;
            user.watermark = self.next_revision()?;
            let at = self.plan_expiry(&watermark_key(&key), UnixMs(latest_expiry))?;
            user.watermark_expires_at = at;
        }
        self.put(key, &user);
        Ok(())
    }

    /// Revokes a ticket, or all of a user.
    pub(super) fn revoke(&mut self, revocation: &Revocation) -> Result<(), StepError<EngineError>> {
        let now = self.ledger()?.stamp(self.now).now;
        match revocation {
            Revocation::Ticket(jti) => {
                let key = ticket_key(&TicketKey::of(jti));
                let row: Option<TicketRow> = self.row(&key)?;
                let expires_at = rules::revoke(row.is_some(), self.is_full(), now)?;
                let expires_at = self.plan_expiry(&key, expires_at)?;
                self.put(key, &TicketRow { revoked: true, expires_at, ..row.unwrap_or_default() });
            }
            Revocation::User { duel, user } => {
                let key = user_key(*duel, *user);
                let is_known = self.expires_at_of(&key)?.is_some();
                let expires_at = rules::revoke(is_known, self.is_full(), now)?;
                let mut user: UserRow = self.row(&key)?.unwrap_or_default();
                user.revoked = self.next_revision()?;
                user.revoked_expires_at = self.plan_expiry(&key, expires_at)?;
                self.put(key, &user);
            }
        }
        Ok(())
    }

    /// Raises the ledger's revision.
    fn next_revision(&mut self) -> Result<u64, Fault> {
        let mut ledger = self.ledger()?;
        let now = ledger.stamp(self.now).now;
        ledger.revision = rules::next_revision(Revision(ledger.revision), now).0;
        self.put(ledger_key(), &ledger);
        Ok(ledger.revision)
    }

    fn ledger(&self) -> Result<LedgerRow, Fault> {
        Ok(self.row::<LedgerRow>(&ledger_key())?.unwrap_or_default())
    }

    const fn is_full(&self) -> bool {
        self.hints.counts.remembered_tickets >= self.config.tickets_max
    }

    /// Notes when an entry, which may be a new one, is to be forgotten. Returns when that is: never earlier than before.
    fn plan_expiry(&mut self, key: &[u8], at: UnixMs) -> Result<u64, Fault> {
        let before = self.expires_at_of(key)?;
        let at = at.0.max(before.unwrap_or_default());
        self.hints.counts.remembered_tickets += usize::from(before.is_none());
        if let Some(before) = before {
            self.remove(due_key(before, key));
        }
        self.hints.tickets_due = self.hints.tickets_due.min(at);
        self.put_bytes(due_key(at, key), []);
        Ok(at)
    }

    /// Forgets what has expired by `now`. Returns whether there may be more.
    pub(super) fn prune_tickets(&mut self, now: UnixMs) -> Result<bool, Fault> {
        let mut ledger = self.ledger()?;
        let mut clock = ledger.clock();
        clock.advance(now);
        let time = clock.time(now);
        let rows =
            self.due(Kind::TicketDue, self.hints.tickets_due, time, limits::PRUNE_ROWS_MAX)?;
        let all = rows.len() < limits::PRUNE_ROWS_MAX;
        for (due, _) in rows {
            let expired_at = rows::number(&due, 0)?;
            self.hints.tickets_due = expired_at.min(self.now.0);
            self.forget_entry(due.get(9..).ok_or(Fault::Malformed("a key"))?)?;
            clock.forget(UnixMs(expired_at));
            self.remove(due);
        }
        if clock != ledger.clock() {
            ledger.set_clock(clock);
            self.put(ledger_key(), &ledger);
        }
        Ok(!all)
    }

    /// Forgets an entry that has expired.
    fn forget_entry(&mut self, key: &[u8]) -> Result<(), Fault> {
        self.uncount_entry();
        match EntryKind::of(key)? {
            EntryKind::Ticket => {
                let row: TicketRow = self.row(key)?.unwrap_or_default();
                self.remove(key.into());
                let session = key.get(1..).and_then(|key| key.try_into().ok()).map(TicketKey);
                let (Some(user_key), Some(session)) = (row.user_key(), session) else {
                    return Ok(());
                };
                self.change_user(&user_key, |user| {
                    let mut sessions = user.user_sessions()?;
                    sessions.forget(session);
                    user.sessions = sessions.to_bytes();
                    Ok(())
                })
            }
            EntryKind::UserMark => self.change_user(key, |user| {
                (user.revoked, user.revoked_expires_at) = (0, 0);
                Ok(())
            }),
            EntryKind::Watermark(user_key) => self.change_user(user_key, |user| {
                (user.watermark, user.watermark_expires_at) = (0, 0);
                Ok(())
            }),
        }
    }

    /// Changes the row of a user, if there is one. It goes if nothing is left in it.
    fn change_user(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut UserRow) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Some(mut user) = self.row::<UserRow>(key)? else { return Ok(()) };
        change(&mut user)?;
        if user == UserRow::default() {
            self.remove(key.into());
        } else {
            self.put(key.into(), &user);
        }
        Ok(())
    }

    const fn uncount_entry(&mut self) {
        let count = &mut self.hints.counts.remembered_tickets;
        *count = count.saturating_sub(1);
    }

    /// When an entry expires, if there is one.
    fn expires_at_of(&self, key: &[u8]) -> Result<Option<u64>, Fault> {
        let user = |key| Ok::<UserRow, Fault>(self.row(key)?.unwrap_or_default());
        let expires_at = match EntryKind::of(key)? {
            EntryKind::Ticket => self.row::<TicketRow>(key)?.unwrap_or_default().expires_at,
            EntryKind::UserMark => user(key)?.revoked_expires_at,
            EntryKind::Watermark(key) => user(key)?.watermark_expires_at,
        };
        Ok((expires_at > 0).then_some(expires_at))
    }
}

/// What the key of an entry stands for: a row, or a part of one.
enum EntryKind<'a> {
    Ticket,
    /// The revocation in a user's row.
    UserMark,
    /// The watermark in the row of this key.
    Watermark(&'a [u8]),
}

impl<'a> EntryKind<'a> {
    fn of(key: &'a [u8]) -> Result<Self, Fault> {
        match (Kind::of(key), key) {
            (Some(Kind::Ticket), _) => Ok(Self::Ticket),
            (Some(Kind::User), [user @ .., WATERMARK]) if key.len() == USER_KEY_BYTES + 1 => {
                Ok(Self::Watermark(user))
            }
            (Some(Kind::User), _) => Ok(Self::UserMark),
            _ => Err(Fault::Malformed("a key")),
        }
    }
}

fn ticket_key(key: &TicketKey) -> UserKey {
    Kind::Ticket.key_ending(&[], &key.0)
}

fn user_key(duel: DuelId, user: UserId) -> UserKey {
    Kind::User.key(&[duel.get(), user.get()])
}

/// The key of the watermark in a user's row.
fn watermark_key(user_key: &[u8]) -> UserKey {
    [user_key, &[WATERMARK]].concat().into()
}

fn due_key(at: u64, key: &[u8]) -> UserKey {
    Kind::TicketDue.key_ending(&[at], key)
}

fn ledger_key() -> UserKey {
    Kind::Ledger.key(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_before_users_had_sessions_are_read() {
        let mark = rows::decode::<UserRow>(&[0x08, 5, 0x10, 9]).unwrap();
        assert_eq!(mark, UserRow { revoked: 5, revoked_expires_at: 9, ..UserRow::default() });
        assert_eq!(mark.entries(), 1);
        assert!(mark.user_sessions().unwrap().is_empty());
        let ticket = rows::decode::<TicketRow>(&[0x08, 3, 0x28, 9]).unwrap();
        assert_eq!((ticket.generation, ticket.expires_at, ticket.user_key()), (3, 9, None));
    }

    #[test]
    fn an_entrys_key_says_which_part_of_which_row_it_is() {
        // The user's number ends like the key of a watermark.
        let user = Kind::User.key(&[7, u64::from(WATERMARK)]);
        assert!(matches!(EntryKind::of(&user), Ok(EntryKind::UserMark)));
        let watermark = watermark_key(&user);
        assert!(
            matches!(EntryKind::of(&watermark), Ok(EntryKind::Watermark(key)) if *key == *user)
        );
        assert!(due_key(1, &watermark).ends_with(&watermark));
    }
}
