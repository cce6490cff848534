//! A backend's ticket opens one connection, a resume ticket connections until its successor is used; unless they were revoked,
//! for as long as they live.

use std::time::Duration;

use duelhub::clock::{self, UnixMs};
use duelhub::config::EngineConfig;
use duelhub::engine::{EngineError, RedeemError, Revocation};
use duelhub::id::Jti;
use duelhub::limits::SESSIONS_PER_USER_MAX;
use duelhub::ticket::Ticket;

use crate::kit::{DUEL, Subject, id_of, resume_ticket, roomy, ticket_for, user};
use crate::store::Kind;

/// A ticket of user 1 that lives for `life` from now.
fn ticket(life: Duration) -> Ticket {
    ticket_for(DUEL, 1, life)
}

fn hour() -> Ticket {
    ticket(Duration::from_secs(3600))
}

fn all_of(ticket: &Ticket) -> Revocation {
    Revocation::User { duel: ticket.duel, user: ticket.viewer.user }
}

async fn redeem(engine: &Subject, ticket: &Ticket) -> Result<(), RedeemError> {
    engine.redeem(ticket).await.map(drop)
}

async fn a_ticket_of_the_backend_is_admitted_once(engine: Subject) {
    let (one, other) = (hour(), hour());
    assert_eq!(redeem(&engine, &one).await, Ok(()));
    assert_eq!(redeem(&engine, &one).await, Err(RedeemError::Spent));
    assert_eq!(redeem(&engine, &other).await, Ok(()));
    assert_eq!(redeem(&engine, &one).await, Err(RedeemError::Spent));
    assert_eq!(engine.counts().remembered_tickets, 2);
}

async fn a_ticket_is_admitted_once_however_many_try_at_a_time(engine: Subject) {
    for _ in 0..20 {
        let ticket = hour();
        let tasks = [(); 8].map(|()| {
            let (engine, ticket) = (engine.engine(), ticket.clone());
            tokio::spawn(async move { engine.redeem(&ticket).await })
        });
        let mut admitted = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => admitted += 1,
                Err(error) => assert_eq!(error, RedeemError::Spent),
            }
        }
        assert_eq!(admitted, 1);
    }
}

async fn a_resume_ticket_is_good_until_its_successor_is_used(engine: Subject) {
    let first = hour();
    let [second, third, skipped, fifth] = [1, 2, 3, 4].map(|number| resume_ticket(&first, number));
    assert_eq!(redeem(&engine, &first).await, Ok(()));
    for _ in 0..3 {
        assert_eq!(redeem(&engine, &second).await, Ok(()), "the answer may have been lost");
    }
    assert_eq!(redeem(&engine, &first).await, Err(RedeemError::AlreadyUsed));
    assert_eq!(redeem(&engine, &third).await, Ok(()));
    assert_eq!(redeem(&engine, &second).await, Err(RedeemError::AlreadyUsed));
    assert_eq!(redeem(&engine, &fifth).await, Ok(()));
    assert_eq!(redeem(&engine, &skipped).await, Err(RedeemError::AlreadyUsed));
    assert_eq!(redeem(&engine, &fifth).await, Ok(()));
    assert_eq!(engine.counts().remembered_tickets, 1, "a record per session");
}

async fn two_tickets_of_one_generation_end_their_session(engine: Subject) {
    let (first, other) = (hour(), hour());
    let [mine, copy] = [1, 1].map(|number| resume_ticket(&first, number));
    assert_eq!(redeem(&engine, &first).await, Ok(()));
    assert_eq!(redeem(&engine, &mine).await, Ok(()));
    let session = first.generation.session;
    let owner = (first.duel, first.viewer.user);
    assert!(engine.renew(session, owner, first.revision).await.unwrap().is_some());
    assert_eq!(redeem(&engine, &copy).await, Err(RedeemError::Copied));
    for ticket in [&mine, &copy, &resume_ticket(&first, 2), &first] {
        assert_eq!(redeem(&engine, ticket).await, Err(RedeemError::Revoked));
    }
    assert_eq!(engine.renew(session, owner, first.revision).await.unwrap(), None);
    assert_eq!(redeem(&engine, &other).await, Ok(()), "another session goes on");
}

