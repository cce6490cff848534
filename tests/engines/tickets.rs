//! A ticket opens one connection, unless it was revoked, for as long as it lives.

use std::time::Duration;

use duelhub::clock::{self, UnixMs};
use duelhub::config::EngineConfig;
use duelhub::engine::{EngineError, RedeemError, Revocation};
use duelhub::id::Jti;
use duelhub::ticket::Ticket;

use crate::kit::{DUEL, Subject, id_of, roomy, ticket_for, user};
use crate::store::Kind;

/// A ticket of user 1 that lives for `life` from now.
fn ticket(life: Duration) -> Ticket {
    ticket_for(DUEL, 1, life)
}

fn hour() -> Ticket {
    ticket(Duration::from_secs(3600))
}

fn revocation(of: &Ticket, issued_until: UnixMs) -> Revocation {
    Revocation::User { duel: of.duel, user: of.viewer.user, issued_until }
}

async fn a_ticket_is_admitted_once(engine: Subject) {
    let (one, other) = (hour(), hour());
    assert_eq!(engine.redeem(&one).await, Ok(()));
    assert_eq!(engine.redeem(&one).await, Err(RedeemError::AlreadyUsed));
    assert_eq!(engine.redeem(&other).await, Ok(()));
    assert_eq!(engine.redeem(&one).await, Err(RedeemError::AlreadyUsed));
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
                Ok(()) => admitted += 1,
                Err(error) => assert_eq!(error, RedeemError::AlreadyUsed),
            }
        }
        assert_eq!(admitted, 1);
    }
}

async fn an_expired_ticket_is_refused(engine: Subject) {
    let now = clock::now();
    let expired = Ticket { issued_at: UnixMs(now.0 - 5000), expires_at: now, ..hour() };
    assert_eq!(engine.redeem(&expired).await, Err(RedeemError::Expired));
    assert_eq!(engine.counts().remembered_tickets, 0, "and need not be remembered");
}

async fn a_revoked_ticket_is_refused(engine: Subject) {
    let (one, other) = (hour(), hour());
    engine.revoke(Revocation::Ticket(one.jti.clone())).await.unwrap();
    engine.revoke(Revocation::Ticket(one.jti.clone())).await.unwrap();
    assert_eq!(engine.redeem(&one).await, Err(RedeemError::Revoked));
    assert_eq!(engine.redeem(&other).await, Ok(()));
}

async fn a_users_tickets_are_revoked_up_to_an_instant_that_is_included(engine: Subject) {
    let at = clock::now();
    let issued = |milliseconds| Ticket { issued_at: UnixMs(at.0 + milliseconds), ..hour() };
    engine.revoke(revocation(&hour(), UnixMs(at.0 + 1000))).await.unwrap();
    assert_eq!(engine.redeem(&issued(0)).await, Err(RedeemError::Revoked));
    assert_eq!(engine.redeem(&issued(1000)).await, Err(RedeemError::Revoked));
    assert_eq!(engine.redeem(&issued(1001)).await, Ok(()));
}

async fn revoking_concerns_one_user_in_one_duel(engine: Subject) {
    engine.revoke(revocation(&hour(), clock::now().plus(Duration::from_secs(9)))).await.unwrap();
    let mut other_user = hour();
    other_user.viewer.user = user(2);
    assert_eq!(engine.redeem(&other_user).await, Ok(()));
    assert_eq!(engine.redeem(&Ticket { duel: id_of(78), ..hour() }).await, Ok(()));
    assert_eq!(engine.redeem(&hour()).await, Err(RedeemError::Revoked));
}

async fn an_earlier_revocation_does_not_take_a_later_one_back(engine: Subject) {
    let ticket = hour();
    for issued_until in [ticket.issued_at.plus(Duration::from_secs(1)), UnixMs(1)] {
        engine.revoke(revocation(&ticket, issued_until)).await.unwrap();
    }
    assert_eq!(engine.redeem(&ticket).await, Err(RedeemError::Revoked));
}

async fn past_the_limit_tickets_are_refused_and_not_spent(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { tickets_max: 3, ..roomy() });
    let soon = Duration::from_secs(5);
    let short = [ticket(soon), ticket(soon), ticket(soon)];
    for ticket in &short {
        assert_eq!(engine.redeem(ticket).await, Ok(()));
    }
    let full = EngineError::Full { limit: "ENGINE_MAX_REMEMBERED_TICKETS" };
    let late = hour();
    assert_eq!(engine.redeem(&late).await, Err(RedeemError::Engine(full)));
    assert_eq!(
        engine.redeem(&short[0]).await,
        Err(RedeemError::AlreadyUsed),
        "what is known holds"
    );
    assert_eq!(engine.counts().remembered_tickets, 3);
    // Past their life, and past any step that the clock may take back.
    engine.prune(clock::now().plus(Duration::from_secs(600))).await.unwrap();
    assert_eq!(engine.counts().remembered_tickets, 0);
    assert_eq!(engine.redeem(&late).await, Ok(()), "it was not spent");
}

async fn past_the_limit_what_is_known_can_be_revoked(kind: Kind) {
    let engine = Subject::with(kind, EngineConfig { tickets_max: 3, ..roomy() });
    let (used, revoked, of_user) = (hour(), hour(), Ticket { duel: id_of(78), ..hour() });
    let again = [
        Revocation::Ticket(revoked.jti.clone()),
        revocation(&of_user, clock::now()),
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
        assert_eq!(engine.redeem(&ticket).await, Err(RedeemError::Revoked));
    }
}

async fn a_ticket_is_remembered_for_as_long_as_it_lives(engine: Subject) {
    let (used, revoked, of_user) = (hour(), hour(), Ticket { duel: id_of(78), ..hour() });
    assert_eq!(engine.redeem(&used).await, Ok(()));
    engine.revoke(Revocation::Ticket(revoked.jti.clone())).await.unwrap();
    engine.revoke(revocation(&of_user, clock::now())).await.unwrap();
    engine.prune(UnixMs(used.expires_at.0 - 1)).await.unwrap();
    assert_eq!(engine.redeem(&used).await, Err(RedeemError::AlreadyUsed));
    assert_eq!(engine.redeem(&revoked).await, Err(RedeemError::Revoked));
    assert_eq!(engine.redeem(&of_user).await, Err(RedeemError::Revoked));
    assert_eq!(engine.counts().remembered_tickets, 3);
    engine.prune(clock::now().plus(Duration::from_secs(2 * 86_400))).await.unwrap();
    assert_eq!(engine.counts().remembered_tickets, 0);
}

on_every_engine!(
    a_ticket_is_admitted_once,
    a_ticket_is_admitted_once_however_many_try_at_a_time,
    an_expired_ticket_is_refused,
    a_revoked_ticket_is_refused,
    a_users_tickets_are_revoked_up_to_an_instant_that_is_included,
    revoking_concerns_one_user_in_one_duel,
    an_earlier_revocation_does_not_take_a_later_one_back,
    past_the_limit_tickets_are_refused_and_not_spent,
    past_the_limit_what_is_known_can_be_revoked,
    a_ticket_is_remembered_for_as_long_as_it_lives,
);
