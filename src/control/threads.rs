//! The control plane's threads, one for each core. A connection stays on one of them.
//!
//! So a push is read, stored, delivered and answered without waking another thread. A connection uses one core at most: its
//! frames come one after the other anyway. A backend that needs more opens several connections.
//!
//! Called by [`super::Control::serve`]. Bounds: [`ACCEPTED_MAX`] connections wait for each thread.

use std::io;
use std::sync::Arc;
use std::thread::{self, available_parallelism};

use futures_util::future::join_all;
use futures_util::{Stream, stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::limits;
use crate::places::{Place, Places};

/// Accepted connections that wait for one thread.
const ACCEPTED_MAX: usize = 16;

/// The connections of one thread.
pub(super) type Incoming = stream::BoxStream<'static, (io::Result<TcpStream>, Place)>;

/// The threads.
pub(super) struct Threads(Vec<Thread>);

struct Thread {
    connections: mpsc::Sender<(std::net::TcpStream, Place)>,
    /// Completes once all connections are served. Dropping it stops the thread at once.
    served: oneshot::Receiver<()>,
}

impl Threads {
    /// Starts a thread for each core. Each runs `serve` on its connections.
    pub(super) fn start<F>(serve: impl Fn(Incoming) -> F) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let count = available_parallelism().map_or(1, usize::from);
        (0..count).map(|number| Thread::start(number, &serve)).collect::<Result<_, _>>().map(Self)
    }

    /// Gives the connections of `listener` to the threads in turn until `stop`. Returns once all are served. Dropping the
    /// future ends what is in flight. Each connection has one of the places of `newcomers`.
    pub(super) async fn serve(
        self,
        listener: TcpListener,
        newcomers: Arc<Places>,
        stop: CancellationToken,
    ) {
        let accepting = async {
            for thread in self.0.iter().cycle() {
                let connection = accept(&listener).await;
                let Some(newcomer) = newcomers.enter() else { continue };
                // Waits while the thread is behind. The thread cannot be gone.
                let _gone = thread.connections.send((connection, newcomer)).await;
            }
        };
        stop.run_until_cancelled(accepting).await;
        drop(listener);
        join_all(self.0.into_iter().map(|thread| thread.served)).await;
    }
}

impl Thread {
    fn start<F>(number: usize, serve: impl Fn(Incoming) -> F) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (connections, waiting) = mpsc::channel(ACCEPTED_MAX);
        let (mut done, served) = oneshot::channel();
        let serving = serve(Box::pin(incoming(waiting)));
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serving => {}
                    () = done.closed() => {}
                }
            });
            // Ends calls that nobody waits for, before this is reported.
            drop(runtime);
            let _nobody_waits = done.send(());
        };
        thread::Builder::new().name(format!("duelhub-control-{number}")).spawn(run)?;
        Ok(Self { connections, served })
    }
}

/// Returns the connections of a thread, registered with its own runtime.
fn incoming(
    waiting: mpsc::Receiver<(std::net::TcpStream, Place)>,
) -> impl Stream<Item = (io::Result<TcpStream>, Place)> {
    stream::unfold(waiting, async |mut waiting| {
        let (connection, newcomer) = waiting.recv().await?;
        Some(((TcpStream::from_std(connection), newcomer), waiting))
    })
}

async fn accept(listener: &TcpListener) -> std::net::TcpStream {
    loop {
        match listener.accept().await.and_then(|(stream, _)| prepared(stream)) {
            Ok(connection) => return connection,
            Err(error) => {
                warn!(%error, "cannot accept a backend's connection");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers are small. Waiting to fill a packet would delay them.
fn prepared(stream: TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    stream.into_std()
}
