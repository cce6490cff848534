//! A clock that steps shuts nobody out for good, and opens nothing twice.

use duelhub_testkit::WallClock;

use crate::kit::{HowToEnd, Hub, Join, Player, Site, get, until};

const HOUR: i64 = 3600;

async fn word(hub: &Hub, ticket: &str) -> (u16, String) {
    Player::knock(hub, Join::ticket(ticket)).await.refused().await
}

#[tokio::test]
async fn a_clock_set_back_shuts_nobody_out() {
    let mut site = Site::new();
    let clock = WallClock::of(&mut site);
    let (hub, backend) = site.start_with_backend().await;
    let unused = backend.ticket(77, 1).await;
    let away = Player::join(&hub, Join::ticket(backend.ticket(77, 2).await)).await.resume_ticket();
    backend.revoke_user(77, 3).await;
    let revoked = backend.ticket(77, 4).await;
    clock.set_ahead(-HOUR);
    Player::join(&hub, Join::ticket(unused)).await;
    Player::join(&hub, Join::ticket(away)).await;
    let after = backend.ticket(77, 3).await;
    Player::join(&hub, Join::ticket(after)).await;
    backend.revoke_user(77, 4).await;
    assert_eq!(word(&hub, &revoked).await, (4501, "invalid_ticket".to_owned()));
    Player::join(&hub, Join::ticket(backend.ticket(77, 4).await)).await;
    hub.end(HowToEnd::Term).await;
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_and_back_opens_nothing_twice() {
    let mut site = Site::new();
    let clock = WallClock::of(&mut site);
    let (hub, backend) = site.start_with_backend().await;
    let used = backend.ticket(77, 1).await;
    Player::join(&hub, Join::ticket(&used)).await;
    clock.set_ahead(25 * HOUR);
    until("everything is forgotten", async || has_forgotten(&hub).await).await;
    clock.set_ahead(0);
    // It may be tried again with a fresh one, which works.
    assert_eq!(word(&hub, &used).await, (4001, "ticket_expired".to_owned()));
    Player::join(&hub, Join::ticket(backend.ticket(77, 1).await)).await;
    hub.end(HowToEnd::Kill).await;
    let (hub, backend) = site.start_with_backend().await;
    assert_eq!(
        word(&hub, &used).await,
        (4001, "ticket_expired".to_owned()),
        "also after a restart"
    );
    Player::join(&hub, Join::ticket(backend.ticket(77, 1).await)).await;
    hub.end(HowToEnd::Term).await;
}

async fn has_forgotten(hub: &Hub) -> bool {
    let metrics = get(hub.addresses.admin, "/metrics", &[]).await.body;
    metrics.contains("duelhub_remembered_tickets 0\n")
}
