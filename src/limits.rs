//! The fixed bounds, each with its unit and its reason.
//!
//! [`crate::config`] has those that an operator may change. Where the two must agree, that is asserted here or when the
//! configuration is read.

use std::time::Duration;

/// Participants that a duel may declare, and users that an audience or a list of views may name. A duel has two; the
/// rest is room for teams. Linear searches over such lists stay cheap.
pub const USERS_NAMED_MAX: usize = 64;

/// Bytes of a payload and all its views together: four times the largest payload by default.
pub const PUSH_BYTES_MAX: usize = 256 * 1024;

/// Bytes of an idempotency key. Fits a UUID, a hash, or a row's name with its table.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// Idempotency keys remembered per duel, the oldest forgotten first. A duel of 50 rounds has fewer pushes than that.
pub const IDEMPOTENCY_KEYS_MAX: usize = 256;

/// Bytes of a coalesce key.
pub const COALESCE_KEY_BYTES_MAX: usize = 64;

/// Bytes of the reason a backend gives for a disconnect: a close frame holds 123 (RFC 6455, section 5.5).
pub const DISCONNECT_REASON_BYTES_MAX: usize = 120;

/// Events in the tail of a live duel. A connection that lags further behind reads from the engine.
pub const TAIL_EVENTS_MAX: usize = 64;

/// Bytes of events in the tail of a live duel. The largest push always fits.
pub const TAIL_BYTES_MAX: usize = 1024 * 1024;

/// Events that a connection takes from the log at a time, so that catching up keeps few events in memory.
pub const BATCH_EVENTS_MAX: usize = 64;

/// Types of events whose latest is kept for connections that start from the state, per duel. Past it, the type that was
/// pushed longest ago is forgotten once the log no longer holds it.
pub const LATEST_TYPES_MAX: usize = 16;

/// Users that presence lists by name, per duel. Further spectators are counted only: with N of them, announcing each to
/// all would cost N² frames.
pub const ONLINE_LISTED_MAX: usize = 128;

/// Changes of presence that a duel keeps for its connections. A connection that lags further behind is closed as too slow.
pub const PRESENCE_CHANGES_MAX: usize = 256;

/// The longest presence grace: beyond it, "offline" would be no news to anybody.
pub const PRESENCE_GRACE_MAX: Duration = Duration::from_secs(60);

/// Changes that wait for one watcher. Past it the watch ends, and has to begin anew from the state.
pub const WATCH_CHANGES_MAX: usize = 1024;

/// Duels that one watcher may name.
pub const WATCH_DUELS_MAX: usize = 1000;

/// Duels on a page of a list.
pub const LIST_PAGE_MAX: usize = 1000;

/// Unanswered pushes of one stream. Past it the hub stops reading from the stream.
pub const STREAM_PUSHES_MAX: usize = 256;

/// The largest gRPC message that is decoded. Far above the largest push, so that one that is too large is still told which
/// of its fields is.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// gRPC calls at a time on one connection of a backend (RFC 9113, section 5.1.2).
pub const GRPC_STREAMS_MAX: u32 = 1024;

/// How long a backend may take for the TLS handshake and for the beginning of HTTP/2. Three round trips, on the worst of
/// networks.
pub const CONTROL_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection of the control plane may be open before a call of it is accepted.
///
/// Backends call at once, or open a connection ahead of their first call; a client whose connection is ended so opens another
/// one for its next call.
pub const CONTROL_FIRST_CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections of the control plane of which no call was accepted yet: under the smallest descriptor limit, and at most.
///
/// The oldest gives way to the next, so a backend has until so many others have come. Under the descriptor limit of the shipped
/// unit that is 200 ms while 2,500 come a second.
pub const CONTROL_NEWCOMERS: (usize, usize) = (32, 512);

/// How long a connection of HTTP/1.1 may take from one request to the head of the next. PHP keeps its connections for as long as
/// its process lives.
pub const CONTROL_HTTP1_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// What is read ahead of a connection of HTTP/1.1: the head of a request, pipelined ones, and pieces of a body.
pub const CONTROL_HTTP1_BUFFER_BYTES: usize = 64 * 1024;

/// How long a message may take from its first byte to its last, and the request of a call that has one message. 4 MiB come
/// in that time over 4 Mbit/s.
pub const GRPC_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may wait for a backend that takes nothing of it. As long as a watcher may fail to read.
pub const GRPC_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of messages that have come in part, by the lengths that they announce, of one connection and of all.
///
/// 32 of the largest pushes at the same time, and three connections that do so. The buffers that they are kept in take up to twice
/// as much.
pub const GRPC_REQUEST_BYTES_MAX: (usize, usize) = (8 * 1024 * 1024, 24 * 1024 * 1024);

