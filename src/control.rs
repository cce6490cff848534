//! The control plane: gRPC services that decode requests, call the hub or the tickets, and encode responses.
//!
//! Every call, health and reflection included, passes [`middleware`] first: authentication, request id, log line. Only
//! [`status`] turns errors into statuses, and only [`convert`] turns generated types into the hub's. Bounds:
//! `CONTROL_MAX_PUSHES_IN_FLIGHT`, [`limits::GRPC_MESSAGE_BYTES_MAX`], [`limits::GRPC_STREAMS_MAX`], and those of [`peer`].

mod answers;
mod body;
mod call;
mod connect;
mod connections;
mod convert;
mod deadline;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod json;
mod middleware;
mod payload_object;
mod peer;
mod protocol;
mod receiving;
mod request_fault;
mod schema;
mod status;
mod streams;
mod subject;
mod threads;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tracing::info;

use self::call::CallContext;
use self::connections::Connections;
use self::convert::{duel_id, user_id};
use self::middleware::{CallMiddleware, CallService, Services};
use self::peer::Peers;
use self::schema::Schema;
use self::status::Failure;
use self::subject::Named;
use self::threads::Threads;
use crate::clock::{self, UnixMs};
use crate::config::ControlConfig;
use crate::engine::Revocation;
use crate::event::{DuelStatus, Role, Viewer};
use crate::hub::{Hub, Pushed, WatchFilter};
use crate::id::{DuelId, RequestId};
use crate::limits;
use crate::metrics::{KindLabel, Metrics, at_zero};
use crate::pb;
use crate::pb::control_service_server::{ControlService, ControlServiceServer};
use crate::ticket::Tickets;
use crate::version;

/// The longest lifetime that a backend may ask for a ticket.
const TICKET_TTL_MAX: Duration = Duration::from_secs(86_400);

/// The variable that bounds the pushes being stored.
const PUSHES_IN_FLIGHT: &str = "CONTROL_MAX_PUSHES_IN_FLIGHT";

/// The other limits that a call may meet: variables, and the free room on the disk.
const LIMITS: [&str; 4] =
    ["CONTROL_MAX_WATCHERS", "ENGINE_MAX_DUELS", "ENGINE_MAX_REMEMBERED_TICKETS", "DISK_ROOM_MIN"];

/// The control service.
#[derive(Debug)]
pub struct Control {
    config: ControlConfig,
    hub: Arc<Hub>,
    tickets: Arc<Tickets>,
    metrics: Arc<Metrics>,
    in_flight: Arc<Semaphore>,
    started_at: UnixMs,
    limits: Vec<pb::Limit>,
    /// Ends the streams at shutdown.
    stop: CancellationToken,
}

/// Services beside the control service.
#[derive(Debug)]
pub struct Others {
    /// The services, which speak gRPC.
    pub routes: Routes,
    /// Their descriptions, as a `google.protobuf.FileDescriptorSet` of the build.
    pub descriptors: &'static [u8],
}

/// Why the control plane cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The TLS files are unusable.
    #[error(
        "CONTROL_TLS_CERT, CONTROL_TLS_KEY or CONTROL_TLS_CLIENT_CA is not valid PEM, or they do not match"
    )]
    Tls,
    /// The threads could not be started.
    #[error("the threads of the control plane do not start: {0}")]
    Threads(#[from] std::io::Error),
}

