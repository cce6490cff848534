// The hook. It keeps one connection while its component is mounted.

import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';

import { connect, type ConnectOptions, type Connected, type Duel, type DuelClosed, type DuelEvent, type EventPayloads, type State } from './index.js';

export interface UseDuelOptions<P extends EventPayloads = EventPayloads> extends ConnectOptions {
  /** Whether to connect at all. Unset: yes. */
  enabled?: boolean | undefined;
  /** Called with each event. It may be another function at each render. */
  onEvent?: ((event: DuelEvent<P>) => void) | undefined;
  onConnected?: ((connected: Connected) => void) | undefined;
  onDuelClosed?: ((closed: DuelClosed) => void) | undefined;
}

export interface UsedDuel<P extends EventPayloads = EventPayloads> {
  /** `closed` with the reason `disabled` while it is not `enabled`. */
  readonly state: State;
  /** The newest payload of each type. */
  readonly latest: { readonly [T in keyof P]?: P[T] };
  /** The users who are online. */
  readonly online: readonly number[];
  readonly userId: number | undefined;
  /** As {@link Duel.ack}. */
  ack(this: void, seq: number): void;
  /** As {@link Duel.serverNow}. */
  serverNow(this: void): number;
  /** Tries now instead of later. Connects anew if the connection is closed. */
  reconnect(this: void): void;
  /** The connection itself. `null` until the component is mounted, and while it is not `enabled`. */
  readonly duel: Duel<P> | null;
}

const NOBODY: readonly number[] = [];
const CONNECTING: State = { name: 'connecting' };
const DISABLED: State = { name: 'closed', reason: 'disabled' };

/**
 * Connects while the component is mounted. A change of `url`, `duelId`, `storageKey` or `enabled` connects anew; `ticket` and the
 * callbacks may change at each render. Where the same component may show another duel, give `duelId`.
 */
export function useDuel<P extends EventPayloads = EventPayloads>(options: UseDuelOptions<P>): UsedDuel<P> {
  const current = useRef(options);
  useEffect(() => {
    current.current = options;
  });
  const [duel, setDuel] = useState<Duel<P> | null>(null);
  const [latest, setLatest] = useState<UsedDuel<P>['latest']>({});
  const [times, setTimes] = useState(0);
  const { url, duelId, storageKey, enabled = true } = options;

  useEffect(() => {
    if (!enabled) return;
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
  }, [url, duelId, storageKey, enabled, times]);

  const subscribe = useCallback((changed: () => void) => {
    const ends = [duel?.on('state', changed), duel?.on('presence', changed)];
    return () => ends.forEach((end) => end?.());
  }, [duel]);
  const before = enabled ? CONNECTING : DISABLED;
  const state = useSyncExternalStore(subscribe, () => duel?.state ?? before, () => before);
  const online = useSyncExternalStore(subscribe, () => duel?.online ?? NOBODY, () => NOBODY);

  return {
    state, latest, online, duel,
    userId: duel?.userId,
    ack: useCallback((seq) => duel?.ack(seq), [duel]),
    serverNow: useCallback(() => duel?.serverNow() ?? Date.now(), [duel]),
    reconnect: useCallback(() => {
      if (duel?.state.name === 'closed') setTimes((before) => before + 1);
      else duel?.wake();
    }, [duel]),
  };
}
