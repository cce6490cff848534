//! The wiring of engine, hub and listeners, and the order in which they start and stop.
//!
//! Start: every listener is bound before anything is served, so a taken port is an error and not half a service.
//! Stop: the node is no longer ready; no socket is accepted; the clients are drained; no call is accepted, and those in flight
//! end; whatever is left is dropped. One of several nodes accepts no call while it drains, since others do.

mod descriptors;
mod service_manager;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use self::descriptors::{PlayerSockets, StrangerSockets};
pub use self::descriptors::{TooFewDescriptors, raise_descriptor_limit};
use self::service_manager::ServiceManager;
use crate::admin::Admin;
use crate::config::{AppEnv, Config, EngineConfig, EngineKind, VARIABLES};
use crate::control::{Control, Others, ServeError};
use crate::demo::{self, Demo};
use crate::edge::{Edge, Pages};
use crate::engine::{EmbeddedEngine, Engine, MemoryEngine, RedisEngine, RedisUrlError, StoreError};
use crate::hub::Hub;
use crate::limits;
use crate::metrics::Metrics;
use crate::pb::control_service_server::ControlServiceServer;
use crate::ticket::Tickets;
use crate::version;

/// Why the process does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The control plane cannot be served.
    #[error(transparent)]
    Control(#[from] ServeError),
    /// The engine's store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine cannot find its Redis.
    #[error(transparent)]
    Redis(#[from] RedisUrlError),
    /// The descriptor limit is too low.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// The hub's background work has ended, which is an error of the hub.
    #[error("the hub's background work has ended")]
    WorkEnded,
    /// A listener could not be bound.
    #[error("{variable}: cannot listen on {address}: {error}")]
    Bind {
        /// The variable that names the address.
        variable: &'static str,
        /// The address.
        address: SocketAddr,
        /// The error.
        error: io::Error,
    },
}

/// Where the process listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The data plane.
    pub edge: SocketAddr,
    /// The control plane.
    pub control: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
}

/// A hub whose listeners are bound.
#[derive(Debug)]
pub struct Server {
    config: Config,
    engine: Arc<dyn Engine>,
    metrics: Arc<Metrics>,
    edge: TcpListener,
    control: TcpListener,
    admin: TcpListener,
    addresses: Addresses,
}

impl Server {
    /// Binds every listener and opens the engine. Nothing is served yet. What happens is counted in `metrics`.
    ///
    /// # Errors
    /// [`StartError::Descriptors`], [`StartError::Bind`], [`StartError::Store`], [`StartError::Redis`].
    pub async fn bind(mut config: Config, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        fit_descriptors(&mut config)?;
        let edge = bind("WEBSOCKET_PORT", config.edge.address)?;
        let control = bind("CONTROL_PORT", config.control.address)?;
        let admin = bind("ADMIN_PORT", config.admin.address)?;
        let addresses = Addresses { edge: edge.1, control: control.1, admin: admin.1 };
        let engine = open_engine(config.engine.clone(), config.engine_kind.clone()).await?;
        Ok(Self {
            config,
            engine,
            metrics,
            edge: edge.0,
            control: control.0,
            admin: admin.0,
            addresses,
        })
    }

    /// Returns where it listens. A configured port 0 is the one that the kernel chose.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown`, then stops in order.
    ///
    /// # Errors
    /// [`StartError::Control`] before anything is served, [`StartError::WorkEnded`] after stopping in order.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
        let Self { config, engine, metrics, addresses, .. } = self;
        let hub = Hub::new(Arc::clone(&engine), config.hub.clone(), Arc::clone(&metrics));
        let tickets = Arc::new(Tickets::new(&config.tickets));
        let (stop, control_stop) = (CancellationToken::new(), CancellationToken::new());

