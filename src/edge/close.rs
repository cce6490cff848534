//! Why a connection ends, and what its client is told. The only table of close codes.
//!
//! 4000 to 4499: come back. 4500 to 4999: stop. RFC 6455's own codes (section 7.4.1, and 1012 of its registry) where
//! they fit.

use std::sync::Arc;

use crate::engine::OfflineReason;
use crate::hub::{AttachError, Dismissal, Lost};
use crate::ticket::TicketError;

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// No ticket, not a ticket, or a revoked one.
    InvalidTicket,
    /// The ticket came too late.
    TicketExpired,
    /// The ticket was used before.
    TicketAlreadyUsed,
    /// The duel was declared without this player, or the backend wants the connection gone.
    AccessDenied { reason: Option<Arc<str>> },
    /// The duel was closed before the connection came.
    DuelClosed,
    /// The duel was closed, which the client has been told by `duel_closed`.
    DuelEnded,
    /// The client sent a larger message than is accepted.
    MessageTooLarge,
    /// The client was silent for too long.
    ConnectionTimeout,
    /// The user has opened too many other connections since.
    ConnectionReplaced,
    /// The client does not read, or the log has gone on without it.
    TooSlow,
    /// The node is stopping, or the client has to start over for another reason of ours.
    ServerRestart { reason: Option<Arc<str>> },
    /// A fault of ours.
    Internal,
    /// The client broke RFC 6455.
    ProtocolError,
    /// The client sent text that is not UTF-8.
    NotUtf8,
    /// The client closed.
    ClientClosed,
    /// The network did.
    Lost,
}

/// What the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Farewell {
    /// The close code.
    pub(super) code: u16,
    /// The `error` frame's word; `None`: no such frame.
    pub(super) word: Option<&'static str>,
    /// Whether coming back makes sense.
    pub(super) retry: bool,
}

const fn error(code: u16, word: &'static str, retry: bool) -> Option<Farewell> {
    Some(Farewell { code, word: Some(word), retry })
}

const fn silent(code: u16) -> Option<Farewell> {
    Some(Farewell { code, word: None, retry: true })
}

impl CloseReason {
    /// What the client is told; `None`: there is nobody to tell.
    pub(super) const fn farewell(&self) -> Option<Farewell> {
        match self {
            Self::InvalidTicket => error(4501, "invalid_ticket", false),
            Self::TicketExpired => error(4001, "ticket_expired", true),
            Self::TicketAlreadyUsed => error(4002, "ticket_already_used", true),
            Self::AccessDenied { .. } => error(4502, "duel_access_denied", false),
            Self::DuelClosed => error(4503, "duel_closed", false),
            Self::DuelEnded => Some(Farewell { code: 4503, word: None, retry: false }),
            Self::MessageTooLarge => error(1009, "message_too_large", true),
            Self::ConnectionTimeout => error(4003, "connection_timeout", true),
            Self::ConnectionReplaced => error(4504, "connection_replaced", false),
            Self::TooSlow => error(4004, "too_slow", true),
            Self::ServerRestart { .. } => error(1012, "server_restart", true),
            Self::Internal => error(1011, "internal", true),
            Self::ProtocolError => silent(1002),
            Self::NotUtf8 => silent(1007),
            Self::ClientClosed | Self::Lost => None,
        }
    }

    /// The close frame's reason: the backend's words if there are any, else the word itself.
    pub(super) fn reason(&self) -> &str {
        if let Self::AccessDenied { reason: Some(reason) }
        | Self::ServerRestart { reason: Some(reason) } = self
        {
            return reason;
        }
        self.label()
    }

    /// For metrics and logs.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::InvalidTicket => "invalid_ticket",
            Self::TicketExpired => "ticket_expired",
            Self::TicketAlreadyUsed => "ticket_already_used",
            Self::AccessDenied { .. } => "duel_access_denied",
            Self::DuelClosed | Self::DuelEnded => "duel_closed",
            Self::MessageTooLarge => "message_too_large",
            Self::ConnectionTimeout => "connection_timeout",
            Self::ConnectionReplaced => "connection_replaced",
            Self::TooSlow => "too_slow",
            Self::ServerRestart { .. } => "server_restart",
            Self::Internal => "internal",
            Self::ProtocolError => "protocol_error",
            Self::NotUtf8 => "not_utf8",
            Self::ClientClosed => "client_closed",
            Self::Lost => "lost",
        }
    }

    /// For those who watch the duel.
    pub(super) const fn offline_reason(&self) -> OfflineReason {
        match self {
            Self::ClientClosed => OfflineReason::ClientClosed,
            Self::ConnectionTimeout | Self::Lost => OfflineReason::Lost,
            Self::DuelClosed | Self::DuelEnded => OfflineReason::DuelClosed,
            Self::ServerRestart { .. } | Self::Internal => OfflineReason::ServerRestart,
            Self::AccessDenied { .. } => OfflineReason::Disconnected,
            Self::InvalidTicket
            | Self::TicketExpired
            | Self::TicketAlreadyUsed
            | Self::MessageTooLarge
            | Self::ConnectionReplaced
            | Self::TooSlow
            | Self::ProtocolError
            | Self::NotUtf8 => OfflineReason::ClientFault,
        }
    }
}

impl From<TicketError> for CloseReason {
    fn from(error: TicketError) -> Self {
        match error {
            TicketError::Invalid => Self::InvalidTicket,
            TicketError::Expired => Self::TicketExpired,
        }
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

impl From<&Dismissal> for CloseReason {
    fn from(dismissal: &Dismissal) -> Self {
        match dismissal {
            Dismissal::Replaced => Self::ConnectionReplaced,
            Dismissal::Restart => Self::ServerRestart { reason: None },
            Dismissal::Disconnected { reconnect: true, reason } => {
                Self::ServerRestart { reason: reason.clone() }
            }
            Dismissal::Disconnected { reconnect: false, reason } => {
                Self::AccessDenied { reason: reason.clone() }
            }
        }
    }
}

impl From<Lost> for CloseReason {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::TooSlow => Self::TooSlow,
            Lost::EpochChanged => Self::ServerRestart { reason: None },
            Lost::Engine(_) => Self::Internal,
        }
    }
}
