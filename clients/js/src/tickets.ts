// Which ticket to show next, and what the hub's answer to it leaves.

import type { Session } from './session.js';

export interface Ticket {
  value: string;
  /** It is one of the backend's, which is good only once. */
  single: boolean;
  /** It is shown again, because a duel that is over gives no other one, and takes any for its end. */
  again?: true;
}

export class Tickets {
  readonly #session: Session;
  /** One of the backend's that the hub has not answered. */
  #unused: string | null = null;
  #last: Ticket | null = null;
  /** Whether a refused ticket led to a fresh one since the hub last let us in. */
  #renewed = false;
  /** One whose connection ended without a welcome: the hub may still let it in, and close its successor for it. */
  #unanswered: string | null = null;

  constructor(session: Session) {
    this.#session = session;
  }

  /** Begins with what the page before has left. It may have ended before the hub's answer. */
  restored(): void {
    this.#unanswered = this.#session.ticket;
  }

  /** The one that is at hand. `null`: the backend has to be asked. */
  get atHand(): Ticket | null {
    const { ticket } = this.#session;
    if (ticket !== null) return { value: ticket, single: false };
    return this.#unused === null ? null : { value: this.#unused, single: true };
  }

  fetched(value: string): void {
    this.#unused = value;
  }

  /** The last one, to be shown again for the end of the duel. */
  get forTheEnd(): Ticket | null {
    return this.#last && { ...this.#last, again: true };
  }

  shown(ticket: Ticket): void {
    this.#last = ticket;
  }

  welcomed(): void {
    this.#renewed = false;
  }

  /** A connection ended without the hub's answer. `opened`: the hub has had the ticket. */
  unanswered({ ticket, opened }: { ticket: string; opened: boolean }): void {
    this.#unanswered = ticket;
    if (opened && ticket === this.#unused) this.#unused = null;
  }

  /** Returns whether a connection by the same ticket, which we had given up, may have replaced this one. */
  replacedByOwn({ value }: Ticket): boolean {
    const own = this.#unanswered === value;
    this.#unanswered = null;
    return own;
  }

  /** The hub refuses it. Returns whether to fetch another one: at once, later, or not at all. */
  refused(ticket: Ticket, { final, wasOnline }: { final: boolean; wasOnline: boolean }): 'at once' | 'later' | 'never' {
    // A fresh one after it, or itself a fresh one: no other would do.
    if (final && (this.#renewed || (ticket.single && !wasOnline))) return 'never';
    this.#session.ticket = this.#unused = null;
    if (ticket.again) this.#last = null;
    const when = this.#renewed ? 'later' : 'at once';
    this.#renewed = true;
    return when;
  }
}
