// What an app gives to `connect`, and what it gets back.

/** The app's event types: the `type` that the backend pushes, and the payload that goes with it. */
export type EventPayloads = { [type: string]: object };

/**
 * One event of the duel.
 *
 * `delivery` says why it comes: `live`: it was just pushed. `replayed`: it was pushed while the connection was away, and nothing is
 * missing. `state`: it is the newest of its type, of the duel as it stands.
 */
export type DuelEvent<P extends EventPayloads = EventPayloads> = {
  [T in keyof P & string]: {
    readonly type: T;
    /** The event's number in the duel. The next event's is larger. */
    readonly seq: number;
    readonly payload: P[T] & { readonly duel_id: number };
    readonly delivery: 'state' | 'replayed' | 'live';
  };
}[keyof P & string];

/** How the connection is. */
export type State =
  /** A ticket is being fetched, or a socket is being opened. */
  | { readonly name: 'connecting' }
  | { readonly name: 'online' }
  /** The last attempt failed, or the page sleeps. The next attempt is at `nextAttemptAt` (as `Date.now()`), or when the page is back. */
  | { readonly name: 'waiting'; readonly nextAttemptAt: number | null; readonly why: string }
  /** The end. No further attempt is made. */
  | {
      readonly name: 'closed';
      readonly reason: ClosedReason;
      /** What the backend said to the user it disconnected, or what the close frame says. */
      readonly message?: string;
      /** What the app's ticket function threw. */
      readonly error?: unknown;
    };

/**
 * Why the connection is closed for good.
 *
 * | reason | meaning |
 * |---|---|
 * | `closed_by_app` | `close()` was called |
 * | `duel_closed` | the duel is over |
 * | `duel_access_denied` | the user is no participant, or the backend disconnected the user |
 * | `invalid_ticket` | a fresh ticket was refused, too |
 * | `connection_replaced` | the user opened the duel elsewhere |
 * | `ticket_refused` | the ticket function threw an error with `final` |
 * | `wrong_duel` | the ticket was for another duel |
 *
 * Another text is a word of a newer hub, or `stopped` if the hub said none.
 */
export type ClosedReason =
  | 'closed_by_app'
  | 'duel_closed'
  | 'duel_access_denied'
  | 'invalid_ticket'
  | 'connection_replaced'
  | 'ticket_refused'
  | 'wrong_duel'
  | (string & {});

/** The hub has let the user in. */
export interface Connected {
  readonly duelId: number;
  readonly userId: number;
  /**
   * `true`: what was missed follows, all of it. `false`: something is gone, and the present state follows; drop what the app has.
   * `null`: a first connection; the present state follows.
   */
  readonly recovered: boolean | null;
  /** The users who are online. */
  readonly online: readonly number[];
}

/** A user of the duel came, or went. */
export interface Presence {
  readonly userId: number;
  readonly online: boolean;
}

/** The duel is over. */
export interface DuelClosed {
  readonly seq: number;
  readonly status: 'finished' | 'cancelled';
  /** As an event's. */
  readonly delivery: DuelEvent['delivery'];
}

/** What `on` takes, with what the listener is called with. */
export interface Notices<P extends EventPayloads = EventPayloads> {
  state: State;
  connected: Connected;
  event: DuelEvent<P>;
  presence: Presence;
  duel_closed: DuelClosed;
}

/** An error of the ticket function may say more. All of it is optional. */
export interface TicketError {
  /** There will be no ticket: end with `ticket_refused`. Other errors are tried again. */
  readonly final?: boolean;
  /** Do not ask again before so many milliseconds. */
  readonly retryAfterMs?: number;
  /** `duel_closed`: the duel is over. Whoever was in it still gets its end. */
  readonly code?: string;
}

/** The part of a browser's WebSocket that the client uses. */
export interface WebSocketLike {
  readonly protocol: string;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

export interface ConnectOptions {
  /** Where the hub is: `wss://domain/ws`. In a page also a path: `/ws`. */
  url: string;
  /**
   * Returns a fresh ticket from the backend. Called for the first connection, and when the hub takes the last ticket no more; other
   * reconnects do not need it. `signal` is aborted when the ticket is not wanted any more. What is thrown is tried again, unless it
   * is `final` ({@link TicketError}).
   */
  ticket: (context: { signal: AbortSignal }) => Promise<string> | string;
  /** The duel. A connection to another one ends with `wrong_duel`. Unset: the first ticket decides. */
  duelId?: number | undefined;
  /**
   * Keeps the session under this key in `sessionStorage` while the page is reloaded or left, so that it comes back to where it was.
   * Name the duel and the user in it. Unset: a reload begins anew, with a fresh ticket.
   */
  storageKey?: string | undefined;
  /** The WebSocket to use where there is no global one. */
  WebSocket?: (new (url: string, protocols: string[]) => WebSocketLike) | undefined;
  /** How long an attempt may take: once for the ticket, and once for the connection. 10,000 unless given. */
  connectTimeoutMs?: number | undefined;
  /** How often the hub is asked for a sign of life. 15,000 unless given; above 60,000 the hub closes the connection. */
  pingIntervalMs?: number | undefined;
  /** How long the sign of life may take. 8,000 unless given. */
  pongTimeoutMs?: number | undefined;
  /** The longest pause between two attempts. 20,000 unless given. */
  maxDelayMs?: number | undefined;
}
