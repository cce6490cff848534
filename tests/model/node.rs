//! A node as its backends and its players know it, whether it is a hub in this process or the real binary.

mod local;
mod process;
mod socket;

use std::pin::Pin;
use std::sync::Arc;

use duelhub::engine::{AppendError, Declaration, Engine, OpenError, Revocation};
use duelhub::event::{Outcome, Position};
use duelhub::hub::{AttachError, CloseRequest, Pushed};
use duelhub::id::{DuelId, UserId};
use duelhub::ticket::Issued;
use duelhub_testkit::store::Store;

use self::local::LocalConnection;
pub(crate) use self::local::LocalNode;
pub(crate) use self::process::ProcessNode;
use self::socket::SocketConnection;
use crate::check::{Violation, Welcomed};
use crate::spec::{Shown, Spec};

/// What a push or a close is answered, in time.
pub(crate) type PendingAnswer = Pin<Box<dyn Future<Output = Result<Pushed, AppendError>> + Send>>;

/// One node's life.
#[derive(Debug)]
pub(crate) enum Node {
    /// In this process.
    Local(Box<LocalNode>),
    /// The real binary.
    Process(Box<ProcessNode>),
}

/// A connection as its player holds it.
#[derive(Debug)]
pub(crate) enum ClientConnection {
    Local(Box<LocalConnection>),
    Socket(Box<SocketConnection>),
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

/// The same call on either kind of node.
macro_rules! on_node {
    ($self:ident, $node:ident => $call:expr) => {
        match $self {
            Self::Local($node) => $call,
            Self::Process($node) => $call,
        }
    };
}

/// The same call on either kind of connection.
macro_rules! on_line {
    ($self:ident, $line:ident => $call:expr) => {
        match $self {
            Self::Local($line) => $call,
            Self::Socket($line) => $call,
        }
    };
}

impl Node {
    /// Whether its calls take their places in the order in which they are made, be they of different kinds.
    pub(crate) const fn keeps_order_of_calls(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    pub(crate) fn push(&self, duel: DuelId, spec: &Spec) -> PendingAnswer {
        on_node!(self, node => node.push(duel, spec))
    }

    pub(crate) fn close(
        &self,
        duel: DuelId,
        outcome: Outcome,
        last: Option<&Spec>,
    ) -> PendingAnswer {
        on_node!(self, node => node.close(duel, outcome, last))
    }

    pub(crate) async fn open(
        &self,
        duel: DuelId,
        declaration: Declaration,
    ) -> Result<Position, OpenError> {
        on_node!(self, node => node.open(duel, declaration).await)
    }

    /// A player shows a ticket.
    pub(crate) async fn enter(
        &self,
        ticket: &Issued,
        resume: Option<Position>,
    ) -> Result<(ClientConnection, Welcomed), AttachError> {
        match self {
            Self::Local(here) => {
                let (line, welcomed) = here.enter(&ticket.ticket, resume).await?;
                Ok((ClientConnection::Local(Box::new(line)), welcomed))
            }
            Self::Process(process) => {
                let (line, welcomed) = process.enter(ticket, resume).await?;
                Ok((ClientConnection::Socket(Box::new(line)), welcomed))
            }
        }
    }

    pub(crate) async fn revoke(&self, revocation: Revocation) -> Result<(), Violation> {
        on_node!(self, node => node.revoke(revocation).await)
    }

    /// A user's connections have to go, and may come back: how many there are on this node.
    pub(crate) async fn disconnect(&self, duel: DuelId, user: UserId, reason: Arc<str>) -> usize {
        on_node!(self, node => node.disconnect(duel, user, reason).await)
    }

    /// Up to where a user who is online has acked.
    pub(crate) async fn acked(&self, duel: DuelId, user: UserId) -> Option<u64> {
        on_node!(self, node => node.acked(duel, user).await)
    }

    /// How many connections to the duel it has, as it answers after it has told the others who left.
    pub(crate) async fn connections(&self, duel: DuelId) -> usize {
        on_node!(self, node => node.connections(duel).await)
    }

    /// What it stores with, if that is in this process.
    pub(crate) fn engine(&self) -> Option<Arc<dyn Engine>> {
        match self {
            Self::Local(here) => Some(here.engine()),
            Self::Process(_) => None,
        }
    }

    /// It ends, by a kill or in good order; when this returns, whatever it will have done is done.
    pub(crate) async fn end(self, store: &Store, kill: bool) {
        on_node!(self, node => node.end(store, kill).await)
    }
}

impl ClientConnection {
    /// From now on it may be handed events without asking for them.
    pub(crate) fn take_what_is_handed(&mut self) {
        match self {
            Self::Local(line) => line.take_what_is_handed(),
            // Who hands what to whom is the node's own affair.
            Self::Socket(_) => {}
        }
    }

    /// What has come, without asking for more.
    pub(crate) fn handed(&mut self) -> Served {
        on_line!(self, line => line.handed())
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Result<Served, Gone> {
        on_line!(self, line => line.next().await)
    }

    /// Waits until there may be something new.
    pub(crate) async fn woken(&self) {
        on_line!(self, line => line.woken().await)
    }

    /// Whether it is there: a node that is a process closes it by itself when there is nothing more to come.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Socket(line) => line.is_open(),
        }
    }

    /// Whether the node has closed it because the duel is over.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Local(_) => false,
            Self::Socket(line) => line.is_over(),
        }
    }

    /// Whether the node has closed it because the log went on without it.
    pub(crate) fn is_too_slow(&self) -> bool {
        match self {
            Self::Local(_) => false,
            Self::Socket(line) => line.is_too_slow(),
        }
    }

    /// Why the node wants it to close.
    pub(crate) fn close_request(&self) -> Option<CloseRequest> {
        on_line!(self, line => line.close_request())
    }

    pub(crate) async fn ack(&mut self, seq: u64) {
        on_line!(self, line => line.ack(seq).await)
    }
}