        let (reporter, health) = tonic_health::server::health_reporter();
        let control = Control::new(
            config.control.clone(),
            Arc::clone(&hub),
            Arc::clone(&tickets),
            Arc::clone(&metrics),
            shown_limits(&config),
            control_stop.clone(),
        );
        let control = control.serve(self.control, others(health))?;
        let control = AbortOnDropHandle::new(tokio::spawn(control));
        let pages = match config.app_env {
            AppEnv::Production => Pages::default(),
            AppEnv::Development => Demo::new(&config.control, addresses.control)
                .map(|demo| Pages { router: demo.router(), home: Some(demo::PATH) })
                .unwrap_or_default(),
        };
        let (sockets, closed) = (TaskTracker::new(), CancellationToken::new());
        let edge = Edge::new(
            config.edge.clone(),
            config.telegram.clone(),
            Arc::clone(&hub),
            tickets,
            Arc::clone(&metrics),
        );
        let edge = tokio::spawn(edge.serve(self.edge, pages, sockets.clone(), stop.clone()));
        let manager =
            ServiceManager::new(|name| std::env::var_os(name), metrics.notify_failures.clone());
        let manager = Arc::new(manager);
        let admin = Admin::new(config.admin.clone(), Arc::clone(&hub), metrics);
        let admin = admin.serve(self.admin, closed.clone());
        let mut work = tokio::spawn(Arc::clone(&hub).run());
        let background = [
            tokio::spawn(report_health(reporter, Arc::clone(&hub), control_stop.clone())),
            tokio::spawn(admin),
        ];
        info!(edge = %addresses.edge, control = %addresses.control, admin = %addresses.admin,
            engine = hub.engine_name(), version = version::VERSION, revision = version::REVISION, "serving");
        tokio::spawn(notify_service_manager(Arc::clone(&manager), Arc::clone(&hub)));

        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            // Without it nothing is repaired or pruned. The service manager starts a new process.
            _ended = &mut work => Err(StartError::WorkEnded),
        };
        info!(drain_seconds = config.hub.drain.as_secs_f64(), "stopping");
        manager.stopping();
        hub.readiness().stop();
        stop.cancel();
        let _stopped = edge.await;
        let others_serve = config.engine_kind.is_shared();
        let (rpcs, ()) = tokio::join!(
            timeout(limits::RPC_DRAIN_TIMEOUT, control),
            drain(&hub, &sockets, &control_stop, others_serve),
        );
        if rpcs.is_err() {
            warn!("calls were still in flight at the end of the shutdown, and were aborted");
        }
        closed.cancel();
        background.iter().chain([&work]).for_each(tokio::task::JoinHandle::abort);
        if timeout(limits::ENGINE_STOP_TIMEOUT, engine.stop()).await.is_err() {
            warn!("the engine did not stop in time");
        }
        info!("stopped");
        outcome
    }
}

fn others(health: HealthServer<impl Health>) -> Others {
    Others { routes: Routes::new(health), descriptors: tonic_health::pb::FILE_DESCRIPTOR_SET }
}

async fn open_engine(
    config: EngineConfig,
    kind: EngineKind,
) -> Result<Arc<dyn Engine>, StartError> {
    match kind {
        EngineKind::Redis(redis) => Ok(Arc::new(RedisEngine::new(config, &redis)?)),
        EngineKind::Memory => Ok(Arc::new(MemoryEngine::new(config))),
        EngineKind::Embedded(store) => {
            let open = move || EmbeddedEngine::open(config, &store);
            let opened = tokio::task::spawn_blocking(open).await;
            Ok(Arc::new(
                opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?,
            ))
        }
    }
}

/// Drains the clients, waits until their sockets are closed, and stops the control plane: first if others serve backends as
/// well, otherwise last.
async fn drain(
    hub: &Hub,
    sockets: &TaskTracker,
    control_stop: &CancellationToken,
    others_serve: bool,
) {
    let close_timeout = match others_serve {
        true => {
            control_stop.cancel();
            2 * limits::CLOSE_TIMEOUT
        }
        false => limits::RESTART_CLOSE_TIMEOUT,
    };
    let clients = sockets.len();
    sockets.close();
    hub.drain().await;
    if timeout(close_timeout, sockets.wait()).await.is_err() {
        warn!(left = sockets.len(), "sockets were still open at the end of the drain");
    }
    info!(clients, "clients drained");
    control_stop.cancel();
}