/// Bytes of answers that a connection may leave untaken, and all of them together, before further calls of theirs are refused.
pub const GRPC_ANSWER_BYTES_MAX: (usize, usize) = (4 * 1024 * 1024, 64 * 1024 * 1024);

/// Pages of `ListDuels` under way, of one connection and of all. A page is the largest answer: some 200 KB.
pub const GRPC_PAGES_MAX: (usize, usize) = (8, 64);

/// Elements of repeated fields that a message may have before it is decoded.
///
/// Each takes up to a hundred times its bytes then. Far above what any field takes, so that one with too many is still told how
/// many it takes.
pub const GRPC_ELEMENTS_MAX: usize = 4096;

/// Objects and lists within each other, in a payload that is given as an object. Each is up to three messages within each other,
/// and the decoder refuses a hundred.
pub const OBJECT_DEPTH_MAX: usize = 24;

/// Sessions of one user in one duel that the ticket ledger has a record of.
///
/// Past it, the half that was used longest ago is forgotten, and counts as used. The other half is several times the connections
/// that a user may have by default. Only a client that asks for a ticket each time that it comes back begins as many in an hour.
pub const SESSIONS_PER_USER_MAX: usize = 32;

/// Calls that wait for the engine's writer. All the pushes in flight that an operator may reasonably allow, and as many
/// handshakes.
pub const ENGINE_QUEUE_MAX: usize = 16 * 1024;

/// Rows of a store that one step of pruning looks at or takes out, so that no push waits long for it. The last duel of a
/// step may go beyond it.
pub const PRUNE_ROWS_MAX: usize = 128;

/// How long the engine may take at shutdown to do what is queued.
pub const ENGINE_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Free bytes under `DATA_DIR` below which no push is stored: room for the store to merge a level of its tables and begin
/// another journal, so that it never stops halfway.
pub const DISK_ROOM_MIN: u64 = 128 * 1024 * 1024;

/// Bytes that a backend may send on one stream before the hub has read them (RFC 9113, section 5.2).
pub const GRPC_STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// Bytes that a backend may send on one connection before the hub has read them.
///
/// The HTTP/2 library ends a connection whose small unread frames weigh more than half of it, a frame under 256 bytes
/// weighing what it lacks: so it is large enough for several streams of the smallest pushes that wait for the engine.
pub const GRPC_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// How long one frame may take to fit into the socket's buffer before the client counts as too slow.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to answer a close frame.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a backend whose calls are answered may take to acknowledge, at shutdown, that its connection ends. A backend that is
/// there does so within a round trip.
pub const GOAWAY_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a node alone waits at shutdown until its clients have answered their close frames.
///
/// The kernel has the frames by then, and delivers them also when the process is gone. So a phone out of reach does not hold
/// up everybody's return.
pub const RESTART_CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// How long a node alone is expected to be away when it restarts: it has to let go of its store, and begin to listen.
///
/// Who comes while it reads its store waits in the kernel's queue ([`LISTEN_BACKLOG`]).
pub const RESTART_GAP: Duration = Duration::from_secs(1);

/// How long RPCs may take to end at shutdown, after the clients are gone.
pub const RPC_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The read buffer of a connection. Larger than a ping and its header; grows for what is larger.
pub const READ_BUFFER_BYTES: usize = 128;

/// Bytes of an HTTP request's head on the data plane. A ticket is about 300 bytes, initData about 600.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Bytes of the longest ticket that is parsed.
pub const TICKET_BYTES_MAX: usize = 1024;

/// Bytes of the longest initData that is parsed.
pub const INIT_DATA_BYTES_MAX: usize = 8 * 1024;

/// Fields of the longest initData that is parsed.
pub const INIT_DATA_FIELDS_MAX: usize = 32;

/// Connections of a duel that the storing thread writes to directly. With more of them, fan-out tasks do it. Room for two
/// players and some spectators: a write takes about 10 µs.
pub const DIRECT_WRITES_MAX: usize = 16;

/// Connections of a fan-out task. Whatever else its thread has to do waits so long: half a millisecond.
pub const FAN_OUT_CHUNK_MAX: usize = 64;

/// Notices of one commit above which they are bulk: the hub then wakes tasks and writes to no socket itself.
pub const BULK_ABOVE: usize = 16;

/// Connections that wait to be accepted. The kernel lowers it to `net.core.somaxconn` (4096).
///
/// The kernel drops further ones, and their clients retry after a second. So everybody who reconnects after a restart within
/// one turn of the accepting task must fit in here.
pub const LISTEN_BACKLOG: u32 = 4096;