impl Control {
    /// Creates the control plane of `hub`, whose tickets are `tickets`. [`ControlService::get_node`] shows `limits`.
    #[must_use]
    pub fn new(
        config: ControlConfig,
        hub: Arc<Hub>,
        tickets: Arc<Tickets>,
        metrics: Arc<Metrics>,
        limits: Vec<(&'static str, u64)>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let limits_reached = [PUSHES_IN_FLIGHT].into_iter().chain(LIMITS).chain(peer::LIMITS);
        at_zero(&metrics.limits_reached, limits_reached);
        at_zero(&metrics.pushes, ["new", "duplicate"]);
        at_zero(&metrics.tickets_issued, ["grpc"]);
        let limits = limits.into_iter().map(|(name, value)| pb::Limit { name: name.into(), value });
        Arc::new(Self {
            in_flight: Arc::new(Semaphore::new(config.pushes_in_flight_max)),
            config,
            hub,
            tickets,
            metrics,
            started_at: clock::now(),
            limits: limits.collect(),
            stop,
        })
    }

    /// Serves `listener` until `stop`. Then no connection is accepted, and the calls in flight are waited for. Dropping the
    /// returned future ends them.
    ///
    /// # Errors
    /// [`ServeError`], before anything is served.
    pub fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        others: Others,
    ) -> Result<impl Future<Output = ()>, ServeError> {
        let (stop, tls) = (self.stop.clone(), self.config.tls.clone());
        let metrics = Arc::clone(&self.metrics);
        let peers = Peers::new(&self.config, Arc::clone(&metrics));
        let calls = CallMiddleware::new(&self.config, metrics, stop.clone());
        let control = ControlServiceServer::new(self)
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
        let Others { routes, descriptors } = others;
        let (v1, v1alpha) =
            (schema::reflection_v1(descriptors), schema::reflection_v1alpha(descriptors));
        let others = routes.add_service(v1).add_service(v1alpha).prepare();
        let services = Services { control, others };
        let service = CallService::new(calls, Schema::new(descriptors), services);
        let connections =
            Connections::new(service, tls.as_ref(), Arc::clone(&peers), stop.clone())?;
        let threads = Threads::start(|incoming| connections.clone().serve(incoming))?;
        Ok(threads.serve(listener, Arc::clone(&peers.newcomers), stop))
    }

    fn permit(&self) -> Result<PushPermit, Failure> {
        match Arc::clone(&self.in_flight).try_acquire_owned() {
            Ok(permit) => Ok(self.push_permit(permit)),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                Err(Failure::Limit(PUSHES_IN_FLIGHT))
            }
        }
    }

    fn push_permit(&self, permit: OwnedSemaphorePermit) -> PushPermit {
        self.metrics.pushes_in_flight.inc();
        let metrics = Arc::clone(&self.metrics);
        PushPermit { _permit: permit, metrics, started_at: Instant::now() }
    }

    /// Starts a push. The returned future waits for the outcome.
    fn start_push(
        &self,
        request: pb::PushEventRequest,
        permit: PushPermit,
    ) -> Result<impl Future<Output = Result<pb::PushEventResponse, Failure>> + use<>, Failure> {
        let duel = duel_id("duel_id", request.duel_id)?;
        let key = convert::idempotency_key(&request.idempotency_key)?;
        let push = convert::push(duel, request, self.config.payload_bytes_max)?;
        let answer = self.hub.push(duel, push, key);
        Ok(async move {
            let pushed = answer.await?;
            permit.stored(&pushed);
            Ok(convert::push_event_response(&pushed))
        })
    }
}

/// Room for one push. Held until its outcome is known.
struct PushPermit {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
    started_at: Instant,
}

impl PushPermit {
    fn stored(&self, pushed: &Pushed) {
        let kind = if pushed.duplicate { "duplicate" } else { "new" };
        self.metrics.pushes.get_or_create(&KindLabel { kind }).inc();
        if !pushed.declared {
            self.metrics.pushes_undeclared.inc();
        }
        self.metrics.push_duration.observe(self.started_at.elapsed().as_secs_f64());
    }
}

impl Drop for PushPermit {
    fn drop(&mut self) {
        self.metrics.pushes_in_flight.dec();
    }
}

impl Control {
    async fn issue(
        &self,
        request: pb::IssueTicketRequest,
        id: &RequestId,
    ) -> Result<pb::IssueTicketResponse, Failure> {
        let duel = duel_id("duel_id", request.duel_id)?;
        let user = user_id("user_id", request.user_id)?;
        let viewer = Viewer { user, role: convert::role(request.role)?.unwrap_or(Role::Player) };
        let ttl = convert::duration("ttl", request.ttl, Duration::from_secs(1), TICKET_TTL_MAX)?;
        if ttl.is_some_and(|ttl| ttl.subsec_nanos() != 0) {
            return Err(Failure::field("ttl", "must be whole seconds"));
        }
        if let Some(view) = self.hub.duel(duel).await? {
            if view.record.head.status != DuelStatus::Open {
                return Err(Failure::DuelClosed);
            }
            if !view.record.allows(viewer) {
                return Err(Failure::NotAParticipant);
            }
        }
        let stamp = self.hub.ticket_stamp().await?;
        let issued = self.tickets.issue(duel, viewer, ttl, stamp);
        self.metrics.tickets_issued.get_or_create(&KindLabel { kind: "grpc" }).inc();
        let jti = issued.ticket.jti.as_str();
        info!(request_id = %id, duel_id = duel.get(), user_id = user.get(), jti, "ticket issued");
        Ok(pb::IssueTicketResponse {
            ticket: issued.text.as_str().to_owned(),
            expires_at: Some(convert::timestamp(issued.ticket.expires_at)),
            jti: jti.to_owned(),
        })
    }

