//! Why a connection closes, and what its client is told. The only table of close codes.
//!
//! 4000 to 4499: connect again. 4500 to 4999: stop. RFC 6455's own codes (section 7.4.1, and 1012 of its registry) where they
//! fit.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::OfflineReason;
use crate::hub::{AttachError, CloseRequest, ResyncRequired};
use crate::ticket::InvalidTicket;

/// Why a connection closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// No ticket, not a ticket, or a revoked one; or its session has ended.
    InvalidTicket,
    /// The ticket came too late.
    TicketExpired,
    /// The ticket was used before, or a newer one of its session was.
    TicketAlreadyUsed,
    /// The duel was declared without this player, or the backend disconnects them.
    AccessDenied { reason: Option<Arc<str>> },
    /// The duel is closed, and the client has all of it.
    DuelClosed,
    /// The duel was closed, as the client knows from `duel_closed`.
    DuelEnded,
    /// The client sent a larger message than is accepted.
    MessageTooLarge,
    /// The client was silent for too long.
    ConnectionTimeout,
    /// The user has opened too many other connections since, or has come back in this one's session.
    ConnectionReplaced,
    /// The client does not read, or lags behind the log.
    TooSlow,
    /// The node is stopping, or the client has to connect again for another reason of ours.
    ServerRestart {
        /// The backend's reason, if it wants this.
        reason: Option<Arc<str>>,
        /// When the client should come back.
        retry_after: Duration,
    },
    /// An error of the hub.
    Internal,
    /// The client broke RFC 6455.
    ProtocolError,
    /// The client sent text that is not UTF-8.
    NotUtf8,
    /// The client sent more messages than it may.
    TooManyMessages,
    /// The client closed.
    ClientClosed,
    /// The network connection is gone.
    Lost,
}

/// The row of a reason in the table.
#[derive(Debug, Clone, Copy)]
struct CloseRow {
    label: &'static str,
    /// `None`: nobody is there to be told.
    notice: Option<CloseNotice>,
    offline_reason: OfflineReason,
}

/// What the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CloseNotice {
    /// The close code.
    pub(super) code: u16,
    /// The message of the `error` frame before the close. `None`: there is none.
    pub(super) error: Option<&'static str>,
    /// Whether it helps to connect again.
    pub(super) retry: bool,
}

impl CloseReason {
    /// All of [`CloseReason::label`].
    pub(super) const LABELS: [&str; 16] = [
        "invalid_ticket",
        "ticket_expired",
        "ticket_already_used",
        "duel_access_denied",
        "duel_closed",
        "message_too_large",
        "connection_timeout",
        "connection_replaced",
        "too_slow",
        "server_restart",
        "internal",
        "protocol_error",
        "not_utf8",
        "too_many_messages",
        "client_closed",
        "lost",
    ];
    /// Those for which a client is refused that has opened its socket.
    pub(super) const REFUSALS: [&str; 7] = [
        "invalid_ticket",
        "ticket_expired",
        "ticket_already_used",
        "duel_access_denied",
        "duel_closed",
        "server_restart",
        "internal",
    ];

    const fn row(&self) -> CloseRow {
        use OfflineReason as Offline;
        const fn row(
            label: &'static str,
            notice: Option<CloseNotice>,
            offline_reason: OfflineReason,
        ) -> CloseRow {
            CloseRow { label, notice, offline_reason }
        }
        const fn error(
            code: u16,
            message: &'static str,
            retry: bool,
            offline_reason: OfflineReason,
        ) -> CloseRow {
            let notice = CloseNotice { code, error: Some(message), retry };
            row(message, Some(notice), offline_reason)
        }
        const fn silent(code: u16, retry: bool) -> Option<CloseNotice> {
            Some(CloseNotice { code, error: None, retry })
        }
        match self {
            Self::InvalidTicket => error(4501, "invalid_ticket", false, Offline::ClientFault),
            Self::TicketExpired => error(4001, "ticket_expired", true, Offline::ClientFault),
            Self::TicketAlreadyUsed => {
                error(4002, "ticket_already_used", true, Offline::ClientFault)
            }
            Self::AccessDenied { .. } => {
                error(4502, "duel_access_denied", false, Offline::Disconnected)
            }
            Self::DuelClosed => error(4503, "duel_closed", false, Offline::DuelClosed),
            Self::DuelEnded => row("duel_closed", silent(4503, false), Offline::DuelClosed),
            Self::MessageTooLarge => error(1009, "message_too_large", true, Offline::ClientFault),
            Self::ConnectionTimeout => error(4003, "connection_timeout", true, Offline::Lost),
            Self::ConnectionReplaced => {
                error(4504, "connection_replaced", false, Offline::ClientFault)
            }
            Self::TooSlow => error(4004, "too_slow", true, Offline::ClientFault),
            Self::ServerRestart { .. } => {
                error(1012, "server_restart", true, Offline::ServerRestart)
            }
            Self::Internal => error(1011, "internal", true, Offline::ServerRestart),
            Self::ProtocolError => row("protocol_error", silent(1002, true), Offline::ClientFault),
            Self::NotUtf8 => row("not_utf8", silent(1007, true), Offline::ClientFault),
            Self::TooManyMessages => {
                row("too_many_messages", silent(1008, true), Offline::ClientFault)
            }
            Self::ClientClosed => row("client_closed", None, Offline::ClientClosed),
            Self::Lost => row("lost", None, Offline::Lost),
        }
    }

