//! The checks of a deployment, from outside, as the WebApp and the backend use it.
//!
//! The checks share nothing with the hub but its configuration. They play one duel with ids that no game uses, and cancel it
//! at the end.

mod game;
mod metrics;
mod origins;
mod php_ini;
mod systemd;
mod tickets;
mod web_client;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Endpoint;

use self::web_client::{PlayerSocket, WebClient};
use crate::config::Config;
use crate::demo::{Bearer, Client};
use crate::id::ID_MAX;
use crate::pb;
use crate::pb::control_service_client::ControlServiceClient;

/// How long any step may take. It takes milliseconds when it works.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pushes whose latency is measured.
const PUSHES: usize = 20;

/// What to check.
#[derive(Debug)]
pub struct CheckOptions {
    /// The URL of the WebSocket.
    pub url: String,
    /// The URL of the ticket API: the prefix of `/duel/ws-ticket`.
    pub api: String,
    /// The WebApp's origins, as browsers send them. Empty: that of `api`, where the WebApp is served beside its API. Those of
    /// `WEBAPP_URL` are checked besides.
    pub origins: Vec<String>,
    /// A PEM file with authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The systemd unit to check.
    pub unit: Option<String>,
    /// Whether to kill the unit's process.
    pub kill: bool,
    /// The game beside the hub.
    pub game: GameOptions,
    /// The env file that the configuration was read from.
    pub env_file: Option<PathBuf>,
    /// The deployment's configuration.
    pub config: Config,
}

/// What to check of a game that moves to the hub, or has moved.
#[derive(Debug, Default)]
pub struct GameOptions {
    /// URLs that the game answers to GET.
    pub routes: Vec<String>,
    /// The URL at which it takes updates from Telegram. It gets an empty one.
    pub webhook: Option<String>,
    /// The game's env file, which PHP reads.
    pub env_file: Option<PathBuf>,
}

impl GameOptions {
    const fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.webhook.is_none() && self.env_file.is_none()
    }
}

/// The outcome of a check.
#[derive(Debug)]
pub enum Verdict {
    /// It works, with details.
    Good(String),
    /// It may be wrong: that depends on what cannot be seen from here.
    Doubtful {
        /// What was seen.
        doubt: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// It does not work.
    Bad {
        /// What is wrong.
        wrong: String,
        /// Where to look.
        look: &'static str,
    },
}

/// Takes each check's name and outcome.
pub type Reporter<'a> = &'a mut dyn FnMut(&str, Verdict);

/// The checks, and the duel that they play.
struct Checks<'a> {
    options: &'a CheckOptions,
    web: WebClient,
    client: Client,
    duel: u64,
    /// Two participants and a stranger.
    users: [u64; 3],
    /// Whether the hub answers the ticket route, and not the game.
    hub_answers_tickets: bool,
    report: Reporter<'a>,
}

/// Runs all checks, and reports each.
///
/// # Errors
/// An option that cannot be used.
pub async fn run(options: &CheckOptions, report: Reporter<'_>) -> Result<(), String> {
    // The upper half of the ids: no game has counted so far.
    let id = || ID_MAX / 2 + rand::random::<u64>() % (ID_MAX / 4);
    let mut checks = Checks {
        web: WebClient::new(options.ca_file.as_deref())?,
        client: client(options)?,
        options,
        duel: id(),
        users: [id(), id(), id()],
        hub_answers_tickets: true,
        report,
    };
    checks.doubt_env_file();
    if checks.open_duel().await {
        let tickets = checks.tickets().await;
        if let [Some(first), Some(second)] = checks.open_sockets(tickets).await {
            checks.deliver([first, second]).await;
        }
        checks.check_origins().await;
        checks.close_duel().await;
        checks.read_metrics().await;
    }
    checks.check_game().await;
    if let Some(unit) = &options.unit {
        systemd::check(unit, options, checks.report).await;
    }
    Ok(())
}

/// Where to look if a WebSocket does not open.
const SOCKET: &str = "nginx's location = /ws and location /ws/ (no 301, Upgrade passed on), WEBAPP_URL in the env file";

fn bad(wrong: impl Into<String>, look: &'static str) -> Verdict {
    Verdict::Bad { wrong: wrong.into(), look }
}

fn client(options: &CheckOptions) -> Result<Client, String> {
    let control = &options.config.control;
    if control.tls.is_some() {
        return Err("the control plane uses TLS: run this where CONTROL_TLS_CERT is not set".into());
    }
    let endpoint = Endpoint::from_shared(format!("http://{}", control.address));
    let endpoint = endpoint.map_err(|_| "CONTROL_HOST is not usable".to_owned())?;
    let channel = endpoint.timeout(PATIENCE).connect_timeout(PATIENCE).connect_lazy();
    Ok(ControlServiceClient::with_interceptor(channel, Bearer::new(control.token.as_ref())))
}

