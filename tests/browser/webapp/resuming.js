// A WebApp that has learned what `connected` offers: it comes back with its resume ticket, from its position.

import { WebApp } from './webapp.js';

export class ResumingWebApp extends WebApp {
  #epoch = '';
  #seq = null; // the position in that epoch, once a frame has said it
  #resumeTicket = null;

  async query() {
    if (!this.#resumeTicket) return super.query();
    const ticket = encodeURIComponent(this.#resumeTicket);
    // The ticket stays: it is good until its successor is used.
    return this.#seq === null ? `ticket=${ticket}` : `ticket=${ticket}&resume=${this.#epoch}:${this.#seq}`;
  }

  read(message) {
    super.read(message);
    if (message.resume_ticket) this.#resumeTicket = message.resume_ticket;
    if (message.type === 'connected') {
      this.#epoch = message.epoch;
      if (!message.recovered) this.#seq = null;
    } else if (message.seq !== undefined) {
      this.#seq = Math.max(this.#seq ?? 0, message.seq);
    }
  }
}