async fn an_expired_ticket_is_refused(engine: Subject) {
    let expired = Ticket { expires_at: clock::now(), ..hour() };
    assert_eq!(redeem(&engine, &expired).await, Err(RedeemError::Expired));
    assert_eq!(engine.counts().remembered_tickets, 0, "and need not be remembered");
}

async fn a_revoked_ticket_is_refused(engine: Subject) {
    let (one, other) = (hour(), hour());
    engine.revoke(Revocation::Ticket(one.jti.clone())).await.unwrap();
    engine.revoke(Revocation::Ticket(one.jti.clone())).await.unwrap();
    assert_eq!(redeem(&engine, &one).await, Err(RedeemError::Revoked));
    assert_eq!(redeem(&engine, &other).await, Ok(()));
}

async fn revoking_a_ticket_revokes_the_session_that_it_began(engine: Subject) {
    let first = hour();
    let [next, after_that] = [1, 2].map(|number| resume_ticket(&first, number));
    assert_eq!(redeem(&engine, &first).await, Ok(()));
    assert_eq!(redeem(&engine, &next).await, Ok(()));
    engine.revoke(Revocation::Ticket(next.jti.clone())).await.unwrap();
    assert_eq!(redeem(&engine, &next).await, Err(RedeemError::Revoked), "it alone");
    assert_eq!(redeem(&engine, &after_that).await, Ok(()));
    engine.revoke(Revocation::Ticket(first.jti.clone())).await.unwrap();
    assert_eq!(redeem(&engine, &after_that).await, Err(RedeemError::Revoked));
}

/// Whatever the clocks say: what is stamped before is refused, what is stamped after is not.
async fn revoking_a_user_is_told_from_what_is_issued_later_without_clocks(engine: Subject) {
    for _ in 0..20 {
        let before = engine.stamp().await.unwrap();
        engine.revoke(all_of(&hour())).await.unwrap();
        let after = engine.stamp().await.unwrap();
        assert!(after.revision > before.revision, "within one millisecond as well");
        let old = Ticket { revision: before.revision, ..hour() };
        assert_eq!(redeem(&engine, &old).await, Err(RedeemError::Revoked));
        let new = Ticket { revision: after.revision, ..hour() };
        assert_eq!(redeem(&engine, &new).await, Ok(()));
        let owner = (new.duel, new.viewer.user);
        let renewed = engine.renew(new.generation.session, owner, after.revision).await.unwrap();
        assert_eq!(renewed.unwrap().revision, after.revision);
        let renewed = engine.renew(new.generation.session, owner, before.revision).await.unwrap();
        assert_eq!(renewed, None);
    }
}

async fn revoking_concerns_one_user_in_one_duel(engine: Subject) {
    engine.revoke(all_of(&hour())).await.unwrap();
    let mut other_user = hour();
    other_user.viewer.user = user(2);
    assert_eq!(redeem(&engine, &other_user).await, Ok(()));
    assert_eq!(redeem(&engine, &Ticket { duel: id_of(78), ..hour() }).await, Ok(()));
    assert_eq!(redeem(&engine, &hour()).await, Err(RedeemError::Revoked));
}

async fn past_the_limit_tickets_are_refused_and_not_spent(kind: Kind) {
    let config = EngineConfig { tickets_max: 3, resume_ttl: Duration::from_secs(5), ..roomy() };
    let engine = Subject::with(kind, config);
    let short = [(); 3].map(|()| ticket(Duration::from_secs(5)));
    for ticket in &short {
        assert_eq!(redeem(&engine, ticket).await, Ok(()));
    }
    let full = EngineError::Full { limit: "ENGINE_MAX_REMEMBERED_TICKETS" };
    let late = hour();
    assert_eq!(redeem(&engine, &late).await, Err(RedeemError::Engine(full)));
    assert_eq!(redeem(&engine, &short[0]).await, Err(RedeemError::Spent), "what is known holds");
    let resumed = resume_ticket(&short[0], 1);
    assert_eq!(redeem(&engine, &resumed).await, Ok(()), "and goes on");
    assert_eq!(engine.counts().remembered_tickets, 3);
    engine.prune(clock::now().plus(Duration::from_secs(600))).await.unwrap();
    assert_eq!(engine.counts().remembered_tickets, 0);
    assert_eq!(redeem(&engine, &late).await, Ok(()), "it was not spent");
}

