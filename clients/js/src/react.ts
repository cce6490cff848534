// The hook. It keeps one connection while its component is mounted.

import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';

import { connect, type ConnectOptions, type Connected, type Duel, type DuelClosed, type DuelEvent, type EventPayloads, type State } from './index.js';

export interface UseDuelOptions<P extends EventPayloads = EventPayloads> extends ConnectOptions {
  /** Called with each event. It may be another function at each render. */
  onEvent?: ((event: DuelEvent<P>) => void) | undefined;
  onConnected?: ((connected: Connected) => void) | undefined;
  onDuelClosed?: ((closed: DuelClosed) => void) | undefined;
}

export interface UsedDuel<P extends EventPayloads = EventPayloads> {
  state: State;
  /** The newest payload of each type. */
  latest: { readonly [T in keyof P]?: P[T] };
  online: readonly number[];
  userId: number | undefined;
  ack(seq: number): void;
  serverNow(): number;
  /** The connection itself. `null` until the component is mounted. */
  duel: Duel<P> | null;
}

const NOBODY: readonly number[] = [];
const CONNECTING: State = { name: 'connecting' };

/**
 * Connects while the component is mounted. A change of `url`, `duelId` or `storageKey` connects anew; `ticket` and the callbacks may
 * change at each render. Where the same component may show another duel, give `duelId`.
 */
export function useDuel<P extends EventPayloads = EventPayloads>(options: UseDuelOptions<P>): UsedDuel<P> {
  const current = useRef(options);
  useEffect(() => {
    current.current = options;
  });
  const [duel, setDuel] = useState<Duel<P> | null>(null);
  const [latest, setLatest] = useState<UsedDuel<P>['latest']>({});
  const { url, duelId, storageKey } = options;

  useEffect(() => {
    const duel = connect<P>({ ...current.current, ticket: (context) => current.current.ticket(context) });
    duel.on('connected', (connected) => {
      if (!connected.recovered) setLatest({});
      current.current.onConnected?.(connected);
    });
    duel.on('event', (event) => {
      setLatest((before) => ({ ...before, [event.type]: event.payload }));
      current.current.onEvent?.(event);
    });
    duel.on('duel_closed', (closed) => current.current.onDuelClosed?.(closed));
    setDuel(duel);
    return () => {
      duel.close();
      setDuel(null);
      setLatest({});
    };
  }, [url, duelId, storageKey]);

  const subscribe = useCallback((changed: () => void) => {
    const ends = [duel?.on('state', changed), duel?.on('presence', changed)];
    return () => ends.forEach((end) => end?.());
  }, [duel]);
  const state = useSyncExternalStore(subscribe, () => duel?.state ?? CONNECTING, () => CONNECTING);
  const online = useSyncExternalStore(subscribe, () => duel?.online ?? NOBODY, () => NOBODY);

  return {
    state, latest, online, duel,
    userId: duel?.userId,
    ack: (seq) => duel?.ack(seq),
    serverNow: () => duel?.serverNow() ?? Date.now(),
  };
}