impl Checks<'_> {
    async fn open_duel(&mut self) -> bool {
        let participants = self.users[..2].iter();
        let participants =
            participants.map(|user| pb::Participant { user_id: *user, telegram_id: 0 }).collect();
        let request =
            pb::OpenDuelRequest { duel_id: self.duel, participants, settings: None, reopen: false };
        let node = self.client.get_node(pb::GetNodeRequest {}).await;
        let opened = self.client.open_duel(request).await;
        let verdict = match (node.map(tonic::Response::into_inner), opened) {
            (Ok(node), Ok(_)) if node.ready => {
                Verdict::Good(format!("duelhub {}, engine {}", node.version, node.engine))
            }
            (Ok(_), Ok(_)) => {
                bad("the node is not ready", "curl http://127.0.0.1:8091/readyz, and the log")
            }
            (Err(status), _) | (_, Err(status)) => bad(
                format!("{:?}: {}", status.code(), status.message()),
                "systemctl status, CONTROL_HOST, CONTROL_PORT and CONTROL_TOKEN in the env file",
            ),
        };
        let good = matches!(verdict, Verdict::Good(_));
        (self.report)("the control plane answers", verdict);
        good
    }

    /// Opens the WebSocket with and without the slash, from the WebApp's origin and from another.
    async fn open_sockets(&mut self, tickets: [Vec<String>; 2]) -> [Option<PlayerSocket>; 2] {
        let (origin, _) = self.origins();
        let bare = self.options.url.trim_end_matches('/');
        let urls = [bare.to_owned(), format!("{bare}/")];
        let mut players = [None, None];
        for (url, nth) in urls.iter().flat_map(|url| [(url, 0), (url, 1)]) {
            let ticket = tickets[nth].get(usize::from(url.ends_with('/')));
            let opened = self.web.open(url, &origin, ticket.map_or("", String::as_str)).await;
            let verdict = match opened {
                Ok((player, connected)) if connected["duel_id"] == self.duel => {
                    players[nth] = Some(player);
                    Verdict::Good("connected".into())
                }
                // Only the hub's frames have a request id.
                Ok((_, other)) if other["request_id"].is_null() => {
                    bad(format!("another process answers {other}"), SOCKET)
                }
                Ok((_, other)) => bad(format!("answered {other}"), SOCKET),
                Err(error) => bad(error, SOCKET),
            };
            let what = format!("{url} opens for player {} from origin {origin:?}", nth + 1);
            (self.report)(&what, verdict);
        }
        let foreign = self.web.open(&urls[0], "https://not-the-webapp.example", "").await;
        let verdict = match foreign {
            Err(error) if error.contains("403") => Verdict::Good("403".into()),
            Err(error) => bad(error, "WEBAPP_URL in the env file"),
            Ok(_) => {
                bad("it is accepted", "WEBAPP_URL in the env file; in development it may be unset")
            }
        };
        (self.report)("another origin is refused", verdict);
        players
    }

    /// Pushes, and measures how long the second player waits.
    async fn deliver(&mut self, players: [PlayerSocket; 2]) {
        const LOOK: &str = "the log of the hub, curl http://127.0.0.1:8091/readyz";
        let verdict = match self.latencies(players).await {
            Ok(mut waits) => {
                waits.sort_unstable();
                let (median, slowest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
                Verdict::Good(format!(
                    "{PUSHES} pushes, median {median:.2?}, slowest {slowest:.2?}"
                ))
            }
            Err(error) => bad(error, LOOK),
        };
        (self.report)("a push reaches the second player", verdict);
    }

    async fn latencies(&mut self, mut players: [PlayerSocket; 2]) -> Result<Vec<Duration>, String> {
        let mut waits = Vec::with_capacity(PUSHES);
        for round in 0..PUSHES {
            let request = pb::PushEventRequest {
                duel_id: self.duel,
                payload_json: format!(r#"{{"round":{round}}}"#),
                ..Default::default()
            };
            let started = Instant::now();
            let received = players[1].next_of("duel_update");
            let (pushed, received) = tokio::join!(self.client.push_event(request), received);
            let pushed = pushed.map_err(|status| status.message().to_owned())?.into_inner();
            let (frame, at) = received?;
            if frame["seq"] != pushed.position.unwrap_or_default().seq {
                return Err(format!("it received {frame}"));
            }
            waits.push(at.duration_since(started));
        }
        Ok(waits)
    }

    async fn close_duel(&mut self) {
        let status = pb::DuelStatus::Cancelled.into();
        let request = pb::CloseDuelRequest { duel_id: self.duel, status, last_event: None };
        let verdict = match self.client.close_duel(request).await {
            Ok(_) => Verdict::Good("the trial duel is cancelled".into()),
            Err(status) => bad(status.message(), "the log of the hub"),
        };
        (self.report)("a duel closes", verdict);
    }
}
