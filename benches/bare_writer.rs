//! The yardstick: a bare epoll writer, which takes a push as a keep-alive HTTP POST and does one write per delivery. What a
//! hub costs beyond it is what its promises cost: `cargo bench --bench bare_writer -- [ADDRESS]`.
//!
//! One thread, level-triggered epoll (edge-triggered was measured, and made no difference), non-blocking sockets without
//! Nagle's delay, one read per readable event. A push's frame is built once, in a buffer that is used again, and written to
//! each connection of its duel with one `send`; then the push is answered. What was asked for in one read is answered in
//! one write, so pipelined pushes cost less. There is no ticket to verify, no log, no resume, no presence and no pong: a
//! payload is passed on unread, what players send is read and thrown away, and a connection whose socket is full is dropped,
//! because keeping its frames would be the beginning of a hub. Duels are never forgotten.
//!
//! It prints `listening on <address>` (by default of a free port of 127.0.0.1) and serves until it is killed:
//! - `GET /ws?ticket=<duel>.<user>` opens a WebSocket in a duel, whose first frame is `connected`;
//! - `POST /push?duel=<duel>` with a JSON object as its body, of a known length, is a `duel_update` to that duel.
//!
//! Whoever says anything else is disconnected. It needs a descriptor for each connection: `ulimit -n`.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "it says where it listens")]

use std::collections::HashMap;
use std::io::{Cursor, ErrorKind, Read as _, Write as _};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use httparse::{EMPTY_HEADER, Request, Status};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 1024;

/// Bytes of one read. Many pushes, or the largest handshake.
const READ_BYTES: usize = 64 * 1024;

/// A request's head, and its body, beyond which it is not waited for.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 256 * 1024;
const HEADERS_MAX: usize = 32;

/// Handshakes that may wait until they are accepted: many clients that connect at once.
const BACKLOG: i32 = 4096;

/// The answer to a push.
const PUSHED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

fn main() {
    // Cargo passes `--bench` to every benchmark.
    let address = std::env::args().skip(1).find(|argument| argument != "--bench");
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).unwrap();
    // The standard library's backlog is too short for so many.
    rustix::net::listen(&listener, BACKLOG).unwrap();
    listener.set_nonblocking(true).unwrap();
    println!("listening on {}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    Server::new(listener).serve();
}

/// A connection has to go. Why is nobody's business here.
struct Gone;

/// A socket: of a player once it has joined a duel, before that of anybody who speaks HTTP.
struct Connection {
    stream: TcpStream,
    duel: Option<u64>,
    /// The beginning of a request, or of a frame's header, of which the rest has not come.
    partial: Vec<u8>,
    /// Bytes of a player's frame that are still to be thrown away.
    ignored: u64,
}

#[derive(Default)]
struct Duel {
    seq: u64,
    /// By their keys.
    connections: Vec<usize>,
}

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    /// By descriptor, which the kernel keeps small and dense.
    connections: Vec<Option<Connection>>,
    duels: HashMap<u64, Duel>,
    /// The frame that is being delivered.
    frame: Vec<u8>,
    /// What is to be written to the connection that was read from.
    answers: Vec<u8>,
}