async fn past_the_limit_what_is_known_can_be_revoked(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { tickets_max: 3, ..roomy() });
    let (used, revoked, of_user) = (hour(), hour(), Ticket { duel: id_of(78), ..hour() });
    let again = [
        Revocation::Ticket(revoked.jti.clone()),
        all_of(&of_user),
        Revocation::Ticket(used.jti.clone()),
    ];
    engine.redeem(&used).await.unwrap();
    engine.revoke(again[0].clone()).await.unwrap();
    engine.revoke(again[1].clone()).await.unwrap();
    let full = Err(EngineError::Full { limit: "ENGINE_MAX_REMEMBERED_TICKETS" });
    for revocation in &again {
        assert_eq!(engine.revoke(Revocation::Ticket(Jti::random())).await, full);
        assert_eq!(engine.revoke(revocation.clone()).await, Ok(()), "{revocation:?}");
        assert_eq!(engine.counts().remembered_tickets, 3);
    }
    for ticket in [used, revoked, of_user] {
        assert_eq!(redeem(&engine, &ticket).await, Err(RedeemError::Revoked));
    }
}

async fn a_ticket_is_remembered_for_as_long_as_it_lives(engine: Subject) {
    let (used, revoked, of_user) = (hour(), hour(), Ticket { duel: id_of(78), ..hour() });
    assert_eq!(redeem(&engine, &used).await, Ok(()));
    engine.revoke(Revocation::Ticket(revoked.jti.clone())).await.unwrap();
    engine.revoke(all_of(&of_user)).await.unwrap();
    // Redis's clock has gone on meanwhile.
    engine.prune(UnixMs(used.expires_at.0 - 10_000)).await.unwrap();
    assert_eq!(redeem(&engine, &used).await, Err(RedeemError::Spent));
    assert_eq!(redeem(&engine, &revoked).await, Err(RedeemError::Revoked));
    assert_eq!(redeem(&engine, &of_user).await, Err(RedeemError::Revoked));
    assert_eq!(engine.counts().remembered_tickets, 3);
    engine.prune(clock::now().plus(Duration::from_secs(2 * 86_400))).await.unwrap();
    assert_eq!(engine.counts().remembered_tickets, 0);
}

/// A backend's ticket may live for longer than the resume tickets that follow it.
async fn a_long_ticket_is_remembered_although_its_session_goes_on(kind: Kind) {
    let config = EngineConfig { resume_ttl: Duration::from_secs(5), ..roomy() };
    let engine = Subject::with(kind, config);
    let first = hour();
    let soon = clock::now().plus(Duration::from_secs(5));
    assert_eq!(redeem(&engine, &first).await, Ok(()));
    let next = Ticket { expires_at: soon, ..resume_ticket(&first, 1) };
    assert_eq!(redeem(&engine, &next).await, Ok(()));
    engine.prune(clock::now().plus(Duration::from_secs(60))).await.unwrap();
    assert_eq!(redeem(&engine, &first).await, Err(RedeemError::AlreadyUsed));
}

