// One connection: its socket, and whether the hub is still there.

import type { ServerClock } from './clock.js';
import { lost, type End } from './ending.js';
import { parse, type ConnectedFrame, type ErrorFrame, type Frame } from './frames.js';
import type { WebSocketLike } from './types.js';

/** The subprotocol. The ticket is offered as another one, so that it is in no address and no access log. */
const PROTOCOL = 'duelhub.v1';

/** How long a sign of life may take once there is reason to doubt. */
const PROBE_MS = 2500;

/** The hub closes a connection that was silent for longer (`WEBSOCKET_CLIENT_TIMEOUT_SECONDS` is 70 unless set). */
const SILENCE_MAX_MS = 75_000;

/** Two further pings after the first one, for a better reading of the hub's clock. */
const EARLY_PINGS_MS = [300, 1200];

/** A timer that is later than this says that the page was held up: what has come meanwhile is still to be read. */
const HELD_UP_MS = 1000;

export interface TransportOptions {
  url: string;
  ticket: string;
  WebSocket: new (url: string, protocols: string[]) => WebSocketLike;
  clock: ServerClock;
  pingIntervalMs: number;
  pongTimeoutMs: number;
  onFrame(frame: Frame): void;
  /** Called once, unless `close` was called. */
  onEnd(end: End): void;
}

export class Transport {
  /** Whether the handshake was answered. From then on a single-use ticket may be used up. */
  opened = false;
  readonly ticket: string;
  readonly #options: TransportOptions;
  readonly #socket: WebSocketLike;
  readonly #startedAt = performance.now();
  #error: ErrorFrame | null = null;
  #heardAt = 0;
  /** When the pings that are not answered yet were sent. */
  #pings: number[] = [];
  #timers = new Set<ReturnType<typeof setTimeout>>();
  #deadline: { timer: ReturnType<typeof setTimeout>; at: number } | null = null;

  /** Throws what the WebSocket throws for an address that is none. */
  constructor(options: TransportOptions) {
    this.#options = options;
    this.ticket = options.ticket;
    const socket = (this.#socket = new options.WebSocket(options.url, [PROTOCOL, options.ticket]));
    socket.onopen = () => {
      if (socket.protocol !== PROTOCOL) this.#end(lost('The server is no duelhub'));
      this.opened = true;
    };
    socket.onmessage = ({ data }: { data: unknown }) => this.#receive(data);
    socket.onclose = ({ code, reason }: { code: number; reason: string }) => {
      this.#end({ code, message: reason, error: this.#error });
    };
    socket.onerror = () => {};
  }

  send(frame: object): void {
    // A socket that is closing takes it without complaint, or throws where it is not a browser's.
    try {
      this.#socket.send(JSON.stringify(frame));
    } catch {
      // Its end is on the way.
    }
  }

  /** Begins to look after the connection, which the hub has accepted. */
  keepAlive({ server_time_ms }: ConnectedFrame): void {
    this.#options.clock.sample(this.#startedAt, server_time_ms);
    this.#ping();
    for (const ms of EARLY_PINGS_MS) this.#after(ms, () => this.#ping());
    const { pingIntervalMs } = this.#options;
    const repeat = (): void => {
      this.#ping();
      this.#after(pingIntervalMs, repeat);
    };
    this.#after(pingIntervalMs, repeat);
  }

  /** There is reason to doubt: the hub has to answer at once. Ends the connection if an answer is overdue. */
  probe(): void {
    const now = performance.now();
    const overdue = now - (this.#pings[0] ?? now) > this.#options.pongTimeoutMs || now - this.#heardAt > SILENCE_MAX_MS;
    // What has come is read first.
    if (overdue) this.#expect(0);
    else this.#ping(PROBE_MS);
  }

  /** Ends it, without a further word. */
  close(): void {
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#calm();
    try {
      socket.close(1000);
    } catch {
      // Some WebSockets throw while they connect.
    }
  }

  #receive(data: unknown): void {
    this.#heardAt = performance.now();
    this.#calm();
    const frame = parse(data);
    if (!frame) return;
    if (frame.type === 'error') this.#error = frame as ErrorFrame;
    if (frame.type === 'pong') {
      // Pongs come in the order of the pings.
      const sentAt = this.#pings.shift();
      if (sentAt !== undefined) this.#options.clock.sample(sentAt, frame.server_time_ms!);
    }
    this.#options.onFrame(frame);
  }

  #ping(timeoutMs = this.#options.pongTimeoutMs): void {
    this.#pings.push(performance.now());
    this.send({ type: 'ping' });
    this.#expect(timeoutMs);
  }

  /** Something has to be heard within so many milliseconds. */
  #expect(ms: number): void {
    const at = performance.now() + ms;
    if (this.#deadline && this.#deadline.at <= at) return;
    this.#calm();
    const missed = (): void => {
      this.#deadline = null;
      if (performance.now() - at > HELD_UP_MS) this.#expect(PROBE_MS);
      else this.#end(lost('The hub does not answer'));
    };
    this.#deadline = { timer: setTimeout(missed, ms), at };
  }

  #calm(): void {
    if (this.#deadline) clearTimeout(this.#deadline.timer);
    this.#deadline = null;
  }

  #after(ms: number, then: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      then();
    }, ms);
    this.#timers.add(timer);
  }

  #end(end: End): void {
    this.close();
    this.#options.onEnd(end);
  }
}