impl Server {
    fn new(listener: TcpListener) -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, &listener, data(key(&listener)), EventFlags::IN).unwrap();
        Self {
            epoll,
            listener,
            connections: Vec::new(),
            duels: HashMap::new(),
            frame: Vec::new(),
            answers: Vec::new(),
        }
    }

    fn serve(&mut self) -> ! {
        let listener = key(&self.listener);
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => panic!("epoll: {error}"),
            }
            for event in events.drain(..) {
                // It may have been closed since the kernel wrote this list, and its descriptor given to another: that
                // one is then read once too often, which does no harm.
                let at = usize::try_from(event.data.u64()).unwrap();
                if at == listener {
                    self.accept();
                } else if self.read(at, &mut buffer).is_err() {
                    self.close(at);
                }
            }
        }
    }

    fn accept(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => panic!("no connection can be accepted: {error}"),
            };
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            let at = key(&stream);
            epoll::add(&self.epoll, &stream, data(at), EventFlags::IN).unwrap();
            if self.connections.len() <= at {
                self.connections.resize_with(at + 1, || None);
            }
            let connection = Connection { stream, duel: None, partial: Vec::new(), ignored: 0 };
            self.connections[at] = Some(connection);
        }
    }

    fn close(&mut self, at: usize) {
        let duel = self.connections[at].take().and_then(|connection| connection.duel);
        if let Some(duel) = duel.and_then(|duel| self.duels.get_mut(&duel)) {
            duel.connections.retain(|other| *other != at);
        }
    }

    fn read(&mut self, at: usize, buffer: &mut [u8]) -> Result<(), Gone> {
        let Some(Some(connection)) = self.connections.get_mut(at) else { return Ok(()) };
        let count = match connection.stream.read(buffer) {
            Ok(0) => return Err(Gone),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(Gone),
        };
        let mut partial = mem::take(&mut connection.partial);
        if partial.is_empty() {
            let taken = self.take(at, &buffer[..count])?;
            partial = buffer[taken..count].to_vec();
        } else {
            partial.extend_from_slice(&buffer[..count]);
            let taken = self.take(at, &partial)?;
            partial.drain(..taken);
        }
        // What is complete leaves no buffer behind.
        if let (Some(connection), false) = (&mut self.connections[at], partial.is_empty()) {
            connection.partial = partial;
        }
        Ok(())
    }

    /// Takes what is complete in `bytes`, and answers it: how many bytes that was.
    fn take(&mut self, at: usize, bytes: &[u8]) -> Result<usize, Gone> {
        let mut taken = 0;
        self.answers.clear();
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            let connection = self.connections[at].as_mut().ok_or(Gone)?;
            let one = match connection.duel {
                Some(_) => throw_away(rest, &mut connection.ignored)?,
                None => self.request(at, rest)?,
            };
            let Some(one) = one else { break };
            taken += one;
        }
        let connection = self.connections[at].as_ref().ok_or(Gone)?;
        if self.answers.is_empty() || write(&connection.stream, &self.answers) {
            Ok(taken)
        } else {
            Err(Gone)
        }
    }

    /// Does what is asked for at the start of `bytes`: how many bytes it took, or `None` if it is not complete.
    fn request(&mut self, at: usize, bytes: &[u8]) -> Result<Option<usize>, Gone> {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut request = Request::new(&mut headers);
        let head = match request.parse(bytes) {
            Ok(Status::Complete(head)) => head,
            Ok(Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
            Ok(Status::Partial) | Err(_) => return Err(Gone),
        };
        let path = request.path.ok_or(Gone)?;
        if let Some(ticket) = path.strip_prefix("/ws?ticket=") {
            let ticket = ticket.split('&').next().and_then(|ticket| ticket.split_once('.'));
            let (duel, user) = ticket.ok_or(Gone)?;
            let proof = derive_accept_key(header(&request, "sec-websocket-key")?.as_bytes());
            self.join(at, number(duel)?, number(user)?, &proof)?;
            return Ok(Some(head));
        }
        let duel = number(path.strip_prefix("/push?duel=").ok_or(Gone)?)?;
        let length = usize::try_from(number(header(&request, "content-length")?)?).unwrap();
        if length > BODY_BYTES_MAX {
            return Err(Gone);
        }
        let Some(body) = bytes.get(head..head + length) else { return Ok(None) };
        self.push(duel, body);
        self.answers.extend_from_slice(PUSHED);
        Ok(Some(head + length))
    }

    fn join(&mut self, at: usize, duel: u64, user: u64, proof: &str) -> Result<(), Gone> {
        self.connections[at].as_mut().ok_or(Gone)?.duel = Some(duel);
        let live = self.duels.entry(duel).or_default();
        live.connections.push(at);
        let opened = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: {proof}\r\n\r\n"
        );
        let connected = format!(
            r#"{{"type":"connected","duel_id":{duel},"user_id":{user},"epoch":"bare","seq":{},"recovered":null,"online":[],"server_ts":0,"server_time_ms":0}}"#,
            live.seq
        );
        encode(&mut self.frame, &[connected.as_bytes()]);
        self.answers.extend_from_slice(opened.as_bytes());
        self.answers.extend_from_slice(&self.frame);
        Ok(())
    }

    /// Numbers a push, and writes it to everybody in its duel.
    fn push(&mut self, duel: u64, payload: &[u8]) {
        let duel = self.duels.entry(duel).or_default();
        duel.seq += 1;
        let head = format!(r#"{{"type":"duel_update","seq":{},"payload":"#, duel.seq);
        encode(&mut self.frame, &[head.as_bytes(), payload, b"}"]);
        duel.connections.retain(|at| {
            let connection = &mut self.connections[*at];
            let written = connection.as_ref().is_some_and(|c| write(&c.stream, &self.frame));
            if !written {
                *connection = None;
            }
            written
        });
    }
}

/// By what the kernel names a socket that is ready, and where its connection is found.
fn key(socket: &impl AsRawFd) -> usize {
    usize::try_from(socket.as_raw_fd()).unwrap()
}

fn data(key: usize) -> EventData {
    EventData::new_u64(u64::try_from(key).unwrap())
}

/// Writes all of it, or says that it could not.
fn write(mut stream: &TcpStream, bytes: &[u8]) -> bool {
    stream.write(bytes).is_ok_and(|count| count == bytes.len())
}

/// Throws a player's frame away, as far as it has come: how many bytes, or `None` if not even its header is complete.
fn throw_away(bytes: &[u8], ignored: &mut u64) -> Result<Option<usize>, Gone> {
    if *ignored > 0 {
        let here = usize::try_from(*ignored).map_or(bytes.len(), |count| count.min(bytes.len()));
        *ignored -= u64::try_from(here).unwrap();
        return Ok(Some(here));
    }
    let mut cursor = Cursor::new(bytes);
    let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| Gone)? else {
        return Ok(None);
    };
    if header.opcode == OpCode::Control(Control::Close) {
        return Err(Gone);
    }
    *ignored = length;
    Ok(Some(usize::try_from(cursor.position()).unwrap()))
}

/// An unmasked text frame (RFC 6455, section 5.2) of these parts.
fn encode(frame: &mut Vec<u8>, parts: &[&[u8]]) {
    frame.clear();
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    let length: usize = parts.iter().map(|part| part.len()).sum();
    header.format(u64::try_from(length).unwrap(), frame).unwrap();
    parts.iter().for_each(|part| frame.extend_from_slice(part));
}

fn header<'a>(request: &Request<'_, 'a>, name: &str) -> Result<&'a str, Gone> {
    let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    std::str::from_utf8(found.ok_or(Gone)?.value).map_err(|_| Gone)
}

fn number(text: &str) -> Result<u64, Gone> {
    text.parse().map_err(|_| Gone)
}
