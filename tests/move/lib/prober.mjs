// Somebody who asks the API and the webhook all the while, on a connection of its own each time, and counts what goes wrong.

import { request } from '../../browser/lib/https.mjs';
import { onStop } from '../../browser/lib/processes.mjs';

const EVERY_MS = 50;

export class Prober {
  #targets;
  #timer;
  #asked = 0;
  #under = new Set();
  #failed = [];
  #slowestMs = 0;

  /** Asks `targets`, each `{ url, ...options of request }`, in turn. */
  constructor(targets) {
    this.#targets = targets;
    const started = performance.now();
    // As many as are due: a timer that comes late skips none.
    this.#timer = setInterval(() => {
      while (this.#asked * EVERY_MS < performance.now() - started) this.#ask();
    }, EVERY_MS);
    onStop(() => clearInterval(this.#timer));
  }

  #ask() {
    const { url, ...options } = this.#targets[this.#asked % this.#targets.length];
    this.#asked += 1;
    const started = performance.now();
    const asking = request(url, options)
      .then(({ status }) => status, (error) => error.message)
      .then((outcome) => {
        this.#slowestMs = Math.max(this.#slowestMs, performance.now() - started);
        if (outcome !== 200) this.#failed.push(`${url}: ${outcome}`);
        this.#under.delete(asking);
      });
    this.#under.add(asking);
  }

  /** Stops asking. Returns how many were asked, how long the slowest took, and what failed. */
  async stop() {
    clearInterval(this.#timer);
    await Promise.all(this.#under);
    return { asked: this.#asked, slowestMs: Math.round(this.#slowestMs), failed: this.#failed };
  }
}
