//! The players' thread: a state for each of them, and what it does with what the kernel says.

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

use super::{Delivery, Entry, Order, Taken, Tally};
use crate::bench::backend::Clock;
use crate::bench::process;
use crate::bench::wire::{self, Answer, Frame, Text};

/// Players of one source address: below the hub's `WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS`.
const PER_ADDRESS: usize = 400;

/// Between two pings of a player.
const PING_EVERY: Duration = Duration::from_secs(20);

/// After a refusal nobody tries to connect for so long.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// How long it sleeps at most when nothing happens: orders are looked for in between.
const SLEEP_MAX: Duration = Duration::from_millis(5);

const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be connected.
    Away,
    /// The kernel connects it.
    Connecting,
    /// The handshake was sent.
    Shaking,
    /// The handshake was answered.
    Entering,
    /// It was told `connected`.
    In,
}

/// One player's connection.
struct Link {
    socket: Option<OwnedFd>,
    state: State,
    duel: u64,
    /// The ticket for the next connection.
    ticket: String,
    /// The history that it follows, once it has been in.
    epoch: Option<String>,
    /// The last seq that it received.
    served: u64,
    /// Events up to here are the state that it started with.
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

/// Whose turn it is to ping: everybody once in [`PING_EVERY`], evenly.
struct Pings {
    since: Instant,
    sent: usize,
}

/// The thread's own.
pub(super) struct Crowd {
    /// The nodes, among which the players are dealt.
    nodes: Vec<SocketAddr>,
    path: String,
    clock: Clock,
    tally: Arc<Tally>,
    epoll: OwnedFd,
    links: Vec<Link>,
    /// Who is away and wants in.
    waiting: VecDeque<usize>,
    /// Who is between away and in.
    opening: usize,
    pace: Pace,
    pause_until: Instant,
    pings: Pings,
    comes_back: bool,
    deliveries: Vec<Delivery>,
}

impl Crowd {
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
            links: Vec::new(),
            waiting: VecDeque::new(),
            opening: 0,
            pace: Pace { at_a_time: 1, per_second: 1, since: now, begun: 0 },
            pause_until: now,
            pings: Pings { since: now, sent: 0 },
            comes_back: false,
            deliveries: Vec::new(),
        })
    }

    /// Works until nobody is left who could give an order.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut events = Vec::with_capacity(1024);
        loop {
            loop {
                match orders.try_recv() {
                    Ok(order) => self.obey(order),
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
                self.happened(usize::try_from(data.u64()).unwrap_or(0), flags, &mut buffer);
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Open { entries, at_a_time, per_second } => {
                let first = self.links.len();
                self.links.extend(entries.into_iter().map(|Entry { duel, ticket }| Link {
                    socket: None,
                    state: State::Away,
                    duel,
                    ticket,
                    epoch: None,
                    served: 0,
                    state_until: 0,
                    partial: Vec::new(),
                }));
                self.waiting.extend(first..self.links.len());
                self.pace = Pace { at_a_time, per_second, since: Instant::now(), begun: 0 };
                self.pings = Pings { since: Instant::now(), sent: 0 };
            }
            Order::ComeBack(known) => {
                self.comes_back = true;
                let _unheard = known.send(());
            }
            Order::Take(reply) => {
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
                    let link = &mut self.links[index];
                    (link.socket, link.state) = (Some(socket), State::Connecting);
                }
                Err(error) => self.put_off(index, &error.to_string()),
            }
        }
    }

    fn node_of(&self, index: usize) -> SocketAddr {
        self.nodes[index % self.nodes.len()]
    }

    /// A socket that connects, and is watched.
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
        let due = (rounds * self.links.len() as f64) as usize;
        while self.pings.sent < due {
            let index = self.pings.sent % self.links.len();
            self.pings.sent += 1;
            if self.links[index].state == State::In {
                self.send(index, wire::PING);
            }
        }
    }

    fn happened(&mut self, index: usize, flags: epoll::EventFlags, buffer: &mut [u8]) {
        if self.links[index].state == State::Connecting
            && flags.contains(epoll::EventFlags::OUT)
            && !flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP)
        {
            self.shake_hands(index);
        }
        let readable = epoll::EventFlags::IN
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::HUP
            | epoll::EventFlags::ERR;
        if flags.intersects(readable) {
            self.receive(index, buffer);
        }
    }

    fn shake_hands(&mut self, index: usize) {
        let host = self.node_of(index).to_string();
        let link = &mut self.links[index];
        link.state = State::Shaking;
        let resume = link.epoch.as_ref().map(|epoch| format!("{epoch}:{}", link.served));
        let request = wire::request(&host, &self.path, &link.ticket, resume.as_deref());
        self.send(index, request.as_bytes());
    }

    fn send(&mut self, index: usize, bytes: &[u8]) {
        let Some(socket) = &self.links[index].socket else { return };
        match rustix::io::write(socket, bytes) {
            Ok(written) if written == bytes.len() => {}
            Ok(_) | Err(Errno::AGAIN) => {
                self.tally.fault(|| "the hub does not read what a player sends".to_owned());
            }
            // The read that follows finds the same, and deals with it.
            Err(_) => {}
        }
    }

    /// Reads what is there. One read that does not fill the buffer has emptied the socket (epoll(7), question 9).
    fn receive(&mut self, index: usize, buffer: &mut [u8]) {
        loop {
            let Some(socket) = &self.links[index].socket else { return };
            match rustix::io::read(socket, &mut *buffer) {
                Ok(0) => return self.lost(index, "closed"),
                Ok(count) => {
                    self.take_in(index, &buffer[..count]);
                    if count < buffer.len() {
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => return self.lost(index, &error.to_string()),
            }
        }
    }

    fn take_in(&mut self, index: usize, bytes: &[u8]) {
        let mut partial = std::mem::take(&mut self.links[index].partial);
        if partial.is_empty() {
            let used = self.understand(index, bytes);
            self.links[index].partial = bytes[used..].to_vec();
            return;
        }
        partial.extend_from_slice(bytes);
        let used = self.understand(index, &partial);
        partial.drain(..used);
        self.links[index].partial = partial;
    }

    /// Takes the whole frames at the front: how many bytes they were.
    fn understand(&mut self, index: usize, bytes: &[u8]) -> usize {
        let mut used = 0;
        if self.links[index].state == State::Shaking {
            match wire::answer(bytes) {
                Answer::Partial => return 0,
                Answer::Open(length) => used = length,
                Answer::Refused(status) => {
                    self.put_off(index, &format!("HTTP {status}"));
                    return bytes.len();
                }
            }
            self.links[index].state = State::Entering;
        }
        while let Some(received) = wire::frame(&bytes[used..]) {
            used += received.length;
            self.hear(index, &received.frame);
            if self.links[index].socket.is_none() {
                return bytes.len();
            }
        }
        used
    }

    fn hear(&mut self, index: usize, frame: &Frame<'_>) {
        match *frame {
            Frame::Event { seq, push } => self.deliver(index, seq, push),
            Frame::Pong => {
                self.tally.pongs.fetch_add(1, Ordering::Relaxed);
            }
            Frame::Presence => {}
            Frame::Text(text) => match serde_json::from_slice(text) {
                Ok(Text::Connected { epoch, seq, recovered, resume_ticket }) => {
                    self.let_in(index, epoch, seq, recovered, resume_ticket);
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
        let link = &mut self.links[index];
        if seq <= link.state_until {
            return;
        }
        if seq != link.served + 1 {
            let (duel, served) = (link.duel, link.served);
            self.tally.fault(|| format!("duel {duel}: seq {seq} after {served}"));
        }
        link.served = link.served.max(seq);
        self.deliveries.push(Delivery { push: u32::try_from(push).unwrap_or(u32::MAX), at_ns });
        self.tally.deliveries.fetch_add(1, Ordering::Relaxed);
    }

    fn let_in(
        &mut self,
        index: usize,
        epoch: String,
        seq: u64,
        recovered: Option<bool>,
        resume_ticket: Option<String>,
    ) {
        let link = &mut self.links[index];
        if link.epoch.is_some() {
            match recovered {
                Some(true) if seq == link.served => {
                    self.tally.recovered.fetch_add(1, Ordering::Relaxed);
                }
                // An honest answer; whether it is good enough is for the scenario to say.
                Some(false) => {}
                Some(true) | None => {
                    let (duel, served) = (link.duel, link.served);
                    let told = format!("duel {duel}: at {served}, told {recovered:?} at {seq}");
                    self.tally.fault(|| told);
                }
            }
        }
        link.state_until = if recovered == Some(true) { 0 } else { seq };
        (link.state, link.served, link.epoch) = (State::In, seq, Some(epoch));
        link.ticket = resume_ticket.unwrap_or_default();
        self.opening -= 1;
        self.tally.open.fetch_add(1, Ordering::Relaxed);
        self.send(index, wire::PING);
    }

    /// A connection that ended.
    fn lost(&mut self, index: usize, why: &str) {
        let link = &mut self.links[index];
        if link.state != State::In {
            return self.put_off(index, why);
        }
        (link.socket, link.state) = (None, State::Away);
        link.partial.clear();
        self.tally.open.fetch_sub(1, Ordering::Relaxed);
        if self.comes_back {
            self.waiting.push_back(index);
        } else {
            let duel = link.duel;
            self.tally.fault(|| format!("duel {duel}: a connection went: {why}"));
        }
    }

    /// A connection that did not come about, and is tried again. What cannot become better is a fault.
    fn put_off(&mut self, index: usize, why: &str) {
        let link = &mut self.links[index];
        (link.socket, link.state) = (None, State::Away);
        link.partial.clear();
        self.opening -= 1;
        self.tally.refused.fetch_add(1, Ordering::Relaxed);
        self.pause_until = Instant::now() + REFUSED_PAUSE;
        self.waiting.push_back(index);
        let may_become_better = self.comes_back || ["HTTP 503", "HTTP 429"].contains(&why);
        if !may_become_better {
            self.tally.fault(|| format!("a connection did not come about: {why}"));
        }
    }
}
