// The two players: one has the WebApp on the game's own site, one on the other origin. They play duel after duel in one page each.

import { equal, ok, until } from '../../browser/lib/check.mjs';

/** Generous: the WebApp's first attempt to come back is after 1.5 s, the second 3 s later. */
const WITHIN_MS = 15_000;

class Player {
  name;

  #page;

  constructor(name, page) {
    this.name = name;
    this.#page = page;
  }

  play(duel) {
    return this.#page.evaluate((id) => window.play(id), duel);
  }

  act(action) {
    return this.#page.evaluate((what) => window.act(what), action);
  }

  /** What the page knows of its duel, and `sides`: who issued its tickets, as their form says. */
  async seen() {
    const { tickets, ...seen } = await this.#page.evaluate(() => {
      const { told, rendered, connections, stopped, tickets, closes, updates } = window.duel;
      return { told, rendered, connections, stopped, tickets, closes, updates: updates.length };
    });
    return { ...seen, sides: tickets.map(sideOf) };
  }

  async until(what, condition) {
    let last;
    const satisfied = async () => condition((last = await this.seen())) && last;
    try {
      return await until(`${this.name}: ${what}`, satisfied, WITHIN_MS);
    } catch (error) {
      throw new Error(`${error.message}\n${this.name} has seen ${JSON.stringify(last)}`, { cause: error });
    }
  }
}

/** A ticket of the hub has three parts, one of the game two. */
export function sideOf(ticket) {
  return ticket.split('.').length === 3 ? 'hub' : 'old';
}

export async function openPlayer(browser, { name, origin, site, initData }) {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${origin}/?site=${site}#tgWebAppData=${encodeURIComponent(initData)}`);
  return new Player(name, page);
}

/** A duel that both are in, and what became of it. */
export class Duel {
  id;
  /** How long each player waited for each change. */
  static waitsMs = [];
  static changes = 0;
  /** Connections beyond the first, of each player in each duel. */
  static reconnects = 0;

  #players;
  #progress = 0;

  constructor(id, players) {
    this.id = id;
    this.#players = players;
  }

  /** Both enter. `sides`: whose tickets they get. */
  async enter(sides) {
    for (const player of this.#players) await player.play(this.id);
    const seen = await this.each('is connected', ({ connections }) => connections === 1);
    equal(seen.map(({ sides }) => sides.at(-1)), sides, `duel ${this.id}: whose tickets they have`);
  }

  /** The players in turn begin a round, and its time runs out: the game tells of the first, and finds the second in a GET. */
  async round() {
    const [player] = this.#players;
    this.#players.reverse();
    await this.change(player, 'round', 2 - (this.#progress % 2));
    await this.change(player, 'time_up', 1);
  }

  /** A change while somebody is away. */
  async roundMeanwhile(options) {
    await this.change(this.#players[0], 'round', 2 - (this.#progress % 2), options);
  }

  async finish() {
    await this.change(this.#players[0], 'finish', Infinity);
    const ends = await this.each('sees the end', ({ stopped }) => stopped !== null);
    for (const { stopped, connections } of ends) {
      equal(stopped, 'duel_closed', `duel ${this.id}: no page has given up before the end`);
      Duel.reconnects += connections - 1;
    }
  }

  /**
   * A change that both must be told of by their WebSockets, wherever these lead. `polled`: it is enough that they see it, because
   * the old process tells who was away of nothing that it has told the other.
   */
  async change(player, action, steps, { polled = false } = {}) {
    const started = performance.now();
    await player.act(action);
    this.#progress += steps;
    Duel.changes += 1;
    for (const one of this.#players) {
      await one.until(`duel ${this.id}: is told of ${action}`, ({ told, rendered }) => Math.min(polled ? rendered : told, rendered) >= this.#progress);
      Duel.waitsMs.push(performance.now() - started);
    }
  }

  /** What each of both has seen, once it satisfies `condition`. */
  each(what, condition) {
    return Promise.all(this.#players.map((player) => player.until(`duel ${this.id}: ${what}`, condition)));
  }

  /** Nobody has lost a connection so far, but for those in `lost`, by name. */
  async lost(lost = {}) {
    for (const player of this.#players) {
      const { connections, stopped, closes } = await player.seen();
      ok(stopped === null, `duel ${this.id}: ${player.name} is not off`, `${stopped}`);
      equal(connections - 1, lost[player.name] ?? 0, `duel ${this.id}: ${player.name} has come back so often (${closes})`);
    }
  }
}
