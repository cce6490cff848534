// Somebody in front of the page: what they have seen, and when.

import { equal, until } from './check.mjs';

export class User {
  page;
  id;
  openedAt;

  #name;

  constructor(name, page, id) {
    [this.#name, this.page, this.id] = [name, page, id];
    this.openedAt = Date.now();
  }

  /** Everything so far; undefined while the page is loading. */
  async seen() {
    try {
      return await this.page.evaluate(() => window.app && { ...window.app, leftovers: window.leftovers() });
    } catch {
      return undefined;
    }
  }

  /** Waits until what they have seen satisfies `condition`, and returns that. */
  async until(what, condition, withinMs) {
    let last;
    const satisfied = async () => {
      last = (await this.seen()) ?? last;
      return last && condition(last) && last;
    };
    try {
      return await until(`${this.#name}: ${what}`, satisfied, withinMs);
    } catch (error) {
      throw new Error(`${error.message}\n        seen ${JSON.stringify(last)}`, { cause: error });
    }
  }

  /** Waits for a state of this name that began at `since` or later. Returns it. */
  async untilState(name, { since = 0, withinMs } = {}) {
    const find = ({ states }) => states.find((state) => state.name === name && state.at >= since);
    return find(await this.until(`the state is ${name}`, find, withinMs));
  }

  /** Waits for the events with these numbers, and checks that there are no others: nothing missed, nothing doubled, in order. */
  async untilSeen(numbers, withinMs) {
    const enough = ({ seen }) => seen.length >= numbers.length;
    const { seen } = await this.until(`event ${numbers.at(-1)} is seen`, enough, withinMs);
    equal(seen.map(({ n }) => n), numbers, `${this.#name}: each event once, in order`);
    return seen;
  }

  /** Checks that nothing but `states` happened since then. */
  async expectStates(states, since, what) {
    const seen = (await this.seen()).states.filter(({ at }) => at >= since).map(({ name }) => name);
    equal(seen, states, `${this.#name}: ${what}`);
  }

  close() {
    return this.page.close();
  }
}

/** How long, for people. */
export const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
