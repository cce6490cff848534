//! A node that stops while others serve.

use std::time::{Duration, Instant};

use duelhub_testkit::redis_server::RedisServer;
use duelhub_testkit::{HowToEnd, soon};

use super::chaos::sites;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_sent_to_the_others_one_after_the_other() {
    const DRAIN: Duration = Duration::from_secs(2);
    let redis = RedisServer::start(&[]);
    let mut sites = sites(&redis, 1);
    sites[0].set("WEBSOCKET_DRAIN_SECONDS", DRAIN.as_secs().to_string());
    let (hub, backend) = sites[0].start_with_backend().await;
    let mut players = Vec::new();
    for user in 1..=10 {
        players.push(backend.player(user, user).await);
    }
    let began = Instant::now();
    hub.send(HowToEnd::Term);
    let mut away = Vec::new();
    for player in &mut players {
        assert_eq!(player.until_closed().await, 1012);
        assert_eq!(player.error["message"], "server_restart");
        assert_eq!(player.error["retry_after_ms"], 0, "others are there");
        away.push(began.elapsed());
    }
    assert!(away[9] - away[0] >= DRAIN / 2, "spread over the drain: {away:?}");
    soon("it ends", hub.ended(HowToEnd::Term)).await;
}
