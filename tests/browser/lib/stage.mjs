// Where the cases of the client play: a browser, the site, a hub that can be killed and started again, networks between them.

import { mkdirSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';

import { until } from './check.mjs';
import { jsonControlAt } from './control.mjs';
import { startHub } from './hub.mjs';
import { startNetwork } from './network.mjs';
import { freePorts } from './ports.mjs';
import { startSite } from './site.mjs';
import { BOT_TOKEN, initDataOf } from './telegram.mjs';
import { User } from './user.mjs';

/** What the hub's variables are here: nobody waits long for anything. */
const VARIABLES = {
  TELEGRAM_BOT_TOKEN: BOT_TOKEN, WEBSOCKET_TICKET_SECRET: 'a secret of the tests that is long enough', PRESENCE_GRACE_SECONDS: '0.5',
  WEBSOCKET_MAX_HANDSHAKES_PER_USER_PER_MINUTE: '600', INIT_DATA_TTL_SECONDS: '300',
};

/** What the client is told, unless a case says otherwise. A dead network is noticed after PING_MS + PONG_MS. */
const PING_MS = 1000;
const PONG_MS = 2000;
const OPTIONS = { pingIntervalMs: PING_MS, pongTimeoutMs: PONG_MS, connectTimeoutMs: 3000 };

/** The contract: a dead network is noticed within the ping interval and 10 s. */
export const NOTICED_WITHIN_MS = PING_MS + 10_000;
/** Generous: an attempt that has to be given up, the pause after it, and a machine with other work. */
export const BACK_WITHIN_MS = 20_000;

let lastDuel = 1000;

export class Stage {
  browser;
  site;

  #binary;
  #directory;
  #variables;
  #hub;
  #addresses;

  constructor(binary, directory, variables = {}) {
    [this.#binary, this.#directory, this.#variables] = [binary, directory, variables];
  }

  /** Starts the hub and the site; `startBrowser` starts the browser. */
  async start(startBrowser) {
    mkdirSync(this.#directory, { recursive: true });
    const [edge, control, admin] = await freePorts(3);
    this.#addresses = { WEBSOCKET_PORT: `${edge}`, CONTROL_PORT: `${control}`, ADMIN_PORT: `${admin}` };
    await this.startHub();
    this.site = await startSite(this.#hub.edge);
    this.call = jsonControlAt(this.#hub.control);
    this.browser = await startBrowser(this.#directory);
  }

  /** On the addresses that it had, with the data that it had. */
  async startHub() {
    this.#hub = await startHub(this.#binary, this.#directory, { ...VARIABLES, ...this.#variables, ...this.#addresses });
    await until('the hub is ready', async () => (await fetch(`http://${this.#hub.admin}/readyz`)).ok);
  }

  get edge() {
    return this.#hub.edge;
  }

  async stopHub(signal) {
    const exited = once(this.#hub.child, 'exit');
    this.#hub.child.kill(signal);
    await exited;
  }

  /** A network of a case's own to the hub. */
  network() {
    return startNetwork(this.#hub.edge);
  }

  /** A new duel of two participants; returns what a case does with it. */
  async duel() {
    const id = (lastDuel += 1);
    const userIds = [id * 10 + 1, id * 10 + 2];
    await this.call('OpenDuel', { duelId: id, participants: userIds.map((userId) => ({ userId })) });
    const tickets = { api: 'up', asked: 0 };
    this.site.tickets.set(id, tickets);
    let pushed = 0;
    return {
      id,
      userIds,
      /** Of the ticket API, for this duel. */
      tickets,
      /** Pushes the next `count` events; their payloads are numbered from 1, with `padding` bytes more. */
      push: async (count, padding = 0) => {
        for (let nth = 0; nth < count; nth += 1) {
          pushed += 1;
          const payload = { n: pushed, padding: 'x'.repeat(padding) };
          await this.call('PushEvent', { duelId: id, type: 'duel_update', payload, idempotencyKey: `${pushed}` });
        }
      },
      get pushed() {
        return Array.from({ length: pushed }, (_, index) => index + 1);
      },
    };
  }

  /**
   * Somebody opens the page of `duel`, over `network`. `ageSeconds` is how old their initData is; what is not named here goes to the
   * client.
   */
  async open(duel, network, { nth = 0, ageSeconds = 0, usedTicket, origin = this.site.origin, ...options } = {}) {
    const userId = duel.userIds[nth];
    const initData = initDataOf(userId, { ageSeconds });
    const app = {
      duel: duel.id, initData, usedTicket,
      options: { url: network && `ws://${network.address}/ws`, storageKey: `duel:${duel.id}:${userId}`, ...OPTIONS, ...options },
    };
    const page = await this.browser.newPage();
    await page.goto(`${origin}/index.html?app=${encodeURIComponent(JSON.stringify(app))}`);
    return new User(`${this.browser.name}, duel ${duel.id}`, page, userId);
  }

  /** A duel with one user in it who is online and has seen two events; its network; what to call at the end. */
  async scene(options) {
    const [duel, network] = await Promise.all([this.duel(), this.network()]);
    const user = await this.open(duel, network, options);
    await user.untilState('online');
    await duel.push(2);
    await user.untilSeen(duel.pushed);
    return { duel, network, user };
  }

  elsewhere() {
    return `${this.site.origin}/elsewhere.html`;
  }
}
