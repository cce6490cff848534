//! The event loop of the players' thread: the state of each player, and one epoll for all.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::{Delivery, Entry, PlayerCommand, Taken, Tally};
use crate::bench::backend::Clock;
use crate::bench::frames::{self, Frame, HandshakeAnswer, Text};
use crate::bench::process;

/// Players of one source address. Below the hub's `WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS`.
const PER_ADDRESS: usize = 400;

/// The time between two pings of a player.
const PING_EVERY: Duration = Duration::from_secs(20);

/// How long nobody connects after a refusal.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// The longest wait for an event, so that commands are noticed.
const SLEEP_MAX: Duration = Duration::from_millis(5);

const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlayerState {
    /// To be connected.
    Away,
    /// The kernel connects it.
    Connecting,
    /// The handshake was sent.
    Handshaking,
    /// The handshake was answered, and `connected` is awaited.
    Attaching,
    /// `connected` has come.
    In,
}

/// One player's connection.
struct Player {
    socket: Option<OwnedFd>,
    state: PlayerState,
    duel: u64,
    /// The ticket for the next connection.
    ticket: String,
    /// The epoch that it follows, once it was connected.
    epoch: Option<String>,
    /// The last seq that it received.
    served: u64,
    /// Events up to this seq are the state that it started with.
    state_until: u64,
    /// The beginning of a frame.
    partial: Vec<u8>,
}

/// How fast connections are opened.
struct Pace {
    at_a_time: usize,
    per_second: u32,
    since: Instant,
    begun: u64,
}

/// Whose turn it is to ping: everybody once per [`PING_EVERY`], evenly.
struct Pings {
    since: Instant,
    sent: usize,
}

/// The state of the thread.
pub(super) struct EventLoop {
    /// The nodes, over which the players are distributed.
    nodes: Vec<SocketAddr>,
    path: String,
    clock: Clock,
    tally: Arc<Tally>,
    epoll: OwnedFd,
    players: Vec<Player>,
    /// Players that are to connect.
    waiting: VecDeque<usize>,
    /// Players that are connecting.
    opening: usize,
    pace: Pace,
    pause_until: Instant,
    pings: Pings,
    reconnects: bool,
    deliveries: Vec<Delivery>,
}