/// As when the clock jumps ahead and comes back: everything is forgotten, and the clock is where it was.
async fn a_clock_that_jumps_ahead_and_back_lets_no_used_ticket_in_again(engine: Subject) {
    let used = hour();
    assert_eq!(redeem(&engine, &used).await, Ok(()));
    engine.prune(clock::now().plus(Duration::from_secs(86_400))).await.unwrap();
    assert_eq!(engine.counts().remembered_tickets, 0);
    assert_eq!(redeem(&engine, &used).await, Err(RedeemError::Expired));
    let stamp = engine.stamp().await.unwrap();
    assert!(stamp.now >= used.expires_at, "what is issued from now on is good");
    let fresh = Ticket { expires_at: stamp.now.plus(Duration::from_secs(300)), ..hour() };
    assert_eq!(redeem(&engine, &fresh).await, Ok(()));
}

async fn a_clock_that_stood_ahead_and_is_back_forgets_what_is_issued_from_then_on(engine: Subject) {
    engine.revoke(all_of(&hour())).await.unwrap();
    engine.prune(clock::now().plus(Duration::from_secs(2 * 86_400))).await.unwrap();
    engine.prune(clock::now()).await.unwrap();
    let expires_at = engine.stamp().await.unwrap().now.plus(Duration::from_secs(3600));
    let fresh = Ticket { expires_at, ..hour() };
    assert_eq!(redeem(&engine, &fresh).await, Ok(()));
    assert_eq!(redeem(&engine, &fresh).await, Err(RedeemError::Spent));
    engine.prune(clock::now().plus(Duration::from_secs(3700))).await.unwrap();
    assert_eq!(engine.counts().remembered_tickets, 0, "an hour of the clock is an hour");
}

/// A ticket of user 1, as it is issued now.
async fn stamped(engine: &Subject) -> Ticket {
    Ticket { revision: engine.stamp().await.unwrap().revision, ..hour() }
}

/// Has user 1 use a ticket of the backend's so many times. Returns the tickets.
async fn begin_sessions(engine: &Subject, count: usize) -> Vec<Ticket> {
    let mut used = Vec::new();
    for _ in 0..count {
        let ticket = stamped(engine).await;
        assert_eq!(redeem(engine, &ticket).await, Ok(()));
        used.push(ticket);
    }
    used
}

async fn however_many_sessions_a_user_begins_few_are_remembered_and_no_ticket_opens_twice(
    engine: Subject,
) {
    let in_use = hour();
    assert_eq!(redeem(&engine, &in_use).await, Ok(()));
    let (mut used, mut last_resumed) = (Vec::new(), in_use.clone());
    for number in 1..=20 {
        used.extend(begin_sessions(&engine, 10).await);
        last_resumed = resume_ticket(&in_use, number);
        assert_eq!(redeem(&engine, &last_resumed).await, Ok(()), "what is in use goes on");
        let remembered = engine.counts().remembered_tickets;
        assert!(remembered <= SESSIONS_PER_USER_MAX + 1, "{remembered} after {}", used.len());
    }
    for (nth, ticket) in used.iter().enumerate() {
        let answer = redeem(&engine, ticket).await.unwrap_err();
        let is_remembered = answer == RedeemError::Spent;
        assert!(is_remembered || answer == RedeemError::AlreadyUsed, "{nth}: {answer}");
        assert!(!is_remembered || nth > used.len() - SESSIONS_PER_USER_MAX, "{nth}");
    }
    assert_eq!(redeem(&engine, used.last().unwrap()).await, Err(RedeemError::Spent));
    assert_eq!(redeem(&engine, &last_resumed).await, Ok(()), "its welcome may have been lost");
    let counts = engine.counts();
    let sessions = counts.remembered_tickets as u64 - 1;
    assert_eq!(counts.sessions_crowded_out, 201 - sessions, "with the watermark all are known");
}

async fn who_crowds_out_sessions_harms_nobody_else(engine: Subject) {
    let mut other_user = hour();
    other_user.viewer.user = user(2);
    let other_duel = Ticket { duel: id_of(78), ..hour() };
    for ticket in [&other_user, &other_duel] {
        assert_eq!(redeem(&engine, ticket).await, Ok(()));
    }
    begin_sessions(&engine, 3 * SESSIONS_PER_USER_MAX).await;
    for ticket in [&other_user, &other_duel] {
        assert_eq!(redeem(&engine, &resume_ticket(ticket, 1)).await, Ok(()));
        let unused = Ticket { jti: Jti::random(), ..ticket.clone() };
        let first = Ticket { generation: hour().generation, ..unused };
        assert_eq!(redeem(&engine, &first).await, Ok(()), "as old as the user's");
    }
}

