//! The ticket route: whether the hub or the game answers it, and whom it gives a ticket.

use super::web_client::HttpAnswer;
use super::{Checks, Verdict, bad};
use crate::clock;
use crate::id::TelegramId;
use crate::pb;
use crate::telegram;

/// Where to look if the ticket API does not work.
const TICKET_API: &str =
    "nginx's location = /api/duel/ws-ticket, TELEGRAM_BOT_TOKEN in the env file";

const ROUTE: &str = "the way from nginx to whoever answers /api/duel/ws-ticket";

const NOT_CONFIGURED: &str = "TELEGRAM_BOT_TOKEN in the env file, if the hub is to answer; otherwise nginx, so that the game \
                              answers and calls IssueTicket";

const PARTICIPANTS: &str = "the ticket API answers participants";

fn not_answered(answer: &HttpAnswer) -> Verdict {
    bad(format!("HTTP {} {}", answer.status, answer.json), TICKET_API)
}

impl Checks<'_> {
    /// Returns two tickets for each participant, one for `/ws` and one for `/ws/`: from the hub's ticket API or, if the game
    /// answers in its place or nobody does, by gRPC, so that the other checks can go on.
    pub(super) async fn tickets(&mut self) -> [Vec<String>; 2] {
        let answer = match self.ask_ticket_api(None).await {
            Ok(answer) => answer,
            Err(error) => {
                (self.report)(PARTICIPANTS, bad(error, TICKET_API));
                return self.issue_tickets().await;
            }
        };
        self.hub_answers_tickets = is_the_hubs(&answer);
        if !self.hub_answers_tickets {
            (self.report)("the game answers the ticket route", games_verdict(&answer));
            return self.issue_tickets().await;
        }
        match self.tickets_of_the_hub().await {
            Ok(tickets) => {
                (self.report)(PARTICIPANTS, Verdict::Good("200 with a ticket".into()));
                self.ticket_api_refuses(answer).await;
                tickets
            }
            Err(verdict) => {
                (self.report)(PARTICIPANTS, verdict);
                self.issue_tickets().await
            }
        }
    }

    async fn tickets_of_the_hub(&self) -> Result<[Vec<String>; 2], Verdict> {
        if self.options.config.telegram.bot_token.is_none() {
            return Err(bad("TELEGRAM_BOT_TOKEN is not set, so it answers 503", NOT_CONFIGURED));
        }
        let mut tickets = [Vec::new(), Vec::new()];
        for (tickets, user) in tickets.iter_mut().zip(self.users) {
            for _ in 0..2 {
                let answer = self.ask_ticket_api(Some(user)).await;
                let answer = answer.map_err(|error| bad(error, TICKET_API))?;
                match answer.json["data"]["ticket"].as_str() {
                    Some(ticket) if answer.status == 200 => tickets.push(ticket.to_owned()),
                    _ => return Err(not_answered(&answer)),
                }
            }
        }
        Ok(tickets)
    }

    /// `nobodys` is the answer to a request without initData.
    async fn ticket_api_refuses(&mut self, nobodys: HttpAnswer) {
        let strangers = self.ask_ticket_api(Some(self.users[2])).await;
        let refused =
            [("a stranger", 403, strangers), ("who does not say who they are", 401, Ok(nobodys))];
        for (who, expected, answer) in refused {
            let verdict = match answer {
                Ok(answer) if answer.status == expected => {
                    let error = answer.json["error"].as_str().unwrap_or_default();
                    Verdict::Good(format!("{expected} {error}"))
                }
                Ok(answer) => not_answered(&answer),
                Err(error) => bad(error, TICKET_API),
            };
            (self.report)(&format!("the ticket API refuses {who}"), verdict);
        }
    }

    /// The URL of the trial duel's ticket.
    pub(super) fn ticket_url(&self) -> String {
        let api = self.options.api.trim_end_matches('/');
        format!("{api}/duel/ws-ticket?duel_id={}", self.duel)
    }

    /// Asks the ticket API, with initData that is signed for `user`.
    async fn ask_ticket_api(&self, user: Option<u64>) -> Result<HttpAnswer, String> {
        let bot_token = self.options.config.telegram.bot_token.as_ref();
        let user = user.and_then(|user| TelegramId::try_from(user).ok());
        let init_data =
            user.zip(bot_token).map(|(user, token)| telegram::sign(user, token, clock::now()));
        let header = init_data.as_deref().map(|text| ("x-telegram-init-data", text));
        self.web.get(&self.ticket_url(), header.as_slice()).await
    }

    async fn issue_tickets(&mut self) -> [Vec<String>; 2] {
        let mut tickets = [Vec::new(), Vec::new()];
        for (tickets, user_id) in tickets.iter_mut().zip(self.users) {
            for _ in 0..2 {
                tickets.extend(self.issue_ticket(user_id).await);
            }
        }
        tickets
    }

    /// Returns a ticket of the control plane.
    pub(super) async fn issue_ticket(&mut self, user_id: u64) -> Option<String> {
        let request = pb::IssueTicketRequest { duel_id: self.duel, user_id, ..Default::default() };
        self.client.issue_ticket(request).await.ok().map(|issued| issued.into_inner().ticket)
    }
}

/// Returns whether the hub wrote an answer, and not the game: each refusal of the hub has a code.
fn is_the_hubs(answer: &HttpAnswer) -> bool {
    let of_the_hub = |id: &str| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    answer.json["code"].is_string() && answer.json["request_id"].as_str().is_some_and(of_the_hub)
}

/// The trial duel is none of the game's: nothing but a refusal can be right.
fn games_verdict(answer: &HttpAnswer) -> Verdict {
    match answer.status {
        400..=404 if answer.json["success"] == false => {
            let error = answer.json["error"].as_str().unwrap_or_default();
            Verdict::Good(format!(
                "{} {error}; tickets of the control plane are used",
                answer.status
            ))
        }
        status => bad(format!("HTTP {status}, and no JSON of a ticket route"), ROUTE),
    }
}
