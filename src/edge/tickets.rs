//! The HTTP ticket API: a WebApp fetches its ticket with Telegram's proof of who its user is.
//!
//! The texts are part of the contract: the existing WebApp decides by them whether to retry.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use serde_json::json;
use tracing::{info, warn};

use super::Edge;
use super::origin::{self, X_DEV_TELEGRAM_USER_ID, X_TELEGRAM_INIT_DATA};
use super::request::{RequestInfo, failure, success};
use crate::clock;
use crate::engine::{EngineError, Participant};
use crate::event::{DuelStatus, Role, Viewer};
use crate::id::{DuelId, TelegramId};
use crate::metrics::KindLabel;
use crate::telegram;
use crate::ticket::Issued;

/// Why there is no ticket.
#[derive(Debug, Clone, Copy)]
pub(super) enum TicketRefusal {
    /// A page of an origin that is not allowed asks.
    Origin,
    DuelMissing,
    Unauthorized,
    NotAParticipant,
    DuelUnknown,
    DuelClosed,
    TooMany,
    Internal,
    Unavailable,
    NotConfigured,
}

impl TicketRefusal {
    const ALL: [Self; 10] = [
        Self::Origin,
        Self::DuelMissing,
        Self::Unauthorized,
        Self::NotAParticipant,
        Self::DuelUnknown,
        Self::DuelClosed,
        Self::TooMany,
        Self::Internal,
        Self::Unavailable,
        Self::NotConfigured,
    ];

    /// Answers with the refusal, and counts it.
    pub(super) fn answer(self, edge: &Edge, info: &RequestInfo) -> Response<Body> {
        let (status, code, text) = self.row();
        edge.metrics.ticket_api_answers.get_or_create(&KindLabel { kind: code }).inc();
        let mut response = failure(&info.id, status, code, text);
        if matches!(self, Self::TooMany | Self::Unavailable) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Origin => (StatusCode::FORBIDDEN, origin::REFUSED, "Доступ запрещён"),
            Self::DuelMissing => (StatusCode::BAD_REQUEST, "duel_id_missing", "Не указан ID дуэли"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "Не авторизован"),
            Self::NotAParticipant => {
                (StatusCode::FORBIDDEN, "duel_access_denied", "Доступ запрещён")
            }
            Self::DuelUnknown => (StatusCode::NOT_FOUND, "duel_unknown", "Дуэль не найдена"),
            Self::DuelClosed => (StatusCode::CONFLICT, "duel_closed", "Дуэль уже завершена"),
            Self::TooMany => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Слишком много запросов")
            }
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "engine_unavailable",
                "Сервис временно недоступен",
            ),
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Внутренняя ошибка сервера")
            }
            Self::NotConfigured => {
                (StatusCode::SERVICE_UNAVAILABLE, "not_configured", "Сервис временно недоступен")
            }
        }
    }
}

impl From<EngineError> for TicketRefusal {
    fn from(error: EngineError) -> Self {
        warn!(%error, "the engine failed the ticket API");
        match error {
            EngineError::Full { .. } => Self::Internal,
            EngineError::Unavailable { .. } => Self::Unavailable,
        }
    }
}

/// What an answer with a ticket counts as.
const ISSUED: &str = "ok";

/// Returns all that an answer may count as.
pub(super) fn answer_kinds() -> impl Iterator<Item = &'static str> {
    std::iter::once(ISSUED).chain(TicketRefusal::ALL.map(|refusal| refusal.row().1))
}

/// Answers `GET /api/duel/ws-ticket?duel_id=`.
pub(super) async fn issue(
    State(edge): State<Arc<Edge>>,
    Extension(info): Extension<RequestInfo>,
    request: Request<Body>,
) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    match try_issue(&edge, &info, request.headers(), &query).await {
        Ok(issued) => {
            edge.metrics.ticket_api_answers.get_or_create(&KindLabel { kind: ISSUED }).inc();
            let data = json!({
                "ticket": issued.text.as_str(),
                "expires_at": issued.ticket.expires_at.seconds(),
            });
            success(&info.id, data)
        }
        Err(refusal) => refusal.answer(&edge, &info),
    }
}

async fn try_issue(
    edge: &Edge,
    info: &RequestInfo,
    headers: &HeaderMap,
    query: &str,
) -> Result<Issued, TicketRefusal> {
    let telegram = authenticate(edge, info, headers).map_err(|refusal| {
        let is_stranger = matches!(refusal, TicketRefusal::Unauthorized);
        let is_one_too_many = is_stranger && edge.admission.admit_stranger(info.client).is_err();
        if is_one_too_many { TicketRefusal::TooMany } else { refusal }
    })?;
    edge.admission.admit_ticket_request(telegram).map_err(|_| TicketRefusal::TooMany)?;
    let duel = duel_id(query).ok_or(TicketRefusal::DuelMissing)?;
    let view = edge.hub.duel(duel).await?.ok_or(TicketRefusal::DuelUnknown)?;
    let participants = view.record.participants.ok_or(TicketRefusal::DuelUnknown)?;
    let participant = participants.iter().find(|p: &&Participant| p.telegram == telegram);
    let user = participant.ok_or(TicketRefusal::NotAParticipant)?.user;
    if view.record.head.status != DuelStatus::Open {
        return Err(TicketRefusal::DuelClosed);
    }
    let stamp = edge.hub.ticket_stamp().await?;
    let issued = edge.tickets.issue(duel, Viewer { user, role: Role::Player }, None, stamp);
    edge.metrics.tickets_issued.get_or_create(&KindLabel { kind: "http" }).inc();
    info!(request_id = %info.id, duel_id = duel.get(), user_id = user.get(),
        jti = issued.ticket.jti.as_str(), "ticket issued");
    Ok(issued)
}

fn duel_id(query: &str) -> Option<DuelId> {
    let mut given = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "duel_id");
    match (given.next(), given.next()) {
        (Some((_, text)), None) => DuelId::try_from(text.parse::<u64>().ok()?).ok(),
        _ => None,
    }
}

/// Returns who asks: by Telegram's proof, or in development by the request's own claim.
fn authenticate(
    edge: &Edge,
    info: &RequestInfo,
    headers: &HeaderMap,
) -> Result<TelegramId, TicketRefusal> {
    let config = &edge.telegram;
    let init_data = headers.get(X_TELEGRAM_INIT_DATA).and_then(|value| value.to_str().ok());
    if let Some(dev) = config.dev_auth
        && init_data.is_none()
    {
        let header = headers.get(X_DEV_TELEGRAM_USER_ID).and_then(|value| value.to_str().ok());
        let user = header.and_then(|text| text.parse().ok()).or(dev.user);
        let user = user.and_then(|user| TelegramId::try_from(user).ok());
        return user.ok_or(TicketRefusal::Unauthorized);
    }
    let Some(bot_token) = &config.bot_token else {
        if let Some(suppressed) = edge.refusals_logged.admit() {
            warn!(request_id = %info.id, suppressed, "no ticket: TELEGRAM_BOT_TOKEN is not set");
        }
        return Err(TicketRefusal::NotConfigured);
    };
    let init_data = init_data.ok_or(TicketRefusal::Unauthorized)?;
    telegram::verify(init_data, bot_token, config.init_data_ttl, clock::now()).map_err(|error| {
        if let Some(suppressed) = edge.refusals_logged.admit() {
            info!(request_id = %info.id, %error, suppressed, "initData refused");
        }
        TicketRefusal::Unauthorized
    })
}
