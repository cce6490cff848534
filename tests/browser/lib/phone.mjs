// One of the two phones on the newcomer's page, as somebody in front of the screen sees it.

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

  state() {
    return this.#element.getAttribute('data-state');
  }

  options() {
    return this.part('quiz').locator('.option');
  }

  /** The frames on its list, oldest first: their type, whether they were live, and what is shown of their fields. */
  async frames() {
    const rows = await this.part('frames').locator('li').evaluateAll((items) =>
      items.map(({ dataset, lastElementChild }) => ({ ...dataset, text: lastElementChild.textContent })),
    );
    return rows.reverse();
  }

  async untilState(state) {
    await until(`phone ${this.#number} is ${state}`, async () => (await this.state()) === state);
  }

  async untilText(name, text) {
    await until(`phone ${this.#number}: ${name} shows "${text}"`, async () => (await this.text(name)).includes(text));
  }
}
