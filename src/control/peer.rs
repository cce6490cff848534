//! What one connection of a backend may hold, and all of them together.
//!
//! A connection begins as a newcomer ([`crate::newcomers`]): until a call of it is accepted, it has one of
//! [`limits::CONTROL_NEWCOMERS_MAX`] places, and little time. Then it has one of `CONTROL_MAX_CONNECTIONS`, and stays for as
//! long as its peer answers pings. So whoever has no token keeps out nobody whose first call comes before as many others.
//! Bounds besides: bytes of requests under way ([`limits::GRPC_REQUEST_BYTES_MAX`]), bytes of answers that are not taken
//! ([`limits::GRPC_ANSWER_BYTES_MAX`]), and pages of `ListDuels` ([`limits::GRPC_PAGES_MAX`]), each for one connection and for
//! all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::answers::Unsent;
use super::status::Failure;
use crate::config::{ControlConfig, ControlPatience};
use crate::limits;
use crate::metrics::{Metrics, ReasonLabel};
use crate::newcomers::{Newcomer, Newcomers};

/// The limits of this file, as a caller and the metrics are told them.
pub(super) const LIMITS: [&str; 4] = [CONNECTIONS, REQUEST_BYTES, ANSWER_BYTES, PAGES];
const CONNECTIONS: &str = "CONTROL_MAX_CONNECTIONS";
const REQUEST_BYTES: &str = "GRPC_REQUEST_BYTES_MAX";
const ANSWER_BYTES: &str = "GRPC_ANSWER_BYTES_MAX";
const PAGES: &str = "GRPC_PAGES_MAX";

/// Bytes that a peer that speaks HTTP/2 has sent: the preface, and the head of its SETTINGS (RFC 9113, sections 3.4 and 4.1).
const PREFACE_BYTES: usize = 24 + 9;

/// Why a connection is closed, for the metrics.
pub(super) const CROWDED_OUT: &str = "crowded_out";
pub(super) const NO_HANDSHAKE: &str = "no_handshake";
pub(super) const NO_CALL: &str = "no_call";
pub(super) const ANSWERS_NOT_TAKEN: &str = "answers_not_taken";

/// All connections of backends.
pub(super) struct Peers {
    pub(super) newcomers: Arc<Newcomers>,
    places: Arc<Semaphore>,
    request_bytes: ByteBudget,
    answer_bytes: Arc<AtomicUsize>,
    pages: Arc<Semaphore>,
    pub(super) patience: ControlPatience,
    metrics: Arc<Metrics>,
}

/// One connection of a backend.
pub(super) struct Peer {
    of: Arc<Peers>,
    opened_at: Instant,
    crowded_out: CancellationToken,
    /// `None`: a call of it was accepted.
    newcomer: Mutex<Option<Newcomer>>,
    place: OnceLock<OwnedSemaphorePermit>,
    /// Bytes that came, as far as [`PREFACE_BYTES`].
    heard_bytes: AtomicUsize,
    request_bytes: ByteBudget,
    pub(super) unsent: Arc<Unsent>,
    pages: Arc<Semaphore>,
}

/// Room for one page of a list. Held until its answer is written.
pub(super) struct PagePermit {
    _of_peer: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Bytes that are held, of so many that may be.
struct ByteBudget {
    held: AtomicUsize,
    max: usize,
}

impl ByteBudget {
    const fn new(max: usize) -> Self {
        Self { held: AtomicUsize::new(0), max }
    }

