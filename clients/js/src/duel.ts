// The connection to one duel: which state it is in, and what happens next.

import { pause } from './backoff.js';
import { ServerClock } from './clock.js';
import { Emitter } from './emitter.js';
import { isFinal, isUnanswered, lost, wordOf, type End } from './ending.js';
import type { ConnectedFrame, Frame } from './frames.js';
import { watchPage } from './page.js';
import { Session, type SavedSession } from './session.js';
import { save, take } from './storage.js';
import { Tickets, type Ticket } from './tickets.js';
import { Transport } from './transport.js';
import type {
  ClosedReason, ConnectOptions, DuelClosed, DuelEvent, EventPayloads, Notices, State, TicketError, WebSocketLike,
} from './types.js';

/** A connection that lasted this long begins to count its failures anew. */
const STABLE_MS = 10_000;

/** Attempts that events of the page bring forward are this far apart. */
const WAKE_PAUSE_MS = 1000;

/** So long after the page came back, a connection that turns out to be lost is opened again without a pause. */
const WATCHED_MS = 5000;

/** Nobody is told to stay away for longer. */
const WANTED_MAX_MS = 3_600_000;

/** The hub counts messages, so acks are this far apart. Each one covers those before it. */
const ACK_PAUSE_MS = 250;

/** Frames that are no events. */
const NOT_EVENTS = ['connected', 'presence', 'duel_closed', 'pong', 'error'];

/** A connection to a duel. {@link connect} makes one. */
export class Duel<P extends EventPayloads = EventPayloads> {
  readonly #options: ConnectOptions & { connectTimeoutMs: number; maxDelayMs: number };
  readonly #emitter = new Emitter<Notices<P>>();
  readonly #clock = new ServerClock();
  readonly #session: Session;
  readonly #tickets: Tickets;
  readonly #unwatch: () => void;
  #state: State = { name: 'connecting' };
  #userId: number | undefined;
  #online: readonly number[] = [];

  /** What is under way: a ticket being fetched, or a connection. */
  #fetching: AbortController | null = null;
  #transport: Transport | null = null;
  /** The end of what is under way, or of the pause before it. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #startedAt = -Infinity;
  #onlineAt = 0;
  #wokenAt = -Infinity;
  /** Failures in a row. */
  #failures = 0;
  /** The hub wants no connection before this (`performance.now()`). */
  #notBefore = 0;
  /** Newest position of the log when the hub let us in. */
  #head = 0;
  #recovered: boolean | null = null;

  #acked = 0;
  #ackDue = false;
  #ackTimer: ReturnType<typeof setTimeout> | undefined;

