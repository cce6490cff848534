//! What nodes tell each other comes back to the node that said it, in the order in which it did.

use duelhub::clock::UnixMs;
use duelhub::engine::{NewConnection, Notice, OfflineReason, Signal, SignalKind, Target};
use duelhub::id::{ConnectionId, TicketKey};

use crate::kit::{DUEL, Subject, id_of, player, user};
use crate::store::Kind;

fn signals(engine: &Subject) -> Vec<Signal> {
    engine.told_of(|notice| if let Notice::Signal(signal) = notice { Some(signal) } else { None })
}

async fn a_signal_comes_back_through_the_sink(kind: Kind) {
    let engine = Subject::new(kind);
    let (duel, viewer, since) = (id_of(DUEL), player(1), UnixMs(5));
    let number = engine.enter(duel).await.unwrap();
    let connection = ConnectionId(1);
    let connections_max = 3;
    let first = true;
    let (session, generation) = (TicketKey([7; 16]), None);
    let new = NewConnection {
        duel,
        viewer,
        since,
        first,
        number,
        connection,
        generation,
        connections_max,
    };
    engine.attach(new).await.unwrap();
    assert_eq!(signals(&engine).len(), 1, "before the answer");
    let kinds = [
        SignalKind::Acked { user: user(1), seq: 7 },
        SignalKind::Disconnect {
            whom: Target::Everybody,
            reconnect: true,
            reason: Some("moved".into()),
        },
        SignalKind::SessionEnded { user: user(1), session },
        SignalKind::Offline { user: user(1), reason: OfflineReason::ClientClosed },
    ];
    for (signal, count) in kinds.iter().zip(2..) {
        if matches!(signal, SignalKind::Offline { .. }) {
            engine.detach(duel, viewer.user, connection);
        }
        engine.signal(Signal { duel, kind: signal.clone() }).await.unwrap();
        assert_eq!(signals(&engine).len(), count, "each once, and before the answer");
    }
    let mut told: Vec<_> = signals(&engine).into_iter().map(|signal| signal.kind).collect();
    if let SignalKind::Disconnect { whom, .. } = &mut told[2] {
        // Whoever is attached, or all that are.
        assert!([Target::Everybody, Target::Connection(connection)].contains(whom));
        *whom = Target::Everybody;
    }
    assert_eq!(told[0], SignalKind::Online { viewer, since });
    assert_eq!(told[1..], kinds);
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