    fn try_hold(&self, bytes: usize) -> bool {
        let fits = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.max;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Peers {
    pub(super) fn new(config: &ControlConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        for reason in [CROWDED_OUT, NO_HANDSHAKE, NO_CALL, ANSWERS_NOT_TAKEN] {
            drop(metrics.control_connections_closed.get_or_create(&ReasonLabel { reason }));
        }
        Arc::new(Self {
            newcomers: Newcomers::new(
                limits::CONTROL_NEWCOMERS_MAX,
                metrics.control_newcomers.clone(),
            ),
            places: Arc::new(Semaphore::new(config.connections_max)),
            request_bytes: ByteBudget::new(limits::GRPC_REQUEST_BYTES_MAX.1),
            answer_bytes: Arc::default(),
            pages: Arc::new(Semaphore::new(limits::GRPC_PAGES_MAX.1)),
            patience: config.patience,
            metrics,
        })
    }

    pub(super) fn peer(self: &Arc<Self>, newcomer: Newcomer) -> Arc<Peer> {
        self.metrics.control_connections.inc();
        Arc::new(Peer {
            of: Arc::clone(self),
            opened_at: Instant::now(),
            crowded_out: newcomer.crowded_out(),
            newcomer: Mutex::new(Some(newcomer)),
            place: OnceLock::new(),
            heard_bytes: AtomicUsize::new(0),
            request_bytes: ByteBudget::new(limits::GRPC_REQUEST_BYTES_MAX.0),
            unsent: Arc::new(Unsent::new(Arc::clone(&self.answer_bytes))),
            pages: Arc::new(Semaphore::new(limits::GRPC_PAGES_MAX.0)),
        })
    }
}

impl Peer {
    pub(super) fn patience(&self) -> ControlPatience {
        self.of.patience
    }

    /// Admits a call whose caller has shown what callers need. The first one makes the connection one of those that stay.
    pub(super) fn admit_call(&self) -> Result<(), Failure> {
        if self.place.get().is_none() {
            let place = Arc::clone(&self.of.places).try_acquire_owned();
            let place = place.map_err(|_| Failure::Limit(CONNECTIONS))?;
            let newcomer = self.newcomer.lock().take();
            // From here on it is not crowded out any more, unless it was.
            if newcomer.is_some_and(|newcomer| !newcomer.set_busy()) {
                return Err(Failure::Limit(CONNECTIONS));
            }
            let _two_first_calls = self.place.set(place);
        }
        let (of_peer, of_all) = self.unsent.bytes();
        let (peer_max, all_max) = limits::GRPC_ANSWER_BYTES_MAX;
        // Whoever takes its answers has none, and is not refused for what others do not take.
        if of_peer > peer_max || of_all > all_max && of_peer > 0 {
            return Err(Failure::Limit(ANSWER_BYTES));
        }
        Ok(())
    }

    /// Makes room for one page.
    pub(super) fn page(&self) -> Result<PagePermit, Failure> {
        let permit = |of: &Arc<Semaphore>| {
            Arc::clone(of).try_acquire_owned().map_err(|_| Failure::Limit(PAGES))
        };
        Ok(PagePermit { _of_peer: permit(&self.pages)?, _of_all: permit(&self.of.pages)? })
    }

    /// Holds further bytes of a request that is not complete.
    pub(super) fn hold_request(&self, bytes: usize) -> Result<(), Failure> {
        if !self.request_bytes.try_hold(bytes) {
            return Err(Failure::Limit(REQUEST_BYTES));
        }
        if !self.of.request_bytes.try_hold(bytes) {
            self.request_bytes.give_back(bytes);
            return Err(Failure::Limit(REQUEST_BYTES));
        }
        Ok(())
    }

    pub(super) fn give_back_request(&self, bytes: usize) {
        self.request_bytes.give_back(bytes);
        self.of.request_bytes.give_back(bytes);
    }

    /// Notes that bytes came.
    pub(super) fn hear(&self, bytes: usize) {
        if self.heard_bytes.load(Ordering::Relaxed) < PREFACE_BYTES {
            self.heard_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Waits until the connection has to be cut off, and counts that.
    pub(super) async fn cut_off(&self) {
        let reason = tokio::select! {
            () = self.crowded_out.cancelled() => CROWDED_OUT,
            () = self.handshake_missed() => NO_HANDSHAKE,
            () = self.unsent.until_stuck(self.of.patience.answer) => ANSWERS_NOT_TAKEN,
        };
        self.count_closed(reason);
    }

    async fn handshake_missed(&self) {
        sleep_until(self.opened_at + self.of.patience.handshake).await;
        if self.heard_bytes.load(Ordering::Relaxed) >= PREFACE_BYTES {
            std::future::pending().await
        }
    }

    /// Waits until the time for the first accepted call has passed without one, and counts that.
    pub(super) async fn first_call_missed(&self) {
        sleep_until(self.opened_at + self.of.patience.first_call).await;
        if self.place.get().is_some() {
            std::future::pending::<()>().await;
        }
        self.count_closed(NO_CALL);
    }

    fn count_closed(&self, reason: &'static str) {
        self.of.metrics.control_connections_closed.get_or_create(&ReasonLabel { reason }).inc();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.of.metrics.control_connections.dec();
    }
}
