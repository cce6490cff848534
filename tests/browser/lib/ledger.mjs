// The log on the newcomer's page: a row per event, and what each player received of it.

import { until } from './check.mjs';

export class Ledger {
  #page;

  constructor(page) {
    this.#page = page;
  }

  /** The rows as they stand: { seq, epoch, name, answered, players: [{ kind, saw, how, ms }] }. */
  rows() {
    return this.#page.getByTestId('rows').locator('tr[data-seq]').evaluateAll((lines) =>
      lines.map((line) => {
        const text = (cell, part) => cell.querySelector(`.${part}`)?.textContent ?? '';
        const made = line.querySelector('.made');
        return {
          seq: Number(line.dataset.seq),
          epoch: made.querySelector('.seq').title.match(/epoch (\w+)/)?.[1],
          name: text(made, 'event'),
          answered: text(made, 'ms'),
          players: [...line.querySelectorAll('.got')].map((cell) => ({
            kind: cell.dataset.kind, saw: text(cell, 'saw'), how: text(cell, 'how'), ms: text(cell, 'ms'),
          })),
        };
      }),
    );
  }

  /** The lines about players' connections. */
  notes() {
    return this.#page.getByTestId('rows').locator('tr.note').allTextContents();
  }

  async row(seq) {
    return (await this.rows()).find((row) => row.seq === seq);
  }

  /** Waits until a row satisfies `condition`, and returns it. */
  untilRow(seq, what, condition) {
    return until(`event ${seq}: ${what}`, async () => {
      const row = await this.row(seq);
      return row && condition(row) && row;
    });
  }

  /** Presses the name of an event, which shows its call. */
  select(seq) {
    return this.#page.getByTestId('rows').locator(`tr[data-seq="${seq}"] .event`).click();
  }
}
