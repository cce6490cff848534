//! Why a call fails, and the status that its caller receives. The only table of gRPC codes and reasons.

use std::borrow::Cow;
use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::request_fault::RequestFault;
use crate::engine::{AppendError, EngineError, OpenError};
use crate::hub::WatchError;
use crate::id::RequestId;
use crate::pb;

/// The domain of every reason (`google.rpc.ErrorInfo`).
const DOMAIN: &str = "duelhub";

/// Why a call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// A field is malformed, too large, or out of range.
    Field { field: String, problem: Cow<'static, str> },
    /// The duel is closed.
    DuelClosed,
    /// The duel does not exist.
    DuelUnknown,
    /// The duel was declared without this player.
    NotAParticipant,
    /// The idempotency key was used for another content.
    KeyReused,
    /// A limit is reached.
    Limit(&'static str),
    /// The engine is away.
    EngineUnavailable { may_have_taken_effect: bool },
    /// The watcher reads too slowly.
    WatcherTooSlow,
    /// This node is stopping.
    ShuttingDown,
    /// An error of the hub. The call may have taken effect.
    Internal,
    /// The caller's token is missing or wrong.
    Unauthenticated,
    /// The request is not taken.
    Request(RequestFault),
    /// The caller takes nothing of the answer. Its stream is reset, so that only the log has this.
    AnswerNotTaken,
    /// The caller's deadline has passed.
    DeadlineExceeded { may_have_taken_effect: bool },
}

/// The row of a failure in the table.
struct StatusRow {
    code: Code,
    reason: &'static str,
    message: Cow<'static, str>,
}

impl Failure {
    pub(super) fn field(field: impl Into<String>, problem: impl Into<Cow<'static, str>>) -> Self {
        Self::Field { field: field.into(), problem: problem.into() }
    }

    fn row(&self) -> StatusRow {
        let mut row = self.fixed_row();
        if let Self::Field { field, problem } = self {
            row.message = format!("{field} {problem}").into();
        } else if let Self::Limit(limit) = self {
            row.message = format!("{limit} is reached").into();
        }
        row
    }

    /// Returns the row without what it says of one failure.
    fn fixed_row(&self) -> StatusRow {
        let row =
            |code, reason, message| StatusRow { code, reason, message: Cow::Borrowed(message) };
        match self {
            Self::Field { .. } => row(Code::InvalidArgument, "INVALID_FIELD", ""),
            Self::Limit(_) => row(Code::ResourceExhausted, "LIMIT_REACHED", ""),
            Self::DuelClosed => row(Code::FailedPrecondition, "DUEL_CLOSED", "the duel is closed"),
            Self::DuelUnknown => row(Code::NotFound, "DUEL_UNKNOWN", "there is no such duel"),
            Self::NotAParticipant => row(
                Code::PermissionDenied,
                "NOT_A_PARTICIPANT",
                "the duel is declared, and the user is not among its participants",
            ),
            Self::KeyReused => row(
                Code::AlreadyExists,
                "IDEMPOTENCY_KEY_REUSED",
                "the idempotency key was used for another content",
            ),
            Self::EngineUnavailable { .. } => {
                row(Code::Unavailable, "ENGINE_UNAVAILABLE", "the engine is unavailable")
            }
            Self::WatcherTooSlow => row(
                Code::ResourceExhausted,
                "WATCHER_TOO_SLOW",
                "the watcher reads too slowly; watch again, and start from the state",
            ),
            Self::ShuttingDown => row(Code::Unavailable, "SHUTTING_DOWN", "this node is stopping"),
            Self::Internal => {
                row(Code::Internal, "INTERNAL", "an error of the hub; its log has more")
            }
            Self::Request(fault) => {
                let (code, reason, message) = fault.row();
                StatusRow { code, reason, message }
            }
            Self::Unauthenticated => row(
                Code::Unauthenticated,
                "UNAUTHENTICATED",
                "the header authorization: Bearer <CONTROL_TOKEN> is required",
            ),
            Self::DeadlineExceeded { .. } => {
                row(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the call's deadline has passed")
            }
            Self::AnswerNotTaken => {
                row(Code::Cancelled, "ANSWER_NOT_TAKEN", "the caller takes nothing of the answer")
            }
        }
    }

    /// Returns whether the rest of the request is not read.
    pub(super) const fn leaves_request_unread(&self) -> bool {
        matches!(
            self,
            Self::Request(RequestFault::TooLarge | RequestFault::Incomplete)
                | Self::DeadlineExceeded { .. }
                | Self::ShuttingDown
        )
    }

    /// Returns what is wrong with how the request comes, if that is it.
    pub(super) const fn request_fault(&self) -> Option<&RequestFault> {
        if let Self::Request(fault) = self { Some(fault) } else { None }
    }

    /// Returns the stable reason.
    pub(super) fn reason(&self) -> &'static str {
        self.row().reason
    }

    /// Returns the field at fault, if it is a field.
    pub(super) fn field_at_fault(&self) -> Option<&str> {
        if let Self::Field { field, .. } = self { Some(field) } else { None }
    }

    /// Returns the limit that is reached, if it is a limit.
    pub(super) const fn limit(&self) -> Option<&'static str> {
        if let Self::Limit(limit) = self { Some(*limit) } else { None }
    }

    /// Returns the status of a call, which carries the request's id.
    pub(super) fn status(&self, id: &RequestId) -> Status {
        let StatusRow { code, reason, message } = self.row();
        let mut metadata = HashMap::from([("request_id".to_owned(), id.to_string())]);
        if let Some(limit) = self.limit() {
            metadata.insert("limit".to_owned(), limit.to_owned());
        }
        if let Self::EngineUnavailable { may_have_taken_effect }
        | Self::DeadlineExceeded { may_have_taken_effect } = self
        {
            metadata.insert("may_have_taken_effect".to_owned(), may_have_taken_effect.to_string());
        }
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        if let Self::Field { field, problem } = self {
            details.add_bad_request_violation(field, problem.as_ref());
        }
        Status::with_error_details(code, message, details)
    }

    const fn may_have_taken_effect(&self) -> bool {
        matches!(
            self,
            Self::Internal
                | Self::EngineUnavailable { may_have_taken_effect: true }
                | Self::DeadlineExceeded { may_have_taken_effect: true }
        )
    }

    /// Returns the failure that a status of the gRPC library stands for, or `None` if the status has no failure here.
    pub(super) fn of_library(status: &Status) -> Option<Self> {
        if !status.details().is_empty() {
            return None;
        }
        if status.code() == Code::OutOfRange {
            Some(RequestFault::TooLarge.into())
        } else if status.code() == Code::Internal {
            Some(RequestFault::Undecodable.into())
        } else if status.code() == Code::Unimplemented {
            Some(RequestFault::UnknownMethod.into())
        } else if status.code() == Code::InvalidArgument {
            // What `pb::bounded` says of a message that it does not decode.
            let (field, problem) = status.message().split_once(' ')?;
            Some(Self::field(field, problem.to_owned()))
        } else {
            None
        }
    }

    /// Returns the response to one push of a stream.
    pub(super) fn push_error(&self) -> pb::PushError {
        let StatusRow { code, reason, message } = self.row();
        let field = self.field_at_fault().unwrap_or_default().to_owned();
        pb::PushError {
            code: code.into(),
            reason: reason.to_owned(),
            message: message.into_owned(),
            field,
            may_have_taken_effect: self.may_have_taken_effect(),
        }
    }
}

