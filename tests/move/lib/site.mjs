// nginx with the game's site, on ports and paths of its own, to which the two files of deploy/game are added, and taken out again.

import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { equal, poll, until } from '../../browser/lib/check.mjs';
import { accepts, logsIn, moved, USER } from '../../browser/lib/nginx.mjs';
import { start } from '../../browser/lib/processes.mjs';

const SITE = new URL('../game/site.conf', import.meta.url);
const WORKERS = 2;
const GUIDES = ['GUIDE.md', 'GUIDE.ru.md'].map((name) => new URL(`../../../deploy/${name}`, import.meta.url));
const INCLUDE = includeLine();
const SHARES = shareCommands();

export class Site {
  #directory;
  #logs;
  #ports;
  #process;

  /** `ports`: https, old, hub. `paths`: webApp, socket (of php-fpm), publicPhp. The certificate lies in `directory`. */
  constructor({ directory, ports, paths }) {
    this.#directory = join(directory, 'nginx');
    this.#logs = join(directory, 'nginx-logs');
    this.#ports = ports;
    for (const path of [this.#logs, ...['conf.d', 'sites', 'snippets'].map((name) => join(this.#directory, name))]) {
      mkdirSync(path, { recursive: true });
    }
    copyFileSync('/etc/nginx/fastcgi_params', join(this.#directory, 'fastcgi_params'));
    this.#write('nginx.conf', mainConfiguration(this.#directory, this.#logs));
    this.#write('sites/game.conf', replaced(readFileSync(SITE, 'utf8'), [
      ['listen 443 ssl;', `listen 127.0.0.1:${ports.https} ssl;`],
      ['http://127.0.0.1:8090;', `http://127.0.0.1:${ports.old};`],
      ['CERTIFICATES', directory], ['LOGS', this.#logs], ['WEBAPP', paths.webApp], ['PUBLIC', paths.publicPhp], ['SOCKET', paths.socket],
    ]));
  }

  async start() {
    this.#test();
    this.#process = start('nginx', ['-c', this.#path('nginx.conf'), '-p', this.#directory], { log: join(this.#logs, 'output.log') });
    if (!(await poll(() => accepts(this.#ports.https)))) throw new Error(`nginx does not listen:\n${this.#mainLog()}`);
  }

  /** Adds what we ship: a file of its own, and one line in the game's. */
  add() {
    this.#write('conf.d/duelhub.conf', moved('game/duelhub-http.conf', [
      ['server 127.0.0.1:8090;', `server 127.0.0.1:${this.#ports.old};`],
      ['server 127.0.0.1:8092;', `server 127.0.0.1:${this.#ports.hub};`],
    ]));
    this.#write('snippets/duelhub-locations.conf', moved('game/duelhub-locations.conf', [['/var/log/nginx/', `${this.#logs}/`]]));
    this.#edit('sites/game.conf', '# the include goes here', INCLUDE);
  }

  takeOut() {
    this.#edit('sites/game.conf', INCLUDE, '# the include goes here');
    rmSync(this.#path('conf.d/duelhub.conf'));
  }

  /** The game's own location of the socket as one that wins over the include's; `false`: as it was. */
  ownLocationWins(wins) {
    const forms = ['location /ws {', 'location = /ws {'];
    this.#edit('sites/game.conf', ...(wins ? forms : forms.reverse()));
  }

  /** Edits the one place that changes during the move, with the guide's command for `step`: canary, move or back. */
  setShare(step) {
    const command = replaced(SHARES[step], [['/etc/nginx/conf.d/duelhub.conf', this.#path('conf.d/duelhub.conf')]]);
    execFileSync('sh', ['-c', command]);
  }

  /** nginx -t and a reload, as the guide says. Resolves when none of the old workers takes a request any more. */
  async reload() {
    this.#test();
    const before = this.#retired();
    this.#process.kill('SIGHUP');
    await until('nginx has reloaded', () => this.#retired() >= before + WORKERS);
  }

  logs() {
    return logsIn(this.#logs);
  }

  #test() {
    execFileSync('nginx', ['-t', '-c', this.#path('nginx.conf'), '-p', this.#directory], { stdio: 'pipe' });
  }

  #retired() {
    return this.#mainLog().split('gracefully shutting down').length - 1;
  }

  #mainLog() {
    return readFileSync(join(this.#logs, 'main-error.log'), 'utf8');
  }

  #path(name) {
    return join(this.#directory, name);
  }

  #write(name, text) {
    writeFileSync(this.#path(name), text);
  }

  #edit(name, from, to) {
    this.#write(name, replaced(readFileSync(this.#path(name), 'utf8'), [[from, to]]));
  }
}

/** The commands of the guide that set the share, by step. Of two players, half a share holds one. */
function shareCommands() {
  const [english, russian] = GUIDES.map((guide) => {
    const found = readFileSync(guide, 'utf8').matchAll(/^(sed -i .*duelhub\.conf) +# (canary|move|back)$/gm);
    return Object.fromEntries(Array.from(found, ([, command, step]) => [step, command.replace('5%', '50%')]));
  });
  equal(russian, english, 'both guides have the same commands');
  equal(Object.keys(english).sort(), ['back', 'canary', 'move'], 'and there is one for each step');
  return english;
}

/** The one line that the guide adds to the game's site. */
function includeLine() {
  const [english, russian] = GUIDES.map((guide) => readFileSync(guide, 'utf8').match(/^include snippets\/.*;$/m)?.[0]);
  equal(russian, english, 'both guides have the same include');
  return english;
}

function replaced(text, pairs) {
  return pairs.reduce((now, [from, to]) => {
    if (!now.includes(from)) throw new Error(`there is no "${from}"`);
    return now.replaceAll(from, to);
  }, text);
}

function mainConfiguration(directory, logs) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${directory}/${name};`);
  return `
    daemon off;
    ${USER}
    worker_processes ${WORKERS};
    pid ${directory}/nginx.pid;
    error_log ${logs}/main-error.log notice;
    events { worker_connections 768; }
    http {
      include /etc/nginx/mime.types;
      default_type application/octet-stream;
      ${temporary.join('\n      ')}
      include conf.d/*.conf;
      include sites/*.conf;
    }
  `;
}
