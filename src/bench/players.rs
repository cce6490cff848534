//! All players, on one thread of its own: non-blocking sockets, one epoll, one buffer for everybody.
//!
//! It checks what a player is promised: every event once, in the order of `seq`, none skipped; a connection that resumes
//! goes on where it was. What breaks a promise is a fault in the [`Tally`]. Every player sends a ping when it is let in and
//! every 20 s, as the WebApp does. On loopback the players come from several source addresses, as many as the hub
//! allows to each.
//!
//! Called by the scenarios, through a queue of [`Order`]s. Bounds: orders wait in a queue of [`ORDERS_MAX`]; a player holds
//! one incomplete frame and one ticket.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::BenchError;
use super::backend::Clock;
use super::process;
use super::wire::{self, Answer, Frame, Text};

/// Orders that wait.
const ORDERS_MAX: usize = 16;

/// Players of one source address: below the hub's `WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS`.
const PER_ADDRESS: usize = 400;

/// Between two pings of a player.
const PING_EVERY: Duration = Duration::from_secs(20);

/// After a refusal nobody tries to connect for so long.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// How long it sleeps at most when nothing happens: orders are looked for in between.
const SLEEP_MAX: Duration = Duration::from_millis(5);

/// Faults that are remembered in words.
const FAULTS_TOLD_MAX: usize = 10;

const BUFFER_BYTES: usize = 64 * 1024;

/// What the players have seen so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Connections that are let in.
    pub(super) open: AtomicU64,
    /// Events, the state that a connection starts with left out.
    pub(super) deliveries: AtomicU64,
    pub(super) pongs: AtomicU64,
    /// Connections that came back and were told that nothing is missing.
    pub(super) recovered: AtomicU64,
    /// Handshakes that the hub put off.
    pub(super) refused: AtomicU64,
    pub(super) faults: AtomicU64,
    told: Mutex<Vec<String>>,
}

impl Tally {
    fn fault(&self, fault: impl FnOnce() -> String) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock();
        if told.len() < FAULTS_TOLD_MAX {
            told.push(fault());
        }
    }

    /// The first faults, in words.
    pub(super) fn told(&self) -> Vec<String> {
        self.told.lock().clone()
    }
}

/// An event as a player received it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub(super) push: u32,
    /// By the bench's clock.
    pub(super) at_ns: u64,
}

/// What came since it was last taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) deliveries: Vec<Delivery>,
    /// CPU time that the players' thread has used in all.
    pub(super) cpu: Duration,
}

/// Somebody's way in.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) duel: u64,
    pub(super) ticket: String,
}

enum Order {
    /// Connect them, so many at a time and so many a second.
    Open {
        entries: Vec<Entry>,
        at_a_time: usize,
        per_second: u32,
    },
    /// From now on, who loses its connection comes back with its resume ticket.
    ComeBack(SyncSender<()>),
    Take(SyncSender<Taken>),
}

/// The thread's handle. Dropped, all connections close.
pub(super) struct Players {
    orders: SyncSender<Order>,
    pub(super) tally: Arc<Tally>,
}

impl Players {
    /// Starts the thread; nobody connects yet.
    pub(super) fn spawn(hub: SocketAddr, path: &str, clock: Clock) -> Result<Self, BenchError> {
        let (orders, waiting) = mpsc::sync_channel(ORDERS_MAX);
        let tally = Arc::new(Tally::default());
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC);
        let epoll = epoll.map_err(|error| BenchError::machine("epoll")(error.into()))?;
        let crowd = Crowd {
            hub,
            path: path.to_owned(),
            clock,
            tally: Arc::clone(&tally),
            epoll,
            links: Vec::new(),
            waiting: VecDeque::new(),
            opening: 0,
            pace: Pace { at_a_time: 1, per_second: 1, since: Instant::now(), begun: 0 },
            pause_until: Instant::now(),
            pings: Pings { since: Instant::now(), sent: 0 },
            comes_back: false,
            deliveries: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("duelhub-players".to_owned());
        let thread = thread.spawn(move || crowd.run(&waiting));
        thread.map_err(BenchError::machine("a thread for the players"))?;
        Ok(Self { orders, tally })
    }

