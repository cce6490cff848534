//! While the disk is full or failing, pushes are refused and nobody loses anything; afterwards it goes on by itself.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use duelhub::pb;
use rustix::fs::statvfs;
use serde_json::{Value, json};
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::kit::{
    Backend, Disk, Facts, Fault, HowToEnd, Hub, Join, Loop, Player, Site, error_info, get, push,
    run, say, soon, until,
};

const DUEL: u64 = 77;

/// Two players in a duel, and a backend that numbers its pushes.
struct Scene {
    hub: Hub,
    backend: Backend,
    players: [Player; 2],
    epoch: String,
    /// By `seq`, from 1: the number that the push has in its payload, as acknowledged.
    log: Vec<Option<u64>>,
    next: u64,
}

/// A push that was refused.
#[derive(Debug)]
struct Refused {
    n: u64,
    may_have_taken_effect: bool,
}

fn request(n: u64) -> pb::PushEventRequest {
    let payload = json!({"duel_id": DUEL, "n": n, "fill": "x".repeat(500)});
    pb::PushEventRequest {
        idempotency_key: format!("push-{n}"),
        ..push(DUEL, &payload.to_string())
    }
}

impl Scene {
    async fn begin(site: &Site) -> Self {
        let (hub, backend) = site.start_with_backend().await;
        let players = [backend.player(DUEL, 1).await, backend.player(DUEL, 2).await];
        let epoch = players[0].connected["epoch"].as_str().unwrap().to_owned();
        let mut scene = Self { hub, backend, players, epoch, log: Vec::new(), next: 1 };
        for _ in 0..20 {
            scene.push_new().await.expect("nothing is wrong yet");
        }
        scene.ready(true).await;
        scene
    }

    async fn push_new(&mut self) -> Result<(), Refused> {
        self.next += 1;
        self.push(self.next - 1).await.map(|_| ())
    }

    /// Pushes, and notes where it went: whether it had been there before.
    async fn push(&mut self, n: u64) -> Result<bool, Refused> {
        let pushed = self.backend.client.clone().push_event(request(n)).await;
        let pushed = match pushed {
            Ok(pushed) => pushed.into_inner(),
            Err(status) => return Err(refused(n, &status)),
        };
        let position = pushed.position.unwrap();
        assert_eq!(position.epoch, self.epoch, "continuity was never in doubt");
        let index = usize::try_from(position.seq).unwrap() - 1;
        self.log.resize(self.log.len().max(index + 1), None);
        let before = self.log[index].replace(n);
        assert!(before.is_none(), "{} was given to {before:?} and to {n}", position.seq);
        Ok(pushed.duplicate)
    }

    /// Pushes until `count` were refused.
    async fn push_in_vain(&mut self, count: usize) -> Vec<Refused> {
        let mut vain = Vec::new();
        while vain.len() < count {
            vain.extend(self.push_new().await.err());
        }
        vain
    }