async fn what_was_crowded_out_stays_used_or_revoked_until_it_expires(engine: Subject) {
    let (ended, unused) = (stamped(&engine).await, stamped(&engine).await);
    assert_eq!(redeem(&engine, &ended).await, Ok(()));
    engine.revoke(Revocation::Ticket(ended.jti.clone())).await.unwrap();
    begin_sessions(&engine, SESSIONS_PER_USER_MAX).await;
    let owner = (ended.duel, ended.viewer.user);
    let later = async |engine: &Subject| {
        for ticket in [&ended, &resume_ticket(&ended, 1), &unused] {
            assert_eq!(redeem(engine, ticket).await, Err(RedeemError::AlreadyUsed));
        }
        let renewed = engine.renew(ended.generation.session, owner, ended.revision).await;
        assert_eq!(renewed.unwrap(), None, "it was revoked");
    };
    later(&engine).await;
    engine.prune(UnixMs(unused.expires_at.0 - 10_000)).await.unwrap();
    later(&engine).await;
    assert_eq!(redeem(&engine, &stamped(&engine).await).await, Ok(()), "another ticket is good");
    engine.prune(clock::now().plus(Duration::from_secs(2 * 86_400))).await.unwrap();
    assert_eq!(engine.counts().remembered_tickets, 0);
}

async fn sessions_that_have_expired_crowd_nobody_out(kind: Kind) {
    let config = EngineConfig { resume_ttl: Duration::from_secs(5), ..roomy() };
    let engine = Subject::with(kind, config);
    let in_use = hour();
    assert_eq!(redeem(&engine, &in_use).await, Ok(()));
    for _ in 1..SESSIONS_PER_USER_MAX {
        let short = ticket(Duration::from_secs(5));
        assert_eq!(redeem(&engine, &short).await, Ok(()));
    }
    engine.prune(clock::now().plus(Duration::from_secs(600))).await.unwrap();
    assert_eq!(engine.counts().remembered_tickets, 1);
    let life = Duration::from_secs(3600);
    for _ in 1..SESSIONS_PER_USER_MAX {
        assert_eq!(redeem(&engine, &ticket(life)).await, Ok(()));
    }
    assert_eq!(engine.counts().sessions_crowded_out, 0);
    assert_eq!(redeem(&engine, &in_use).await, Err(RedeemError::Spent), "it is remembered");
}

on_every_engine!(
    however_many_sessions_a_user_begins_few_are_remembered_and_no_ticket_opens_twice,
    who_crowds_out_sessions_harms_nobody_else,
    what_was_crowded_out_stays_used_or_revoked_until_it_expires,
    sessions_that_have_expired_crowd_nobody_out,
    a_ticket_of_the_backend_is_admitted_once,
    a_ticket_is_admitted_once_however_many_try_at_a_time,
    a_resume_ticket_is_good_until_its_successor_is_used,
    two_tickets_of_one_generation_end_their_session,
    an_expired_ticket_is_refused,
    a_revoked_ticket_is_refused,
    revoking_a_ticket_revokes_the_session_that_it_began,
    revoking_a_user_is_told_from_what_is_issued_later_without_clocks,
    revoking_concerns_one_user_in_one_duel,
    past_the_limit_tickets_are_refused_and_not_spent,
    past_the_limit_what_is_known_can_be_revoked,
    a_ticket_is_remembered_for_as_long_as_it_lives,
    a_long_ticket_is_remembered_although_its_session_goes_on,
    a_clock_that_jumps_ahead_and_back_lets_no_used_ticket_in_again,
    a_clock_that_stood_ahead_and_is_back_forgets_what_is_issued_from_then_on,
);
