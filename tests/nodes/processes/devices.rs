//! One user on several devices, of which some were on a node that was killed.

use std::time::Duration;

use duelhub::limits;
use duelhub_testkit::redis_server::RedisServer;
use duelhub_testkit::{Backend, HowToEnd, Hub, Player, is_ready};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::chaos::{sites, start};

const DUEL: u64 = 7;

async fn device(hub: &Hub) -> Player {
    Backend::lazy(hub).player(DUEL, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_replaced_in_favour_of_ghosts() {
    let redis = RedisServer::start(&[]);
    let sites = sites(&redis, 3);
    let mut hubs = start(&sites).await;
    join_all(hubs.iter().map(is_ready)).await;
    // As many as a user may have.
    let mut live = vec![device(&hubs[0]).await];
    let killed = hubs.pop().unwrap();
    let _ghosts = [device(&killed).await, device(&killed).await];
    killed.end(HowToEnd::Kill).await;
    let at = Instant::now();
    live.extend(join_all([device(&hubs[0]), device(&hubs[1])]).await);
    // All of them are heard by then, and the ghosts are gone.
    while at.elapsed() < limits::NODE_LEASE + limits::NODE_LEASE / 2 {
        for player in &mut live {
            player.ping().await;
        }
        sleep(Duration::from_millis(100)).await;
    }
    // The limit holds for those that live, whichever node they are on.
    live.push(device(&hubs[1]).await);
    assert_eq!(live.remove(0).refused().await, (4504, "connection_replaced".to_owned()));
    for player in &mut live {
        player.ping().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_devices_of_a_killed_node_come_back_at_once() {
    let redis = RedisServer::start(&[]);
    let sites = sites(&redis, 3);
    let mut hubs = start(&sites).await;
    join_all(hubs.iter().map(is_ready)).await;
    let killed = hubs.remove(0);
    let _ghosts = join_all((0..3).map(|_| device(&killed))).await;
    killed.end(HowToEnd::Kill).await;
    // Twice, as after a welcome that was lost; the last ones on the other node.
    let mut live = join_all((0..3).map(|_| device(&hubs[0]))).await;
    drop(live.drain(1..));
    live.extend(join_all((0..2).map(|_| device(&hubs[1]))).await);
    for player in &mut live {
        player.ping().await;
    }
    // Within the lease of the killed node, too.
    live.push(device(&hubs[1]).await);
    assert_eq!(live.remove(0).refused().await.0, 4504);
    for player in &mut live {
        player.ping().await;
    }
}