/// Does as `TcpListener::bind`, with a longer backlog.
fn bind(
    variable: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(limits::LISTEN_BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    listen().map_err(|error| StartError::Bind { variable, address, error })
}

/// Lowers what the descriptor limit does not allow.
fn fit_descriptors(config: &mut Config) -> Result<(), TooFewDescriptors> {
    let (edge, backends) = (&mut config.edge, config.control.connections_max);
    let Some(descriptors) = raise_descriptor_limit() else { return Ok(()) };
    let wanted = PlayerSockets {
        connections_max: edge.connections_max,
        pending_max: edge.pending_handshakes_max,
    };
    let fits = wanted.fit(descriptors, backends)?;
    if fits != wanted {
        warn!(
            descriptors,
            wanted = wanted.connections_max,
            connections_max = fits.connections_max,
            pending_max = fits.pending_max,
            "WEBSOCKET_MAX_CONNECTIONS is lowered to what the descriptor limit allows (LimitNOFILE)"
        );
    }
    (edge.connections_max, edge.pending_handshakes_max) = (fits.connections_max, fits.pending_max);
    let strangers = StrangerSockets::under(descriptors);
    (config.control.newcomers_max, config.admin.connections_max) =
        (strangers.control, strangers.admin);
    Ok(())
}

/// The limits that `GetNode` shows.
fn shown_limits(config: &Config) -> Vec<(&'static str, u64)> {
    let rows = [
        ("WEBSOCKET_MAX_CONNECTIONS", config.edge.connections_max),
        ("WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS", config.edge.connections_per_address_max),
        ("WEBSOCKET_MAX_CONNECTIONS_PER_USER", config.hub.connections_per_user_max),
        ("WEBSOCKET_MAX_HANDSHAKES_PER_SECOND", config.edge.handshakes_per_second_max as usize),
        (
            "WEBSOCKET_MAX_HANDSHAKES_PER_USER_PER_MINUTE",
            config.edge.handshakes_per_user_max as usize,
        ),
        (
            "WEBSOCKET_MAX_INVALID_PER_ADDRESS_PER_MINUTE",
            config.edge.invalid_per_address_max as usize,
        ),
        ("WEBSOCKET_MAX_PENDING_HANDSHAKES", config.edge.pending_handshakes_max),
        ("WEBSOCKET_MAX_MESSAGES_PER_MINUTE", config.edge.messages_per_minute_max as usize),
        ("WEBSOCKET_MAX_MESSAGE_BYTES", config.edge.message_bytes_max),
        ("CONTROL_MAX_CONNECTIONS", config.control.connections_max),
        ("CONTROL_MAX_PUSHES_IN_FLIGHT", config.control.pushes_in_flight_max),
        ("CONTROL_MAX_PAYLOAD_BYTES", config.control.payload_bytes_max),
        ("CONTROL_MAX_WATCHERS", config.hub.watchers_max),
        ("ENGINE_MAX_DUELS", config.engine.duels_max),
        ("ENGINE_MAX_LOG_EVENTS", config.engine.log_events_max),
        ("ENGINE_MAX_LOG_BYTES", config.engine.log_bytes_max),
        ("ENGINE_MAX_REMEMBERED_TICKETS", config.engine.tickets_max),
    ];
    debug_assert!(rows.iter().all(|(name, _)| VARIABLES.iter().any(|v| v.name == *name)));
    rows.into_iter().map(|(name, value)| (name, value as u64)).collect()
}

/// Keeps gRPC's health service in step with `/readyz`. At `stop`, ends its streams, which would delay the shutdown.
async fn report_health(mut reporter: HealthReporter, hub: Arc<Hub>, stop: CancellationToken) {
    const SERVICES: [&str; 2] = ["", <ControlServiceServer<Arc<Control>> as NamedService>::NAME];
    let mut ticks = tokio::time::interval(limits::PROBE_INTERVAL / 4);
    let mut shown = None;
    while !stop.is_cancelled() {
        let ready = hub.readiness().ready().is_some();
        // Every report reaches every watcher, even if nothing changed.
        if shown.replace(ready) != Some(ready) {
            let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
            for service in SERVICES {
                reporter.set_service_status(service, status).await;
            }
        }
        tokio::select! {
            _tick = ticks.tick() => {}
            () = stop.cancelled() => {}
        }
    }
    for service in SERVICES {
        reporter.set_service_status(service, ServingStatus::NotServing).await;
        reporter.clear_service_status(service).await;
    }
}

/// Tells the service manager that the service has started, which is when it is ready. A node that cannot become ready, such as
/// with a full disk, has started all the same: players may connect.
async fn notify_service_manager(manager: Arc<ServiceManager>, hub: Arc<Hub>) {
    let _in_time = timeout(limits::PROBE_TIMEOUT, hub.readiness().until_ready()).await;
    manager.run().await;
}
