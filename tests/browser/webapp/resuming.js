// A WebApp that has learned what `connected` offers: it comes back with its resume ticket, from its position.

import { WebApp } from './webapp.js';

export class ResumingWebApp extends WebApp {
  #position = null;
  #resumeTicket = null;

  async query() {
    if (!this.#resumeTicket) return super.query();
    const ticket = encodeURIComponent(this.#resumeTicket);
    this.#resumeTicket = null; // works once
    return `ticket=${ticket}&resume=${this.#position.epoch}:${this.#position.seq}`;
  }

  read(message) {
    super.read(message);
    if (message.resume_ticket) this.#resumeTicket = message.resume_ticket;
    if (message.type === 'connected') this.#position = { epoch: message.epoch, seq: message.seq };
    else if (message.seq > this.#position?.seq) this.#position.seq = message.seq;
  }
}
