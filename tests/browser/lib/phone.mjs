// One of the two players on the newcomer's page, as somebody in front of the screen sees them.

import { until } from './check.mjs';

export class Phone {
  #number;
  #element;

  constructor(page, number) {
    this.#number = number;
    this.#element = page.getByTestId(`phone-${number}`);
  }

  part(name) {
    return this.#element.getByTestId(name);
  }

  text(name) {
    return this.part(name).textContent();
  }

  /** The state of its connection: connecting, online, waiting or closed. */
  state() {
    return this.#element.getAttribute('data-state');
  }

  /** The seq of the newest event that it received. */
  async seq() {
    return Number(await this.#element.getAttribute('data-seq'));
  }

  /** What the last welcome said of what was missed: true, false, or null for a first one. */
  async recovered() {
    return JSON.parse(await this.#element.getAttribute('data-recovered'));
  }

  options() {
    return this.part('quiz').locator('.option');
  }

  async untilState(state) {
    await until(`phone ${this.#number} is ${state}`, async () => (await this.state()) === state);
  }

  async untilText(name, text) {
    await until(`phone ${this.#number}: ${name} shows "${text}"`, async () => (await this.text(name)).includes(text));
  }

  async untilSeq(seq) {
    await until(`phone ${this.#number} is at ${seq}`, async () => (await this.seq()) === seq);
  }
}
