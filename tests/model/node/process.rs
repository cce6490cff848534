//! A node that is the real binary, with the real protocols between.

use std::collections::VecDeque;
use std::sync::Arc;

use duelhub::engine::{AppendError, Declaration, OpenError, Revocation};
use duelhub::event::{Outcome, Position};
use duelhub::hub::{AttachError, Pushed};
use duelhub::id::{DuelId, UserId};
use duelhub::pb;
use duelhub::ticket::Issued;
use duelhub_testkit::store::Store;
use duelhub_testkit::{Backend, HowToEnd, Hub, Site};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Streaming};

use super::PendingAnswer;
use super::socket::SocketConnection;
use crate::check::{Violation, Welcomed, expect};
use crate::spec::{Spec, To};

/// Pushes of a schedule that may wait to be sent.
const PUSHES_MAX: usize = 4096;

type Waiting = Arc<Mutex<VecDeque<oneshot::Sender<Result<Pushed, AppendError>>>>>;

#[derive(Debug)]
pub(crate) struct ProcessNode {
    number: usize,
    hub: Hub,
    backend: Backend,
    /// One stream for all pushes: in it they keep their order.
    pushes: mpsc::Sender<pb::PushEventsRequest>,
    /// Who waits for the answers, in the order of the pushes.
    waiting: Waiting,
    _answers: AbortOnDropHandle<()>,
}

impl ProcessNode {
    pub(crate) async fn start(number: usize, site: &Site) -> Self {
        let (hub, backend) = site.start_with_backend().await;
        let (pushes, requests) = mpsc::channel(PUSHES_MAX);
        let answers =
            backend.client.clone().push_events(ReceiverStream::new(requests)).await.unwrap();
        let waiting = Waiting::default();
        let answers = tokio::spawn(pass_on(answers.into_inner(), Arc::clone(&waiting)));
        Self { number, hub, backend, pushes, waiting, _answers: AbortOnDropHandle::new(answers) }
    }

    pub(super) fn push(&self, duel: DuelId, spec: &Spec) -> PendingAnswer {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().push_back(answer);
        let request = pb::PushEventsRequest { tag: spec.nth, push: Some(push_of(duel, spec)) };
        self.pushes.try_send(request).expect("a schedule has fewer pushes");
        Box::pin(async move { answered.await.expect("every push is answered") })
    }

    pub(super) fn close(
        &self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<&Spec>,
    ) -> PendingAnswer {
        let status = match outcome {
            Outcome::Finished => pb::DuelStatus::Finished,
            Outcome::Cancelled => pb::DuelStatus::Cancelled,
        };
        let last_event = last.map(|spec| push_of(duel, spec)).map(|push| pb::LastEvent {
            r#type: push.r#type,
            payload_json: push.payload_json,
            audience: push.audience,
            views: push.views,
            payload: None,
        });
        let request =
            pb::CloseDuelRequest { duel_id: duel.get(), status: status.into(), last_event };
        let mut client = self.backend.client.clone();
        Box::pin(async move {
            match client.close_duel(request).await.map(tonic::Response::into_inner) {
                Ok(closed) => Ok(pushed(closed.position, closed.duplicate, closed.connections)),
                Err(status) if status.code() == Code::FailedPrecondition => {
                    Err(AppendError::Closed)
                }
                Err(status) => panic!("{status}"),
            }
        })
    }

    pub(super) async fn open(
        &self,
        duel: DuelId,
        declaration: Declaration,
    ) -> Result<Position, OpenError> {
        let participants = declaration.participants.iter();
        let participants = participants
            .map(|p| pb::Participant { user_id: p.user.get(), telegram_id: p.telegram.get() });
        let participants = participants.collect();
        let request = pb::OpenDuelRequest {
            duel_id: duel.get(),
            participants,
            settings: None,
            reopen: false,
        };
        match self.backend.client.clone().open_duel(request).await.map(tonic::Response::into_inner)
        {
            Ok(opened) => Ok(position(opened.position)),
            Err(status) if status.code() == Code::FailedPrecondition => Err(OpenError::Closed),
            Err(status) => panic!("{status}"),
        }
    }

    pub(super) async fn enter(
        &self,
        ticket: &Issued,
        resume: Option<Position>,
    ) -> Result<(SocketConnection, Welcomed), AttachError> {
        SocketConnection::open(&self.hub, ticket, resume).await
    }

