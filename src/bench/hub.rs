//! The hub under load: one that runs, or one of the bench's own, which can be killed and started again.

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

use super::{BenchError, Target};
use crate::config::Secret;
use crate::demo::{Bearer, Client};
use crate::pb::control_service_client::ControlServiceClient;

/// How long a hub of its own may take until it is ready: the embedded engine reads all of its store before.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks at whether it is.
const START_PAUSE: Duration = Duration::from_millis(5);

/// How long it may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the hub is, and how it is asked.
pub(super) struct Hub {
    /// Where players connect; more than one of several nodes.
    pub(super) data: Vec<SocketAddr>,
    pub(super) path: String,
    pub(super) control: SocketAddr,
    pub(super) token: Option<Secret>,
    pub(super) client: Client,
    /// Its processes, as far as they are on this machine.
    pub(super) pids: Vec<u32>,
    own: Option<Own>,
}

/// A hub that was started here.
struct Own {
    engine: &'static str,
    admin: SocketAddr,
    /// The same after it was killed, so that tickets stay good.
    secret: Secret,
    directory: PathBuf,
    // Killed when it is dropped.
    process: Option<Child>,
}

impl Hub {
    /// Starts one, or finds the one that runs.
    pub(super) async fn new(target: &Target) -> Result<Self, BenchError> {
        match target {
            Target::Running { data, path, control, token, pids } => Ok(Self {
                data: data.clone(),
                path: path.clone(),
                control: *control,
                token: token.clone(),
                client: client(*control, token.as_ref())?,
                pids: pids.clone(),
                own: None,
            }),
            Target::Own { engine } => {
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

    /// Whether it can be killed and started again.
    pub(super) const fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Whether its events are there again after it was killed.
    pub(super) fn keeps_events(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.engine == "embedded")
    }

    /// Starts the hub of its own: answers once it is ready.
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
            // Descriptors that wait for tickets are not there for connections, and this process is short of them.
            .env("WEBSOCKET_MAX_PENDING_HANDSHAKES", "240")
            // Its own load is what it is there to take.
            .env("WEBSOCKET_MAX_HANDSHAKES_PER_SECOND", "1000000")
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

    /// Ends the hub of its own in good order, whoever is still connected to it.
    pub(super) async fn stop(mut self) -> Result<(), BenchError> {
        let Some(process) = self.own.as_mut().and_then(|own| own.process.as_mut()) else {
            return Ok(());
        };
        let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let told = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        match timeout(STOP_TIMEOUT, process.wait()).await {
            Ok(Ok(status)) if told && status.success() => Ok(()),
            _ => Err(BenchError::NotEnded),
        }
    }

    /// Kills the hub of its own, as `kill -9` does.
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

/// Addresses that nobody listens on, at the moment.
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
