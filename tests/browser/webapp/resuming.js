// A WebApp that has learned what the hub offers: it comes back with its resume ticket, from its position, when it is told to.

import { WebApp } from './webapp.js';

export class ResumingWebApp extends WebApp {
  #position = null;
  #resumeTicket = null;
  #retryAfterMs = null;

  async query() {
    if (!this.#resumeTicket) return super.query();
    const ticket = encodeURIComponent(this.#resumeTicket);
    this.#resumeTicket = null; // works once
    return `ticket=${ticket}&resume=${this.#position.epoch}:${this.#position.seq}`;
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
    if (message.type === 'connected') this.#position = { epoch: message.epoch, seq: message.seq };
    else if (message.seq > this.#position?.seq) this.#position.seq = message.seq;
  }
}
