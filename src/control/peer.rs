//! What one connection of a backend may hold, and all of them together.
//!
//! A connection begins as a newcomer ([`crate::places`]): until a call of it is accepted, it has one of
//! `newcomers_max` places, and little time. Then it has one of `CONTROL_MAX_CONNECTIONS`, and stays for as
//! long as its peer answers pings. So whoever has no token keeps out nobody whose first call comes before as many others.
//! Bounds besides: bytes of requests under way ([`limits::GRPC_REQUEST_BYTES_MAX`]), bytes of answers that are not taken
//! ([`limits::GRPC_ANSWER_BYTES_MAX`]), and pages of `ListDuels` ([`limits::GRPC_PAGES_MAX`]), each for one connection and for
//! all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::codegen::http::Version;

use super::answers::Unsent;
use super::status::Failure;
use crate::config::{ControlConfig, ControlPatience};
use crate::limits;
use crate::metrics::{Metrics, ReasonLabel, at_zero};
use crate::places::{Place, Places};

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
    pub(super) newcomers: Arc<Places>,
    places: Arc<Places>,
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
    newcomer: Mutex<Option<Place>>,
    place: OnceLock<Place>,
    /// Bytes that came, as far as [`PREFACE_BYTES`].
    heard_bytes: AtomicUsize,
    request_bytes: ByteBudget,
    pub(super) unsent: Arc<Unsent>,
    pages: Arc<Semaphore>,
}

/// A call that was admitted. Dropping it ends it.
pub(super) struct OpenCall {
    /// The connection that has no other call meanwhile.
    peer: Option<Arc<Peer>>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if let Some(place) = self.peer.as_ref().and_then(|peer| peer.place.get()) {
            place.set_idle();
        }
    }
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
        let reasons = [CROWDED_OUT, NO_HANDSHAKE, NO_CALL, ANSWERS_NOT_TAKEN];
        at_zero(&metrics.control_connections_closed, reasons);
        Arc::new(Self {
            newcomers: Places::new(config.newcomers_max, metrics.control_newcomers.clone()),
            places: Places::new(config.connections_max, Gauge::default()),
            request_bytes: ByteBudget::new(limits::GRPC_REQUEST_BYTES_MAX.1),
            answer_bytes: Arc::default(),
            pages: Arc::new(Semaphore::new(limits::GRPC_PAGES_MAX.1)),
            patience: config.patience,
            metrics,
        })
    }

    pub(super) fn peer(self: &Arc<Self>, newcomer: Place) -> Arc<Peer> {
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

    /// Admits a call whose caller has shown what callers need. The first one makes the connection one of those that stay. Over
    /// HTTP/1.1 it is idle when the returned call has ended.
    pub(super) fn admit_call(self: &Arc<Self>, version: Version) -> Result<OpenCall, Failure> {
        self.take_place(version)?;
        let open = OpenCall { peer: (version < Version::HTTP_2).then(|| Arc::clone(self)) };
        let (of_peer, of_all) = self.unsent.bytes();
        let (peer_max, all_max) = limits::GRPC_ANSWER_BYTES_MAX;
        // Whoever takes its answers has none, and is not refused for what others do not take.
        if of_peer > peer_max || of_all > all_max && of_peer > 0 {
            return Err(Failure::Limit(ANSWER_BYTES));
        }
        Ok(open)
    }

    /// Takes a place that stays, or keeps it.
    fn take_place(&self, version: Version) -> Result<(), Failure> {
        let lost = Failure::Limit(CONNECTIONS);
        if let Some(place) = self.place.get() {
            // A connection of HTTP/2 never is idle.
            let stays = version >= Version::HTTP_2 || place.set_busy();
            return if stays { Ok(()) } else { Err(lost) };
        }
        let Some(place) = self.of.places.enter_from(self.crowded_out.clone()) else {
            return Err(lost);
        };
        let newcomer = self.newcomer.lock().take();
        // From here on it is not crowded out any more, unless it was.
        if newcomer.is_some_and(|newcomer| !newcomer.set_busy()) || !place.set_busy() {
            return Err(lost);
        }
        let _two_first_calls = self.place.set(place);
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

    pub(super) fn count_closed(&self, reason: &'static str) {
        self.of.metrics.control_connections_closed.get_or_create(&ReasonLabel { reason }).inc();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.of.metrics.control_connections.dec();
    }
}