  /** @internal */
  constructor(options: ConnectOptions) {
    this.#options = { ...options, connectTimeoutMs: options.connectTimeoutMs ?? 10_000, maxDelayMs: options.maxDelayMs ?? 20_000 };
    this.#session = new Session(options.duelId);
    this.#tickets = new Tickets(this.#session);
    this.#unwatch = watchPage({ sleep: () => this.#sleep(), wake: () => this.wake() });
    // Not at once: whoever closes it in the same turn (React's StrictMode does) has opened nothing.
    queueMicrotask(() => {
      if (this.#state.name === 'closed') return;
      const saved = options.storageKey && take(options.storageKey);
      if (saved) this.#session.restore(saved);
      this.#tickets.restored();
      this.#attempt();
    });
  }

  /** How the connection is. The object is a new one after each change. */
  get state(): State {
    return this.#state;
  }

  /** The users who are online, as far as is known. The array is a new one after each change. */
  get online(): readonly number[] {
    return this.#online;
  }

  /** The user that the ticket is for, once connected. */
  get userId(): number | undefined {
    return this.#userId;
  }

  /** The duel, once it is known. */
  get duelId(): number | undefined {
    return this.#session.duelId;
  }

  /** The hub's clock: its time minus `Date.now()`, and how far off that may be. Infinite: the hub has not said its time yet. */
  get clock(): { readonly offsetMs: number; readonly uncertaintyMs: number } {
    return this.#clock.reading;
  }

  /** Returns the hub's time, in milliseconds since the Unix epoch. `clock` says how exact it is. */
  serverNow(): number {
    return Date.now() + this.#clock.reading.offsetMs;
  }

  /** Calls `listener` from now on. Returns the function that ends that. A listener that throws stops no other one. */
  on<K extends keyof Notices<P>>(name: K, listener: (value: Notices<P>[K]) => void): () => void {
    return this.#emitter.on(name, listener);
  }

  /** Tells the backend that the app has everything up to the event `seq`. Only the newest is sent, and again after a reconnect. */
  ack(seq: number): void {
    if (seq <= this.#acked) return;
    this.#acked = seq;
    this.#ackDue = true;
    this.#sendAck();
  }

  /**
   * Says that the app is in the foreground again: tries now instead of later, and asks the hub for a sign of life. Pages need not
   * call it; React Native does when its AppState becomes active.
   */
  wake(): void {
    const now = (this.#wokenAt = performance.now());
    if (this.#state.name === 'online') this.#transport?.probe();
    if (this.#state.name !== 'waiting') return;
    const at = Math.max(now, this.#notBefore, this.#startedAt + WAKE_PAUSE_MS);
    const { nextAttemptAt, why } = this.#state;
    if (nextAttemptAt === null || nextAttemptAt > Date.now() + (at - now)) this.#wait(at - now, why);
  }

  /** Ends it for good. Nothing is left behind. */
  close(): void {
    this.#finish('closed_by_app');
  }

  // What is under way

  async #attempt(): Promise<void> {
    this.#stop();
    this.#keep(null);
    this.#startedAt = performance.now();
    const { atHand } = this.#tickets;
    const fetching = (this.#fetching = new AbortController());
    this.#become({ name: 'connecting' });
    // A listener may have ended it.
    if (fetching.signal.aborted) return;
    if (atHand) return this.#open(atHand);
    this.#timer = setTimeout(() => this.#retry('The ticket takes too long'), this.#options.connectTimeoutMs);
    try {
      const value = await this.#options.ticket({ signal: fetching.signal });
      // It is good even if it came too late for this attempt.
      this.#tickets.fetched(value);
      if (!fetching.signal.aborted) this.#open({ value, single: true });
    } catch (error) {
      if (!fetching.signal.aborted) this.#ticketFailed(error);
    }
  }

  #ticketFailed(error: unknown): void {
    const { final, code, retryAfterMs, message } = Object(error) as TicketError & { message?: string };
    const { forTheEnd } = this.#tickets;
    if (code === 'duel_closed' && forTheEnd) {
      this.#open(forTheEnd);
    } else if (final) {
      this.#finish('ticket_refused', { error });
    } else {
      this.#retry(message ?? String(error), retryAfterMs);
    }
  }

  #open(ticket: Ticket): void {
    this.#stop();
    this.#tickets.shown(ticket);
    const { WebSocket = globalThis.WebSocket, connectTimeoutMs, pingIntervalMs = 15_000, pongTimeoutMs = 8000 } = this.#options;
    const onEnd = (end: End): void => this.#ended(end, ticket);
    try {
      this.#transport = new Transport({
        url: this.#address(), ticket: ticket.value, WebSocket: WebSocket as new (url: string, protocols: string[]) => WebSocketLike,
        clock: this.#clock, pingIntervalMs, pongTimeoutMs, onFrame: (frame) => this.#receive(frame), onEnd,
      });
    } catch (error) {
      return this.#retry(String(error));
    }
    this.#timer = setTimeout(() => onEnd(lost('The connection takes too long')), connectTimeoutMs);
  }

  #address(): string {
    const { resume } = this.#session;
    let { url } = this.#options;
    if (url.startsWith('/')) url = location.origin.replace('http', 'ws') + url;
    return resume === null ? url : `${url}${url.includes('?') ? '&' : '?'}resume=${resume}`;
  }

  /** Ends what is under way. */
  #stop(): void {
    clearTimeout(this.#timer);
    this.#fetching?.abort();
    if (this.#transport && this.#state.name === 'connecting') this.#tickets.unanswered(this.#transport);
    this.#transport?.close();
    this.#fetching = this.#transport = null;
  }

  // Frames

  #receive(frame: Frame): void {
    if (frame.type === 'connected') return this.#welcome(frame as ConnectedFrame);
    if (this.#state.name !== 'online') return;
    const isNew = this.#session.advance(frame);
    const { type, seq, payload, duel_id, user_id } = frame;
    const { duelId } = this.#session;
    if (type === 'presence' && duel_id === duelId) this.#notePresence(user_id!, frame.online === true);
    const delivery = seq! > this.#head ? 'live' : this.#recovered ? 'replayed' : 'state';
    if (type === 'duel_closed' && duel_id === duelId) {
      this.#emitter.emit('duel_closed', { seq, status: frame.status, delivery } as DuelClosed);
    }
    // A message of another duel is not for this app, whoever sent it.
    if (!isNew || NOT_EVENTS.includes(type) || payload?.duel_id !== duelId) return;
    this.#emitter.emit('event', { type, seq, payload, delivery } as unknown as DuelEvent<P>);
  }

  #welcome(frame: ConnectedFrame): void {
    const { duel_id: duelId, user_id: userId, recovered, online, head } = frame;
    if (duelId !== (this.#session.duelId ?? duelId)) return this.#finish('wrong_duel');
    clearTimeout(this.#timer);
    this.#session.connected(frame);
    this.#tickets.welcomed();
    this.#onlineAt = performance.now();
    this.#userId = userId;
    this.#online = online;
    this.#head = head;
    this.#recovered = recovered;
    if (recovered) this.#ackDue = this.#acked > 0;
    else this.#acked = 0;
    this.#become({ name: 'online' });
    this.#emitter.emit('connected', { duelId, userId, recovered, online });
    // Unless a listener has ended it.
    this.#transport?.keepAlive(frame);
    this.#sendAck();
  }

  #notePresence(userId: number, online: boolean): void {
    const others = this.#online.filter((id) => id !== userId);
    this.#online = online ? [...others, userId] : others;
    this.#emitter.emit('presence', { userId, online });
  }

  #sendAck(): void {
    if (!this.#ackDue || this.#ackTimer !== undefined || this.#state.name !== 'online') return;
    this.#ackDue = false;
    this.#transport?.send({ type: 'ack', seq: this.#acked });
    this.#ackTimer = setTimeout(() => {
      this.#ackTimer = undefined;
      this.#sendAck();
    }, ACK_PAUSE_MS);
  }

  // Ends

  #ended(end: End, ticket: Ticket): void {
    const word = wordOf(end);
    const wasOnline = this.#state.name === 'online';
    if (wasOnline && performance.now() - this.#onlineAt > STABLE_MS) this.#failures = 0;
    if (!isUnanswered(end)) this.#transport = null;

    if (word === 'connection_replaced' && this.#tickets.replacedByOwn(ticket)) {
      this.#retry('The connection was replaced', 0);
    } else if (word.includes('ticket')) {
      const another = this.#tickets.refused(ticket, { final: isFinal(end), wasOnline });
      if (another === 'never') this.#finish(word);
      else this.#retry('The ticket is used up', another === 'at once' ? 0 : undefined);
    } else if (isFinal(end)) {
      this.#finish(word || 'stopped', end.message && end.message !== word ? { message: end.message } : {});
    } else {
      this.#retry(word || end.message || 'The connection is lost', end.error?.retry_after_ms);
    }
  }

  #retry(why: string, wantedMs?: number): void {
    const { maxDelayMs } = this.#options;
    // What the app or a header says may be no number, or one that no timer takes.
    const afterMs = wantedMs! >= 0 ? Math.min(wantedMs!, WANTED_MAX_MS) : undefined;
    this.#notBefore = afterMs === undefined ? 0 : performance.now() + afterMs;
    // Somebody looks at the page: the first attempt is at once.
    const watched = this.#failures === 0 && performance.now() - this.#wokenAt < WATCHED_MS;
    this.#wait(afterMs ?? (watched ? 0 : pause(this.#failures, maxDelayMs)), why);
    this.#failures += 1;
  }