impl From<RequestFault> for Failure {
    fn from(fault: RequestFault) -> Self {
        Self::Request(fault)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Full { limit } => Self::Limit(limit),
            EngineError::Unavailable { may_have_taken_effect } => {
                Self::EngineUnavailable { may_have_taken_effect }
            }
        }
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Closed => Self::DuelClosed,
            AppendError::KeyReused => Self::KeyReused,
            AppendError::Engine(error) => error.into(),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Closed => Self::DuelClosed,
            OpenError::Participants => Self::field(
                "participants",
                "with those declared before: more than 64, or one telegram_id for two users",
            ),
            OpenError::Engine(error) => error.into(),
        }
    }
}

impl From<WatchError> for Failure {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::TooMany => Self::Limit("CONTROL_MAX_WATCHERS"),
            WatchError::TooSlow => Self::WatcherTooSlow,
            WatchError::Interrupted => {
                EngineError::Unavailable { may_have_taken_effect: false }.into()
            }
            WatchError::Engine(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_away_says_whether_the_call_may_have_taken_effect() {
        for may_have_taken_effect in [true, false] {
            let failure = Failure::from(AppendError::Engine(EngineError::Unavailable {
                may_have_taken_effect,
            }));
            let status = failure.status(&RequestId::random());
            let info = status.get_error_details().error_info().cloned().unwrap();
            assert_eq!(
                (status.code(), info.reason.as_str()),
                (Code::Unavailable, "ENGINE_UNAVAILABLE")
            );
            assert_eq!(info.metadata["may_have_taken_effect"], may_have_taken_effect.to_string());
            assert_eq!(failure.push_error().may_have_taken_effect, may_have_taken_effect);
        }
    }
}
