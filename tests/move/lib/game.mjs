// The game that exists, started: php-fpm with the API and the webhook, the old realtime process, two WebApps' files.

import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { userInfo } from 'node:os';
import { fileURLToPath } from 'node:url';
import { once } from 'node:events';

import { poll } from '../../browser/lib/check.mjs';
import { accepts } from '../../browser/lib/nginx.mjs';
import { start } from '../../browser/lib/processes.mjs';
import { BOT_TOKEN } from '../../browser/lib/telegram.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const FPM = readdirSync('/usr/sbin').map((name) => join('/usr/sbin', name)).find((path) => /php-fpm[0-9.]*$/.test(path));

export class Game {
  #directory;
  #oldPort;
  #settings;
  #old;
  #olds = 0;

  /** `origin`: the other origin of the WebApp. The API's header takes that one alone. */
  constructor({ directory, oldPort, origin, secret }) {
    this.#directory = join(directory, 'game');
    this.#oldPort = oldPort;
    this.#settings = {
      WEBAPP_URL: origin, TELEGRAM_BOT_TOKEN: BOT_TOKEN, WEBSOCKET_TICKET_SECRET: secret,
      // What the seed of the game's own guide says. The API takes it as 3600.
      INIT_DATA_TTL_SECONDS: '300',
    };
    for (const name of ['config', 'signals', 'webapp']) mkdirSync(join(this.#directory, name), { recursive: true });
    for (const webApp of ['../../browser/webapp', '../webapp']) cpSync(here(webApp), this.paths.webApp, { recursive: true });
    this.configure();
  }

  get paths() {
    const at = (name) => join(this.#directory, name);
    return { webApp: at('webapp'), socket: at('php-fpm.sock'), publicPhp: here('../game/public'), envFile: at('config/app.env') };
  }

  /** Writes the game's own app.env, with `settings` in it from now on. PHP reads it at each request. */
  configure(settings = {}) {
    Object.assign(this.#settings, settings);
    const lines = Object.entries(this.#settings).map(([name, value]) => `${name}=${value}\n`);
    const written = `${this.paths.envFile}.new`;
    writeFileSync(written, lines.join(''));
    renameSync(written, this.paths.envFile);
  }

  async startPhp() {
    if (!FPM) throw new Error('there is no php-fpm: run tests/tools/install');
    const root = process.getuid() === 0;
    const user = root ? [`user = ${userInfo().username}`, 'group = root'] : [];
    const configuration = join(this.#directory, 'php-fpm.conf');
    writeFileSync(configuration, [
      '[global]', `error_log = ${join(this.#directory, 'php-fpm.log')}`,
      '[www]', ...user, `listen = ${this.paths.socket}`,
      'pm = static', 'pm.max_children = 6', 'catch_workers_output = yes',
      `env[GAME] = ${this.#directory}`, `php_admin_value[error_log] = ${join(this.#directory, 'php.log')}`, '',
    ].join('\n'));
    start(FPM, ['-F', '-y', configuration, ...(root ? ['-R'] : [])], { log: join(this.#directory, 'fpm-output.log') });
    if (!(await poll(() => existsSync(this.paths.socket)))) throw new Error('php-fpm does not listen');
  }

  async startOldProcess() {
    this.#olds += 1;
    const log = join(this.#directory, `old-process-${this.#olds}.log`);
    const args = [here('../game/old_process.php'), String(this.#oldPort)];
    this.#old = start('php', args, { log, env: { GAME: this.#directory, PATH: process.env.PATH } });
    if (!(await poll(() => accepts(this.#oldPort)))) throw new Error('the old process does not listen');
  }

  async stopOldProcess() {
    const exited = once(this.#old, 'exit');
    this.#old.kill('SIGTERM');
    await exited;
  }
}
