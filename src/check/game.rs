//! The game beside the hub: a move to the hub must leave it as it was.

use std::path::Path;

use axum::http::{Method, header};

use super::php_ini;
use super::web_client::HttpAnswer;
use super::{Checks, Verdict, bad};

const ROUTE: &str = "nginx: the game's own site must stay as it was, with the two files of deploy/game added and nothing replaced";

const PHP_ENV: &str = "give the hub an env file of its own (deploy/game/hub.env.example), and take its lines out of the game's";

const FOREIGN: &str = "nginx: deploy/game/duelhub-http.conf sends each ticket to whoever issued it";

/// A ticket of the old process's form: a JSON object in base64url, a dot, and a signature.
const FOREIGN_TICKET: &str =
    "eyJkdWVsX2lkIjoxfQ.0000000000000000000000000000000000000000000000000000000000000000";

impl Checks<'_> {
    /// Checks what the command line names of the game.
    pub(super) async fn check_game(&mut self) {
        let options = self.options;
        let game = &options.game;
        for route in &game.routes {
            let answer = self.web.get(route, &[]).await;
            let verdict =
                answer.map_or_else(|error| bad(error, ROUTE), |answer| of_a_route(&answer));
            (self.report)(&format!("the game answers {route}"), verdict);
        }
        if let Some(webhook) = &game.webhook {
            let json = [("content-type", "application/json")];
            let answer = self.web.ask(Method::POST, webhook, &json, "{}").await;
            let verdict =
                answer.map_or_else(|error| bad(error, ROUTE), |answer| of_a_webhook(&answer));
            (self.report)(&format!("the game answers Telegram at {webhook}"), verdict);
        }
        if let Some(path) = &game.env_file {
            let what = format!("PHP reads {}", path.display());
            (self.report)(&what, of_an_env_file(path));
        }
        if !game.is_empty() {
            let verdict = self.foreign_ticket().await;
            (self.report)("a ticket of another issuer does not meet the hub", verdict);
        }
    }

    /// Warns of a hub's env file that PHP cannot read, in case it does. A name of the hub's alone says that it does not.
    pub(super) fn doubt_env_file(&mut self) {
        let Some(path) = &self.options.env_file else { return };
        let Ok(text) = std::fs::read_to_string(path) else { return };
        if let Some(refused) = php_ini::first_refused(&text) {
            let doubt = format!(
                "PHP's parse_ini_file refuses line {}, and with it all of the file: {}",
                refused.line, refused.why
            );
            let remedy = "nothing, if no PHP reads this file; otherwise give the hub one of its own (deploy/game/hub.env.example)";
            let what = format!("{} is for the hub alone", path.display());
            (self.report)(&what, Verdict::Doubtful { doubt, remedy });
        }
    }

    /// The hub says `invalid_ticket`, after which a WebApp never tries again. Whatever else happens, it fetches another ticket.
    async fn foreign_ticket(&self) -> Verdict {
        let (origin, _) = self.origins();
        match self.web.open(&self.options.url, &origin, FOREIGN_TICKET).await {
            // Only the hub's frames have a request id.
            Ok((_, frame)) if frame["request_id"].is_string() => {
                let word = frame["message"].as_str().unwrap_or_default();
                bad(format!("the hub answers {word}, and the WebApp stays away for good"), FOREIGN)
            }
            Ok((_, frame)) => {
                let word = frame["message"].as_str().unwrap_or_default();
                Verdict::Good(format!("the old process answers {word}"))
            }
            // It went no further than the Origin, which other checks are about.
            Err(error) if error.contains("403") => Verdict::Doubtful {
                doubt: error,
                remedy: "WEBAPP_URL in the env file, then check again",
            },
            Err(error) => Verdict::Good(format!("{error}: the WebApp fetches another ticket")),
        }
    }
}

/// Returns whether the game answered a GET, and not nginx in its place.
fn of_a_route(answer: &HttpAnswer) -> Verdict {
    let html = answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match answer.status {
        200 if html.is_some_and(|html| html.starts_with("text/html")) => {
            bad("HTTP 200 with a page: nginx serves the WebApp here", ROUTE)
        }
        _ => of_a_webhook(answer),
    }
}

fn of_a_webhook(answer: &HttpAnswer) -> Verdict {
    match answer.status {
        status @ (405 | 500..=599) => bad(format!("HTTP {status}"), ROUTE),
        status if answer.text.contains("<center>nginx") => {
            bad(format!("HTTP {status}, and nginx itself says so"), ROUTE)
        }
        status => Verdict::Good(format!("HTTP {status}")),
    }
}

fn of_an_env_file(path: &Path) -> Verdict {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return bad(format!("it cannot be read: {error}"), PHP_ENV),
    };
    match php_ini::first_refused(&text) {
        None => Verdict::Good("parse_ini_file takes every line".into()),
        Some(refused) => {
            let kind = if php_ini::is_comment(&text, &refused) { "comment" } else { "line" };
            bad(
                format!(
                    "parse_ini_file refuses {kind} {}, and the game has no configuration: {}",
                    refused.line, refused.why
                ),
                PHP_ENV,
            )
        }
    }
}
