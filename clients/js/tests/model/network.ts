// Sockets and the wire between them and the hub. Each direction keeps its order, whatever the delay; what a black hole holds back is
// delivered once it is gone, as TCP does.

import type { WebSocketLike } from '../../src/types.js';
import type { ModelHub } from './hub.js';

/** The hub's end of a socket. */
export interface ServerSide {
  open(protocol: string): void;
  send(text: string): void;
  close(code: number, reason: string): void;
}

/** One direction. */
class Pipe {
  #waiting: (() => void)[] = [];
  #busy = false;
  dead = false;

  constructor(private readonly network: Network) {}

  carry(deliver: () => void): void {
    this.#waiting.push(deliver);
    this.flow();
  }

  flow(): void {
    if (this.#busy || this.network.mode === 'black hole' || this.#waiting.length === 0) return;
    this.#busy = true;
    setTimeout(() => {
      this.#busy = false;
      if (this.network.mode !== 'black hole') {
        const deliver = this.#waiting.shift();
        if (!this.dead) deliver?.();
      }
      this.flow();
    }, this.network.delay());
  }
}

export class Network {
  mode: 'up' | 'black hole' | 'refused' = 'up';
  delay: () => number = () => 20;
  sockets = new Set<FakeSocket>();
  opened = 0;
  mostOpen = 0;

  constructor(readonly hub: ModelHub) {}

  /** The WebSocket to give to the client. */
  get WebSocket(): new (url: string, protocols: string[]) => WebSocketLike {
    const network = this;
    return class extends FakeSocket {
      constructor(url: string, protocols: string[]) {
        super(network, url, protocols);
      }
    };
  }

  set(mode: Network['mode']): void {
    this.mode = mode;
    if (mode !== 'black hole') for (const socket of this.sockets) socket.flow();
    if (mode === 'refused') this.cut();
  }

  /** Resets every connection. */
  cut(): void {
    for (const socket of [...this.sockets]) socket.reset();
  }

  get open(): number {
    return [...this.sockets].filter(({ readyState }) => readyState < 2).length;
  }
}

export class FakeSocket implements WebSocketLike {
  readyState = 0;
  protocol = '';
  onopen: ((event: unknown) => void) | null = null;
  onmessage: ((event: unknown) => void) | null = null;
  onclose: ((event: unknown) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  readonly #up: Pipe;
  readonly #down: Pipe;
  #reached = false;
  readonly #side: ServerSide;

  constructor(readonly network: Network, url: string, protocols: string[]) {
    this.#up = new Pipe(network);
    this.#down = new Pipe(network);
    network.sockets.add(this);
    network.opened += 1;
    network.mostOpen = Math.max(network.mostOpen, network.open);
    this.#side = {
      open: (protocol) => this.#down.carry(() => {
        if (this.readyState !== 0) return;
        this.readyState = 1;
        this.protocol = protocol;
        this.onopen?.({});
      }),
      send: (text) => this.#down.carry(() => {
        if (this.readyState === 1) this.onmessage?.({ data: text });
      }),
      close: (code, reason) => this.#down.carry(() => this.#closed(code, reason)),
    };
    this.#up.carry(() => {
      if (network.mode === 'refused') return this.#closed(1006, '');
      this.#reached = true;
      network.hub.accept(this.#side, url, protocols);
    });
  }

  send(text: string): void {
    if (this.readyState === 0) throw new Error('InvalidStateError');
    if (this.readyState === 1) this.#up.carry(() => this.network.hub.receive(this.#side, text));
  }

  close(): void {
    if (this.readyState >= 2) return;
    this.readyState = 2;
    // Behind what was sent before: the hub may still read a handshake that was given up.
    this.#up.carry(() => {
      this.network.hub.gone(this.#side);
      this.#closed(1000, '');
    });
  }

  reset(): void {
    if (this.#reached) this.network.hub.gone(this.#side);
    this.#up.dead = this.#down.dead = true;
    // The client's end sees it only if anything comes through.
    if (this.network.mode !== 'black hole') setTimeout(() => this.#closed(1006, ''), 1);
  }

  flow(): void {
    this.#up.flow();
    this.#down.flow();
  }

  #closed(code: number, reason: string): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.network.sockets.delete(this);
    this.onclose?.({ code, reason });
  }
}
