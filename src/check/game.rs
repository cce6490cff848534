//! The game beside the hub: a move to the hub must leave it as it was.

use std::path::Path;

use axum::http::{Method, header};

use super::php_ini;
use super::web_client::HttpAnswer;
use super::{Checks, Verdict, bad};
use crate::config::VARIABLES;

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

    /// Warns of an env file that others read, too, as its names show, and that PHP cannot read.
    pub(super) fn doubt_env_file(&mut self) {
        let Some(path) = &self.options.env_file else { return };
        let Ok(text) = std::fs::read_to_string(path) else { return };
        let shared = others_name(&text);
        if let Some((name, refused)) = shared.zip(php_ini::first_refused(&text)) {
            let doubt = format!(
                "it has {name}, which is not the hub's. If PHP reads it with parse_ini_file, line {} makes it refuse all of the file: {}",
                refused.line, refused.why
            );
            (self.report)(
                &path.display().to_string(),
                Verdict::Doubtful { doubt, remedy: PHP_ENV },
            );
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

/// Returns a name in an env file that is none of the hub's.
fn others_name(text: &str) -> Option<&str> {
    let names = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim());
    let is_name = |name: &&str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_ours = |name: &str| VARIABLES.iter().any(|variable| variable.name == name);
    names.filter(is_name).find(|name| !is_ours(name))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_others_says_that_the_file_is_shared() {
        assert_eq!(
            others_name("# DB_HOST=x\nAPP_ENV=production\nDB_HOST=127.0.0.1\n"),
            Some("DB_HOST")
        );
        assert_eq!(others_name(include_str!("../../deploy/app.env.example")), None);
        assert_eq!(others_name(include_str!("../../deploy/game/hub.env.example")), None);
    }
}
