//! A node in this process: a hub over its engine, without sockets.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use duelhub::config::HubConfig;
use duelhub::engine::{Declaration, Engine, OpenError, Revocation};
use duelhub::event::{Content, Event, Outcome, Position, Viewer};
use duelhub::hub::{
    AttachError, Attachment, CloseRequest, Connection, DirectWriter, Hub, Recovery, ResyncRequired,
    WriteOutcome,
};
use duelhub::id::{DuelId, UserId};
use duelhub::metrics::Metrics;
use duelhub::ticket::{Generation, Ticket, Tickets};
use duelhub_testkit::store::Store;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::{Gone, PendingAnswer, Served};
use crate::check::{Violation, Welcomed, expect};
use crate::deployment::tickets;
use crate::history::shown_end;
use crate::spec::{Shown, Spec};

#[derive(Debug)]
pub(crate) struct LocalNode {
    number: usize,
    engine: Arc<dyn Engine>,
    hub: Arc<Hub>,
    tickets: Tickets,
    /// Its background work. One that is alone does without, so that nothing helps it.
    work: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
pub(crate) struct LocalConnection {
    attachment: Attachment,
    viewer: Viewer,
    socket: Option<Arc<Socket>>,
}

/// A socket as the hub knows it: it takes some events as a whole, of some the task has to do the rest, and some not at all.
#[derive(Debug, Default)]
struct Socket {
    /// What it took, in order; `None`: what is not for the player to see.
    handed: Mutex<Vec<(u64, Option<Shown>)>>,
    news: Notify,
}

impl DirectWriter for Socket {
    fn try_write(&self, connection: &Connection, event: &Event) -> WriteOutcome {
        let handed = match (&event.content, event.seq % 5) {
            (Content::Closed(_), _) | (_, 0) => WriteOutcome::Busy,
            (_, 1) => WriteOutcome::Partial,
            _ => WriteOutcome::Written,
        };
        if handed != WriteOutcome::Busy {
            let viewer = connection.viewer;
            let shown = event.includes(viewer).then(|| show(event, viewer));
            self.handed.lock().push((event.seq, shown));
            self.news.notify_one();
        }
        handed
    }
}

/// The event as `viewer` sees it; nothing if it is not for them to see.
fn show(event: &Event, viewer: Viewer) -> Shown {
    match &event.content {
        Content::Closed(outcome) => shown_end(event.seq, *outcome),
        Content::Pushed(push) => {
            let body = push.payload_for(viewer).map_or("", |payload| payload.json());
            let event_type = push.event_type.as_str().to_owned();
            Shown { seq: event.seq, event_type, body: body.to_owned() }
        }
    }
}

/// The same for several.
fn show_all(events: &[Arc<Event>], viewer: Viewer) -> Vec<Shown> {
    events.iter().map(|event| show(event, viewer)).collect()
}

impl LocalNode {
    /// The node of this number; one of several does its background work.
    pub(crate) fn start(number: usize, store: &Store, config: HubConfig, several: bool) -> Self {
        let engine = store.open(number);
        let hub = Hub::new(Arc::clone(&engine), config, Arc::new(Metrics::new()));
        let work = several.then(|| AbortOnDropHandle::new(tokio::spawn(Arc::clone(&hub).run())));
        Self { number, engine, hub, tickets: tickets(), work }
    }

    pub(super) fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(&self.engine)
    }

    pub(super) fn push(&self, duel: DuelId, spec: &Spec) -> PendingAnswer {
        Box::pin(self.hub.push(duel, spec.push(duel), spec.idempotency_key()))
    }

