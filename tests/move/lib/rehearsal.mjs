// Everything that a move has to do with: the game that exists, its nginx, the hub beside it, two players, and a prober.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { startBrowser } from '../../browser/lib/browser.mjs';
import { makeCertificate } from '../../browser/lib/certificate.mjs';
import { until } from '../../browser/lib/check.mjs';
import { request } from '../../browser/lib/https.mjs';
import { startHub } from '../../browser/lib/hub.mjs';
import { moved } from '../../browser/lib/nginx.mjs';
import { freePorts } from '../../browser/lib/ports.mjs';
import { initDataOf } from '../../browser/lib/telegram.mjs';
import { Game } from './game.mjs';
import { Duel, openPlayer, sideOf } from './players.mjs';
import { Prober } from './prober.mjs';
import { Site } from './site.mjs';

/** The one name that `duelhub check` can resolve here, which asks the system. */
const SITE = 'localhost';
/** The WebApp's other origin. */
const ELSEWHERE = 'app.test';
export const ADA = 900001;
export const LINUS = 900002;

export class Rehearsal {
  game;
  site;
  players;
  prober;
  envFile;
  authority;
  origins;

  #binary;
  #directory;
  #ports;
  #hub;
  #token = randomBytes(16).toString('hex');
  #secret = randomBytes(32).toString('hex');
  #initData;

  constructor(binary, directory) {
    this.#binary = binary;
    this.#directory = directory;
  }

  /** Starts the game as it is, without a hub. */
  async startTheGame() {
    const [https, old, edge, control, admin, nobody] = await freePorts(6);
    this.#ports = { https, old, hub: edge, control, admin, nobody };
    this.origins = [SITE, ELSEWHERE].map((domain) => `https://${domain}:${https}`);
    const { authority, spki } = makeCertificate(this.#directory, [SITE, ELSEWHERE]);
    this.authority = authority;
    const secret = randomBytes(32).toString('hex');
    this.game = new Game({ directory: this.#directory, oldPort: old, origin: this.origins[1], secret });
    await this.game.startPhp();
    await this.game.startOldProcess();
    this.site = new Site({ directory: this.#directory, ports: this.#ports, paths: this.game.paths });
    await this.site.start();
    const browser = await startBrowser({ domains: [SITE, ELSEWHERE], spki });
    const initData = await this.#chooseInitData();
    this.#initData = initData[ADA];
    this.players = await Promise.all([[ADA, 'Ada'], [LINUS, 'Linus']].map(([user, name], nth) =>
      openPlayer(browser, { name, origin: this.origins[nth], site: `${SITE}:${https}`, initData: initData[user] })));
    this.prober = new Prober([
      { url: `${this.origins[0]}/api/ping`, ca: authority },
      { url: `${this.origins[0]}/webhook`, method: 'POST', ca: authority },
    ]);
  }

  /**
   * Returns initData of a player whom half a share holds, and of one whom it does not. nginx alone knows who that is, so it is asked,
   * before anybody plays.
   */
  async #chooseInitData() {
    this.site.add();
    await this.share('canary');
    const found = {};
    for (const [user, wanted] of [[ADA, true], [LINUS, false]]) {
      await until(`initData ${wanted ? 'inside' : 'outside'} of the share`, async () => {
        // As old as a page may be that the game still takes, and older than the INIT_DATA_TTL_SECONDS that its guide recommends.
        const initData = initDataOf(user, { ageSeconds: 1800, query_id: randomBytes(8).toString('hex') });
        const { headers } = await this.get('/api/duel/ws-ticket?echo=share', initData);
        found[user] = initData;
        return (headers['x-share'] === 'duelhub') === wanted;
      });
    }
    this.site.takeOut();
    await this.site.reload();
    return found;
  }

  /** What `duelhub check` is told, and where it may write. `ports.nobody` is one that nobody listens on. */
  get facts() {
    const { envFile, origins } = this;
    return { binary: this.#binary, directory: this.#directory, ports: this.#ports, paths: this.game.paths, envFile, origins };
  }

  get(path, initData = this.#initData, options = {}) {
    return request(this.origins[0] + path, { ca: this.authority, headers: { 'X-Telegram-Init-Data': initData }, ...options });
  }

  async newDuel() {
    const { json } = await this.get(`/api/duel/new?opponent=${LINUS}`, undefined, { method: 'POST' });
    return new Duel(json.data.duel_id, [...this.players]);
  }

  /** Whose ticket the game gives Ada for a duel. */
  async sideFor(duel, query = '') {
    const { json } = await this.get(`/api/duel/ws-ticket?duel_id=${duel.id}${query}`);
    return sideOf(json.data.ticket);
  }

  /** Sets the share for a step, and reloads. Returns how long it took until no request was answered in the old way. */
  async share(step) {
    const started = performance.now();
    this.site.setShare(step);
    await this.site.reload();
    return Math.round(performance.now() - started);
  }

  /** Fills in the hub's own env file, and starts the hub with it. */
  async startHub() {
    const { hub, control, admin } = this.#ports;
    const directory = join(this.#directory, 'hub');
    mkdirSync(directory, { recursive: true });
    this.envFile = join(directory, 'hub.env');
    writeFileSync(this.envFile, moved('game/hub.env.example', [
      ['WEBSOCKET_TICKET_SECRET=\n', `WEBSOCKET_TICKET_SECRET=${this.#secret}\n`],
      ['CONTROL_TOKEN=\n', `CONTROL_TOKEN=${this.#token}\n`],
      ['https://your-domain.com,https://your-app.example', this.origins.join(',')],
      ['WEBSOCKET_PORT=8092', `WEBSOCKET_PORT=${hub}`],
      ['CONTROL_PORT=50051', `CONTROL_PORT=${control}`],
      ['ADMIN_PORT=8091', `ADMIN_PORT=${admin}`],
    ]), { mode: 0o640 });
    // What the unit sets.
    const unit = { APP_ENV: 'production', DATA_DIR: join(directory, 'data') };
    this.#hub = await startHub(this.#binary, directory, unit, this.envFile);
    await until('the hub is ready', async () => (await fetch(`http://${this.#hub.admin}/readyz`)).ok);
  }

  async stopHub(signal) {
    const exited = once(this.#hub.child, 'exit');
    this.#hub.child.kill(signal);
    await exited;
  }

  /** The game calls the hub from now on: a release of the backend, and two lines in its own env file. */
  push() {
    this.game.configure({ DUELHUB_URL: `http://127.0.0.1:${this.#ports.control}`, DUELHUB_TOKEN: this.#token, DUELHUB_PUSH: '1' });
  }

  /** A call of the control plane, as a shell script makes it. */
  async call(method, body) {
    const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${this.#token}` };
    const answer = await fetch(`http://${this.#hub.control}/duelhub.v1.ControlService/${method}`, { method: 'POST', headers, body: JSON.stringify(body) });
    return answer.json();
  }

  async metric(name) {
    const text = await (await fetch(`http://${this.#hub.admin}/metrics`)).text();
    return Number(text.split('\n').find((line) => line.startsWith(`${name} `))?.split(' ')[1]);
  }
}
