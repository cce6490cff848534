// WebKitGTK's small browser, spoken to by WebDriver, on a screen that is not there.

import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { callText, resultOf } from './calling.mjs';
import { poll } from './check.mjs';
import { accepts } from './nginx.mjs';
import { freePorts } from './ports.mjs';
import { onStop, signalTree, start } from './processes.mjs';
import { webKitBrowser } from './tools.mjs';

const ANSWER_WITHIN_MS = 30_000;

export async function startWebKit(directory) {
  const home = join(directory, 'webkit');
  mkdirSync(home, { recursive: true });
  const display = await startScreen(join(directory, 'screen.log'));
  const [port] = await freePorts(1);
  const env = {
    ...process.env, HOME: home, XDG_RUNTIME_DIR: home, XDG_CACHE_HOME: home, XDG_DATA_HOME: home, DISPLAY: `:${display}`,
    // There is no graphics card and no session bus.
    LIBGL_ALWAYS_SOFTWARE: '1', WEBKIT_DISABLE_DMABUF_RENDERER: '1', WEBKIT_DISABLE_COMPOSITING_MODE: '1', NO_AT_BRIDGE: '1',
    GDK_BACKEND: 'x11', GSETTINGS_BACKEND: 'memory',
  };
  const child = start('WebKitWebDriver', [`--port=${port}`], { log: join(directory, 'webkit.log'), env });
  if (!(await poll(() => accepts(port), 30_000))) throw new Error('WebKitWebDriver does not start');
  const driver = new Driver(`http://127.0.0.1:${port}`);
  const { browserVersion } = await driver.begin();
  onStop(() => driver.end());
  return {
    name: 'WebKit',
    version: browserVersion,
    sleep: () => signalTree(child, 'SIGSTOP'),
    wake: () => signalTree(child, 'SIGCONT'),
    newPage: () => driver.newPage(),
  };
}

async function startScreen(log) {
  start('Xvfb', ['-displayfd', '1', '-screen', '0', '1280x900x24', '-nolisten', 'tcp'], { log, env: process.env });
  const display = await poll(() => readFileSync(log, 'utf8').match(/^\d+$/m)?.[0], 30_000);
  if (!display) throw new Error(`Xvfb does not start:\n${readFileSync(log, 'utf8')}`);
  return display;
}

/** One session. A command goes to the current window, so commands wait for each other. */
class Driver {
  #base;
  #session;
  /** The window that is there from the start: a command needs one that is still open. */
  #home;
  #current;
  #turn = Promise.resolve();

  constructor(base) {
    this.#base = base;
  }

  async begin() {
    const options = { binary: webKitBrowser, args: ['--automation', '--javascript-can-open-windows-automatically=true'] };
    const alwaysMatch = { 'webkitgtk:browserOptions': options, acceptInsecureCerts: true };
    const { sessionId, capabilities } = await this.#call('POST', '/session', { capabilities: { alwaysMatch } });
    this.#session = `/session/${sessionId}`;
    this.#home = await this.#call('GET', `${this.#session}/window`);
    return capabilities;
  }

  async end() {
    await this.#call('DELETE', this.#session).catch(() => {});
  }

  async newPage() {
    return new WebKitPage(this, (await this.send(this.#home, 'POST', '/window/new', { type: 'window' })).handle);
  }

  /** To the window `handle`. */
  send(handle, method, path, body) {
    const answer = this.#turn.then(async () => {
      if (handle !== this.#current) {
        await this.#call('POST', `${this.#session}/window`, { handle });
        this.#current = handle;
      }
      return this.#call(method, this.#session + path, body);
    });
    this.#turn = answer.catch(() => {});
    return answer;
  }

  /** The current window is closed. */
  forget() {
    this.#current = null;
  }

  async #call(method, path, body) {
    const answer = await fetch(this.#base + path, {
      method, body: body && JSON.stringify(body), headers: { 'Content-Type': 'application/json' },
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    });
    const { value } = await answer.json();
    if (value?.error) throw new Error(`WebKit, ${path}: ${value.error}: ${value.message}`);
    return value;
  }
}

class WebKitPage {
  #driver;
  #handle;

  constructor(driver, handle) {
    [this.#driver, this.#handle] = [driver, handle];
  }

  goto(url) {
    return this.#post('/url', { url });
  }

  async evaluate(fn, ...args) {
    return resultOf(await this.#post('/execute/async', { script: `${callText(fn, args)}.then(arguments[0])`, args: [] }));
  }

  reload() {
    return this.#post('/refresh');
  }

  back() {
    return this.#post('/back');
  }

  forward() {
    return this.#post('/forward');
  }

  async duplicate() {
    const before = await this.#all();
    await this.evaluate(() => void window.open(location.href));
    const handle = await poll(async () => (await this.#all()).find((one) => !before.includes(one)));
    if (!handle) throw new Error('WebKit opens no window');
    return new WebKitPage(this.#driver, handle);
  }

  #all() {
    return this.#driver.send(this.#handle, 'GET', '/window/handles');
  }

  hide() {
    return this.#post('/window/minimize');
  }

  show() {
    return this.#post('/window/rect', { x: 0, y: 0, width: 1024, height: 768 });
  }

  /** It asks GLib, which asks the kernel for a default route; what is here are the events alone. */
  async setOffline(offline) {
    await this.evaluate((name, isOnline) => {
      Object.defineProperty(navigator, 'onLine', { value: isOnline, configurable: true });
      window.dispatchEvent(new Event(name));
    }, offline ? 'offline' : 'online', !offline);
    return false;
  }

  async close() {
    await this.#driver.send(this.#handle, 'DELETE', '/window');
    this.#driver.forget();
  }

  #post(path, body = {}) {
    return this.#driver.send(this.#handle, 'POST', path, body);
  }
}
