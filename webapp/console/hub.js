// The hub behind the page: one poll a second while somebody looks, and whether it answers.

const POLL_EVERY_MS = 1000;
const TIMEOUT_MS = 3000;
const TOKEN_KEY = 'duelhub-control-token';

/** The hub answered, but not with what was asked for. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** The token of this tab. It goes with the tab. */
export const token = {
  get: () => sessionStorage.getItem(TOKEN_KEY),
  set: (text) => sessionStorage.setItem(TOKEN_KEY, text),
  forget: () => sessionStorage.removeItem(TOKEN_KEY),
};

/** Asks the console's API. Throws [`Refused`], or another error if there was no answer in time. */
export async function ask(call) {
  const headers = token.get() ? { Authorization: `Bearer ${token.get()}` } : {};
  const response = await fetch(`./api/${call}`, { headers, signal: AbortSignal.timeout(TIMEOUT_MS) });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, answer.error ?? `The hub answered ${response.status}`);
  return answer;
}

/**
 * Polls the node. `onSample(node)` gets each answer, `onState(state)` each change and each failed poll:
 * `{ kind: 'live' }`, `{ kind: 'lost', since }` with the time of the last answer if there was one, `{ kind: 'locked', rejected }`, or
 * `{ kind: 'refused', text }`.
 */
export class Poller {
  #timer;
  #running = false;
  #lastAnswerAt = null;

  constructor({ onSample, onState }) {
    this.onSample = onSample;
    this.onState = onState;
    // Nobody looks: the hub has nothing to do for the page, and the charts have a gap.
    document.addEventListener('visibilitychange', () => (document.hidden ? this.stop() : this.start()));
  }

  start() {
    if (this.#running || document.hidden) return;
    this.#running = true;
    this.#poll();
  }

  stop() {
    this.#running = false;
    clearTimeout(this.#timer);
  }

  async #poll() {
    const begun = performance.now();
    try {
      const node = await ask('node');
      this.#lastAnswerAt = Date.now();
      this.onState({ kind: 'live' });
      this.onSample(node);
    } catch (error) {
      this.#fail(error);
    }
    if (!this.#running) return;
    const wait = Math.max(0, POLL_EVERY_MS - (performance.now() - begun));
    this.#timer = setTimeout(() => this.#poll(), wait);
  }

  #fail(error) {
    if (error instanceof Refused && error.status === 401) {
      const rejected = token.get() !== null;
      token.forget();
      this.stop();
      this.onState({ kind: 'locked', rejected });
    } else if (error instanceof Refused) {
      this.onState({ kind: 'refused', text: error.message });
    } else {
      this.onState({ kind: 'lost', since: this.#lastAnswerAt });
    }
  }
}
