//! The hub under load: a running one, or one of the bench's own, which can be killed and restarted.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;

use super::{BenchError, BenchTarget};
use crate::config::Secret;
use crate::demo::{Bearer, Client};
use crate::pb::control_service_client::ControlServiceClient;

/// How long its own hub may take until it is ready. The embedded engine reads its whole store first.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The time between two checks of whether it is ready.
const START_PAUSE: Duration = Duration::from_millis(5);

/// How long its own hub may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The hub's addresses, and a client of it.
pub(super) struct TargetHub {
    /// Where players connect: an address for each node.
    pub(super) data: Vec<SocketAddr>,
    pub(super) path: String,
    pub(super) control: SocketAddr,
    pub(super) token: Option<Secret>,
    pub(super) client: Client,
    /// The hub's processes on this machine.
    pub(super) pids: Vec<u32>,
    own: Option<Own>,
}

/// A hub that the bench started.
struct Own {
    engine: &'static str,
    admin: SocketAddr,
    /// Kept over a restart, so that tickets stay valid.
    secret: Secret,
    directory: PathBuf,
    // Killed when it is dropped.
    process: Option<Child>,
}

impl TargetHub {
    /// Starts a hub, or uses the running one.
    pub(super) async fn new(target: &BenchTarget) -> Result<Self, BenchError> {
        match target {
            BenchTarget::Running { data, path, control, token, pids } => Ok(Self {
                data: data.clone(),
                path: path.clone(),
                control: *control,
                token: token.clone(),
                client: client(*control, token.as_ref())?,
                pids: pids.clone(),
                own: None,
            }),
            BenchTarget::Own { engine } => {
                let [data, control, admin] = free_addresses()?;
                let id = std::process::id();
                let directory = std::env::temp_dir().join(format!("duelhub-bench-{id}"));
                let secret = Secret::random();
                let own = Own { engine, admin, secret, directory, process: None };
                let (path, client) = ("/ws".to_owned(), client(control, None)?);
                let own = Some(own);
                let (data, pids) = (vec![data], Vec::new());
                let mut hub = Self { data, path, control, token: None, client, pids, own };
                hub.start().await?;
                Ok(hub)
            }
        }
    }

    /// Returns whether the hub can be killed and restarted.
    pub(super) const fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Returns whether its events survive being killed.
    pub(super) fn keeps_events(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.engine == "embedded")
    }

    /// Starts its own hub. Returns once the hub is ready.
    pub(super) async fn start(&mut self) -> Result<(), BenchError> {
        let Some(own) = &mut self.own else { return Ok(()) };
        let program = std::env::current_exe().map_err(BenchError::machine("this program"))?;
        let child = Command::new(program)
            .arg("serve")
            .env_clear()
            .env("LOG_LEVEL", "warn")
            .env("WEBSOCKET_DRAIN_SECONDS", "0")
            .env("ENGINE", own.engine)
            .env("DATA_DIR", &own.directory)
            .env("WEBSOCKET_PORT", self.data[0].port().to_string())
            .env("CONTROL_PORT", self.control.port().to_string())
            .env("ADMIN_PORT", own.admin.port().to_string())
            .env("WEBSOCKET_TICKET_SECRET", own.secret.as_str())
            // Leaves most descriptors to connections.
            .env("WEBSOCKET_MAX_PENDING_HANDSHAKES", "240")
            // The load is wanted.
            .env("WEBSOCKET_MAX_HANDSHAKES_PER_SECOND", "1000000")
            .env("WEBSOCKET_MAX_HANDSHAKES_PER_USER_PER_MINUTE", "1000000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(BenchError::machine("a hub could not be started"))?;
        self.pids = child.id().into_iter().collect();
        own.process = Some(child);
        let ready = timeout(START_TIMEOUT, until_ready(own.admin)).await;
        ready.map_err(|_| BenchError::NotReady)
    }

    /// Stops its own hub in order.
    pub(super) async fn stop(mut self) -> Result<(), BenchError> {
        let Some(process) = self.own.as_mut().and_then(|own| own.process.as_mut()) else {
            return Ok(());
        };
        let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let signaled = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        match timeout(STOP_TIMEOUT, process.wait()).await {
            Ok(Ok(status)) if signaled && status.success() => Ok(()),
            _ => Err(BenchError::NotEnded),
        }
    }

    /// Kills its own hub, as `kill -9` does.
    pub(super) async fn kill(&mut self) {
        if let Some(own) = &mut self.own
            && let Some(mut process) = own.process.take()
        {
            let _killed = process.kill().await;
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

fn client(control: SocketAddr, token: Option<&Secret>) -> Result<Client, BenchError> {
    let endpoint = Endpoint::from_shared(format!("http://{control}"));
    let endpoint = endpoint.map_err(|_| BenchError::Options("the control plane's address"))?;
    Ok(ControlServiceClient::with_interceptor(endpoint.connect_lazy(), Bearer::new(token)))
}

/// Returns addresses that nobody listens on at the moment.
fn free_addresses() -> Result<[SocketAddr; 3], BenchError> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = (0..3).map(bind).collect::<Result<Vec<_>, _>>();
    let addresses = listeners.and_then(|all| all.iter().map(TcpListener::local_addr).collect());
    let addresses: Vec<_> = addresses.map_err(BenchError::machine("no free port"))?;
    addresses.try_into().map_err(|_| BenchError::Options("three ports"))
}

async fn until_ready(admin: SocketAddr) {
    while !is_ready(admin).await.is_ok_and(|ready| ready) {
        sleep(START_PAUSE).await;
    }
}

async fn is_ready(admin: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
