//! A network between a node and Redis, as good or as bad as a test wants it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes.
    Fine,
    /// Everything passes, [`SLOWNESS`] later.
    Slow,
    /// Nothing passes, and nobody is told: a cable is out.
    Silent,
    /// What Redis tells on channels does not pass; everything else does.
    Untold,
    /// Connections are refused, and those there are end.
    Cut,
}

/// By how much a slow network delays.
const SLOWNESS: Duration = Duration::from_millis(20);

/// Chunks that are on their way.
const UNDER_WAY_MAX: usize = 256;

/// One of them. Dropping it cuts it.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    target: Arc<Mutex<u16>>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// To a port of this machine.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = watch::Sender::new(Weather::Fine);
        let target = Arc::new(Mutex::new(target));
        let task = accept(listener, Arc::clone(&target), weather.clone());
        Self { port, weather, target, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }

    /// Of Redis, as a node reaches it by this network.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// New connections go to another port.
    pub fn lead_to(&self, target: u16) {
        *self.target.lock() = target;
    }
}

async fn accept(listener: TcpListener, target: Arc<Mutex<u16>>, weather: watch::Sender<Weather>) {
    let mut pairs = tokio::task::JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *target.lock()));
        if *weather.borrow() != Weather::Cut {
            pairs.spawn(connect(client, address, weather.clone()));
        }
    }
}

async fn connect(client: TcpStream, address: SocketAddr, weather: watch::Sender<Weather>) {
    let Ok(server) = TcpStream::connect(address).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let mut cut = weather.subscribe();
    tokio::select! {
        () = pass(from_client, to_server, weather.subscribe()) => {}
        () = pass(from_server, to_client, weather.subscribe()) => {}
        _ = cut.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) {
    let (under_way_tx, mut under_way_rx) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY_MAX);
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
            // What comes out of a silent network later, comes in order.
            let now = *weather.wait_for(|weather| *weather != Weather::Silent).await.unwrap();
            let slowness = if now == Weather::Slow { SLOWNESS } else { Duration::ZERO };
            let untold = now == Weather::Untold && buffer.starts_with(b">3\r\n$7\r\nmessage");
            let chunk = (Instant::now() + slowness, buffer[..count].to_vec());
            if !untold && under_way_tx.send(chunk).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = under_way_rx.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}
