// What the run has seen and has to meet again in the logs (request ids), or must not (secrets).

import { equal, ok } from './check.mjs';

export class Evidence {
  requestIds = new Set();
  #secrets = new Map(); // text → what it is

  /** Checks the ids of a JSON answer, and has it looked for in the logs. */
  answer({ status, headers, json }, what) {
    ok(/^[0-9a-f]{16}$/.test(json?.request_id), `${what}: request_id has 16 hex digits`, JSON.stringify(json));
    equal(headers['x-request-id'], json?.request_id, `${what}: request_id equals X-Request-Id`);
    equal(headers['cache-control'], 'no-store', `${what}: not to be cached (${status})`);
    this.requestIds.add(json.request_id);
  }

  secret(text, what) {
    this.#secrets.set(encodeURIComponent(text), `${what}, encoded`);
    this.#secrets.set(text, what);
  }

  /** A signature alone would complete what the rest of a ticket says, so it is a secret by itself. */
  ticket(text) {
    this.secret(text, 'a ticket');
    this.secret(text.split('.').at(-1), "a ticket's signature");
  }

  initData(text) {
    this.secret(text, 'initData');
    for (const field of ['hash', 'user']) this.secret(new URLSearchParams(text).get(field), `initData's ${field}`);
  }

  /** Which of the secrets are in `log`, by what they are. */
  leaksIn(log) {
    const found = [...this.#secrets].filter(([text]) => log.includes(text));
    return [...new Set(found.map(([, what]) => what))];
  }

  get secretsCount() {
    return this.#secrets.size;
  }
}