    fn node(&self) -> pb::GetNodeResponse {
        let counts = self.hub.counts();
        let uptime = clock::now().since(self.started_at);
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        pb::GetNodeResponse {
            version: version::VERSION.to_owned(),
            started_at: Some(convert::timestamp(self.started_at)),
            uptime: prost_types::Duration::try_from(uptime).ok(),
            engine: self.hub.engine_name().to_owned(),
            ready: self.hub.readiness().ready().is_some(),
            counts: Some(pb::Counts {
                connections: unsigned(self.metrics.connections.get()),
                duels: counts.engine.duels as u64,
                live_duels: counts.live_duels as u64,
                watchers: counts.watchers as u64,
                pushes_in_flight: unsigned(self.metrics.pushes_in_flight.get()),
            }),
            limits: self.limits.clone(),
        }
    }
}

/// Splits a request into the call that [`middleware`] made of it, and its message.
fn parts<T: Named>(request: Request<T>) -> (CallContext, T) {
    let call = call(&request);
    let message = request.into_inner();
    call.concerns(&message);
    call.begin();
    (call, message)
}

fn call<T>(request: &Request<T>) -> CallContext {
    let call = request.extensions().get().cloned();
    call.unwrap_or_else(|| CallContext::new(RequestId::random(), None))
}

/// Answers a call. A failure becomes a status that carries the request's id.
async fn answer<T>(
    call: &CallContext,
    outcome: impl Future<Output = Result<T, Failure>>,
) -> Result<Response<T>, Status> {
    outcome.await.map(Response::new).map_err(|failure| call.fail(failure))
}

fn watch_filter(duel_ids: Vec<u64>) -> Result<WatchFilter, Failure> {
    if duel_ids.len() > limits::WATCH_DUELS_MAX {
        let text = format!("must name at most {} duels", limits::WATCH_DUELS_MAX);
        return Err(Failure::field("duel_ids", text));
    }
    let named = duel_ids.into_iter().enumerate();
    let duels: Result<HashSet<DuelId>, _> =
        named.map(|(at, number)| duel_id(&format!("duel_ids[{at}]"), number)).collect();
    let duels = duels?;
    Ok(if duels.is_empty() { WatchFilter::All } else { WatchFilter::Only(duels) })
}

#[tonic::async_trait]
impl ControlService for Arc<Control> {
    type PushEventsStream = streams::PushResponses;
    type WatchDuelsStream = streams::WatchResponses;

    async fn open_duel(
        &self,
        request: Request<pb::OpenDuelRequest>,
    ) -> Result<Response<pb::OpenDuelResponse>, Status> {
        let (call, request) = parts(request);
        let outcome = async {
            let duel = duel_id("duel_id", request.duel_id)?;
            let opened = self.hub.open(duel, convert::declaration(&request)?).await?;
            let position = Some(convert::position(opened.position));
            Ok(pb::OpenDuelResponse { position, created: opened.created })
        };
        answer(&call, outcome).await
    }

    async fn issue_ticket(
        &self,
        request: Request<pb::IssueTicketRequest>,
    ) -> Result<Response<pb::IssueTicketResponse>, Status> {
        let (call, request) = parts(request);
        answer(&call, self.issue(request, call.id())).await
    }

    async fn revoke_tickets(
        &self,
        request: Request<pb::RevokeTicketsRequest>,
    ) -> Result<Response<pb::RevokeTicketsResponse>, Status> {
        use pb::revoke_tickets_request::Tickets as Which;
        let (call, request) = parts(request);
        let outcome = async {
            let revocation = match request.tickets {
                None => return Err(Failure::field("tickets", "is required")),
                Some(Which::Jti(jti)) => Revocation::Ticket(convert::jti(&jti)?),
                Some(Which::User(tickets)) => Revocation::User {
                    duel: duel_id("user.duel_id", tickets.duel_id)?,
                    user: user_id("user.user_id", tickets.user_id)?,
                },
            };
            self.hub.revoke(revocation).await?;
            Ok(pb::RevokeTicketsResponse {})
        };
        answer(&call, outcome).await
    }

