//! A node as its backends and its players know it, whether it is a hub in this process or the real binary.

mod here;
mod process;
mod web;

use std::pin::Pin;
use std::sync::Arc;

use duelhub::engine::{AppendError, Declaration, Engine, OpenError, Revocation};
use duelhub::event::{Outcome, Position};
use duelhub::hub::{AttachError, Dismissal, Pushed};
use duelhub::id::{DuelId, UserId};
use duelhub::ticket::Issued;
use duelhub_testkit::store::Store;

pub(crate) use self::here::Here;
use self::here::HereLine;
pub(crate) use self::process::Process;
use self::web::WebLine;
use crate::check::{Objection, Welcomed};
use crate::spec::{Shown, Spec};

/// What a push or a close is answered, in time.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Pushed, AppendError>> + Send>>;

/// One node's life.
#[derive(Debug)]
pub(crate) enum Node {
    /// In this process.
    Here(Here),
    /// The real binary.
    Process(Box<Process>),
}

/// A connection as its player holds it.
#[derive(Debug)]
pub(crate) enum Line {
    Here(Box<HereLine>),
    Web(Box<WebLine>),
}

/// What a player was shown since they looked last.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) shown: Vec<Shown>,
    /// Up to where they were served with it.
    pub(crate) seq: u64,
    /// Some of it came without their asking.
    pub(crate) handed: bool,
    /// There may be more at once.
    pub(crate) more: bool,
}

/// Why there is nothing more to come.
#[derive(Debug)]
pub(crate) enum Gone {
    TooSlow,
    /// In whose words ever.
    Otherwise(String),
}

impl Node {
    /// Whether its calls take their places in the order in which they are made, be they of different kinds.
    pub(crate) const fn keeps_order_of_calls(&self) -> bool {
        matches!(self, Self::Here(_))
    }

    pub(crate) fn push(&self, duel: DuelId, spec: &Spec) -> Answer {
        match self {
            Self::Here(here) => here.push(duel, spec),
            Self::Process(process) => process.push(duel, spec),
        }
    }

    pub(crate) fn close(&self, duel: DuelId, outcome: Outcome, last: Option<&Spec>) -> Answer {
        match self {
            Self::Here(here) => here.close(duel, outcome, last),
            Self::Process(process) => process.close(duel, outcome, last),
        }
    }

    pub(crate) async fn open(
        &self,
        duel: DuelId,
        declaration: Declaration,
    ) -> Result<Position, OpenError> {
        match self {
            Self::Here(here) => here.open(duel, declaration).await,
            Self::Process(process) => process.open(duel, declaration).await,
        }
    }

    /// A player shows a ticket.
    pub(crate) async fn enter(
        &self,
        ticket: &Issued,
        resume: Option<Position>,
    ) -> Result<(Line, Welcomed), AttachError> {
        match self {
            Self::Here(here) => {
                let (line, welcomed) = here.enter(&ticket.ticket, resume).await?;
                Ok((Line::Here(Box::new(line)), welcomed))
            }
            Self::Process(process) => {
                let (line, welcomed) = process.enter(ticket, resume).await?;
                Ok((Line::Web(Box::new(line)), welcomed))
            }
        }
    }

    pub(crate) async fn revoke(&self, revocation: Revocation) -> Result<(), Objection> {
        match self {
            Self::Here(here) => here.revoke(revocation).await,
            Self::Process(process) => process.revoke(revocation).await,
        }
    }

    /// A user's connections have to go, and may come back: how many there are on this node.
    pub(crate) async fn disconnect(&self, duel: DuelId, user: UserId, reason: Arc<str>) -> usize {
        match self {
            Self::Here(here) => here.disconnect(duel, user, reason).await,
            Self::Process(process) => process.disconnect(duel, user, reason).await,
        }
    }

    /// Up to where a user who is online has acked.
    pub(crate) async fn acked(&self, duel: DuelId, user: UserId) -> Option<u64> {
        match self {
            Self::Here(here) => here.acked(duel, user).await,
            Self::Process(process) => process.acked(duel, user).await,
        }
    }

    /// How many connections to the duel it has, as it answers after it has told the others who left.
    pub(crate) async fn connections(&self, duel: DuelId) -> usize {
        match self {
            Self::Here(here) => here.connections(duel).await,
            Self::Process(process) => process.connections(duel).await,
        }
    }

    /// What it stores with, if that is in this process.
    pub(crate) fn engine(&self) -> Option<Arc<dyn Engine>> {
        match self {
            Self::Here(here) => Some(here.engine()),
            Self::Process(_) => None,
        }
    }

    /// It ends, by a kill or in good order; when this returns, whatever it will have done is done.
    pub(crate) async fn end(self, store: &Store, kill: bool) {
        match self {
            Self::Here(here) => here.end(store, kill).await,
            Self::Process(process) => process.end(store, kill).await,
        }
    }
}

impl Line {
    /// From now on it may be handed events without asking for them.
    pub(crate) fn take_what_is_handed(&mut self) {
        match self {
            Self::Here(line) => line.take_what_is_handed(),
            // Who hands what to whom is the node's own affair.
            Self::Web(_) => {}
        }
    }

    /// What has come, without asking for more.
    pub(crate) fn handed(&mut self) -> Served {
        match self {
            Self::Here(line) => line.handed(),
            Self::Web(line) => line.handed(),
        }
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Result<Served, Gone> {
        match self {
            Self::Here(line) => line.next().await,
            Self::Web(line) => line.next().await,
        }
    }

    /// Waits until there may be something new.
    pub(crate) async fn woken(&self) {
        match self {
            Self::Here(line) => line.woken().await,
            Self::Web(line) => line.woken().await,
        }
    }

    /// Whether it is there: a node that is a process closes it by itself when there is nothing more to come.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Here(_) => true,
            Self::Web(line) => line.is_open(),
        }
    }

    /// Whether the node has closed it because the duel is over.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Here(_) => false,
            Self::Web(line) => line.is_over(),
        }
    }

    /// Why the node wants it to close.
    pub(crate) fn dismissal(&self) -> Option<Dismissal> {
        match self {
            Self::Here(line) => line.dismissal(),
            Self::Web(line) => line.dismissal(),
        }
    }

    /// Whether it is known that its user's tickets were revoked; `None`: it does not show.
    pub(crate) fn is_revoked(&self) -> Option<bool> {
        match self {
            Self::Here(line) => Some(line.is_revoked()),
            Self::Web(_) => None,
        }
    }

    pub(crate) async fn ack(&mut self, seq: u64) {
        match self {
            Self::Here(line) => line.ack(seq).await,
            Self::Web(line) => line.ack(seq).await,
        }
    }
}
