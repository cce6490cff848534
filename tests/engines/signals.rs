//! What nodes tell each other comes back to the node that said it, in the order in which it did.

use duelhub::clock::UnixMs;
use duelhub::engine::{Notice, OfflineReason, Signal, SignalKind, Target};

use crate::kit::{DUEL, Subject, id_of, player, user};
use crate::store::Kind;

fn signals(engine: &Subject) -> Vec<Signal> {
    engine.told_of(|notice| if let Notice::Signal(signal) = notice { Some(signal) } else { None })
}

async fn a_signal_comes_back_through_the_sink(kind: Kind) {
    let engine = Subject::new(kind);
    let kinds = [
        SignalKind::Online { viewer: player(1), since: UnixMs(5) },
        SignalKind::Acked { user: user(1), seq: 7 },
        SignalKind::Disconnect {
            whom: Target::Everybody,
            reconnect: true,
            reason: Some("moved".into()),
        },
        SignalKind::Revoked { user: user(1) },
        SignalKind::Offline { user: user(1), reason: OfflineReason::Lost },
    ];
    let sent = kinds.map(|kind| Signal { duel: id_of(DUEL), kind });
    for (signal, count) in sent.iter().zip(1..) {
        engine.signal(signal.clone()).await.unwrap();
        assert_eq!(signals(&engine).len(), count, "each once, and before the answer");
    }
    assert_eq!(signals(&engine), sent);
}

async fn a_signal_is_soft_state(engine: Subject) {
    let kind = SignalKind::Acked { user: user(1), seq: 7 };
    engine.signal(Signal { duel: id_of(DUEL), kind }).await.unwrap();
    assert!(!engine.has(DUEL).await, "it brings nothing into being");
    let engine = engine.restarted().await;
    assert_eq!(signals(&engine), []);
}

on_every_engine!(
    a_signal_is_soft_state;
    // Who is on one node does not go because another says so.
    each node:
    a_signal_comes_back_through_the_sink,
);
