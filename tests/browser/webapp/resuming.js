// A WebApp that has learned what the hub offers: it comes back with its resume ticket, from its position, when it is told to.

import { WebApp } from './webapp.js';

export class ResumingWebApp extends WebApp {
  #epoch = '';
  #seq = null; // the position in that epoch, once a frame has said it
  #resumeTicket = null;
  #retryAfterMs = null;

  async query() {
    if (!this.#resumeTicket) return super.query();
    const ticket = encodeURIComponent(this.#resumeTicket);
    // The ticket stays: it is good until its successor is used.
    return this.#seq === null ? `ticket=${ticket}` : `ticket=${ticket}&resume=${this.#epoch}:${this.#seq}`;
  }

  delay(attempts) {
    const delay = this.#retryAfterMs ?? super.delay(attempts);
    this.#retryAfterMs = null; // for one attempt
    return delay;
  }

  read(message) {
    super.read(message);
    if (message.type === 'error') this.#retryAfterMs = message.retry_after_ms ?? null;
    if (message.resume_ticket) this.#resumeTicket = message.resume_ticket;
    if (message.type === 'connected') {
      this.#epoch = message.epoch;
      if (!message.recovered) this.#seq = null;
    } else if (message.seq !== undefined) {
      this.#seq = Math.max(this.#seq ?? 0, message.seq);
    }
  }
}