    async fn push_event(
        &self,
        request: Request<pb::PushEventRequest>,
    ) -> Result<Response<pb::PushEventResponse>, Status> {
        let (call, request) = parts(request);
        match self.permit().and_then(|permit| self.start_push(request, permit)) {
            Ok(outcome) => answer(&call, outcome).await,
            Err(failure) => Err(call.fail(failure)),
        }
    }

    async fn push_events(
        &self,
        request: Request<tonic::Streaming<pb::PushEventsRequest>>,
    ) -> Result<Response<Self::PushEventsStream>, Status> {
        let call = call(&request);
        let pushes = request.into_inner();
        Ok(Response::new(streams::push_responses(Arc::clone(self), pushes, &call)))
    }

    async fn close_duel(
        &self,
        request: Request<pb::CloseDuelRequest>,
    ) -> Result<Response<pb::CloseDuelResponse>, Status> {
        let (call, request) = parts(request);
        let outcome = async {
            let duel = duel_id("duel_id", request.duel_id)?;
            let outcome = convert::outcome(request.status)?;
            let payload_bytes_max = self.config.payload_bytes_max;
            let last = convert::last_event(duel, request.last_event, payload_bytes_max)?;
            let closed = self.hub.close(duel, outcome, last).await?;
            Ok(pb::CloseDuelResponse {
                position: Some(convert::position(closed.position)),
                duplicate: closed.duplicate,
                connections: convert::count(closed.connections),
            })
        };
        answer(&call, outcome).await
    }

    async fn get_duel(
        &self,
        request: Request<pb::GetDuelRequest>,
    ) -> Result<Response<pb::GetDuelResponse>, Status> {
        let (call, request) = parts(request);
        let outcome = async {
            let duel = duel_id("duel_id", request.duel_id)?;
            let view = self.hub.duel(duel).await?.ok_or(Failure::DuelUnknown)?;
            Ok(pb::GetDuelResponse { duel: Some(convert::duel(duel, view)) })
        };
        answer(&call, outcome).await
    }

    async fn list_duels(
        &self,
        request: Request<pb::ListDuelsRequest>,
    ) -> Result<Response<pb::ListDuelsResponse>, Status> {
        let (call, request) = parts(request);
        let outcome = async {
            let count = convert::page_size(request.page_size)?;
            let after = convert::page_token(&request.page_token)?;
            let status = convert::status_filter(request.status)?;
            let mut duels = self.hub.duels(after, status, count + 1).await?;
            let more = duels.len() > count;
            duels.truncate(count);
            let next = duels.last().filter(|_| more).map(|(duel, ..)| duel.to_string());
            Ok(pb::ListDuelsResponse {
                duels: duels.into_iter().map(convert::duel_summary).collect(),
                next_page_token: next.unwrap_or_default(),
            })
        };
        answer(&call, outcome).await
    }

    async fn disconnect(
        &self,
        request: Request<pb::DisconnectRequest>,
    ) -> Result<Response<pb::DisconnectResponse>, Status> {
        let (call, request) = parts(request);
        let outcome = async {
            let duel = duel_id("duel_id", request.duel_id)?;
            let user = match request.user_id {
                0 => None,
                number => Some(user_id("user_id", number)?),
            };
            let reason = convert::reason(&request.reason)?;
            let closed = self.hub.disconnect(duel, user, request.reconnect, reason).await?;
            info!(request_id = %call.id(), duel_id = duel.get(), connections = closed, "disconnect");
            Ok(pb::DisconnectResponse { connections: convert::count(closed) })
        };
        answer(&call, outcome).await
    }

    async fn watch_duels(
        &self,
        request: Request<pb::WatchDuelsRequest>,
    ) -> Result<Response<Self::WatchDuelsStream>, Status> {
        let (call, request) = parts(request);
        let outcome = async {
            let watch = self.hub.watch(watch_filter(request.duel_ids)?)?;
            Ok(streams::watch_responses(watch, self.stop.clone(), call.clone()))
        };
        answer(&call, outcome).await
    }

    async fn get_node(
        &self,
        _request: Request<pb::GetNodeRequest>,
    ) -> Result<Response<pb::GetNodeResponse>, Status> {
        Ok(Response::new(self.node()))
    }
}