impl EventLoop {
    pub(super) fn new(
        nodes: Vec<SocketAddr>,
        path: &str,
        clock: Clock,
        tally: Arc<Tally>,
    ) -> rustix::io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            nodes,
            path: path.to_owned(),
            clock,
            tally,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            players: Vec::new(),
            waiting: VecDeque::new(),
            opening: 0,
            pace: Pace { at_a_time: 1, per_second: 1, since: now, begun: 0 },
            pause_until: now,
            pings: Pings { since: now, sent: 0 },
            reconnects: false,
            deliveries: Vec::new(),
        })
    }

    /// Works until the handle is dropped.
    pub(super) fn run(mut self, commands: &Receiver<PlayerCommand>) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut events = Vec::with_capacity(1024);
        loop {
            loop {
                match commands.try_recv() {
                    Ok(command) => self.execute(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.connect_some();
            self.ping_some();
            let sleep = if self.waiting.is_empty() { SLEEP_MAX } else { Duration::from_millis(1) };
            let sleep = Timespec { tv_sec: 0, tv_nsec: i64::from(sleep.subsec_nanos()) };
            events.clear();
            let waited =
                epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&sleep));
            if waited.is_err() {
                continue;
            }
            for event in &events {
                let epoll::Event { flags, data } = *event;
                self.on_event(usize::try_from(data.u64()).unwrap_or(0), flags, &mut buffer);
            }
        }
    }

    fn execute(&mut self, command: PlayerCommand) {
        match command {
            PlayerCommand::Open { entries, at_a_time, per_second } => {
                let first = self.players.len();
                self.players.extend(entries.into_iter().map(|Entry { duel, ticket }| Player {
                    socket: None,
                    state: PlayerState::Away,
                    duel,
                    ticket,
                    epoch: None,
                    served: 0,
                    state_until: 0,
                    partial: Vec::new(),
                }));
                self.waiting.extend(first..self.players.len());
                self.pace = Pace { at_a_time, per_second, since: Instant::now(), begun: 0 };
                self.pings = Pings { since: Instant::now(), sent: 0 };
            }
            PlayerCommand::Reconnect(known) => {
                self.reconnects = true;
                let _unheard = known.send(());
            }
            PlayerCommand::Take(reply) => {
                let deliveries = std::mem::take(&mut self.deliveries);
                let _unheard = reply.send(Taken { deliveries, cpu: process::thread_cpu() });
            }
        }
    }

    fn connect_some(&mut self) {
        let since = self.pace.since.elapsed().as_secs_f64();
        while self.opening < self.pace.at_a_time && Instant::now() >= self.pause_until {
            // Of which a millionth of a second is as good as the next.
            #[expect(clippy::cast_precision_loss, reason = "a pace needs no more than 52 bits")]
            if self.pace.begun as f64 > since * f64::from(self.pace.per_second) {
                return;
            }
            let Some(index) = self.waiting.pop_front() else { return };
            self.pace.begun += 1;
            self.opening += 1;
            match self.connect(index) {
                Ok(socket) => {
                    let player = &mut self.players[index];
                    (player.socket, player.state) = (Some(socket), PlayerState::Connecting);
                }
                Err(error) => self.retry_later(index, &error.to_string()),
            }
        }
    }

    fn node_of(&self, index: usize) -> SocketAddr {
        self.nodes[index % self.nodes.len()]
    }

    /// Returns a socket that is connecting, and registered with epoll.
    fn connect(&self, index: usize) -> rustix::io::Result<OwnedFd> {
        let node = self.node_of(index);
        let family = if node.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        if node.is_ipv4() && node.ip().is_loopback() {
            let host = u8::try_from(1 + index / PER_ADDRESS).unwrap_or(u8::MAX);
            let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0);
            rustix::net::bind(&socket, &source)?;
        }
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &node) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(index as u64), flags)?;
        Ok(socket)
    }

    fn ping_some(&mut self) {
        let rounds = self.pings.since.elapsed().as_secs_f64() / PING_EVERY.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "the number of pings of a bench is far below 2^52"
        )]
        let due = (rounds * self.players.len() as f64) as usize;
        while self.pings.sent < due {
            let index = self.pings.sent % self.players.len();
            self.pings.sent += 1;
            if self.players[index].state == PlayerState::In {
                self.send(index, frames::PING);
            }
        }
    }

    fn on_event(&mut self, index: usize, flags: epoll::EventFlags, buffer: &mut [u8]) {
        if self.players[index].state == PlayerState::Connecting
            && flags.contains(epoll::EventFlags::OUT)
            && !flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP)
        {
            self.send_handshake(index);
        }
        let ended = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        if flags.intersects(epoll::EventFlags::IN | ended) {
            self.receive(index, buffer, flags.intersects(ended));
        }
    }

    fn send_handshake(&mut self, index: usize) {
        let host = self.node_of(index).to_string();
        let player = &mut self.players[index];
        player.state = PlayerState::Handshaking;
        let resume = player.epoch.as_ref().map(|epoch| format!("{epoch}:{}", player.served));
        let request = frames::request(&host, &self.path, &player.ticket, resume.as_deref());
        self.send(index, request.as_bytes());
    }

    fn send(&mut self, index: usize, bytes: &[u8]) {
        let Some(socket) = &self.players[index].socket else { return };
        match rustix::io::write(socket, bytes) {
            Ok(written) if written == bytes.len() => {}
            Ok(_) | Err(Errno::AGAIN) => {
                self.tally.fault(|| "the hub does not read what a player sends".to_owned());
            }
            // The next read finds the same error, and handles it.
            Err(_) => {}
        }
    }

    /// Reads what the socket holds. A read that does not fill the buffer has emptied it (epoll(7), question 9).
    ///
    /// An end that has come together with data brings no further event, so it is read at once.
    fn receive(&mut self, index: usize, buffer: &mut [u8], ended: bool) {
        loop {
            let Some(socket) = &self.players[index].socket else { return };
            match rustix::io::read(socket, &mut *buffer) {
                Ok(0) => return self.lost(index, "closed"),
                Ok(count) => {
                    self.receive_bytes(index, &buffer[..count]);
                    if count < buffer.len() && !ended {
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => return self.lost(index, &error.to_string()),
            }
        }
    }

    fn receive_bytes(&mut self, index: usize, bytes: &[u8]) {
        let mut partial = std::mem::take(&mut self.players[index].partial);
        if partial.is_empty() {
            let used = self.parse(index, bytes);
            self.players[index].partial = bytes[used..].to_vec();
            return;
        }
        partial.extend_from_slice(bytes);
        let used = self.parse(index, &partial);
        partial.drain(..used);
        self.players[index].partial = partial;
    }

    /// Takes the whole frames at the front. Returns how many bytes they were.
    fn parse(&mut self, index: usize, bytes: &[u8]) -> usize {
        let mut used = 0;
        if self.players[index].state == PlayerState::Handshaking {
            match frames::answer(bytes) {
                HandshakeAnswer::Partial => return 0,
                HandshakeAnswer::Open(length) => used = length,
                HandshakeAnswer::Refused(status) => {
                    self.retry_later(index, &format!("HTTP {status}"));
                    return bytes.len();
                }
            }
            self.players[index].state = PlayerState::Attaching;
        }
        while let Some(received) = frames::frame(&bytes[used..]) {
            used += received.length;
            self.receive_frame(index, &received.frame);
            if self.players[index].socket.is_none() {
                return bytes.len();
            }
        }
        used
    }

    fn receive_frame(&mut self, index: usize, frame: &Frame<'_>) {
        match *frame {
            Frame::Event { seq, push } => self.deliver(index, seq, push),
            Frame::Pong => {
                self.tally.pongs.fetch_add(1, Ordering::Relaxed);
            }
            Frame::Presence => {}
            Frame::Text(text) => match serde_json::from_slice(text) {
                Ok(Text::Connected { epoch, head, recovered, resume_ticket }) => {
                    self.connected(index, epoch, head, recovered, resume_ticket);
                }
                Ok(Text::Error { message }) => {
                    self.tally.fault(|| format!("a player was told {message}"));
                }
                Ok(Text::Other) | Err(_) => self.tally.fault(|| "an unknown frame".to_owned()),
            },
            Frame::Close { code } => self.lost(index, &format!("closed with {code}")),
            Frame::Unexpected => self.tally.fault(|| "a frame that no hub sends".to_owned()),
        }
    }

    fn deliver(&mut self, index: usize, seq: u64, push: u64) {
        let at_ns = self.clock.ns();
        let player = &mut self.players[index];
        if seq <= player.state_until {
            return;
        }
        if seq != player.served + 1 {
            let (duel, served) = (player.duel, player.served);
            self.tally.fault(|| format!("duel {duel}: seq {seq} after {served}"));
        }
        player.served = player.served.max(seq);
        self.deliveries.push(Delivery { push: u32::try_from(push).unwrap_or(u32::MAX), at_ns });
        self.tally.deliveries.fetch_add(1, Ordering::Relaxed);
    }

    fn connected(
        &mut self,
        index: usize,
        epoch: String,
        head: u64,
        recovered: Option<bool>,
        resume_ticket: Option<String>,
    ) {
        let player = &mut self.players[index];
        if player.epoch.is_some() {
            match recovered {
                Some(true) if head >= player.served => {
                    self.tally.recovered.fetch_add(1, Ordering::Relaxed);
                }
                // Honest. The scenario decides whether it is good enough.
                Some(false) => {}
                Some(true) | None => {
                    let (duel, served) = (player.duel, player.served);
                    self.tally.fault(|| {
                        format!("duel {duel}: at {served}, told {recovered:?} at {head}")
                    });
                }
            }
        }
        if recovered != Some(true) {
            (player.state_until, player.served) = (head, head);
        }
        (player.state, player.epoch) = (PlayerState::In, Some(epoch));
        player.ticket = resume_ticket.unwrap_or_default();
        self.opening -= 1;
        self.tally.open.fetch_add(1, Ordering::Relaxed);
        self.send(index, frames::PING);
    }

    /// Takes the end of a connection.
    fn lost(&mut self, index: usize, why: &str) {
        let player = &mut self.players[index];
        if player.state != PlayerState::In {
            return self.retry_later(index, why);
        }
        (player.socket, player.state) = (None, PlayerState::Away);
        player.partial.clear();
        self.tally.open.fetch_sub(1, Ordering::Relaxed);
        if self.reconnects {
            self.waiting.push_back(index);
        } else {
            let duel = player.duel;
            self.tally.fault(|| format!("duel {duel}: a connection was lost: {why}"));
        }
    }

    /// Has a player connect again later. Unless the hub is only busy or restarting, that is a fault.
    fn retry_later(&mut self, index: usize, why: &str) {
        let player = &mut self.players[index];
        (player.socket, player.state) = (None, PlayerState::Away);
        player.partial.clear();
        self.opening -= 1;
        self.tally.refused.fetch_add(1, Ordering::Relaxed);
        self.pause_until = Instant::now() + REFUSED_PAUSE;
        self.waiting.push_back(index);
        let may_become_better = self.reconnects || ["HTTP 503", "HTTP 429"].contains(&why);
        if !may_become_better {
            self.tally.fault(|| format!("a connection was not opened: {why}"));
        }
    }
}
