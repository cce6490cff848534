//! What the hot path costs, piece by piece, so that a regression shows: `cargo bench --bench hot_path`.
//!
//! Nanoseconds per operation: the median of five repetitions, the least and the most, after one that is not counted. A
//! fan-out's operation is one push together with everything that all its connections do to take it, short of a socket. The
//! frame's encoding is the edge's own; it is a part of `deliver`, in which a push goes through the hub and the edge to a
//! client's socket on the same thread.
//!
//! `HOT_PATH=fan_out_100` runs one of them alone. Instructions are steadier than time, and callgrind counts them. What it
//! has collected, divided by six times the operations in [`CASES`] (the repetition that is not counted is), are the
//! instructions of one operation in user space, on a machine whose SHA instructions valgrind hides from the tickets:
//!
//! ```sh
//! cargo bench --bench hot_path --no-run   # says where the program is
//! HOT_PATH=fan_out_100 valgrind --tool=callgrind --callgrind-out-file=/tmp/hot_path.callgrind \
//!     --toggle-collect='*hot_path*measured*' target/release/deps/hot_path-<hash>
//! ```
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use duelhub::clock;
use duelhub::config::{Config, EngineConfig};
use duelhub::edge::{Edge, Pages};
use duelhub::engine::{LogEngine as _, MemoryEngine};
use duelhub::event::{Payload, Push, Role, Viewer};
use duelhub::hub::{Attachment, Hub};
use duelhub::id::{DuelId, UserId};
use duelhub::metrics::Metrics;
use duelhub::ticket::{Issued, Revision, Stamp, Tickets};
use duelhub_testkit::fixtures::push_of_256_bytes as push;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const REPETITIONS: usize = 5;

/// Duels that are appended to, in turn.
const DUELS: u64 = 2500;

/// Events that a duel's log keeps: few, so that appending soon costs what it does in a long duel, where the oldest goes.
const LOG_EVENTS: usize = 16;

/// The duel of the cases that need only one.
const DUEL: u64 = 7;

/// Something that is measured.
struct Case {
    name: &'static str,
    /// In one repetition.
    operations: usize,
    begin: fn(usize) -> Repetition,
}

/// Does a case's operations once: how long they took.
type Repetition = Box<dyn FnMut() -> Duration>;

const CASES: [Case; 8] = [
    Case { name: "ticket_issue", operations: 20_000, begin: ticket_issue },
    Case { name: "ticket_verify", operations: 20_000, begin: ticket_verify },
    Case { name: "payload_parse", operations: 100_000, begin: payload_parse },
    Case { name: "append_memory", operations: 50_000, begin: append_memory },
    Case { name: "fan_out_2", operations: 50_000, begin: |operations| fan_out(2, operations) },
    Case { name: "fan_out_100", operations: 2000, begin: |operations| fan_out(100, operations) },
    Case { name: "fan_out_10000", operations: 20, begin: |operations| fan_out(10_000, operations) },
    Case { name: "deliver", operations: 2000, begin: deliver },
];

fn main() {
    let only = std::env::var("HOT_PATH").ok();
    let wanted = |case: &&Case| only.as_ref().is_none_or(|name| name == case.name);
    assert!(CASES.iter().any(|case| wanted(&case)), "HOT_PATH names no case");
    println!("{:<16}{:>12}{:>12}{:>12}", "ns per operation", "median", "least", "most");
    CASES.iter().filter(wanted).for_each(show);
}

fn show(case: &Case) {
    let mut repetition = (case.begin)(case.operations);
    let operations = f64::from(u32::try_from(case.operations).unwrap());
    repetition();
    let mut took: Vec<_> = (0..REPETITIONS).map(|_| repetition()).collect();
    took.sort_unstable();
    let each = |took: Duration| took.as_secs_f64() * 1e9 / operations;
    let (median, least, most) = (took[REPETITIONS / 2], took[0], took[REPETITIONS - 1]);
    println!("{:<16}{:>12.0}{:>12.0}{:>12.0}", case.name, each(median), each(least), each(most));
}

/// The measured part, under a name that callgrind can find: what is prepared and cleared away around it does not count.
#[inline(never)]
fn measured(operations: impl FnOnce()) -> Duration {
    let began = Instant::now();
    operations();
    began.elapsed()
}

fn config() -> Config {
    let config = Config::read(&|_| None).unwrap();
    let engine = EngineConfig { log_events_max: LOG_EVENTS, ..config.engine };
    Config { engine, ..config }
}

fn duel() -> DuelId {
    DuelId::try_from(DUEL).unwrap()
}

fn issue(tickets: &Tickets, user: u64, role: Role) -> Issued {
    let viewer = Viewer { user: UserId::try_from(user).unwrap(), role };
    let stamp = Stamp { now: clock::now(), revision: Revision::default() };
    tickets.issue(duel(), viewer, None, stamp)
}

fn pushes(count: usize) -> Vec<Push> {
    (0..count).map(|_| push(DUEL)).collect()
}

