// What a client carries from one connection to the next: its resume ticket, and its position in the log.

import type { ConnectedFrame, Frame } from './frames.js';

export interface SavedSession {
  duelId: number;
  ticket: string;
  epoch: string;
  seq: number | null;
}

export class Session {
  /** The duel, once it is known. */
  duelId: number | undefined;
  /** Good until its successor was used, so it may be shown again and again. */
  ticket: string | null = null;
  #epoch = '';
  /** `null`: no frame has said it yet. */
  #seq: number | null = null;

  constructor(duelId?: number) {
    this.duelId = duelId;
  }

  /** The value of the parameter `resume`. `null`: there is no position to come back to. */
  get resume(): string | null {
    return this.#seq === null ? null : `${this.#epoch}:${this.#seq}`;
  }

  connected(frame: ConnectedFrame): void {
    this.duelId = frame.duel_id;
    this.#epoch = frame.epoch;
    if (!frame.recovered) this.#seq = null;
    this.#renew(frame);
  }

  /** Notes the position and the ticket of any other frame. Returns whether its `seq` is new. */
  advance(frame: Frame): boolean {
    this.#renew(frame);
    const { seq } = frame;
    if (seq === undefined || (this.#seq !== null && seq <= this.#seq)) return false;
    this.#seq = seq;
    return true;
  }

  #renew({ resume_ticket }: Frame): void {
    if (resume_ticket) this.ticket = resume_ticket;
  }

  save(): SavedSession | null {
    const { duelId, ticket } = this;
    return duelId && ticket ? { duelId, ticket, epoch: this.#epoch, seq: this.#seq } : null;
  }

  /** Takes up what was saved, unless it is of another duel. */
  restore(saved: SavedSession): void {
    if (saved.duelId !== (this.duelId ?? saved.duelId)) return;
    this.duelId = saved.duelId;
    this.ticket = saved.ticket;
    this.#epoch = saved.epoch;
    this.#seq = saved.seq;
  }
}
