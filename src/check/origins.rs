//! The origins of the WebApp: each must get a ticket, and open a WebSocket with it.
//!
//! A browser asks for a ticket on behalf of another origin only if the answer names that origin. If it does not, whoever
//! answers counts a ticket that no page has ever seen.

use axum::http::{HeaderMap, Method, header};

use super::web_client::origin_of;
use super::{Checks, Verdict, bad};

const LOOK: &str = "who answers /api/duel/ws-ticket must name this origin in Access-Control-Allow-Origin: the hub does for all of \
                    WEBAPP_URL, a game's own route by its own setting, which may take one origin only";

const INIT_DATA: &str = "x-telegram-init-data";

impl Checks<'_> {
    /// The WebApp's origin, and further ones: those of the command line, else that of the API; and those of `WEBAPP_URL`.
    pub(super) fn origins(&self) -> (String, Vec<String>) {
        let given = self.options.origins.clone();
        let first = given.first().cloned().or_else(|| origin_of(&self.options.api));
        let first = first.unwrap_or_default();
        let mut further: Vec<String> = Vec::new();
        for origin in given.into_iter().chain(self.options.config.edge.origins.iter().cloned()) {
            if origin != first && !further.contains(&origin) {
                further.push(origin);
            }
        }
        (first, further)
    }

    /// Checks the way of each origin to a ticket and a socket. Not that of the first to a socket, which has been checked.
    pub(super) async fn check_origins(&mut self) {
        let (first, further) = self.origins();
        let apis_own = origin_of(&self.options.api).unwrap_or_default();
        for origin in [&first].into_iter().chain(&further).filter(|origin| **origin != apis_own) {
            let verdict = self.ticket_from(origin).await;
            (self.report)(&format!("a page of {origin:?} may ask for a ticket"), verdict);
        }
        for origin in &further {
            let ticket = self.issue_ticket(self.users[0]).await.unwrap_or_default();
            let opened = self.web.open(&self.options.url, origin, &ticket).await;
            let verdict = match opened {
                Ok((_, connected)) if connected["duel_id"] == self.duel => {
                    Verdict::Good("connected".into())
                }
                Ok((_, other)) => bad(format!("answered {other}"), super::SOCKET),
                Err(error) => bad(error, super::SOCKET),
            };
            (self.report)(&format!("a page of {origin:?} may open a WebSocket"), verdict);
        }
    }

    /// Asks as a browser does: first whether it may, and then.
    async fn ticket_from(&self, origin: &str) -> Verdict {
        let url = self.ticket_url();
        let preflight = [
            ("origin", origin),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", INIT_DATA),
        ];
        let answer = match self.web.ask(Method::OPTIONS, &url, &preflight, "").await {
            Ok(answer) => answer,
            Err(error) => return bad(error, LOOK),
        };
        if !(200..300).contains(&answer.status) {
            return bad(format!("OPTIONS is answered HTTP {}", answer.status), LOOK);
        }
        if let Err(wrong) = allows(&answer.headers, origin) {
            return bad(format!("OPTIONS: {wrong}"), LOOK);
        }
        let headers = answer.headers.get_all(header::ACCESS_CONTROL_ALLOW_HEADERS);
        let headers = headers.iter().filter_map(|value| value.to_str().ok());
        let mut headers = headers.flat_map(|list| list.split(',')).map(str::trim);
        if !headers.any(|name| name == "*" || name.eq_ignore_ascii_case(INIT_DATA)) {
            return bad("OPTIONS does not allow X-Telegram-Init-Data", LOOK);
        }
        match self.web.get(&url, &[("origin", origin)]).await {
            Ok(answer) => match allows(&answer.headers, origin) {
                Ok(()) => Verdict::Good("the answer may be read".into()),
                Err(wrong) => bad(format!("GET: {wrong}"), LOOK),
            },
            Err(error) => bad(error, LOOK),
        }
    }
}

/// Returns whether a browser shows an answer to a page of `origin` (Fetch Standard, "CORS check").
fn allows(headers: &HeaderMap, origin: &str) -> Result<(), String> {
    let named: Vec<_> = headers.get_all(header::ACCESS_CONTROL_ALLOW_ORIGIN).iter().collect();
    match named[..] {
        [only] if only == "*" || only == origin => Ok(()),
        [only] => Err(format!("it allows {only:?} alone")),
        [] => Err("it allows no other origin".into()),
        _ => Err("it has the header twice: both nginx and the application set it".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let pairs = values.iter().map(|value| {
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, axum::http::HeaderValue::from_static(value))
        });
        pairs.collect()
    }

    #[test]
    fn a_browser_shows_an_answer_to_the_one_origin_that_it_names() {
        let origin = "https://app.example";
        for good in [["*"], [origin]] {
            assert_eq!(allows(&headers(&good), origin), Ok(()));
        }
        let list = "https://app.example,https://quiz.example";
        for refused in [&[][..], &["https://quiz.example"], &[list], &[origin, origin]] {
            assert!(allows(&headers(refused), origin).is_err(), "{refused:?}");
        }
    }
}
