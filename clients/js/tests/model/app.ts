// An app that keeps what it saw, and says at once if that cannot be.

import { connect, type ConnectOptions, type Duel, type DuelEvent, type State } from '../../src/index.js';
import { DUEL, type ModelHub } from './hub.js';
import type { Network } from './network.js';

type Payloads = { [type: string]: { n: number } };

export class App {
  readonly duel: Duel<Payloads>;
  states: State[] = [];
  events: DuelEvent<Payloads>[] = [];
  connected: { recovered: boolean | null }[] = [];
  presence: { userId: number; online: boolean }[] = [];
  closed: unknown[] = [];
  tickets = 0;
  /** What is wrong with what it saw. */
  faults: string[] = [];
  /** Everything up to here is known. `null`: the present state is on its way. */
  #position: number | null = null;

  constructor(network: Network, hub: ModelHub, options: Partial<ConnectOptions> = {}) {
    this.duel = connect<Payloads>({
      url: 'ws://hub/ws',
      WebSocket: network.WebSocket,
      ticket: () => {
        this.tickets += 1;
        return hub.issue();
      },
      ...options,
    });
    this.duel.on('state', (state) => this.states.push(state));
    this.duel.on('connected', (connected) => {
      this.connected.push(connected);
      if (!connected.recovered) this.#position = null;
    });
    this.duel.on('event', (event) => this.#note(event));
    this.duel.on('presence', (presence) => this.presence.push(presence));
    this.duel.on('duel_closed', (closed) => this.closed.push(closed));
  }

  get names(): string[] {
    return this.states.map(({ name }) => name);
  }

  get seqs(): number[] {
    return this.events.map(({ seq }) => seq);
  }

  #note(event: DuelEvent<Payloads>): void {
    this.events.push(event);
    const { seq, delivery, payload } = event;
    if (payload.duel_id !== DUEL) this.faults.push(`an event of duel ${payload.duel_id}`);
    const before = this.#position;
    if (before !== null && seq <= before) this.faults.push(`${seq} after ${before}`);
    // All events are for everybody, so a position and the next event have no gap between them.
    if (delivery !== 'state' && before !== null && this.#whole && seq !== before + 1) this.faults.push(`${delivery} ${seq} after ${before}`);
    this.#whole = delivery !== 'state';
    this.#position = seq;
  }

  /** Whether the event before was the log's next one, and not one of the present state. */
  #whole = false;
}