    pub(super) fn close(
        &self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<&Spec>,
    ) -> PendingAnswer {
        let (hub, push) = (Arc::clone(&self.hub), last.map(|spec| spec.push(duel)));
        let mut answer: PendingAnswer =
            Box::pin(async move { hub.close(duel, outcome, push).await });
        // It takes its place among the other calls when it is first looked at.
        if let Poll::Ready(closed) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            answer = Box::pin(std::future::ready(closed));
        }
        answer
    }

    pub(super) async fn open(
        &self,
        duel: DuelId,
        declaration: Declaration,
    ) -> Result<Position, OpenError> {
        Ok(self.hub.open(duel, declaration).await?.position)
    }

    pub(super) async fn enter(
        &self,
        ticket: &Ticket,
        resume: Option<Position>,
    ) -> Result<(LocalConnection, Welcomed), AttachError> {
        let (attachment, welcome) = self.hub.attach(ticket, resume).await?;
        let state = show_all(&welcome.state, ticket.viewer);
        let recovery = welcome.recovery;
        let epoch = welcome.head.epoch;
        let recovered = resume.filter(|_| recovery == Recovery::Recovered);
        let position = recovered.map_or(welcome.head, |resume| Position { epoch, ..resume });
        let number = ticket.generation.number + 1;
        let next = Generation { number, ..ticket.generation };
        let resume_ticket = welcome.stamp.map(|stamp| {
            let issued = self.tickets.issue_resume(ticket.duel, ticket.viewer, next, stamp);
            issued.text.as_str().to_owned()
        });
        let line = LocalConnection { attachment, viewer: ticket.viewer, socket: None };
        Ok((line, Welcomed { position, recovery, state, resume_ticket }))
    }

    pub(super) async fn revoke(&self, revocation: Revocation) -> Result<(), Violation> {
        let revoked = self.hub.revoke(revocation).await;
        expect(revoked.is_ok(), || format!("{revoked:?}"))
    }

    pub(super) async fn disconnect(&self, duel: DuelId, user: UserId, reason: Arc<str>) -> usize {
        self.hub.disconnect(duel, Some(user), true, Some(reason)).await.unwrap()
    }

    pub(super) async fn acked(&self, duel: DuelId, user: UserId) -> Option<u64> {
        let view = self.hub.duel(duel).await.unwrap().expect("somebody is in it");
        let known = view.online.iter().find(|online| online.user == user);
        known.map(|online| online.acked_seq)
    }

    pub(super) async fn connections(&self, duel: DuelId) -> usize {
        self.hub.duel(duel).await.unwrap().map_or(0, |view| view.connections)
    }

    pub(super) async fn end(self, store: &Store, kill: bool) {
        let Self { number, engine, hub, work, .. } = self;
        drop((work, hub));
        if kill {
            store.kill(number, engine).await;
        } else {
            store.stop(number, engine).await;
        }
    }
}

impl LocalConnection {
    pub(super) fn take_what_is_handed(&mut self) {
        let socket = Arc::new(Socket::default());
        self.attachment.set_direct_writer(Arc::clone(&socket) as Arc<dyn DirectWriter>);
        self.socket = Some(socket);
    }

    pub(super) fn handed(&mut self) -> Served {
        // Before what was handed is looked at: of what comes between the two there is word below, and not here.
        let served = self.attachment.served_seq();
        let handed = self.socket.as_ref().map(|socket| std::mem::take(&mut *socket.handed.lock()));
        let handed = handed.unwrap_or_default();
        let seq = handed.last().map_or(served, |(seq, _)| served.max(*seq));
        let shown: Vec<_> = handed.into_iter().filter_map(|(_, shown)| shown).collect();
        Served { seq, handed: !shown.is_empty(), shown, more: false }
    }

    pub(super) async fn next(&mut self) -> Result<Served, Gone> {
        let batch = self.attachment.next().await.map_err(|lost| match lost {
            ResyncRequired::TooSlow => Gone::TooSlow,
            ResyncRequired::EpochChanged | ResyncRequired::Missed | ResyncRequired::Engine(_) => {
                Gone::Otherwise(lost.to_string())
            }
        })?;
        let mut served = self.handed();
        served.shown.extend(show_all(&batch.events, self.viewer));
        served.more = !batch.is_empty() || served.handed;
        Ok(served)
    }

    pub(super) async fn woken(&self) {
        let news = async {
            match &self.socket {
                Some(socket) => socket.news.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.attachment.woken() => {}
            () = news => {}
        }
    }

    pub(super) fn close_request(&self) -> Option<CloseRequest> {
        self.attachment.close_request().cloned()
    }

    pub(super) async fn ack(&mut self, seq: u64) {
        self.attachment.ack(seq).await;
    }
}
