//! All players, on one thread: non-blocking sockets, one epoll, one buffer.
//!
//! The thread checks that a player receives every event once and in the order of `seq`, and that a resumed connection
//! continues where it was. A violation is a fault in the [`Tally`]. Every player sends a ping when it is connected and every
//! 20 s, as the WebApp does. On loopback the players have several source addresses, so that the hub allows them.
//!
//! Called by the scenarios, through a queue of [`PlayerCommand`]s. Bounds: commands wait in a queue of [`COMMANDS_MAX`]; a player holds
//! one incomplete frame and one ticket.

mod event_loop;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use parking_lot::Mutex;

use self::event_loop::EventLoop;
use super::BenchError;
use super::backend::Clock;

/// Orders that wait.
const COMMANDS_MAX: usize = 16;

/// Faults whose messages are kept.
const FAULTS_SHOWN_MAX: usize = 10;

/// What the players have seen so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Connections that are open.
    pub(super) open: AtomicU64,
    /// Events received, without the state that a connection starts with.
    pub(super) deliveries: AtomicU64,
    pub(super) pongs: AtomicU64,
    /// Reconnections that recovered.
    pub(super) recovered: AtomicU64,
    /// Handshakes that the hub refused.
    pub(super) refused: AtomicU64,
    pub(super) faults: AtomicU64,
    messages: Mutex<Vec<String>>,
}

impl Tally {
    fn fault(&self, fault: impl FnOnce() -> String) {
        let mut messages = self.messages.lock();
        if messages.len() < FAULTS_SHOWN_MAX {
            messages.push(fault());
        }
        // Whoever sees the count finds the message.
        self.faults.fetch_add(1, Ordering::Release);
    }

    /// Returns the messages of the first faults.
    pub(super) fn messages(&self) -> Vec<String> {
        self.messages.lock().clone()
    }
}

/// An event as a player received it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub(super) push: u32,
    /// By the bench's clock.
    pub(super) at_ns: u64,
}

/// What was received since it was last taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) deliveries: Vec<Delivery>,
    /// CPU time that the players' thread has used in all.
    pub(super) cpu: Duration,
}

/// What a player connects with.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) duel: u64,
    pub(super) ticket: String,
}

enum PlayerCommand {
    /// Connect players, so many at a time and so many per second.
    Open {
        entries: Vec<Entry>,
        at_a_time: usize,
        per_second: u32,
    },
    /// From now on, reconnect with the resume ticket when a connection is lost.
    Reconnect(SyncSender<()>),
    Take(SyncSender<Taken>),
}

/// The thread's handle. Dropped, all connections close.
pub(super) struct Players {
    commands: SyncSender<PlayerCommand>,
    pub(super) tally: Arc<Tally>,
}

impl Players {
    /// Starts the thread; nobody connects yet.
    pub(super) fn spawn(
        nodes: Vec<SocketAddr>,
        path: &str,
        clock: Clock,
    ) -> Result<Self, BenchError> {
        let (commands, waiting) = mpsc::sync_channel(COMMANDS_MAX);
        let tally = Arc::new(Tally::default());
        let event_loop = EventLoop::new(nodes, path, clock, Arc::clone(&tally));
        let event_loop = event_loop.map_err(|error| BenchError::machine("epoll")(error.into()))?;
        let thread = std::thread::Builder::new().name("duelhub-players".to_owned());
        let thread = thread.spawn(move || event_loop.run(&waiting));
        thread.map_err(BenchError::machine("a thread for the players"))?;
        Ok(Self { commands, tally })
    }

    /// Connects players, at most so many at a time and so many per second. [`Tally::open`] shows the progress.
    pub(super) fn open(&self, entries: Vec<Entry>, at_a_time: usize, per_second: u32) {
        self.command(PlayerCommand::Open { entries, at_a_time, per_second });
    }

    /// From now on, has players reconnect with their resume tickets when they lose their connections.
    pub(super) fn reconnect(&self) {
        let (reply, known) = mpsc::sync_channel(1);
        self.command(PlayerCommand::Reconnect(reply));
        let _ended = known.recv();
    }

    /// Returns what was received since it was last taken.
    pub(super) fn take(&self) -> Taken {
        let (reply, taken) = mpsc::sync_channel(1);
        self.command(PlayerCommand::Take(reply));
        taken.recv().unwrap_or(Taken { deliveries: Vec::new(), cpu: Duration::ZERO })
    }

    fn command(&self, command: PlayerCommand) {
        if self.commands.send(command).is_err() {
            self.tally.fault(|| "the players' thread has ended".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Returns the faults of a player that receives these seqs after `connected` with the head 5.
    fn faults_of(seqs: &'static [u64]) -> Vec<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let players = Players::spawn(vec![address], "/ws", Clock::start()).unwrap();
        let entry = Entry { duel: 7, ticket: "ticket".to_owned() };
        players.open(vec![entry], 1, 1000);
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let count = socket.read(&mut request).unwrap();
        assert!(request[..count].starts_with(b"GET /ws?ticket=ticket HTTP/1.1\r\n"));
        let proof = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        write!(socket, "HTTP/1.1 101 Switching\r\n{proof}\r\n\r\n").unwrap();
        let connected = r#"{"type":"connected","epoch":"e","head":5,"recovered":null}"#.to_owned();
        let event = |seq: &u64| {
            format!(r#"{{"type":"duel_update","seq":{seq},"payload":{{"push":{seq}}}}}"#)
        };
        for text in std::iter::once(connected).chain(seqs.iter().map(event)) {
            socket.write_all(&[0x81, u8::try_from(text.len()).unwrap()]).unwrap();
            socket.write_all(text.as_bytes()).unwrap();
        }
        // Its ping shows that it is connected. The end of the socket comes after all frames, and is another fault.
        assert!(socket.read(&mut request).unwrap() > 0);
        drop(socket);
        while players.tally.faults.load(Ordering::Acquire) == 0
            || players.tally.open.load(Ordering::Relaxed) == 1
        {
            std::thread::yield_now();
        }
        players.tally.messages()
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_a_fault() {
        let gone = "duel 7: a connection was lost: closed";
        assert_eq!(faults_of(&[5, 6, 7]), [gone], "5 is the state it starts with");
        assert_eq!(faults_of(&[6, 8]), ["duel 7: seq 8 after 6", gone]);
        assert_eq!(faults_of(&[6, 6, 7]), ["duel 7: seq 6 after 6", gone]);
        assert_eq!(faults_of(&[7, 6]), ["duel 7: seq 7 after 5", "duel 7: seq 6 after 7", gone]);
    }
}