    /// Waits until the node calls itself ready, or not, on both of its planes.
    async fn ready(&mut self, ready: bool) {
        let admin = self.hub.addresses.admin;
        let expected = if ready { 200 } else { 503 };
        until("/readyz follows", || async { get(admin, "/readyz", &[]).await.status == expected })
            .await;
        let channel = format!("http://{}", self.hub.addresses.control);
        let health = HealthClient::new(Endpoint::from_shared(channel).unwrap().connect_lazy());
        let expected = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", "duelhub.v1.ControlService"] {
            until("health follows", || async {
                let request = HealthCheckRequest { service: service.to_owned() };
                let answer = { health.clone() }.check(request).await.unwrap();
                answer.into_inner().status() == expected
            })
            .await;
        }
        assert_eq!(get(admin, "/healthz", &[]).await.status, 200, "the process lives");
        assert!(self.hub.lives(), "{}", self.hub.output());
    }

    /// The players are still there, and have seen nothing but what is acknowledged, or may be.
    async fn players_stay(&mut self, vain: &[Refused]) {
        for player in &mut self.players {
            player.ping().await;
            for event in &player.events {
                let (seq, n) = (event["seq"].as_u64().unwrap(), number(event));
                let index = usize::try_from(seq).unwrap() - 1;
                let acknowledged = self.log.get(index) == Some(&Some(n));
                let possible = vain.iter().any(|one| one.n == n && one.may_have_taken_effect);
                assert!(acknowledged || possible, "{n} was shown at {seq}, and never acknowledged");
            }
        }
    }

    /// Pushes again what was refused, until all of it is acknowledged.
    async fn catch_up(&mut self, vain: Vec<Refused>) {
        for mut one in vain {
            soon("the engine is back", async {
                loop {
                    match self.push(one.n).await {
                        Ok(duplicate) => {
                            let possible = one.may_have_taken_effect || !duplicate;
                            assert!(possible, "{one:?} was stored all the same");
                            break;
                        }
                        Err(again) => one.may_have_taken_effect |= again.may_have_taken_effect,
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            })
            .await;
        }
    }

    /// Everybody has everything, once, in order, and the hub keeps it.
    async fn end(mut self, site: &Site) {
        for _ in 0..20 {
            self.push_new().await.expect("nothing is wrong any more");
        }
        self.ready(true).await;
        let expected: Vec<_> = self.log.iter().map(|n| n.expect("positions are dense")).collect();
        for player in &mut self.players {
            player.until_events(expected.len()).await;
            player.ping().await;
            assert_eq!(player.events.iter().map(number).collect::<Vec<_>>(), expected);
            assert_eq!(player.seqs(), (1..=expected.len() as u64).collect::<Vec<_>>());
        }
        self.hub.end(HowToEnd::Kill).await;
        let hub = site.start().await;
        let ticket = Backend::connect(&hub).await.ticket(DUEL, 3).await;
        let join = Join::ticket(ticket).resume(format!("{}:0", self.epoch));
        let mut late = Player::join(&hub, join).await;
        late.ping().await;
        assert_eq!(late.connected["recovered"], true);
        assert_eq!(late.events.iter().map(number).collect::<Vec<_>>(), expected);
        hub.end(HowToEnd::Term).await;
    }
}

fn number(event: &Value) -> u64 {
    event["payload"]["n"].as_u64().unwrap()
}

fn refused(n: u64, status: &Status) -> Refused {
    let (reason, ..) = error_info(status);
    let expected =
        [(Code::Unavailable, "ENGINE_UNAVAILABLE"), (Code::ResourceExhausted, "LIMIT_REACHED")];
    assert!(expected.contains(&(status.code(), reason.as_str())), "{status:?}");
    use tonic_types::StatusExt as _;
    let metadata = status.get_error_details().error_info().unwrap().metadata.clone();
    let may_have_taken_effect =
        metadata.get("may_have_taken_effect").is_some_and(|text| text == "true");
    Refused { n, may_have_taken_effect }
}

async fn through(fault: Fault) {
    let mut site = Site::new();
    let disk = Disk::under(&mut site);
    let mut scene = Scene::begin(&site).await;
    // Twice: who recovers once may have used up what that needed.
    for _ in 0..2 {
        disk.set(fault);
        let mut vain = scene.push_in_vain(5).await;
        scene.ready(false).await;
        scene.players_stay(&vain).await;
        vain.extend(scene.push_in_vain(5).await);
        scene.players_stay(&vain).await;
        disk.set(Fault::None);
        // By itself: a backend that asks for readiness first must not wait for what waits for the backend.
        scene.ready(true).await;
        scene.catch_up(vain).await;
    }
    scene.end(&site).await;
}

#[tokio::test]
async fn a_disk_that_is_full_for_a_while() {
    through(Fault::Full).await;
}

#[tokio::test]
async fn a_disk_that_becomes_full_in_the_middle_of_a_write() {
    through(Fault::HalfWritten).await;
}

#[tokio::test]
async fn a_disk_that_does_not_sync_for_a_while() {
    through(Fault::Sync).await;
}

/// What may be lost with the power is not shown, whatever the kernel remembers of it: neither by a hub that has opened
/// its store again, nor by one that was started on what the last one left.
#[tokio::test]
async fn what_was_never_synced_is_never_shown() {
    let mut site = Site::new();
    let disk = Disk::under(&mut site);
    let mut scene = Scene::begin(&site).await;
    disk.set(Fault::Sync);
    let vain = scene.push_in_vain(3).await;
    until("it has tried to open the store again", || async {
        scene.hub.output().matches("opened again").count() >= 3
    })
    .await;
    scene.players_stay(&[]).await;
    let acknowledged = scene.log.len();
    scene.hub.kill().await;
    if let Ok(hub) = site.try_start().await {
        let ticket = Backend::connect(&hub).await.ticket(DUEL, 3).await;
        let join = Join::ticket(ticket).resume(format!("{}:0", scene.epoch));
        let mut player = Player::knock(&hub, join).await;
        player.next().await;
        if !player.connected.is_null() {
            player.ping().await;
        }
        assert!(player.events.len() <= acknowledged, "{:?}", player.seqs());
        hub.kill().await;
    }
    disk.set(Fault::None);
    scene.hub = site.start().await;
    scene.backend = Backend::connect(&scene.hub).await;
    scene.epoch = scene.backend.duel(DUEL).await.position.unwrap().epoch;
    scene.catch_up(vain).await;
    for player in &mut scene.players {
        let join = Join::ticket(scene.backend.ticket(DUEL, 1).await).resume(player.position());
        *player = Player::join(&scene.hub, join).await;
        assert_eq!(player.connected["recovered"], true);
    }
    scene.hub.end(HowToEnd::Term).await;
}

/// A store that cannot be read is not an empty one.
#[tokio::test]
async fn a_start_on_a_disk_that_fails_changes_nothing() {
    let mut site = Site::new();
    let disk = Disk::under(&mut site);
    let (hub, backend) = site.start_with_backend().await;
    let mut facts = Facts::default();
    facts.push(&backend, DUEL, 100, 300).await;
    facts.use_ticket(&hub, &backend, DUEL).await;
    facts.close(&backend, DUEL + 1).await;
    hub.end(HowToEnd::Kill).await;
    for fault in [Fault::Read, Fault::Full, Fault::HalfWritten, Fault::Sync] {
        disk.set(fault);
        match site.try_start().await {
            Ok(hub) => drop(hub.kill().await),
            Err(exit) => {
                assert!(exit.code == Some(1) && !exit.panicked(), "{fault:?}: {exit}");
                assert!(exit.output.contains("DATA_DIR"), "{fault:?}: {exit}");
            }
        }
        disk.set(Fault::None);
        let hub = site.start().await;
        facts.hold(&hub).await.unwrap_or_else(|missing| panic!("{fault:?}: {missing}"));
        hub.end(HowToEnd::Kill).await;
    }
}

/// What cannot be read now is not told to be lost.
#[tokio::test]
async fn a_disk_that_does_not_read_for_a_while() {
    let mut site = Site::new().with("ENGINE_MAX_LOG_BYTES", "1073741824");
    let disk = Disk::under(&mut site);
    let (hub, backend) = site.start_with_backend().await;
    let mut facts = Facts::default();
    // More than stays in memory.
    facts.push(&backend, DUEL, 800, 60_000).await;
    hub.end(HowToEnd::Kill).await;
    let (mut hub, backend) = site.start_with_backend().await;
    let ticket = backend.ticket(DUEL, 1).await;
    disk.set(Fault::Read);
    let join = Join::ticket(ticket).resume(format!("{}:0", facts.epoch(DUEL)));
    let mut player = Player::knock(&hub, join).await;
    {
        // The player is sent away from a block that cannot be read, or waits while the library gives the store up.
        let given_up = until("the store is given up", async || {
            let metrics = get(hub.addresses.admin, "/metrics", &[]).await.body;
            metrics.contains("duelhub_store_usable 0\n")
        });
        tokio::pin!(given_up);
        while player.events.len() < 800 {
            tokio::select! {
                more = player.next() => if !more { break },
                () = &mut given_up => break,
            }
        }
    }
    assert!(hub.lives(), "{}", hub.output());
    disk.set(Fault::None);
    while player.events.len() < 800 && player.next().await {}
    assert_ne!(player.connected["recovered"], false, "it is all there");
    assert_eq!(player.seqs(), (1..=player.events.len() as u64).collect::<Vec<_>>());
    assert!(player.events.len() == 800 || player.closed.as_ref().unwrap().0 == 1011);
    until("it is back", || async {
        backend.client.clone().push_event(push(DUEL + 1, "{}")).await.is_ok()
    })
    .await;
    facts.hold(&hub).await.unwrap();
    hub.end(HowToEnd::Term).await;
}

/// Fills the file system but for `left` bytes, or to the last.
fn fill(point: &Path, left: u64) {
    let path = point.join("filler");
    let free = || statvfs(point).map(|space| space.f_bavail * space.f_frsize).unwrap();
    let most = free().saturating_sub(left + (8 << 20));
    run(Command::new("fallocate").args(["-l", &most.to_string()]).arg(&path)).unwrap();
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    let page = [1; 4096];
    while free() > left && file.write_all(&page).is_ok() {}
}

#[tokio::test]
async fn a_small_file_system_that_is_full_for_a_while() {
    let mut site = Site::new();
    let disk = match Loop::mount(site.path()) {
        Ok(disk) => disk,
        Err(why) => {
            return say(&format!(
                "NOT TESTED on a real full file system, which needs root and a loop device: {why}
                 (a_disk_that_is_full_for_a_while and its neighbours have tested it with faults.c)"
            ));
        }
    };
    site.set("DATA_DIR", disk.point().join("data").to_str().unwrap());
    let mut scene = Scene::begin(&site).await;
    for left in [100 << 20, 64 << 10, 0] {
        fill(&disk.point(), left);
        let vain = scene.push_in_vain(5).await;
        scene.ready(false).await;
        scene.players_stay(&vain).await;
        std::fs::remove_file(disk.point().join("filler")).unwrap();
        scene.ready(true).await;
        scene.catch_up(vain).await;
    }
    scene.end(&site).await;
    drop(disk);
}