    /// Connects everybody, so many at a time and so many a second at most; see [`Tally::open`] for how far it is.
    pub(super) fn open(&self, entries: Vec<Entry>, at_a_time: usize, per_second: u32) {
        self.order(Order::Open { entries, at_a_time, per_second });
    }

    /// From now on, who loses its connection comes back with its resume ticket, until it is in.
    pub(super) fn come_back(&self) {
        let (reply, known) = mpsc::sync_channel(1);
        self.order(Order::ComeBack(reply));
        let _ended = known.recv();
    }

    /// What came since it was last taken.
    pub(super) fn take(&self) -> Taken {
        let (reply, taken) = mpsc::sync_channel(1);
        self.order(Order::Take(reply));
        taken.recv().unwrap_or(Taken { deliveries: Vec::new(), cpu: Duration::ZERO })
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            self.tally.fault(|| "the players' thread has ended".to_owned());
        }
    }
}

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
struct Crowd {
    hub: SocketAddr,
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
    fn run(mut self, orders: &Receiver<Order>) {
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

    /// A socket that connects, and is watched.
    fn connect(&self, index: usize) -> rustix::io::Result<OwnedFd> {
        let family = if self.hub.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        if self.hub.is_ipv4() && self.hub.ip().is_loopback() {
            let host = u8::try_from(1 + index / PER_ADDRESS).unwrap_or(u8::MAX);
            let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0);
            rustix::net::bind(&socket, &source)?;
        }
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &self.hub) {
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
        let link = &mut self.links[index];
        link.state = State::Shaking;
        let resume = link.epoch.as_ref().map(|epoch| format!("{epoch}:{}", link.served));
        let host = self.hub.to_string();
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// What is told of players who are served these seqs after `connected` with the seq 5.
    fn faults_of(seqs: &'static [u64]) -> Vec<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let players = Players::spawn(address, "/ws", Clock::start()).unwrap();
        let entry = Entry { duel: 7, ticket: "ticket".to_owned() };
        players.open(vec![entry], 1, 1000);
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let count = socket.read(&mut request).unwrap();
        assert!(request[..count].starts_with(b"GET /ws?ticket=ticket HTTP/1.1\r\n"));
        let proof = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        write!(socket, "HTTP/1.1 101 Switching\r\n{proof}\r\n\r\n").unwrap();
        let connected = r#"{"type":"connected","epoch":"e","seq":5,"recovered":null}"#.to_owned();
        let event = |seq: &u64| {
            format!(r#"{{"type":"duel_update","seq":{seq},"payload":{{"push":{seq}}}}}"#)
        };
        for text in std::iter::once(connected).chain(seqs.iter().map(event)) {
            socket.write_all(&[0x81, u8::try_from(text.len()).unwrap()]).unwrap();
            socket.write_all(text.as_bytes()).unwrap();
        }
        // Its ping says that it was let in; the end of the socket comes after all frames, and is a fault of its own.
        assert!(socket.read(&mut request).unwrap() > 0);
        drop(socket);
        while players.tally.faults.load(Ordering::Relaxed) == 0
            || players.tally.open.load(Ordering::Relaxed) == 1
        {
            std::thread::yield_now();
        }
        players.tally.told()
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_a_fault() {
        let gone = "duel 7: a connection went: closed";
        assert_eq!(faults_of(&[5, 6, 7]), [gone], "5 is the state it starts with");
        assert_eq!(faults_of(&[6, 8]), ["duel 7: seq 8 after 6", gone]);
        assert_eq!(faults_of(&[6, 6, 7]), ["duel 7: seq 6 after 6", gone]);
        assert_eq!(faults_of(&[7, 6]), ["duel 7: seq 7 after 5", "duel 7: seq 6 after 7", gone]);
    }
}