fn ticket_issue(operations: usize) -> Repetition {
    let tickets = Tickets::new(&config().tickets);
    Box::new(move || {
        measured(|| {
            for _ in 0..operations {
                black_box(issue(&tickets, black_box(1), Role::Player));
            }
        })
    })
}

fn ticket_verify(operations: usize) -> Repetition {
    let tickets = Tickets::new(&config().tickets);
    let issued = issue(&tickets, 1, Role::Player);
    Box::new(move || {
        measured(|| {
            for _ in 0..operations {
                black_box(tickets.verify(black_box(issued.text.as_str())).unwrap());
            }
        })
    })
}

fn payload_parse(operations: usize) -> Repetition {
    let json = format!(r#"{{"question":"{}"}}"#, "x".repeat(225));
    Box::new(move || {
        measured(|| {
            for _ in 0..operations {
                black_box(Payload::parse(duel(), black_box(json.as_str()), 1000).unwrap());
            }
        })
    })
}

fn append_memory(operations: usize) -> Repetition {
    let engine = MemoryEngine::new(config().engine);
    let mut next = 0;
    let mut append = move |push| {
        next = (next + 7919) % DUELS;
        let answer = engine.append(DuelId::try_from(next + 1).unwrap(), push, None);
        black_box(answer.now_or_never().unwrap().unwrap());
    };
    let full = usize::try_from(DUELS).unwrap() * LOG_EVENTS;
    (0..full).for_each(|_| append(push(DUEL)));
    Box::new(move || {
        let pushes = pushes(operations);
        measured(|| pushes.into_iter().for_each(&mut append))
    })
}

fn hub(config: &Config) -> Arc<Hub> {
    let engine = Arc::new(MemoryEngine::new(config.engine.clone()));
    Hub::new(engine, config.hub.clone(), Arc::new(Metrics::new()))
}

fn fan_out(connections: u64, operations: usize) -> Repetition {
    let config = config();
    let runtime = runtime();
    let hub = runtime.block_on(async { hub(&config) });
    let tickets = Tickets::new(&config.tickets);
    let attach = |user| {
        let role = if user <= 2 { Role::Player } else { Role::Spectator };
        let ticket = tickets.verify(issue(&tickets, user, role).text.as_str()).unwrap();
        let (attachment, _) = hub.attach(&ticket, None).now_or_never().unwrap().unwrap();
        attachment
    };
    let mut attachments: Vec<_> = (1..=connections).map(attach).collect();
    // Who came is told to those who were there: that is not measured.
    for attachment in &mut attachments {
        take(attachment).now_or_never().unwrap();
    }
    Box::new(move || {
        let pushes = pushes(operations);
        let fan_outs = async {
            for push in pushes {
                hub.push(duel(), push, None).await.unwrap();
                for attachment in &mut attachments {
                    attachment.woken().await;
                    assert_eq!(take(attachment).await, 1);
                }
            }
        };
        measured(|| runtime.block_on(fan_outs))
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What the edge does whenever a connection is woken: takes until nothing is left. How many events there were.
async fn take(attachment: &mut Attachment) -> usize {
    let mut events = 0;
    loop {
        let batch = attachment.next().await.unwrap();
        if batch.is_empty() {
            return events;
        }
        events += batch.events.len();
    }
}

fn deliver(operations: usize) -> Repetition {
    let config = config();
    let runtime = runtime();
    let hub = runtime.block_on(async { hub(&config) });
    let mut client = runtime.block_on(connect(config, Arc::clone(&hub)));
    Box::new(move || {
        let pushes = pushes(operations);
        let deliveries = async {
            for push in pushes {
                hub.push(duel(), push, None).await.unwrap();
                let frame = client.next().await.unwrap().unwrap();
                assert!(frame.to_text().unwrap().starts_with(r#"{"type":"duel_update""#));
            }
        };
        measured(|| runtime.block_on(deliveries))
    })
}

/// A client of an edge over `hub`, welcomed.
async fn connect(config: Config, hub: Arc<Hub>) -> WebSocketStream<TcpStream> {
    let tickets = Arc::new(Tickets::new(&config.tickets));
    let issued = issue(&tickets, 1, Role::Player);
    let edge = Edge::new(config.edge, config.telegram, hub, tickets, Arc::new(Metrics::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    tokio::spawn(edge.serve(listener, Pages::default(), tasks, stop));
    let url = format!("ws://{address}/ws?ticket={}", issued.text.as_str());
    let stream = TcpStream::connect(address).await.unwrap();
    // The library zeroes its buffer before each read: one of the usual size would cost ten times what is measured.
    let small = WebSocketConfig::default().read_buffer_size(1024);
    let (mut client, _) = client_async_with_config(url, stream, Some(small)).await.unwrap();
    let welcome = client.next().await.unwrap().unwrap();
    assert!(welcome.to_text().unwrap().starts_with(r#"{"type":"connected""#));
    client
}