    pub(super) async fn revoke(&self, revocation: Revocation) -> Result<(), Violation> {
        use pb::revoke_tickets_request::Tickets;
        let tickets = match revocation {
            Revocation::Ticket(jti) => Tickets::Jti(jti.as_str().to_owned()),
            Revocation::User { duel, user, .. } => {
                Tickets::User(pb::UserTickets { duel_id: duel.get(), user_id: user.get() })
            }
        };
        let revoked = self.backend.try_revoke(tickets).await;
        expect(revoked.is_ok(), || format!("{revoked:?}"))
    }

    pub(super) async fn disconnect(&self, duel: DuelId, user: UserId, reason: Arc<str>) -> usize {
        let request = pb::DisconnectRequest {
            duel_id: duel.get(),
            user_id: user.get(),
            reconnect: true,
            reason: reason.to_string(),
        };
        let told = self.backend.client.clone().disconnect(request).await.unwrap().into_inner();
        usize::try_from(told.connections).unwrap()
    }

    pub(super) async fn acked(&self, duel: DuelId, user: UserId) -> Option<u64> {
        let view = self.duel(duel).await.expect("somebody is in it");
        let known = view.online.iter().find(|online| online.user_id == user.get());
        known.map(|online| online.acked_seq)
    }

    pub(super) async fn connections(&self, duel: DuelId) -> usize {
        let view = self.duel(duel).await;
        usize::try_from(view.map_or(0, |view| view.connections)).unwrap()
    }

    async fn duel(&self, duel: DuelId) -> Option<pb::Duel> {
        match self.backend.try_duel(duel.get()).await {
            Ok(found) => Some(found),
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => panic!("{status}"),
        }
    }

    pub(super) async fn end(self, store: &Store, kill: bool) {
        let how = if kill { HowToEnd::Kill } else { HowToEnd::Term };
        self.hub.end(how).await;
        store.wait_until_gone(self.number).await;
    }
}

/// Passes the answers on to those who wait for them, until the node ends.
async fn pass_on(mut answers: Streaming<pb::PushEventsResponse>, waiting: Waiting) {
    while let Ok(Some(answer)) = answers.message().await {
        let first = waiting.lock().pop_front().expect("one answer for each push");
        // Nobody waits any more for what a kill has left open.
        let _unheard = first.send(answer_of(answer));
    }
}

fn answer_of(answer: pb::PushEventsResponse) -> Result<Pushed, AppendError> {
    use pb::push_events_response::Outcome;
    match answer.outcome.expect("an answer says what became of the push") {
        Outcome::Pushed(done) => {
            let pushed = pushed(done.position, done.duplicate, done.connections);
            Ok(Pushed { declared: done.declared, ..pushed })
        }
        Outcome::Error(error) => Err(match error.reason.as_str() {
            "DUEL_CLOSED" => AppendError::Closed,
            "IDEMPOTENCY_KEY_REUSED" => AppendError::KeyReused,
            _ => panic!("{error:?}"),
        }),
    }
}

fn pushed(at: Option<pb::Position>, duplicate: bool, connections: u32) -> Pushed {
    let connections = usize::try_from(connections).unwrap();
    // Of a close it is not said.
    Pushed { position: position(at), duplicate, connections, declared: false }
}

fn position(at: Option<pb::Position>) -> Position {
    let pb::Position { epoch, seq } = at.expect("a position");
    format!("{epoch}:{seq}").parse().expect("a position")
}

/// The push as a backend sends it.
fn push_of(duel: DuelId, spec: &Spec) -> pb::PushEventRequest {
    use pb::audience::To as Pb;
    let users = |id| pb::UserList { user_ids: vec![id] };
    let to = match spec.to {
        To::All => None,
        To::Players => Some(Pb::Players(true)),
        To::Only(id) => Some(Pb::Only(users(id))),
        To::Except(id) => Some(Pb::Except(users(id))),
    };
    let view =
        |user_id| pb::View { user_id, payload_json: spec.payload(Some(user_id)), payload: None };
    pb::PushEventRequest {
        payload: None,
        duel_id: duel.get(),
        r#type: spec.event_type.to_owned(),
        payload_json: spec.payload(None),
        audience: to.map(|to| pb::Audience { to: Some(to) }),
        views: spec.view.map(view).into_iter().collect(),
        idempotency_key: spec.idempotency_key().unwrap_or_default().into(),
        coalesce_key: spec.coalesce.unwrap_or_default().to_owned(),
        transient: spec.transient,
    }
}