    /// Returns what the client is told, or `None` if nobody is there to be told.
    pub(super) const fn notice(&self) -> Option<CloseNotice> {
        self.row().notice
    }

    /// Returns the text of the close frame: the backend's reason if there is one, else the label.
    pub(super) fn text(&self) -> &str {
        if let Self::AccessDenied { reason: Some(reason) }
        | Self::ServerRestart { reason: Some(reason), .. } = self
        {
            return reason;
        }
        self.label()
    }

    /// Returns when the client should come back, if the hub has a say in it.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        if let Self::ServerRestart { retry_after, .. } = self { Some(*retry_after) } else { None }
    }

    /// Returns why a client has to connect again that would miss something. Many may have to, and then come at `retry_after`.
    pub(super) const fn resync(required: ResyncRequired, retry_after: Duration) -> Self {
        match required {
            ResyncRequired::TooSlow => Self::TooSlow,
            ResyncRequired::EpochChanged | ResyncRequired::Missed => {
                Self::ServerRestart { reason: None, retry_after }
            }
            ResyncRequired::Engine(_) => Self::Internal,
        }
    }

    /// Returns the reason's name in metrics and logs.
    pub(super) const fn label(&self) -> &'static str {
        self.row().label
    }

    /// Returns what those who watch the duel are told.
    pub(super) const fn offline_reason(&self) -> OfflineReason {
        self.row().offline_reason
    }
}

impl From<InvalidTicket> for CloseReason {
    fn from(_: InvalidTicket) -> Self {
        Self::InvalidTicket
    }
}

impl From<AttachError> for CloseReason {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::AlreadyUsed => Self::TicketAlreadyUsed,
            AttachError::Revoked => Self::InvalidTicket,
            AttachError::Expired => Self::TicketExpired,
            AttachError::NotAParticipant => Self::AccessDenied { reason: None },
            AttachError::Closed => Self::DuelClosed,
            AttachError::Engine(_) => Self::Internal,
        }
    }
}

impl From<&CloseRequest> for CloseReason {
    fn from(request: &CloseRequest) -> Self {
        match request {
            CloseRequest::Replaced => Self::ConnectionReplaced,
            CloseRequest::SessionEnded => Self::InvalidTicket,
            CloseRequest::Restart { retry_after } => {
                Self::ServerRestart { reason: None, retry_after: *retry_after }
            }
            CloseRequest::Disconnected { reconnect: true, reason } => {
                Self::ServerRestart { reason: reason.clone(), retry_after: Duration::ZERO }
            }
            CloseRequest::Disconnected { reconnect: false, reason } => {
                Self::AccessDenied { reason: reason.clone() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_among_those_that_begin_at_zero() {
        use CloseReason as Reason;
        let retry_after = Duration::ZERO;
        let all = [
            Reason::InvalidTicket,
            Reason::TicketExpired,
            Reason::TicketAlreadyUsed,
            Reason::AccessDenied { reason: None },
            Reason::DuelClosed,
            Reason::DuelEnded,
            Reason::MessageTooLarge,
            Reason::ConnectionTimeout,
            Reason::ConnectionReplaced,
            Reason::TooSlow,
            Reason::ServerRestart { reason: None, retry_after },
            Reason::Internal,
            Reason::ProtocolError,
            Reason::NotUtf8,
            Reason::TooManyMessages,
            Reason::ClientClosed,
            Reason::Lost,
        ];
        let mut labels: Vec<_> = all.iter().map(CloseReason::label).collect();
        labels.dedup();
        assert_eq!(labels, CloseReason::LABELS);
        assert!(Reason::REFUSALS.iter().all(|label| labels.contains(label)));
    }
}