  #wait(ms: number, why: string): void {
    this.#stop();
    this.#timer = setTimeout(() => void this.#attempt(), ms);
    this.#become({ name: 'waiting', nextAttemptAt: Date.now() + ms, why });
  }

  /** The page may be gone for good, and its socket would keep it from being kept. */
  #sleep(): void {
    this.#keep(this.#session.save());
    this.#stop();
    this.#become({ name: 'waiting', nextAttemptAt: null, why: 'The page sleeps' });
  }

  #keep(session: SavedSession | null): void {
    const { storageKey } = this.#options;
    if (storageKey) save(storageKey, session);
  }

  #finish(reason: ClosedReason, more: { message?: string; error?: unknown } = {}): void {
    if (this.#state.name === 'closed') return;
    this.#stop();
    this.#keep(null);
    this.#unwatch();
    clearTimeout(this.#ackTimer);
    this.#online = [];
    this.#become({ name: 'closed', reason, ...more });
    this.#emitter.clear();
  }

  #become(state: State): void {
    this.#state = state;
    this.#emitter.emit('state', state);
  }
}

/**
 * Connects to a duel, and stays connected until {@link Duel.close} or until the hub ends it. Returns at once; the first attempt
 * begins after the current turn, so no notice is missed.
 *
 * `P` maps the event types of the app to their payloads.
 */
export function connect<P extends EventPayloads = EventPayloads>(options: ConnectOptions): Duel<P> {
  return new Duel<P>(options);
}
