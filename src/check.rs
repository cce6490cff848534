//! The checks of a deployment, from outside, as the WebApp and the backend use it.
//!
//! The checks share nothing with the hub but its configuration. They play one duel with ids that no game uses, and cancel it
//! at the end.

mod systemd;
mod web_client;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Endpoint;

use self::web_client::{PlayerSocket, WebClient};
use crate::clock;
use crate::config::Config;
use crate::demo::{Bearer, Client};
use crate::id::{ID_MAX, TelegramId};
use crate::pb;
use crate::pb::control_service_client::ControlServiceClient;
use crate::telegram;

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
    /// The WebApp's origin, as browsers send it. `None`: that of `api`, where the WebApp is served beside its API.
    pub origin: Option<String>,
    /// A PEM file with authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The systemd unit to check.
    pub unit: Option<String>,
    /// Whether to kill the unit's process.
    pub kill: bool,
    /// The deployment's configuration.
    pub config: Config,
}

/// The outcome of a check.
#[derive(Debug)]
pub enum Verdict {
    /// It works, with details.
    Good(String),
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

/// The duel of the checks.
struct Trial {
    duel: u64,
    /// Two participants and a stranger.
    users: [u64; 3],
}

/// Runs all checks, and reports each.
///
/// # Errors
/// An option that cannot be used.
pub async fn run(options: &CheckOptions, report: Reporter<'_>) -> Result<(), String> {
    let web_client = WebClient::new(options.ca_file.as_deref())?;
    let client = client(options)?;
    // The upper half of the ids: no game has counted so far.
    let id = || ID_MAX / 2 + rand::random::<u64>() % (ID_MAX / 4);
    let trial = Trial { duel: id(), users: [id(), id(), id()] };
    if open_duel(&client, &trial, report).await {
        let tickets = ticket_api(options, &web_client, &client, &trial, report).await;
        let players = open_sockets(options, &web_client, &trial, tickets, report).await;
        if let [Some(first), Some(second)] = players {
            deliver(&client, &trial, [first, second], report).await;
        }
        close_duel(&client, &trial, report).await;
    }
    if let Some(unit) = &options.unit {
        systemd::check(unit, options.kill, &options.config, report).await;
    }
    Ok(())
}

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

async fn open_duel(client: &Client, trial: &Trial, report: Reporter<'_>) -> bool {
    let participants = trial.users[..2].iter();
    let participants = participants.map(|user| pb::Participant { user_id: *user, telegram_id: 0 });
    let request = pb::OpenDuelRequest {
        duel_id: trial.duel,
        participants: participants.collect(),
        settings: None,
    };
    let node = client.clone().get_node(pb::GetNodeRequest {}).await;
    let opened = client.clone().open_duel(request).await;
    let verdict = match (node, opened) {
        (Ok(node), Ok(_)) => {
            let node = node.into_inner();
            if node.ready {
                Verdict::Good(format!("duelhub {}, engine {}", node.version, node.engine))
            } else {
                bad("the node is not ready", "curl http://127.0.0.1:8091/readyz, and the log")
            }
        }
        (Err(status), _) | (_, Err(status)) => bad(
            format!("{:?}: {}", status.code(), status.message()),
            "systemctl status, CONTROL_HOST, CONTROL_PORT and CONTROL_TOKEN in the env file",
        ),
    };
    let good = matches!(verdict, Verdict::Good(_));
    report("the control plane answers", verdict);
    good
}

/// Asks for tickets as participants, as a stranger, and without initData. Returns the participants' tickets.
async fn ticket_api(
    options: &CheckOptions,
    web_client: &WebClient,
    client: &Client,
    trial: &Trial,
    report: Reporter<'_>,
) -> [Vec<String>; 2] {
    let url =
        format!("{}/duel/ws-ticket?duel_id={}", options.api.trim_end_matches('/'), trial.duel);
    let mut tickets = [Vec::new(), Vec::new()];
    let Some(bot_token) = &options.config.telegram.bot_token else {
        report(
            "the ticket API answers participants",
            bad("TELEGRAM_BOT_TOKEN is not set, so it answers 503", "the env file"),
        );
        return issue_instead(client, trial).await;
    };
    let signed = |user: u64| {
        let user = TelegramId::try_from(user).ok()?;
        Some(telegram::sign(user, bot_token, clock::now()))
    };
    for (nth, tickets) in tickets.iter_mut().enumerate() {
        // Two each: one for /ws, one for /ws/.
        for _ in 0..2 {
            let answer = web_client.get(&url, signed(trial.users[nth]).as_deref()).await;
            match answer
                .as_ref()
                .map(|answer| (answer.status, answer.json["data"]["ticket"].as_str()))
            {
                Ok((200, Some(ticket))) => tickets.push(ticket.to_owned()),
                _ => {
                    report("the ticket API answers participants", not_answered(answer));
                    return issue_instead(client, trial).await;
                }
            }
        }
    }
    report("the ticket API answers participants", Verdict::Good("200 with a ticket".into()));
    let refused =
        [("a stranger", 403, signed(trial.users[2])), ("who does not say who they are", 401, None)];
    for (who, expected, init_data) in refused {
        let answer = web_client.get(&url, init_data.as_deref()).await;
        let verdict = match answer {
            Ok(answer) if answer.status == expected => {
                Verdict::Good(format!("{expected} {}", answer.json["error"].as_str().unwrap_or("")))
            }
            other => not_answered(other),
        };
        report(&format!("the ticket API refuses {who}"), verdict);
    }
    tickets
}

fn not_answered(answer: Result<web_client::HttpAnswer, String>) -> Verdict {
    let look = "nginx's location = /api/duel/ws-ticket, TELEGRAM_BOT_TOKEN in the env file";
    match answer {
        Ok(answer) => bad(format!("HTTP {} {}", answer.status, answer.json), look),
        Err(error) => bad(error, look),
    }
}

/// Issues tickets by gRPC, so that the other checks do not need the ticket API.
async fn issue_instead(client: &Client, trial: &Trial) -> [Vec<String>; 2] {
    let mut tickets = [Vec::new(), Vec::new()];
    for (nth, tickets) in tickets.iter_mut().enumerate() {
        for _ in 0..2 {
            let request = pb::IssueTicketRequest {
                duel_id: trial.duel,
                user_id: trial.users[nth],
                ..Default::default()
            };
            if let Ok(issued) = client.clone().issue_ticket(request).await {
                tickets.push(issued.into_inner().ticket);
            }
        }
    }
    tickets
}

/// Opens the WebSocket with and without the slash, from the WebApp's origin and from another.
async fn open_sockets(
    options: &CheckOptions,
    web_client: &WebClient,
    trial: &Trial,
    tickets: [Vec<String>; 2],
    report: Reporter<'_>,
) -> [Option<PlayerSocket>; 2] {
    const LOOK: &str = "nginx's location = /ws and location /ws/ (no 301, Upgrade passed on), WEBAPP_URL in the env file";
    let origin = match &options.origin {
        Some(origin) => origin.clone(),
        None => web_client::origin_of(&options.api).unwrap_or_default(),
    };
    let bare = options.url.trim_end_matches('/');
    let urls = [bare.to_owned(), format!("{bare}/")];
    let mut players = [None, None];
    for (url, nth) in urls.iter().flat_map(|url| [(url, 0), (url, 1)]) {
        let ticket = tickets[nth].get(usize::from(url.ends_with('/'))).map_or("", String::as_str);
        let opened = web_client.open(url, &origin, ticket).await;
        let what = format!("{url} opens for player {} from origin {origin:?}", nth + 1);
        match opened {
            Ok((player, connected)) if connected["duel_id"] == trial.duel => {
                report(&what, Verdict::Good("connected".into()));
                players[nth] = Some(player);
            }
            Ok((_, other)) => report(&what, bad(format!("answered {other}"), LOOK)),
            Err(error) => report(&what, bad(error, LOOK)),
        }
    }
    let foreign = web_client.open(&urls[0], "https://not-the-webapp.example", "").await;
    let verdict = match foreign {
        Err(error) if error.contains("403") => Verdict::Good("403".into()),
        Err(error) => bad(error, "WEBAPP_URL in the env file"),
        Ok(_) => bad("it is let in", "WEBAPP_URL in the env file; in development it may be unset"),
    };
    report("another origin is refused", verdict);
    players
}

/// Pushes, and measures how long the second player waits.
async fn deliver(
    client: &Client,
    trial: &Trial,
    mut players: [PlayerSocket; 2],
    report: Reporter<'_>,
) {
    const WHAT: &str = "a push reaches the second player";
    const LOOK: &str = "the log of the hub, curl http://127.0.0.1:8091/readyz";
    let mut waits = Vec::new();
    for round in 0..PUSHES {
        let request = pb::PushEventRequest {
            duel_id: trial.duel,
            payload_json: format!(r#"{{"round":{round}}}"#),
            ..Default::default()
        };
        let started = Instant::now();
        let mut client = client.clone();
        let received = players[1].next_of("duel_update");
        let (pushed, received) = tokio::join!(client.push_event(request), received);
        let seq = match pushed {
            Ok(pushed) => pushed.into_inner().position.unwrap_or_default().seq,
            Err(status) => return report(WHAT, bad(status.message(), LOOK)),
        };
        match received {
            Ok((frame, at)) if frame["seq"] == seq => waits.push(at.duration_since(started)),
            Ok((frame, _)) => return report(WHAT, bad(format!("it received {frame}"), LOOK)),
            Err(error) => return report(WHAT, bad(error, LOOK)),
        }
    }
    waits.sort_unstable();
    let (median, worst) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    let detail = format!("{PUSHES} pushes, median {median:.2?}, slowest {worst:.2?}");
    report(WHAT, Verdict::Good(detail));
}

async fn close_duel(client: &Client, trial: &Trial, report: Reporter<'_>) {
    let status = pb::DuelStatus::Cancelled.into();
    let request = pb::CloseDuelRequest { duel_id: trial.duel, status, last_event: None };
    let verdict = match client.clone().close_duel(request).await {
        Ok(_) => Verdict::Good("the trial duel is cancelled".into()),
        Err(status) => bad(status.message(), "the log of the hub"),
    };
    report("a duel closes", verdict);
}