/// The pause after a connection could not be accepted, most likely because no descriptor is free.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Connections of the admin listener: under the smallest descriptor limit, and at most. Health checks and scrapes come one by
/// one; the oldest gives way to the next.
pub const ADMIN_CONNECTIONS: (usize, usize) = (16, 256);

/// How long a connection of the admin listener may take, for its one request and the answer.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Duels on a page of the console: as many as somebody reads.
pub const CONSOLE_DUELS_MAX: usize = 50;

/// Users whom the console names beside a duel in a list. The duel's own page names all that presence does.
pub const CONSOLE_USERS_MAX: usize = 4;

/// Events of a duel in one answer of the console. A log that grows faster than this a second is shown with gaps, which are marked.
pub const CONSOLE_EVENTS_MAX: usize = 50;

/// Bytes of one payload and of all payloads in one answer of the console, in development: what somebody reads of it.
pub const CONSOLE_PAYLOAD_BYTES_MAX: (usize, usize) = (4 * 1024, 128 * 1024);

/// Descriptors that the process keeps for everything that has no bound of its own.
///
/// 64 tables of the store and its journals, or the connections to Redis; three listeners; runtimes, files and pipes.
pub const DESCRIPTORS_OF_PROCESS: u64 = 112;

/// Descriptors for players below which the process does not start: a few duels, and a quarter of it for handshakes.
pub const DESCRIPTORS_FOR_PLAYERS_MIN: u64 = 64;

/// Users, and addresses, whose rates are told apart at a time. More of them come in a minute only if they are made up.
pub const RATED_KEYS_MAX: usize = 64 * 1024;

/// Reads of a client's socket a minute, each of at most [`READ_BUFFER_BYTES`] unless a message is larger. Whatever a client
/// sends, in messages or in pieces of them, costs no more than so many turns.
pub const READS_PER_MINUTE_MAX: u32 = 12_000;

/// Lines of the log about requests that were refused, a second. The rest is counted.
pub const REFUSALS_LOGGED_PER_SECOND: u32 = 20;

/// Bytes of a path that the log shows. The paths of the API are shorter; the first part of a ticket, which is no secret, is
/// longer.
pub const PATH_BYTES_SHOWN_MAX: usize = 32;

/// Bytes that the kernel holds for one client, doubled by it for its own needs (socket(7), `SO_SNDBUF`). A client that does not
/// read holds no more, and 200 ms away one still gets 600 KB a second.
pub const SEND_BUFFER_BYTES: u32 = 128 * 1024;

/// How long the kernel goes on to deliver what a client has not acknowledged once its connection is closed (tcp(7),
/// `TCP_USER_TIMEOUT`).
pub const ORPHAN_TIMEOUT: Duration = Duration::from_secs(10);

/// Lines of the log that wait for standard output. A second of a mass reconnect has about as many.
pub const LOG_LINES_MAX: usize = 8192;

/// Bytes of the lines of the log that wait for standard output.
pub const LOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long the end of the process waits for the log to be written.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Refused origins that the log names. More of them are made up.
pub const ORIGINS_WARNED_MAX: usize = 64;

/// Bytes of the longest refused origin that the log names: a scheme, the longest host name, and a port.
pub const ORIGIN_BYTES_SHOWN_MAX: usize = 270;

/// The pause after the service manager's socket had no room.
pub const NOTIFY_PAUSE: Duration = Duration::from_secs(1);

/// How long Redis may take to answer before it counts as away.
pub const REDIS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a node counts as alive for other nodes without a sign of life. After it, its users are offline.
pub const NODE_LEASE: Duration = Duration::from_secs(10);

/// How often the node probes its own path from push to delivery.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a probe may take before the node is not ready.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

const _: () = {
    assert!(TAIL_BYTES_MAX > 3 * PUSH_BYTES_MAX, "the tail holds at least the newest event");
    assert!(
        DESCRIPTORS_OF_PROCESS + (CONTROL_NEWCOMERS.0 + ADMIN_CONNECTIONS.0) as u64 == 160,
        "with 96 backends 256, as the documents say"
    );
    assert!(GRPC_MESSAGE_BYTES_MAX < GRPC_REQUEST_BYTES_MAX.0, "the largest message fits");
    assert!(WATCH_DUELS_MAX < GRPC_ELEMENTS_MAX, "a watch of too many duels is told how many");
    assert!(BATCH_EVENTS_MAX <= TAIL_EVENTS_MAX, "a batch comes from the tail in one step");
    assert!(4 * PUSH_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX, "a push that is too large is decoded");
    assert!(DISCONNECT_REASON_BYTES_MAX <= 123, "fits a close frame");
    assert!(GOAWAY_TIMEOUT.as_millis() < RPC_DRAIN_TIMEOUT.as_millis(), "nobody silent is aborted");
};
